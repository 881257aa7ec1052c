// Package authz answers two questions: who is asking (API keys, [APIKeys]) and
// may they (OPA, [Policy]).
//
// A policy is a set of Rego modules with JSON data; the built-in one is in the
// folder policy and explained in docs/policy.md. It sees verified facts only
// ([Query]) and nothing else: no network, no clock, no random numbers, so that
// the same question has the same answer on every node and in a later replay.
// The zero [Decision] denies, and so do an error and a time-out.
package authz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/agenticraft/node/authz/destination"
)

// ErrClosed is returned after [Policy.Close].
var ErrClosed = errors.New("policy closed")

// Codes of reasons that the engine gives, beside those of the policy.
const (
	ReasonDenied      = "denied"        // the policy denied and gave no reason
	ReasonPolicyError = "policy_error"  // the policy gave no answer
	ReasonScope       = "scope_missing" // the API key is for other actions
)

const (
	defaultTimeout  = time.Second
	maxReasons      = 32
	maxMessageBytes = 512
)

// Config of a [Policy]. The zero value is the built-in policy.
type Config struct {
	Modules   map[string]string // name -> text; nil: [DefaultModules]
	Additions map[string]string // the operators'; nil: none
	Timeout   time.Duration     // of one decision, waiting included; 0: 1 s
	Workers   int               // how many decisions are evaluated at once; 0: twice the cores
	Log       *slog.Logger      // nil: discarded
}

// Policy decides. Its methods may be called concurrently.
type Policy struct {
	active  atomic.Pointer[inForce]
	timeout time.Duration
	log     *slog.Logger

	turns   chan struct{} // holds one for each evaluation under way
	closing chan struct{}
	close   func()
	replace sync.Mutex // one Replace at a time, so that the log tells the order
}

// NewPolicy compiles the policy. Close ends it.
func NewPolicy(cfg Config) (*Policy, error) {
	modules := cfg.Modules
	if modules == nil {
		modules = DefaultModules()
	}
	p := &Policy{
		timeout: cmp.Or(cfg.Timeout, defaultTimeout),
		log:     cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		closing: make(chan struct{}),
	}
	p.turns = make(chan struct{}, cmp.Or(cfg.Workers, 2*runtime.GOMAXPROCS(0)))
	p.close = sync.OnceFunc(func() {
		close(p.closing)
		for range cap(p.turns) {
			p.turns <- struct{}{}
		}
	})
	b, err := p.try(context.Background(), modules)
	if err != nil {
		return nil, err
	}
	var additions *bundle
	if cfg.Additions != nil {
		if additions, err = p.try(context.Background(), cfg.Additions); err != nil {
			return nil, err
		}
	}
	p.active.Store(newInForce(b, additions))
	return p, nil
}

// Decide answers one query. On an error the decision denies, too, with the
// reason [ReasonPolicyError]; a decision never allows together with an error.
func (p *Policy) Decide(ctx context.Context, q Query) (Decision, error) {
	start := time.Now()
	d, err := p.decide(ctx, q)
	if err != nil {
		p.log.ErrorContext(ctx, "policy gave no answer", "action", q.Action, "err", err)
		err = fmt.Errorf("decide %s: %w", q.Action, err)
		d = Decision{
			Policy: d.Policy, Input: d.Input,
			Reasons: []Reason{{Code: ReasonPolicyError, Message: "the policy gave no answer; what has no answer is denied"}},
		}
	}
	d.Duration = time.Since(start)
	return d, err
}

// decide answers from memory or evaluates, on the caller's goroutine: handing a
// query to another one and waiting costs as much as evaluating it.
func (p *Policy) decide(ctx context.Context, q Query) (Decision, error) {
	of, err := newFacts(q)
	if err != nil {
		return Decision{}, err
	}
	select {
	case <-p.closing:
		return Decision{Input: of.digest}, ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil { // who has left needs no answer
		return Decision{Input: of.digest}, err
	}
	if d, ok := p.active.Load().remembered(of); ok {
		return d, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-p.closing:
		return Decision{Input: of.digest}, ErrClosed
	case <-ctx.Done():
		return Decision{Input: of.digest}, ctx.Err()
	}
	f := p.active.Load()
	d, err := f.decide(ctx, of, p.log)
	if err == nil {
		f.remember(of, d)
	}
	return d, err
}

// Close waits for evaluations under way. Decide then returns [ErrClosed].
func (p *Policy) Close() error {
	p.close()
	return nil
}

// try compiles the modules, asks what every policy must answer with no, and runs
// the tests that they bring.
func (p *Policy) try(ctx context.Context, modules map[string]string) (*bundle, error) {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	b, err := compile(ctx, modules)
	if err != nil {
		return nil, err
	}
	if err := b.deniesNobody(ctx); err != nil {
		return nil, err
	}
	report, err := b.test(ctx)
	if err != nil {
		return nil, err
	}
	if len(report.Failures) > 0 {
		return nil, fmt.Errorf("%w: its own tests fail: %s", ErrPolicy, strings.Join(report.Failures, "; "))
	}
	return b, nil
}

// deniesNobody holds a policy to what every policy must deny.
func (b *bundle) deniesNobody(ctx context.Context) error {
	for _, q := range []Query{{}, {Action: ExecRun, Execution: &ExecutionFacts{Language: "python"}}, {Action: RoleGrant}} {
		asked, cancel := context.WithTimeout(ctx, trialOfOne)
		d, err := b.ask(asked, q)
		cancel()
		if err != nil {
			return fmt.Errorf("%w: trial query: %w", ErrPolicy, err)
		}
		if d.Allow {
			return fmt.Errorf("%w: it lets nobody do %q", ErrPolicy, q.Action)
		}
	}
	return nil
}

// ask evaluates a query, as a trial.
func (b *bundle) ask(ctx context.Context, q Query) (Decision, error) {
	of, err := newFacts(q)
	if err != nil {
		return Decision{Policy: b.digest}, err
	}
	return b.decide(ctx, of)
}

// decide evaluates a query on the calling goroutine.
func (b *bundle) decide(ctx context.Context, f facts) (Decision, error) {
	d, q, in := Decision{Policy: b.digest, Input: f.digest}, f.query, f.in
	// A key of limited scope is that whatever its roles and the policy say.
	if !inScope(q.Principal.Scopes, q.Action) {
		d.Reasons = []Reason{{Code: ReasonScope, Message: clip(fmt.Sprintf("the API key is for %s only, not for %s", strings.Join(q.Principal.Scopes, ", "), q.Action))}}
		return d, nil
	}
	roomy()
	value := in.value()
	result, err := b.evaluate(ctx, b.decision, value)
	if err != nil {
		return d, err
	}
	// A half-formed answer must not be half believed: only the exact shape allows.
	object, ok := result.(ast.Object)
	if !ok {
		return d, fmt.Errorf("%w: the decision is not an object", ErrPolicy)
	}
	allow, ok := valueAt(object, "allow").(ast.Boolean)
	if !ok {
		return d, fmt.Errorf("%w: the decision has no boolean \"allow\"", ErrPolicy)
	}
	if allow && q.Action == ExecRun {
		if d.Obligations, err = readObligations(valueAt(object, "obligations"), in.Execution); err != nil {
			return d, err
		}
	}
	if !allow {
		d.Reasons, err = b.reasonsFor(ctx, value)
		return d, err
	}
	// INVARIANT: I9, authority only narrows along a chain: no policy goes beyond the
	// tenant's ceiling.
	if q.Action == ExecRun {
		if reasons := q.Ceiling.hold(in.Execution, &d.Obligations); len(reasons) > 0 {
			d.Obligations, d.Reasons = Obligations{}, sortReasons(reasons)
			return d, nil
		}
		d.Obligations.Network = destination.Text(d.Obligations.Destinations)
	}
	d.Allow = true
	return d, nil
}

// reasonsFor asks the policy why it denied. The answer cannot change the denial.
func (b *bundle) reasonsFor(ctx context.Context, value ast.Value) ([]Reason, error) {
	result, err := b.evaluate(ctx, b.reasons, value)
	if err != nil || result == nil {
		return nil, err
	}
	plain, err := ast.JSON(result)
	if err != nil {
		return nil, fmt.Errorf("%w: reasons: %w", ErrPolicy, err)
	}
	found, _ := plain.([]any)
	var reasons []Reason
	for _, item := range found {
		object, _ := item.(map[string]any)
		code, _ := object["code"].(string)
		message, _ := object["message"].(string)
		if code != "" && len(code) <= 64 {
			reasons = append(reasons, Reason{Code: code, Message: clip(message)})
		}
	}
	if len(reasons) == 0 {
		reasons = []Reason{{Code: ReasonDenied, Message: "the policy does not allow it"}}
	}
	return sortReasons(reasons), nil
}

func sortReasons(reasons []Reason) []Reason {
	slices.SortFunc(reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	return reasons[:min(len(reasons), maxReasons)]
}

// inScope reports whether an action is one of those that an API key is for. No
// scopes are all.
func inScope(scopes []string, action string) bool {
	if len(scopes) == 0 {
		return true
	}
	return slices.ContainsFunc(scopes, func(s string) bool {
		group, all := strings.CutSuffix(s, ".*")
		return s == action || all && strings.HasPrefix(action, group+".")
	})
}

// clip bounds a message, which may repeat what a caller sent.
func clip(s string) string {
	if len(s) <= maxMessageBytes {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessageBytes], "") + "…"
}
