package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Signed is an admin's own signature under a change: who writes the entry can
// neither invent the change nor alter it, nor write it a second time.
type Signed struct {
	At        string `json:"at"`        // as audit.Entry.Time; the entry's time is near it
	Nonce     string `json:"nonce"`     // 128 random bits, lower-case hex
	Signature string `json:"signature"` // Ed25519 over the statement, base64
}

const (
	changeDomain = "agenticraft/change/v1"
	policyDomain = "agenticraft/policy/v1"
	// signedFor is how far the time of an entry may be from its signature's.
	signedFor = 5 * time.Minute
)

// statement is what an admin signs: canonical JSON of all that makes the change.
type statement struct {
	Actor   string          `json:"actor"`
	At      string          `json:"at"`
	Body    json.RawMessage `json:"body"` // without its signature
	Cluster string          `json:"cluster"`
	Kind    audit.Kind      `json:"kind"`
	Nonce   string          `json:"nonce"`
	Version int             `json:"v"`
}

// signable is a body that its actor can sign.
type signable interface {
	body
	signature() *Signed
	with(s *Signed) body
}

// Sign puts the key holder's signature under a change of a cluster's registry. The
// key must be that of the agent who asks.
func Sign[B AgentBody | KeyBody | TenantBody | RoleBody | PolicyBody | MandateBody](key *identity.Key, cluster string, b B) (B, error) {
	s, err := signAt(key, cluster, time.Now(), any(b).(signable))
	if err != nil {
		var none B
		return none, err
	}
	return any(any(b).(signable).with(s)).(B), nil
}

func signAt(key *identity.Key, cluster string, at time.Time, b signable) (*Signed, error) {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	s := &Signed{At: audit.FormatTime(at), Nonce: hex.EncodeToString(nonce)}
	text, err := stated(b, key.ID(), cluster, s)
	if err != nil {
		return nil, err
	}
	s.Signature = base64.StdEncoding.EncodeToString(key.Sign(changeDomain, text))
	return s, nil
}

func stated(b signable, id identity.ID, cluster string, s *Signed) ([]byte, error) {
	text, err := audit.MarshalBody(b.with(nil))
	if err != nil {
		return nil, err
	}
	return audit.MarshalBody(statement{
		Actor: string(identity.Agent) + ":" + id.DID(), At: s.At, Body: text, Cluster: cluster, Kind: b.kind(), Nonce: s.Nonce, Version: 1,
	})
}

// once makes a signed change happen at most once.
func (s *Signed) once(actor string) *audit.Once {
	key := sha256.Sum256([]byte("agenticraft change v1\x00" + actor + "\x00" + s.Nonce))
	digest := sha256.Sum256([]byte(s.Signature))
	return &audit.Once{Key: hex.EncodeToString(key[:]), Digest: hex.EncodeToString(digest[:])}
}

func (s *Signed) check() string {
	if s == nil {
		return ""
	}
	_, err := audit.ParseTime(s.At)
	raw, encoding := base64.StdEncoding.Strict().DecodeString(s.Signature)
	nonce, hexErr := hex.DecodeString(s.Nonce)
	return when(err != nil || encoding != nil || hexErr != nil || len(raw) != 64 || len(nonce) != 16 || strings.ToLower(s.Nonce) != s.Nonce, "the signature is malformed")
}

// signature holds that an agent who changes the registry has signed just this
// change, for this cluster, now. Who has no key cannot: then vouching was asked.
//
// INVARIANT: I3, a signature covers what was received.
func (c *change) signature(b body) error {
	of, ok := b.(signable)
	if !ok {
		return nil
	}
	s := of.signature()
	did, byAgent := strings.CutPrefix(c.entry.Actor, string(identity.Agent)+":")
	if s == nil {
		cluster, err := get[Cluster](c.tx, clusterKey)
		if err != nil {
			return err
		}
		if byAgent && cluster.Rules >= rulesSigned {
			return refuse("signature", "an agent signs its changes itself; the node may not speak for it: agenticraft --agent-key FILE")
		}
		return nil
	}
	id, err := identity.FromDID(did)
	if !byAgent || err != nil {
		return refuse("signature", "only an agent signs changes")
	}
	cluster, err := get[Cluster](c.tx, clusterKey)
	if err != nil {
		return err
	}
	at, err := audit.ParseTime(s.At)
	if err != nil || c.time.Sub(at).Abs() > signedFor {
		return refuse("signature", "the change was signed more than %v before or after it was written; look at the clocks", signedFor)
	}
	text, err := stated(of, id, cluster.Name, s)
	if err != nil {
		return refuse("malformed", "the body is not of its kind")
	}
	raw, err := base64.StdEncoding.DecodeString(s.Signature)
	if err != nil || !id.Verify(changeDomain, text, raw) {
		return refuse("signature", "the signature of the change does not hold")
	}
	if c.entry.Once == nil || *c.entry.Once != *s.once(c.entry.Actor) {
		return refuse("signature", "a signed change is written at most once, and this entry does not say so")
	}
	return nil
}

// SignBundle signs a policy for a layer, apart from its application: whoever may
// apply it shows this with it. The signer needs a role that changes the policy.
func SignBundle(key *identity.Key, layer, digest string) BundleSignature {
	return BundleSignature{By: key.ID().DID(), Signature: base64.StdEncoding.EncodeToString(key.Sign(policyDomain, bundleStatement(layer, digest)))}
}

func bundleStatement(layer, digest string) []byte { return fmt.Appendf(nil, "%s\x00%s", layer, digest) }

// BundleSignature says who stands for the contents of a policy.
type BundleSignature struct {
	By        string `json:"by"`        // did:key of an agent
	Signature string `json:"signature"` // Ed25519 over layer and digest, base64
}

func (s *BundleSignature) check() string {
	if s == nil {
		return ""
	}
	_, err := identity.FromDID(s.By)
	raw, encoding := base64.StdEncoding.Strict().DecodeString(s.Signature)
	return when(err != nil || encoding != nil || len(raw) != 64, "the bundle's signature is malformed")
}

// Holds reports whether the signature is its signer's, under this policy.
func (s BundleSignature) Holds(layer, digest string) bool {
	id, err := identity.FromDID(s.By)
	if err != nil {
		return false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s.Signature)
	return err == nil && id.Verify(policyDomain, bundleStatement(layer, digest), raw)
}

func (b AgentBody) signature() *Signed   { return b.Signed }
func (b KeyBody) signature() *Signed     { return b.Signed }
func (b TenantBody) signature() *Signed  { return b.Signed }
func (b RoleBody) signature() *Signed    { return b.Signed }
func (b PolicyBody) signature() *Signed  { return b.Signed }
func (b MandateBody) signature() *Signed { return b.Signed }

func (b AgentBody) with(s *Signed) body   { b.Signed = s; return b }
func (b KeyBody) with(s *Signed) body     { b.Signed = s; return b }
func (b TenantBody) with(s *Signed) body  { b.Signed = s; return b }
func (b RoleBody) with(s *Signed) body    { b.Signed = s; return b }
func (b PolicyBody) with(s *Signed) body  { b.Signed = s; return b }
func (b MandateBody) with(s *Signed) body { b.Signed = s; return b }

// ChangeEntry makes the entry of a change that came as JSON: strictly read, of a
// kind that people ask for.
func ChangeEntry(actor string, kind audit.Kind, text json.RawMessage) (audit.Entry, error) {
	switch kind {
	case audit.KindAgent:
		return changeEntry[AgentBody](actor, text)
	case audit.KindKey:
		return changeEntry[KeyBody](actor, text)
	case audit.KindTenant:
		return changeEntry[TenantBody](actor, text)
	case audit.KindRole:
		return changeEntry[RoleBody](actor, text)
	case audit.KindPolicy:
		return changeEntry[PolicyBody](actor, text)
	case audit.KindMandate:
		return changeEntry[MandateBody](actor, text)
	}
	return audit.Entry{}, refuse("kind", "there are no such changes")
}

func changeEntry[B AgentBody | KeyBody | TenantBody | RoleBody | PolicyBody | MandateBody](actor string, text json.RawMessage) (audit.Entry, error) {
	var b B
	if err := audit.DecodeBody(text, &b); err != nil {
		return audit.Entry{}, refuse("malformed", "the change is not of its kind")
	}
	return NewEntry(actor, b)
}
