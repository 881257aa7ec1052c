package registry

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Admission decides which entries may be written and by whom, and projects
// those that change the tables. It implements audit.Admission.
//
// INVARIANT: I4, Admit is pure: no clock, random, map order or I/O but tx. A
// key's expiry is judged by the time that the entry states.
type Admission struct {
	// Origin names the log (audit.OriginOf its first entry): what keepers and
	// invitations sign for one log holds for no other. Without it neither
	// epochs nor invitations are admitted.
	Origin string
}

// rulesSigned are the rules since which agents sign their changes, and only
// admins change tenants.
const rulesSigned = 1

// rulesCeilings are the rules since which an intent is held to its tenant's
// ceiling. Logs that began before replay as they were written.
const rulesCeilings = 2

// change is one entry on its way into the tables.
type change struct {
	tx     audit.Tx
	index  uint64
	writer identity.ID // the author
	entry  audit.Entry
	time   time.Time
	origin string
}

// Admit refuses, with an [audit.Refusal], an entry whose author is not in force
// or may not write its kind, whose principals are not in force, or which does
// not fit the tables. Any other error is a broken store.
func (a Admission) Admit(tx audit.Tx, index uint64, author identity.ID, e audit.Entry) error {
	at, err := audit.ParseTime(e.Time)
	if err != nil {
		return refuse("malformed", "the time is malformed")
	}
	c := &change{tx: tx, index: index, writer: author, entry: e, time: at, origin: a.Origin}
	if e.Kind == audit.KindGenesis {
		return c.genesis()
	}
	if err := c.author(author); err != nil {
		return err
	}
	switch e.Kind {
	case audit.KindIntent:
		return c.intent()
	case audit.KindOutcome, audit.KindLate, audit.KindConnection, audit.KindDenial, audit.KindGap,
		audit.KindRead, audit.KindErasure, audit.KindAlert:
		// What happened is written even of those who have been revoked since.
		return nil
	case audit.KindEpoch:
		return c.epoch()
	}
	if err := c.admin(); err != nil {
		return err
	}
	switch e.Kind {
	case audit.KindMember:
		return project(c, c.member)
	case audit.KindAgent:
		return project(c, c.agent)
	case audit.KindKey:
		return project(c, c.key)
	case audit.KindTenant:
		return project(c, c.setTenant)
	case audit.KindRole:
		return project(c, c.role)
	case audit.KindPolicy:
		return project(c, c.policy)
	case audit.KindMandate:
		return project(c, c.mandate)
	}
	return refuse("kind", "this version admits no entries of that kind")
}

// author holds who may write what: keepers everything, workers and keepers who
// do not vote yet or any more what comes of running code, auditors who read what.
func (c *change) author(author identity.ID) error {
	w, err := remembered(c.tx, "writer:"+string(author), func() (writer, error) { return writerOf(c.tx, author) })
	if err != nil {
		return missing(err, "author", "the author is not a member")
	}
	if c.entry.Kind == audit.KindRead { // every member has a door that the log can be read through
		return nil
	}
	if c.entry.Kind == audit.KindKey && strings.HasPrefix(c.entry.Actor, string(identity.Node)+":") {
		return nil // that it saw a key; admin and key hold it to that
	}
	if w.votes {
		return nil
	}
	runs := []audit.Kind{audit.KindIntent, audit.KindOutcome, audit.KindLate, audit.KindConnection, audit.KindDenial, audit.KindGap, audit.KindErasure}
	if w.role == Auditor || !slices.Contains(runs, c.entry.Kind) {
		return refuse("author", "a %s may not write entries of that kind", w.role)
	}
	return nil
}

// writer is a member as an author.
type writer struct {
	role  string
	votes bool // a keeper of the epoch
}

func writerOf(tx audit.Tx, author identity.ID) (writer, error) {
	m, err := get[Member](tx, memberPrefix+string(author))
	if err != nil || m.Role != Keeper {
		return writer{role: m.Role}, err
	}
	now, err := epochOf(tx)
	return writer{role: m.Role, votes: slices.Contains(now.Keepers, author)}, err
}

// intent holds that whoever is behind an execution is in force as it begins.
func (c *change) intent() error {
	e := c.entry
	if e.Decision == nil || !e.Decision.Allow {
		return refuse("decision", "an intent needs a decision that allows it")
	}
	b, err := e.Intent()
	if err != nil {
		return refuse("malformed", "the body is not of its kind")
	}
	if _, err := get[Member](c.tx, memberPrefix+string(b.Door)); err != nil {
		return missing(err, "door", "the door is not a member")
	}
	if err := c.principal(e.Actor); err != nil {
		return err
	}
	if e.OnBehalf != "" {
		if err := c.principal(e.OnBehalf); err != nil {
			return err
		}
	}
	if err := c.vouching(b.Door, c.entry.Tenant); err != nil {
		return err
	}
	if err := c.ceiling(b); err != nil {
		return err
	}
	return c.spend(b)
}

// spent is what was run under one block of a mandate.
type spent struct {
	Runs   int64 `json:"runs"`
	WallMS int64 `json:"wall_ms"`
}

// spend counts an execution against the budget of every block it runs under,
// so that all holders of a grant share it, cluster-wide.
//
// INVARIANT: I9, authority only narrows along a chain.
func (c *change) spend(b audit.IntentBody) error {
	if len(b.Mandate) > 0 && c.entry.OnBehalf == "" {
		return refuse("mandate", "a mandate needs somebody on whose behalf it is")
	}
	sums := map[string]spent{} // written only once all blocks hold it
	for _, m := range b.Mandate {
		if c.tx.Get(revokedPrefix+m.ID) != nil {
			return refuse("mandate_revoked", "the mandate was revoked")
		}
		if m.Runs == 0 && m.WallMS == 0 {
			continue
		}
		key := mandatePrefix + m.ID
		sum, err := get[spent](c.tx, key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		sum.Runs++
		sum.WallMS += b.Limits["wall_ms"]
		if m.Runs != 0 && sum.Runs > m.Runs || m.WallMS != 0 && sum.WallMS > m.WallMS {
			return refuse("mandate_spent", "the mandate's budget is spent")
		}
		sums[key] = sum
	}
	for _, key := range slices.Sorted(maps.Keys(sums)) {
		if err := put(c.tx, key, sums[key]); err != nil {
			return err
		}
	}
	return nil
}

// principal holds that one is in force and, unless it is a node, belongs to the
// entry's tenant, which is not suspended.
func (c *change) principal(name string) error {
	// Users are their provider's: the door vouches for who they are and where
	// they belong. Whether it may is asked in vouching.
	if !isUser(name) {
		s, err := standingOf(c.tx, name, c.time)
		if err != nil {
			return missing(err, "principal", "a principal is not registered")
		}
		if !s.inForce {
			return refuse("principal", "a principal is revoked or expired")
		}
		if s.principal.Kind == identity.Node {
			return nil
		}
		if s.principal.Tenant != c.entry.Tenant {
			return refuse("tenant", "a principal belongs to another tenant than the entry")
		}
	}
	t, err := get[Tenant](c.tx, tenantPrefix+c.entry.Tenant)
	if err != nil {
		return missing(err, "tenant", "the tenant does not exist")
	}
	if t.Suspended {
		return refuse("tenant_suspended", "the tenant is suspended")
	}
	return nil
}

func isUser(name string) bool {
	rest, ok := strings.CutPrefix(name, string(identity.User)+":")
	return ok && rest != ""
}

// vouching holds that a node stands behind an execution or a change only where
// cluster and tenant let it speak for callers, and always says for whom.
func (c *change) vouching(node identity.ID, tenant string) error {
	byNode := strings.HasPrefix(c.entry.Actor, string(identity.Node)+":")
	byKey := strings.HasPrefix(c.entry.Actor, string(identity.Service)+":")
	if !byNode && !byKey && !isUser(c.entry.Actor) {
		return nil
	}
	if byNode && c.entry.OnBehalf == "" {
		return refuse("vouching", "a node runs nothing on its own behalf")
	}
	cluster, err := get[Cluster](c.tx, clusterKey)
	if err != nil {
		return err
	}
	if !cluster.Vouch {
		return refuse("vouching", "in this cluster nodes may not vouch for callers")
	}
	t, err := get[Tenant](c.tx, tenantPrefix+tenant)
	if err != nil {
		return missing(err, "tenant", "the tenant does not exist")
	}
	if !t.vouchedBy(node) {
		return refuse("vouching", "that node may not vouch for callers of this tenant")
	}
	return nil
}

// admin holds that whoever changes the tables is in force. A node may speak
// about members only, that is when one joins or leaves.
func (c *change) admin() error {
	// Decision 0035: whoever holds one node could invent users with any role.
	if isUser(c.entry.Actor) {
		return refuse("user", "users of an identity provider change nothing that all nodes hold: what they may stands in no table")
	}
	s, err := standingOf(c.tx, c.entry.Actor, c.time)
	if err != nil {
		return missing(err, "principal", "the principal who asks is not registered")
	}
	switch {
	case !s.inForce:
		return refuse("principal", "the principal who asks is revoked or expired")
	case s.principal.Kind == identity.Node && s.principal.Name != c.writer.DID() && c.entry.Kind == audit.KindKey:
		return refuse("principal", "a node says only for itself which keys it saw")
	case s.principal.Kind == identity.Node && c.entry.Kind != audit.KindMember && c.entry.Kind != audit.KindKey:
		return refuse("principal", "a node changes nothing on its own behalf but the members")
	case s.principal.Kind == identity.Service:
		return c.vouching(c.writer, s.principal.Tenant)
	}
	return nil
}

// project reads the body and applies it.
func project[B body](c *change, apply func(B) error) error {
	b, err := read[B](c.entry.Body)
	if err != nil {
		return err
	}
	if b.tenant() != c.entry.Tenant {
		return refuse("tenant", "the entry names another tenant than its body")
	}
	if err := c.signature(b); err != nil {
		return err
	}
	return apply(b)
}

func (c *change) tenantExists(name string) error {
	_, err := get[Tenant](c.tx, tenantPrefix+name)
	return missing(err, "tenant", "the tenant does not exist")
}

func withoutRoles(a Agent) Agent {
	a.Roles = nil
	return a
}

// missing makes a refusal of a row that is not there; other errors pass.
func missing(err error, code, message string) error {
	if errors.Is(err, ErrNotFound) {
		return refuse(code, "%s", message)
	}
	return err
}

func sortedKeys(m map[string][]byte, prefix string) []string {
	return slices.Sorted(func(yield func(string) bool) {
		for key := range maps.Keys(m) {
			if strings.HasPrefix(key, prefix) && !yield(key) {
				return
			}
		}
	})
}
