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

// change is one entry on its way into the tables.
type change struct {
	tx     audit.Tx
	index  uint64
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
	c := &change{tx: tx, index: index, entry: e, time: at, origin: a.Origin}
	if e.Kind == audit.KindGenesis {
		return c.genesis()
	}
	if err := c.author(author); err != nil {
		return err
	}
	switch e.Kind {
	case audit.KindIntent:
		return c.intent()
	case audit.KindOutcome, audit.KindLate, audit.KindDenial, audit.KindGap,
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
	}
	return refuse("kind", "this version admits no entries of that kind")
}

// author holds who may write what: keepers everything, workers and keepers who
// do not vote yet or any more what comes of running code, auditors who read what.
func (c *change) author(author identity.ID) error {
	m, err := get[Member](c.tx, memberPrefix+string(author))
	if err != nil {
		return missing(err, "author", "the author is not a member")
	}
	if c.entry.Kind == audit.KindRead { // every member has a door that the log can be read through
		return nil
	}
	if m.Role == Keeper {
		now, err := epochOf(c.tx)
		if err != nil || slices.Contains(now.Keepers, author) {
			return err
		}
	}
	runs := []audit.Kind{audit.KindIntent, audit.KindOutcome, audit.KindLate, audit.KindDenial, audit.KindGap, audit.KindErasure}
	if m.Role == Auditor || !slices.Contains(runs, c.entry.Kind) {
		return refuse("author", "a %s may not write entries of that kind", m.Role)
	}
	return nil
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
	if err := c.vouching(); err != nil {
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

// vouching holds that a node stands behind an execution only where the cluster
// lets nodes speak for callers, and always says for whom.
func (c *change) vouching() error {
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
	return nil
}

// admin holds that whoever changes the tables is in force. A node may speak
// about members only, that is when one joins or leaves.
func (c *change) admin() error {
	s, err := standingOf(c.tx, c.entry.Actor, c.time)
	if err != nil {
		return missing(err, "principal", "the principal who asks is not registered")
	}
	switch {
	case !s.inForce:
		return refuse("principal", "the principal who asks is revoked or expired")
	case s.principal.Kind == identity.Node && c.entry.Kind != audit.KindMember:
		return refuse("principal", "a node changes nothing on its own behalf but the members")
	case s.principal.Kind == identity.Service:
		return c.vouching()
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
	return apply(b)
}

func (c *change) agent(b AgentBody) error {
	old, err := agentOf(c.tx, b.ID)
	exists := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if b.Action == Revoke {
		switch {
		case !exists:
			return refuse("not_found", "no such agent")
		case old.Revoked != nil:
			return refuse("revoked", "the agent is revoked already")
		case b.Tenant != "" && b.Tenant != old.Tenant:
			return refuse("tenant", "the agent belongs to another tenant")
		}
		old.Revoked = &c.index
		return c.end(old.Principal().String(), agentPrefix+string(b.ID), withoutRoles(old))
	}
	switch {
	case exists && old.Revoked != nil:
		return refuse("revoked", "a revoked key does not come back; make a new one")
	case exists:
		return refuse("exists", "the agent is registered already as %s", old.Name)
	}
	if err := c.tenantExists(b.Tenant); err != nil {
		return err
	}
	rows, err := each[Agent](c.tx, agentPrefix)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(rows, func(a Agent) bool { return a.Revoked == nil && a.Tenant == b.Tenant && a.Name == b.Name }) {
		return refuse("name_taken", "agent %s exists already in tenant %s", b.Name, b.Tenant)
	}
	row := Agent{ID: b.ID, Name: b.Name, Tenant: b.Tenant, Labels: b.Labels, Since: c.index}
	return c.begin(row.Principal().String(), b.Roles, agentPrefix+string(b.ID), row)
}

func (c *change) key(b KeyBody) error {
	old, err := keyOf(c.tx, b.ID)
	exists := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if b.Action != Create {
		return c.changeKey(old, exists, b)
	}
	if exists {
		return refuse("exists", "an API key has this id already")
	}
	if err := c.tenantExists(b.Tenant); err != nil {
		return err
	}
	rows, err := each[Key](c.tx, keyPrefix)
	if err != nil {
		return err
	}
	for _, k := range rows {
		if k.Revoked == nil && k.Tenant == b.Tenant && k.Name == b.Name {
			return refuse("name_taken", "API key %s exists already in tenant %s", b.Name, b.Tenant)
		}
		if k.Hash == b.Hash {
			return refuse("exists", "an API key has this secret already")
		}
	}
	row := Key{ID: b.ID, Name: b.Name, Hash: b.Hash, Tenant: b.Tenant, Expires: b.Expires, Since: c.index}
	return c.begin(row.Principal().String(), b.Roles, keyPrefix+b.ID, row)
}

func (c *change) changeKey(old Key, exists bool, b KeyBody) error {
	switch {
	case !exists:
		return refuse("not_found", "no such API key")
	case old.Revoked != nil:
		return refuse("revoked", "the API key is revoked already")
	case b.Tenant != "" && b.Tenant != old.Tenant:
		return refuse("tenant", "the API key belongs to another tenant")
	}
	principal := old.Principal().String()
	if b.Action == Revoke {
		old.Revoked = &c.index
		old.Roles = nil
		return c.end(principal, keyPrefix+b.ID, old)
	}
	// Another secret is a grant of all that the key may do.
	if err := c.mayGrant(old.Roles); err != nil {
		return err
	}
	old.Hash, old.Roles = b.Hash, nil
	if b.Expires != "" {
		old.Expires = b.Expires
	}
	if err := put(c.tx, keyPrefix+b.ID, old); err != nil {
		return err
	}
	return c.keepAdmin()
}

func (c *change) setTenant(b TenantBody) error {
	old, err := get[Tenant](c.tx, tenantPrefix+b.Name)
	exists := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	switch {
	case b.Action == Create && exists:
		return refuse("exists", "tenant %s exists already", b.Name)
	case b.Action == Set && !exists:
		return refuse("not_found", "no such tenant")
	}
	row := Tenant{Name: b.Name, Suspended: b.Suspended, Since: c.index}
	if exists {
		row.Since = old.Since
	}
	return put(c.tx, tenantPrefix+b.Name, row)
}

func (c *change) role(b RoleBody) error {
	s, err := standingOf(c.tx, b.Principal, c.time)
	switch {
	case err != nil:
		return missing(err, "not_found", "the principal is not registered")
	case s.principal.Kind == identity.Node:
		return refuse("malformed", "a node has no roles")
	case !s.inForce:
		return refuse("revoked", "the principal is revoked or expired")
	case s.principal.Tenant != b.Tenant:
		return refuse("tenant", "the principal belongs to another tenant")
	}
	roles := slices.Clone(s.principal.Roles)
	has := slices.Contains(roles, b.Role)
	if b.Action == Grant {
		if has {
			return refuse("exists", "the principal has role %s already", b.Role)
		}
		if len(roles) >= maxRoles {
			return refuse("too_many", "the principal has %d roles already", maxRoles)
		}
		if err := c.mayGrant([]string{b.Role}); err != nil {
			return err
		}
		return putRoles(c.tx, b.Principal, append(roles, b.Role))
	}
	if !has {
		return refuse("not_found", "the principal does not have role %s", b.Role)
	}
	if err := putRoles(c.tx, b.Principal, slices.DeleteFunc(roles, func(r string) bool { return r == b.Role })); err != nil {
		return err
	}
	return c.keepAdmin()
}

// policy holds that only an admin changes it, and knows what he replaces.
// Whether the bundle is a policy at all is judged by each node, which keeps the
// one before if it is not: compiling is not for the state machine.
func (c *change) policy(b PolicyBody) error {
	own, err := rolesOf(c.tx, c.entry.Actor)
	if err != nil {
		return err
	}
	if !slices.Contains(own, RoleAdmin) {
		return refuse("role", "only an admin changes the policy")
	}
	old, err := get[Policy](c.tx, policyKey)
	row := Policy{Digest: b.Digest, Since: c.index}
	switch {
	case err == nil && b.Before != old.Digest:
		return refuse("conflict", "the policy has changed meanwhile; look at the one in force first")
	case err == nil && b.Digest == old.Digest:
		return refuse("exists", "this policy is in force already")
	case err == nil:
		row.Before = &old.Since
	case !errors.Is(err, ErrNotFound):
		return err
	}
	return put(c.tx, policyKey, row)
}

// begin writes a new principal and its roles.
func (c *change) begin(principal string, roles []string, key string, row any) error {
	if err := c.mayGrant(roles); err != nil {
		return err
	}
	if err := putRoles(c.tx, principal, roles); err != nil {
		return err
	}
	return put(c.tx, key, row)
}

// end writes a principal that is no longer in force.
func (c *change) end(principal, key string, row any) error {
	if err := putRoles(c.tx, principal, nil); err != nil {
		return err
	}
	if err := put(c.tx, key, row); err != nil {
		return err
	}
	return c.keepAdmin()
}

// mayGrant holds that nobody hands out what he does not hold, but an admin.
//
// INVARIANT: I9, authority only narrows along a chain.
func (c *change) mayGrant(roles []string) error {
	if c.index == 0 {
		return nil
	}
	own, err := rolesOf(c.tx, c.entry.Actor)
	if err != nil {
		return err
	}
	if slices.Contains(own, RoleAdmin) {
		return nil
	}
	for _, r := range roles {
		if !slices.Contains(own, r) {
			return refuse("role", "only an admin hands out roles that he does not hold")
		}
	}
	return nil
}

// keepAdmin refuses the change after which nobody in force would be an admin.
func (c *change) keepAdmin() error {
	var holders []string
	err := c.tx.Each(rolePrefix, func(key string, value []byte) error {
		g, err := decode[grants](key, value)
		if slices.Contains(g.Roles, RoleAdmin) {
			holders = append(holders, strings.TrimPrefix(key, rolePrefix))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range holders {
		s, err := standingOf(c.tx, name, c.time)
		if err != nil {
			return err
		}
		if s.inForce {
			return nil
		}
	}
	return refuse("last_admin", "the cluster would have no admin; appoint another one first")
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
