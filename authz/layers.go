package authz

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/agenticraft/node/internal/recent"
)

// inForce is what decides at one moment: the base, which an admin answers for,
// and the operators' additions to it, if there are any. It does not change.
type inForce struct {
	base, additions *bundle // additions may be nil
	digest          string
	roles           []string
	timed           bool // either looks at the time
	decided         recent.Map[[sha256.Size]byte, Decision]
}

// halfOfDecided bounds what is remembered: at most twice as many decisions, which
// with their reasons take a few kilobytes each at the worst.
const halfOfDecided = 2048

func newInForce(base, additions *bundle) *inForce {
	f := &inForce{base: base, additions: additions, digest: base.digest, roles: base.roles, timed: base.timed}
	f.decided.Half = halfOfDecided
	if additions == nil {
		return f
	}
	sum := sha256.Sum256([]byte("agenticraft policy layers v1\x00" + base.digest + additions.digest))
	f.digest = hex.EncodeToString(sum[:])
	f.roles = slices.Compact(slices.Sorted(slices.Values(slices.Concat(base.roles, additions.roles))))
	f.timed = base.timed || additions.timed
	return f
}

// key is what a decision depends on beside the policy: all facts, but for a time
// that no rule looks at. Policy sees nothing else, so that equal keys have equal
// answers (docs/decisions/0034).
func (f *inForce) key(q facts) [sha256.Size]byte {
	if f.timed {
		return q.whole
	}
	return q.timeless
}

// remembered is the answer that the same facts got before.
func (f *inForce) remembered(q facts) (Decision, bool) {
	d, ok := f.decided.Get(f.key(q))
	d.Input = q.digest
	return d.clone(), ok
}

func (f *inForce) remember(q facts, d Decision) { f.decided.Put(f.key(q), d.clone()) }

// clone shares nothing that whoever holds the decision could change.
func (d Decision) clone() Decision {
	d.Reasons = slices.Clone(d.Reasons)
	d.Obligations.Destinations = slices.Clone(d.Obligations.Destinations)
	d.Obligations.Required = slices.Clone(d.Obligations.Required)
	return d
}

// addable are the actions that operators' additions can allow: running code, and
// looking at what one's own tenant does. Who manages the cluster, and who reads
// its log, is an admin's to say.
var addable = map[string]bool{
	ExecRun: true, ExecCancel: true, ExecDelegate: true, TaskRead: true, TaskList: true,
	NodeList: true, SandboxList: true, StatusRead: true, TrustRead: true, PolicyRead: true,
}

// ask evaluates a query that nobody will act on.
func (f *inForce) ask(ctx context.Context, q Query, log *slog.Logger) (Decision, error) {
	of, err := newFacts(q)
	if err != nil {
		return Decision{Policy: f.digest}, err
	}
	return f.decide(ctx, of, log)
}

// decide asks the base and, if it denies, the additions: they can turn a denial
// into an allowance, for people of the tenant that is concerned, while it is not
// suspended, and within its ceiling. Nothing else.
//
// INVARIANT: I9, authority only narrows along a chain.
func (f *inForce) decide(ctx context.Context, q facts, log *slog.Logger) (Decision, error) {
	d, err := f.base.decide(ctx, q)
	d.Policy = f.digest
	own := q.in.Tenant == q.in.Principal.Tenant
	if err != nil || d.Allow || f.additions == nil || !addable[q.query.Action] || !own || q.query.Suspended || !inScope(q.query.Principal.Scopes, q.query.Action) {
		return d, err
	}
	added, err := f.additions.decide(ctx, q)
	if err != nil {
		// The denial stands, and has its reasons.
		log.ErrorContext(ctx, "the additions to the policy gave no answer", "action", q.query.Action, "err", err)
		return d, nil
	}
	if !added.Allow {
		return d, nil
	}
	added.Policy = f.digest
	return added, nil
}

// Digest is the hex SHA-256 of the policy in force: of the modules' names and
// contents and, where there are additions, of both layers' digests.
func (p *Policy) Digest() string { return p.active.Load().digest }

// Layers are the digests of the base and of the additions, "" if there are none.
func (p *Policy) Layers() (base, additions string) {
	f := p.active.Load()
	if f.additions != nil {
		additions = f.additions.digest
	}
	return f.base.digest, additions
}

// Modules returns the modules and data of the base by file name.
func (p *Policy) Modules() map[string]string { return maps.Clone(p.active.Load().base.modules) }

// Additions returns the modules and data of the additions; nil if there are none.
func (p *Policy) Additions() map[string]string {
	if b := p.active.Load().additions; b != nil {
		return maps.Clone(b.modules)
	}
	return nil
}

// Roles names the roles that the policy in force knows, sorted.
func (p *Policy) Roles() []string { return slices.Clone(p.active.Load().roles) }

// Replace makes the modules the base for every decision that starts later.
// Modules that do not compile, that fail to deny a query by nobody, or that fail
// their own tests are refused, and the active policy stays.
func (p *Policy) Replace(ctx context.Context, modules map[string]string) error {
	return p.change(ctx, modules, func(f *inForce, b *bundle) *inForce { return newInForce(b, f.additions) })
}

// ReplaceAdditions makes the modules the operators' additions, under the same
// conditions. None takes the additions away.
func (p *Policy) ReplaceAdditions(ctx context.Context, modules map[string]string) error {
	return p.change(ctx, modules, func(f *inForce, b *bundle) *inForce { return newInForce(f.base, b) })
}

func (p *Policy) change(ctx context.Context, modules map[string]string, to func(*inForce, *bundle) *inForce) error {
	p.replace.Lock()
	defer p.replace.Unlock()
	var b *bundle
	if modules != nil {
		var err error
		if b, err = p.try(ctx, modules); err != nil {
			return err
		}
	}
	old := p.active.Load()
	next := to(old, b)
	if next.base == nil {
		return fmt.Errorf("%w: no modules", ErrPolicy)
	}
	p.active.Store(next)
	p.log.InfoContext(ctx, "policy replaced", "policy", next.digest, "before", old.digest)
	return nil
}
