package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Roles of members. What they may write is in [Admission].
const (
	Keeper  = "keeper"  // votes, holds the log, may run code
	Worker  = "worker"  // runs code
	Auditor = "auditor" // mirrors the log and never runs code
)

// RoleAdmin is the one role that admission knows by name: only its holders may
// hand out roles that they do not hold, and the cluster never loses its last.
const RoleAdmin = "admin"

// Actions of bodies.
const (
	Add    = "add"    // member, agent
	Remove = "remove" // member
	Invite = "invite" // member
	Create = "create" // key, tenant
	Revoke = "revoke" // agent, key, role
	Rotate = "rotate" // key: another secret under the same id
	Set    = "set"    // tenant
	Grant  = "grant"  // role
	Apply  = "apply"  // policy
)

const (
	maxName   = 64  // bytes of names of tenants, roles, members, agents, keys
	maxAddr   = 256 // bytes of a multiaddr
	maxAddrs  = 32
	maxRoles  = 32
	maxLabels = 32
	maxBundle = 48 << 10 // bytes of a packed policy
	maxFirst  = 256      // rows of each table in entry 0
)

// AgentBody registers an agent or revokes it.
type AgentBody struct {
	Action string            `json:"action"` // [Add] or [Revoke]
	ID     identity.ID       `json:"id"`
	Name   string            `json:"name,omitempty"`
	Tenant string            `json:"tenant,omitempty"`
	Roles  []string          `json:"roles,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// KeyBody creates an API key, revokes it, or gives it another secret and, if
// Expires is set, another end.
type KeyBody struct {
	Action  string   `json:"action"` // [Create], [Revoke] or [Rotate]
	ID      string   `json:"id"`
	Name    string   `json:"name,omitempty"`
	Hash    string   `json:"hash,omitempty"` // SHA-256 of the whole text, lower-case hex
	Tenant  string   `json:"tenant,omitempty"`
	Roles   []string `json:"roles,omitempty"`
	Expires string   `json:"expires,omitempty"` // as audit.Entry.Time; empty: never, or as before
}

// TenantBody creates a tenant or changes it.
type TenantBody struct {
	Action    string `json:"action"` // [Create] or [Set]
	Name      string `json:"name"`
	Suspended bool   `json:"suspended,omitempty"`
}

// RoleBody gives a role to an agent or API key, or takes it away.
type RoleBody struct {
	Action    string `json:"action"`    // [Grant] or [Revoke]
	Principal string `json:"principal"` // "agent:did:key:z…", "service:k3x…"
	Role      string `json:"role"`
	Tenant    string `json:"tenant"` // the principal's
}

// PolicyBody puts a policy in force in place of another.
type PolicyBody struct {
	Action string `json:"action"`           // [Apply]
	Before string `json:"before,omitempty"` // digest of the policy in force, as the applier saw it
	Bundle string `json:"bundle"`           // its files, packed, base64
	Digest string `json:"digest"`           // hex SHA-256
}

// body is one of the types above.
type body interface {
	kind() audit.Kind
	tenant() string
	check() error // form only
}

// NewEntry makes the entry that carries a body; actor is the principal who asks
// for the change, as identity.Principal.String writes it. The recorder adds ID,
// time and author.
func NewEntry[B MemberBody | AgentBody | KeyBody | TenantBody | RoleBody | PolicyBody](actor string, b B) (audit.Entry, error) {
	of := any(b).(body)
	if err := of.check(); err != nil {
		return audit.Entry{}, err
	}
	text, err := audit.MarshalBody(b)
	if err != nil {
		return audit.Entry{}, err
	}
	return audit.Entry{Kind: of.kind(), Actor: actor, Tenant: of.tenant(), Body: text}, nil
}

func (MemberBody) kind() audit.Kind { return audit.KindMember }
func (AgentBody) kind() audit.Kind  { return audit.KindAgent }
func (KeyBody) kind() audit.Kind    { return audit.KindKey }
func (TenantBody) kind() audit.Kind { return audit.KindTenant }
func (RoleBody) kind() audit.Kind   { return audit.KindRole }

func (PolicyBody) kind() audit.Kind { return audit.KindPolicy }

func (MemberBody) tenant() string   { return "" }
func (b AgentBody) tenant() string  { return b.Tenant }
func (b KeyBody) tenant() string    { return b.Tenant }
func (b TenantBody) tenant() string { return b.Name }
func (b RoleBody) tenant() string   { return b.Tenant }

func (PolicyBody) tenant() string { return "" }

func (b PolicyBody) check() error {
	if b.Action != Apply {
		return errAction
	}
	packed, err := base64.StdEncoding.Strict().DecodeString(b.Bundle)
	return fault(checkHash(b.Digest), when(b.Before != "" && checkHash(b.Before) != "", "before is malformed"),
		when(err != nil || len(packed) == 0 || len(packed) > maxBundle, "the bundle is missing, malformed or too large"))
}

func (b AgentBody) check() error {
	switch b.Action {
	case Add:
		return fault(checkID(b.ID), checkName("name", b.Name), checkName("tenant", b.Tenant), checkRoles(b.Roles), checkLabels(b.Labels))
	case Revoke:
		return fault(checkID(b.ID), checkOptional("tenant", b.Tenant), when(b.Name != "" || len(b.Roles) > 0 || len(b.Labels) > 0, "a revocation names id and tenant only"))
	}
	return errAction
}

func (b KeyBody) check() error {
	switch b.Action {
	case Create:
		return fault(checkName("id", b.ID), checkName("name", b.Name), checkHash(b.Hash), checkName("tenant", b.Tenant), checkRoles(b.Roles), checkExpires(b.Expires))
	case Rotate:
		return fault(checkName("id", b.ID), checkHash(b.Hash), checkOptional("tenant", b.Tenant), checkExpires(b.Expires), when(b.Name != "" || len(b.Roles) > 0, "a rotation changes neither name nor roles"))
	case Revoke:
		return fault(checkName("id", b.ID), checkOptional("tenant", b.Tenant), when(b.Name != "" || b.Hash != "" || len(b.Roles) > 0 || b.Expires != "", "a revocation names id and tenant only"))
	}
	return errAction
}

func (b TenantBody) check() error {
	switch b.Action {
	case Create, Set:
		return fault(checkName("name", b.Name))
	}
	return errAction
}

func (b RoleBody) check() error {
	switch b.Action {
	case Grant, Revoke:
		return fault(checkName("role", b.Role), checkName("tenant", b.Tenant), when(!plain(b.Principal, 2*maxName), "principal is malformed"))
	}
	return errAction
}

// refuse makes a refusal. Messages hold no outside text: names were checked to
// be plain before any is repeated.
func refuse(code, format string, args ...any) error {
	return &audit.Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

var errAction = refuse("malformed", "the action is not known")

// fault is the first of the complaints, as a refusal.
func fault(complaints ...string) error {
	for _, c := range complaints {
		if c != "" {
			return refuse("malformed", "%s", c)
		}
	}
	return nil
}

func when(bad bool, complaint string) string {
	if bad {
		return complaint
	}
	return ""
}

func checkID(id identity.ID) string {
	_, err := identity.ParseID(string(id))
	return when(err != nil, "id is not a peer ID")
}

func checkName(what, s string) string {
	return when(!plain(s, maxName), what+" is missing, too long or not of A-Z a-z 0-9 . _ : @ -")
}

func checkOptional(what, s string) string {
	if s == "" {
		return ""
	}
	return checkName(what, s)
}

func checkRoles(roles []string) string {
	bad := len(roles) > maxRoles || slices.ContainsFunc(roles, func(r string) bool { return !plain(r, maxName) })
	return when(bad, "roles are too many or malformed")
}

func checkLabels(labels map[string]string) string {
	bad := len(labels) > maxLabels
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		bad = bad || !plain(k, maxName) || !plain(labels[k], maxName)
	}
	return when(bad, "labels are too many or malformed")
}

func checkAddrs(addrs []string) string {
	bad := len(addrs) > maxAddrs
	for _, a := range addrs {
		bad = bad || len(a) > maxAddr || !strings.HasPrefix(a, "/") || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' })
	}
	return when(bad, "addresses are too many or no multiaddrs")
}

func checkHash(hash string) string {
	return when(len(hash) != 64 || strings.Trim(hash, "0123456789abcdef") != "", "hash is not a SHA-256 in lower-case hex")
}

func checkExpires(at string) string {
	if at == "" {
		return ""
	}
	_, err := audit.ParseTime(at)
	return when(err != nil, "expiry is not a time")
}

// plain reports whether s can be part of a key in the tables and of a line in
// a log.
func plain(s string, limit int) bool {
	return s != "" && len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("._:@-", r)
	})
}

// read decodes a body strictly: unknown members are refused, for what a keeper
// does not understand it must not agree to.
func read[B any](text json.RawMessage) (b B, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return b, refuse("malformed", "the body is not of its kind")
	}
	if _, err := d.Token(); err != io.EOF {
		return b, refuse("malformed", "the body is more than one value")
	}
	if of, ok := any(b).(body); ok {
		return b, of.check()
	}
	return b, nil
}
