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

// RoleAdmin is a role that admission knows by name: only its holders may
// hand out roles that they do not hold, and the cluster never loses its last.
const RoleAdmin = "admin"

// RoleOperator may change the operators' additions to the policy.
const RoleOperator = "operator"

// Actions of bodies.
const (
	Add     = "add"     // member, agent
	Remove  = "remove"  // member
	Invite  = "invite"  // member
	Create  = "create"  // key, tenant
	Revoke  = "revoke"  // agent, key, role
	Rotate  = "rotate"  // key: another secret under the same id; agent: another key in the old one's place
	Set     = "set"     // tenant
	Grant   = "grant"   // role
	Apply   = "apply"   // policy
	Limit   = "limit"   // tenant: its ceiling, and who vouches for it
	Retain  = "retain"  // tenant: how long its evidence is kept
	Suspend = "suspend" // agent
	Resume  = "resume"  // agent
	Used    = "used"    // key: a node saw it
)

// Layers of policy.
const (
	LayerBase      = ""          // an admin's: decides everything
	LayerAdditions = "additions" // the operators': adds to what the base allows to run
)

// NoVoucher in a tenant's vouchers says that no node may vouch for its people.
const NoVoucher = "none"

const (
	maxName          = 64  // bytes of names of tenants, roles, members, agents, keys
	maxAddr          = 256 // bytes of a multiaddr
	maxAddrs         = 32
	maxRoles         = 32
	maxLabels        = 32
	maxBundle        = 48 << 10 // bytes of a packed policy
	maxBlock         = 16 << 10 // bytes of a mandate's block
	maxEvidenceHours = 100 * 366 * 24
	maxFirst         = 256 // rows of each table in entry 0
)

// AgentBody registers an agent, revokes or suspends it, lets it work again, or
// puts another key in its place.
type AgentBody struct {
	Action string            `json:"action"` // [Add], [Revoke], [Suspend], [Resume] or [Rotate]
	ID     identity.ID       `json:"id"`
	Name   string            `json:"name,omitempty"`
	Tenant string            `json:"tenant,omitempty"`
	Roles  []string          `json:"roles,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	To     identity.ID       `json:"to,omitempty"`    // of [Rotate]: the new key, which takes name, roles and labels
	Until  string            `json:"until,omitempty"` // of [Rotate]: when the old key ends, as audit.Entry.Time; empty: now
	Signed *Signed           `json:"signed,omitempty"`
}

// KeyBody creates an API key, revokes it, or gives it another secret and, if
// Expires is set, another end. A node says with [Used] that it saw the key.
type KeyBody struct {
	Action  string   `json:"action"` // [Create], [Revoke], [Rotate] or [Used]
	ID      string   `json:"id"`
	Name    string   `json:"name,omitempty"`
	Hash    string   `json:"hash,omitempty"` // SHA-256 of the whole text, lower-case hex
	Tenant  string   `json:"tenant,omitempty"`
	Roles   []string `json:"roles,omitempty"`
	Scopes  []string `json:"scopes,omitempty"`  // the actions that it is for, such as "exec.run" or "task.*"; empty: all of its roles
	Expires string   `json:"expires,omitempty"` // as audit.Entry.Time; empty: never, or as before
	Until   string   `json:"until,omitempty"`   // of [Rotate]: when the old secret ends; empty: now
	Signed  *Signed  `json:"signed,omitempty"`
}

// TenantBody creates a tenant, suspends it or lets it work again ([Set]), or
// gives it another ceiling ([Limit]).
type TenantBody struct {
	Action        string `json:"action"`                   // [Create], [Set], [Limit] or [Retain]
	EvidenceHours int    `json:"evidence_hours,omitempty"` // of [Retain]; 0: the nodes' default

	Name      string   `json:"name"`
	Suspended bool     `json:"suspended,omitempty"`
	Ceiling   *Ceiling `json:"ceiling,omitempty"`  // of [Create] and [Limit]; nil: none
	Vouchers  []string `json:"vouchers,omitempty"` // of [Create] and [Limit]: peer IDs, or [NoVoucher]; empty: any node
	Signed    *Signed  `json:"signed,omitempty"`
}

// RoleBody gives a role to an agent or API key, or takes it away.
type RoleBody struct {
	Action    string  `json:"action"`    // [Grant] or [Revoke]
	Principal string  `json:"principal"` // "agent:did:key:z…", "service:k3x…"
	Role      string  `json:"role"`
	Tenant    string  `json:"tenant"` // the principal's
	Signed    *Signed `json:"signed,omitempty"`
}

// PolicyBody puts a policy in force in place of another.
type PolicyBody struct {
	Action string           `json:"action"`           // [Apply]
	Before string           `json:"before,omitempty"` // digest of the policy in force, as the applier saw it
	Bundle string           `json:"bundle"`           // its files, packed, base64; of [LayerAdditions] may be empty: none
	Digest string           `json:"digest"`           // hex SHA-256
	Layer  string           `json:"layer,omitempty"`  // [LayerBase] or [LayerAdditions]
	Author *BundleSignature `json:"author,omitempty"` // who stands for its contents
	Signed *Signed          `json:"signed,omitempty"`
}

// MandateBody revokes a block of mandates, and so all that was handed on below it.
type MandateBody struct {
	Action string `json:"action"` // [Revoke]
	ID     string `json:"id"`     // of the block: hex SHA-256 of its payload
	// Block is the payload, base64, with which whoever signed the block shows that
	// it is his. An admin needs none.
	Block  string  `json:"block,omitempty"`
	Tenant string  `json:"tenant"` // the mandate's, as the actor says; not checked for admins
	Signed *Signed `json:"signed,omitempty"`
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
func NewEntry[B MemberBody | AgentBody | KeyBody | TenantBody | RoleBody | PolicyBody | MandateBody](actor string, b B) (audit.Entry, error) {
	of := any(b).(body)
	if err := of.check(); err != nil {
		return audit.Entry{}, err
	}
	text, err := audit.MarshalBody(b)
	if err != nil {
		return audit.Entry{}, err
	}
	e := audit.Entry{Kind: of.kind(), Actor: actor, Tenant: of.tenant(), Body: text}
	if own, ok := of.(signable); ok && own.signature() != nil {
		e.Once = own.signature().once(actor)
	}
	return e, nil
}

func (MemberBody) kind() audit.Kind { return audit.KindMember }
func (AgentBody) kind() audit.Kind  { return audit.KindAgent }
func (KeyBody) kind() audit.Kind    { return audit.KindKey }
func (TenantBody) kind() audit.Kind { return audit.KindTenant }
func (RoleBody) kind() audit.Kind   { return audit.KindRole }

func (PolicyBody) kind() audit.Kind  { return audit.KindPolicy }
func (MandateBody) kind() audit.Kind { return audit.KindMandate }

func (MemberBody) tenant() string   { return "" }
func (b AgentBody) tenant() string  { return b.Tenant }
func (b KeyBody) tenant() string    { return b.Tenant }
func (b TenantBody) tenant() string { return b.Name }
func (b RoleBody) tenant() string   { return b.Tenant }

func (PolicyBody) tenant() string    { return "" }
func (b MandateBody) tenant() string { return b.Tenant }

func (b MandateBody) check() error {
	if b.Action != Revoke {
		return errAction
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(b.Block)
	return fault(checkHash(b.ID), checkName("tenant", b.Tenant), b.Signed.check(), when(err != nil || len(raw) > maxBlock, "the block is malformed or too large"))
}

func (b PolicyBody) check() error {
	if b.Action != Apply {
		return errAction
	}
	packed, err := base64.StdEncoding.Strict().DecodeString(b.Bundle)
	return fault(checkHash(b.Digest), b.Signed.check(), b.Author.check(),
		when(b.Layer != LayerBase && b.Layer != LayerAdditions, "the layer is not known"), when(b.Before != "" && checkHash(b.Before) != "", "before is malformed"),
		when(err != nil || len(packed) == 0 && b.Layer != LayerAdditions || len(packed) > maxBundle, "the bundle is missing, malformed or too large"))
}

func (b AgentBody) check() error {
	switch b.Action {
	case Add:
		return fault(checkID(b.ID), checkName("name", b.Name), checkName("tenant", b.Tenant), checkRoles(b.Roles), checkLabels(b.Labels), b.Signed.check(),
			when(b.To != "" || b.Until != "", "only a rotation names another key"))
	case Revoke, Suspend, Resume, Rotate:
		return fault(checkID(b.ID), checkOptional("tenant", b.Tenant), b.Signed.check(),
			when(b.Name != "" || len(b.Roles) > 0 || len(b.Labels) > 0, "a change of an agent names id and tenant only"),
			when(b.Action != Rotate && (b.To != "" || b.Until != ""), "only a rotation names another key"),
			when(b.Action == Rotate && checkID(b.To) != "", "the new key's id is not a peer ID"), checkExpires(b.Until))
	}
	return errAction
}

func (b KeyBody) check() error {
	switch b.Action {
	case Create:
		return fault(checkName("id", b.ID), checkName("name", b.Name), checkHash(b.Hash), checkName("tenant", b.Tenant), checkRoles(b.Roles), checkScopes(b.Scopes), checkExpires(b.Expires), b.Signed.check(),
			when(b.Until != "", "only a rotation ends a secret"))
	case Rotate:
		return fault(checkName("id", b.ID), checkHash(b.Hash), checkOptional("tenant", b.Tenant), checkExpires(b.Expires), checkExpires(b.Until), b.Signed.check(),
			when(b.Name != "" || len(b.Roles) > 0 || len(b.Scopes) > 0, "a rotation changes neither name nor roles nor scopes"))
	case Revoke, Used:
		return fault(checkName("id", b.ID), checkOptional("tenant", b.Tenant), b.Signed.check(),
			when(b.Name != "" || b.Hash != "" || len(b.Roles)+len(b.Scopes) > 0 || b.Expires+b.Until != "", "a revocation names id and tenant only"))
	}
	return errAction
}

func (b TenantBody) check() error {
	if b.Action != Retain && b.EvidenceHours != 0 {
		return refuse("malformed", "only retain says how long evidence is kept")
	}
	switch b.Action {
	case Retain:
		return fault(checkName("name", b.Name), b.Signed.check(),
			when(b.EvidenceHours < 0 || b.EvidenceHours > maxEvidenceHours, "hours are out of range"),
			when(b.Suspended || b.Ceiling != nil || len(b.Vouchers) > 0, "a retention changes nothing else"))
	case Create:
		return fault(checkName("name", b.Name), b.Ceiling.check(), checkVouchers(b.Vouchers), b.Signed.check())
	case Set:
		return fault(checkName("name", b.Name), b.Signed.check(), when(b.Ceiling != nil || len(b.Vouchers) > 0, "a suspension changes no ceiling"))
	case Limit:
		return fault(checkName("name", b.Name), b.Ceiling.check(), checkVouchers(b.Vouchers), b.Signed.check(), when(b.Suspended, "a ceiling changes no suspension"))
	}
	return errAction
}

func (b RoleBody) check() error {
	switch b.Action {
	case Grant, Revoke:
		return fault(checkName("role", b.Role), checkName("tenant", b.Tenant), b.Signed.check(), when(!plain(b.Principal, 2*maxName), "principal is malformed"))
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

func checkScopes(scopes []string) string {
	bad := len(scopes) > maxRoles || slices.ContainsFunc(scopes, func(s string) bool {
		return !plain(strings.TrimSuffix(s, ".*"), maxName)
	})
	return when(bad, "scopes are too many or malformed")
}

func checkVouchers(ids []string) string {
	bad := len(ids) > maxRoles || slices.ContainsFunc(ids, func(id string) bool {
		return id != NoVoucher && checkID(identity.ID(id)) != ""
	})
	return when(bad, "vouchers are too many or no peer IDs")
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
