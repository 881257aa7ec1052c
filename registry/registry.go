// Package registry is what the cluster agreed on about who exists: members,
// agents, API keys, roles and tenants, as tables projected from the audit log.
//
// Every change is an entry of the log, whose body is one of [MemberBody],
// [AgentBody], [KeyBody], [TenantBody] and [RoleBody]; entry 0 ([Genesis])
// holds the first of each. [Admission] checks an entry against the tables as of
// its index and writes what it changes, in the transaction that stores the
// entry, so that replaying the log gives the tables of any day. [Registry]
// reads them.
package registry

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// ErrNotFound: no such row.
var ErrNotFound = errors.New("not in the registry")

// Cluster is what entry 0 says of the cluster as a whole.
type Cluster struct {
	Name  string `json:"name"`
	Vouch bool   `json:"vouch"` // nodes may sign for callers who have an API key only
	// Rules is how strict admission is: what came later binds clusters that began
	// with it, so that an older log replays as it was written.
	Rules        int  `json:"rules,omitempty"`
	SignedPolicy bool `json:"signed_policy,omitempty"` // a policy needs an agent's signature
}

// Member is a node in force.
type Member struct {
	ID    identity.ID `json:"id"`
	Role  string      `json:"role"` // [Keeper], [Worker] or [Auditor]
	Name  string      `json:"name,omitempty"`
	Addrs []string    `json:"addrs,omitempty"` // multiaddrs
	Since uint64      `json:"since"`           // index of its entry
	// Leaving is the index of the entry that told a voting keeper to go; it is
	// removed once the vote goes on without it.
	Leaving *uint64 `json:"leaving,omitempty"`
}

// Agent is a registered key that signs requests. A revoked one stays, so that
// its key never comes back.
type Agent struct {
	ID        identity.ID       `json:"id"`
	Name      string            `json:"name"`
	Tenant    string            `json:"tenant"`
	Roles     []string          `json:"roles,omitempty"` // sorted
	Labels    map[string]string `json:"labels,omitempty"`
	Since     uint64            `json:"since"`             // index of its entry
	Revoked   *uint64           `json:"revoked,omitempty"` // index of the entry that ended it
	Suspended bool              `json:"suspended,omitempty"`
	Expires   string            `json:"expires,omitempty"` // of a key that was rotated: as audit.Entry.Time
	Rotated   identity.ID       `json:"rotated,omitempty"` // the key that took its place
}

// inForce judges the agent at a time, as [Key.inForce] does.
func (a Agent) inForce(at time.Time) bool {
	if a.Revoked != nil || a.Suspended {
		return false
	}
	if a.Expires == "" {
		return true
	}
	end, err := audit.ParseTime(a.Expires)
	return err == nil && at.Before(end)
}

// Principal is the agent as policy sees it.
func (a Agent) Principal() identity.Principal {
	return identity.Principal{Kind: identity.Agent, Name: a.ID.DID(), Tenant: a.Tenant, Roles: a.Roles, Labels: a.Labels}
}

// Key is an API key without its secret. A revoked one stays.
type Key struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Hash    string   `json:"hash"` // SHA-256 of the whole text, lower-case hex
	Tenant  string   `json:"tenant"`
	Roles   []string `json:"roles,omitempty"`   // sorted
	Scopes  []string `json:"scopes,omitempty"`  // empty: all that its roles may
	Expires string   `json:"expires,omitempty"` // as audit.Entry.Time; empty: never
	Since   uint64   `json:"since"`
	Revoked *uint64  `json:"revoked,omitempty"`
	Before  string   `json:"before,omitempty"` // hash of the secret before, until Until
	Until   string   `json:"until,omitempty"`  // as audit.Entry.Time
	Used    string   `json:"used,omitempty"`   // when a node last said that it saw the key; at most an hour old
}

// Principal is the key's holder as policy sees it.
func (k Key) Principal() identity.Principal {
	return identity.Principal{Kind: identity.Service, Name: k.ID, Tenant: k.Tenant, Roles: k.Roles, Scopes: k.Scopes}
}

// Sum is Hash as bytes; zero, which is no key's hash, if it is malformed.
func (k Key) Sum() [32]byte { return sumOf(k.Hash) }

// SumBefore is the hash of the secret before a rotation and when it ends; zero if
// there is none.
func (k Key) SumBefore() (sum [32]byte, until time.Time) {
	until, err := audit.ParseTime(k.Until)
	if err != nil {
		return [32]byte{}, time.Time{}
	}
	return sumOf(k.Before), until
}

func sumOf(text string) (sum [32]byte) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(sum) {
		return sum
	}
	return [32]byte(raw)
}

// ExpiresAt is Expires as a time, zero if the key never expires.
func (k Key) ExpiresAt() time.Time {
	at, err := audit.ParseTime(k.Expires)
	if err != nil {
		return time.Time{}
	}
	return at
}

// inForce judges the key at a time, which is the clock's for readers and the
// entry's for admission.
func (k Key) inForce(at time.Time) bool {
	return k.Revoked == nil && (k.Expires == "" || at.Before(k.ExpiresAt()))
}

// Tenant is a tenant.
type Tenant struct {
	Name      string   `json:"name"`
	Suspended bool     `json:"suspended,omitempty"`
	Since     uint64   `json:"since"`
	Ceiling   *Ceiling `json:"ceiling,omitempty"`  // nil: as the zero Ceiling
	Vouchers  []string `json:"vouchers,omitempty"` // peer IDs, or [NoVoucher]; empty: any node
	// EvidenceHours is how long nodes keep evidence of its tasks; 0: as long as
	// they do by default.
	EvidenceHours int `json:"evidence_hours,omitempty"`
}

// vouchedBy reports whether a node may speak for the tenant's people, as far as
// the cluster lets nodes vouch at all.
func (t Tenant) vouchedBy(node identity.ID) bool {
	return len(t.Vouchers) == 0 || slices.Contains(t.Vouchers, string(node))
}

// Policy is the policy that the cluster agreed on.
type Policy struct {
	Digest string  `json:"digest"`
	Since  uint64  `json:"since"`            // index of its entry, which holds its files
	Before *uint64 `json:"before,omitempty"` // index of the entry of the one before; nil: the built-in one
}

// Registry reads the tables. Each call sees the state as of one index. It may
// be used concurrently.
type Registry struct {
	state interface {
		View(fn func(tx audit.Tx) error) error
	}
}

// New reads the tables kept by state, an audit.Store whose admission rules are
// [Admission].
func New(state interface {
	View(fn func(tx audit.Tx) error) error
},
) *Registry {
	return &Registry{state: state}
}

// Cluster returns what entry 0 says.
func (r *Registry) Cluster() (Cluster, error) { return one[Cluster](r, clusterKey) }

// Members returns the nodes in force, by ID.
func (r *Registry) Members() ([]Member, error) { return list[Member](r, memberPrefix) }

// MemberByID returns a node in force, or [ErrNotFound].
func (r *Registry) MemberByID(id identity.ID) (Member, error) {
	return one[Member](r, memberPrefix+string(id))
}

// Member reports whether the node is in force. It is false, too, if the tables
// cannot be read.
func (r *Registry) Member(id identity.ID) bool {
	_, err := r.MemberByID(id)
	return err == nil
}

// Agents returns all agents, revoked ones included, by ID.
func (r *Registry) Agents() ([]Agent, error) {
	return listWithRoles(r, agentPrefix, func(a *Agent) (string, *[]string) { return a.Principal().String(), &a.Roles })
}

// AgentByID returns an agent, even a revoked one, or [ErrNotFound].
func (r *Registry) AgentByID(id identity.ID) (a Agent, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		a, err = agentOf(tx, id)
		return err
	})
	return a, err
}

// AgentByName returns the agent in force with this name in the tenant, or
// [ErrNotFound].
func (r *Registry) AgentByName(tenant, name string) (Agent, error) {
	all, err := r.Agents()
	return first(all, err, func(a Agent) bool { return a.Revoked == nil && a.Tenant == tenant && a.Name == name })
}

// Agent returns the principal of an agent in force.
func (r *Registry) Agent(id identity.ID) (identity.Principal, bool) {
	a, err := r.AgentByID(id)
	if err != nil || !a.inForce(time.Now()) {
		return identity.Principal{}, false
	}
	return a.Principal(), true
}

// Keys returns all API keys, revoked and expired ones included, by ID.
func (r *Registry) Keys() ([]Key, error) {
	return listWithRoles(r, keyPrefix, func(k *Key) (string, *[]string) { return k.Principal().String(), &k.Roles })
}

// KeyByID returns an API key, even one no longer in force, or [ErrNotFound].
func (r *Registry) KeyByID(id string) (k Key, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		k, err = keyOf(tx, id)
		return err
	})
	return k, err
}

// KeyByName returns the API key with this name in the tenant that is not
// revoked, or [ErrNotFound].
func (r *Registry) KeyByName(tenant, name string) (Key, error) {
	all, err := r.Keys()
	return first(all, err, func(k Key) bool { return k.Revoked == nil && k.Tenant == tenant && k.Name == name })
}

// Principal returns the principal in force with this name, as
// identity.Principal.String writes it ("agent:did:key:z…", "service:k3x…").
func (r *Registry) Principal(name string) (p identity.Principal, ok bool) {
	err := r.state.View(func(tx audit.Tx) error {
		s, err := standingOf(tx, name, time.Now())
		p, ok = s.principal, err == nil && s.inForce
		return err
	})
	if err != nil || !ok {
		return identity.Principal{}, false
	}
	return p, true
}

// Tenants returns the tenants, by name.
func (r *Registry) Tenants() ([]Tenant, error) { return list[Tenant](r, tenantPrefix) }

// Tenant returns a tenant, or [ErrNotFound].
func (r *Registry) Tenant(name string) (Tenant, error) { return one[Tenant](r, tenantPrefix+name) }

// MayVouch reports whether a node may speak for a tenant's people who have no
// key. It is false, too, if the tables cannot be read.
func (r *Registry) MayVouch(node identity.ID, tenant string) bool {
	cluster, err := r.Cluster()
	if err != nil || !cluster.Vouch {
		return false
	}
	t, err := r.Tenant(tenant)
	return err == nil && t.vouchedBy(node)
}

// MandateRevoked reports whether a block of a mandate was revoked. It is true,
// too, if the tables cannot be read.
func (r *Registry) MandateRevoked(id string) bool {
	_, err := one[revocation](r, revokedPrefix+id)
	return !errors.Is(err, ErrNotFound)
}

// Policy returns the policy of a layer that the log says, or [ErrNotFound] while
// it is the built-in one, or none.
func (r *Registry) Policy(layer string) (Policy, error) { return one[Policy](r, policyRow(layer)) }

func one[T any](r *Registry, key string) (row T, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		row, err = get[T](tx, key)
		return err
	})
	return row, err
}

func list[T any](r *Registry, prefix string) (rows []T, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		rows, err = each[T](tx, prefix)
		return err
	})
	return rows, err
}

func listWithRoles[T any](r *Registry, prefix string, of func(*T) (principal string, roles *[]string)) (rows []T, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		if rows, err = each[T](tx, prefix); err != nil {
			return err
		}
		for i := range rows {
			principal, roles := of(&rows[i])
			if *roles, err = rolesOf(tx, principal); err != nil {
				return err
			}
		}
		return nil
	})
	return rows, err
}

func first[T any](all []T, err error, wanted func(T) bool) (T, error) {
	for _, row := range all {
		if err == nil && wanted(row) {
			return row, nil
		}
	}
	var none T
	if err == nil {
		err = ErrNotFound
	}
	return none, err
}

func decode[T any](key string, value []byte) (row T, err error) {
	if err := json.Unmarshal(value, &row); err != nil {
		return row, &brokenError{key: key, err: err}
	}
	return row, nil
}
