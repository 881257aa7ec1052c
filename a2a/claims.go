package a2a

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Claims are what the signer says about a request. Times are whole seconds
// since 1970. Members that this version does not know are refused, for they
// may narrow what the signer meant.
type Claims struct {
	Issuer    string         `json:"iss"` // did:key of the signer
	Audience  string         `json:"aud"` // "agenticraft:<cluster>", or the did:key of one node
	IssuedAt  int64          `json:"iat"`
	Expires   int64          `json:"exp"` // at most 5 minutes after iat
	JTI       string         `json:"jti"` // 128 random bits, in hex or base64url
	Operation string         `json:"op"`  // [OpSendMessage]
	Mandate   []MandateBlock `json:"mandate,omitempty"`
}

// MandateBlock says on whose behalf a node signed for a caller who has no key
// of his own.
type MandateBlock struct {
	Subject string `json:"sub"` // the principal, as identity.Principal.String gives it
	Tenant  string `json:"tenant,omitempty"`
	Via     string `json:"via"` // did:key of the node that vouches
	// Roles are those of a user, whom no registry knows; nobody else's are read.
	Roles []string `json:"roles,omitempty"`
	// Once is what the principal repeats his request by, as [OnceOf] makes it: the
	// task is then the same whichever node vouches. Empty: by nothing.
	Once string `json:"once,omitempty"`
}

// OpSendMessage is the operation claim of SendMessage, streaming or not.
const OpSendMessage = "SendMessage"

const (
	maxTTL          = 5 * time.Minute
	defaultTTL      = 2 * time.Minute
	defaultSkew     = 30 * time.Second
	maxMandate      = 1        // blocks
	maxMandateBytes = 16 << 10 // of an execution
	maxClaimBytes   = 512
	maxMandateRoles = 32
	maxRoleBytes    = 64
	jtiBytes        = 16
)

// NewJTI makes the random identifier of a request or token. Whoever wants to
// repeat a request safely signs it again with the same one.
func NewJTI() string {
	var b [jtiBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("internal error: no randomness: " + err.Error()) // crypto/rand never fails
	}
	return hex.EncodeToString(b[:])
}

func validJTI(s string) bool {
	switch len(s) {
	case hex.EncodedLen(jtiBytes):
		return ValidTaskID(s) // same alphabet and length: lower-case hex of 16 bytes
	case base64.RawURLEncoding.EncodedLen(jtiBytes):
		_, err := base64.RawURLEncoding.Strict().DecodeString(s)
		return err == nil
	}
	return false
}

// check checks the form of claims; whether they are true is for the caller.
func (c Claims) check() error {
	switch {
	case c.Issuer == "" || len(c.Issuer) > maxClaimBytes:
		return Errorf(CodeInvalidRequest, "claims: no valid iss")
	case c.Audience == "" || len(c.Audience) > maxClaimBytes:
		return Errorf(CodeInvalidRequest, "claims: no valid aud")
	case !validJTI(c.JTI):
		return Errorf(CodeInvalidRequest, "claims: jti is not 128 bits in hex or base64url")
	case c.IssuedAt <= 0 || c.Expires <= c.IssuedAt:
		return Errorf(CodeInvalidRequest, "claims: exp is not after iat")
	case c.Expires-c.IssuedAt > int64(maxTTL/time.Second):
		return Errorf(CodeInvalidRequest, "claims: valid for more than %s", maxTTL)
	case len(c.Mandate) > maxMandate:
		return Errorf(CodeInvalidRequest, "claims: mandate has more than %d block", maxMandate)
	}
	for _, b := range c.Mandate {
		if b.Subject == "" || b.Via == "" || max(len(b.Subject), len(b.Via), len(b.Tenant)) > maxClaimBytes {
			return Errorf(CodeInvalidRequest, "claims: mandate block without valid sub and via")
		}
		if b.Once != "" && (!ValidTaskID(b.Once) || strings.Contains(b.Tenant, "\x00")) {
			return Errorf(CodeInvalidRequest, "claims: mandate block whose once is not 128 bits in hex, or whose tenant holds a NUL")
		}
		if len(b.Roles) > maxMandateRoles || slices.ContainsFunc(b.Roles, func(r string) bool { return r == "" || len(r) > maxRoleBytes }) {
			return Errorf(CodeInvalidRequest, "claims: mandate block with too many or malformed roles")
		}
	}
	return nil
}

// checkFor checks audience, then time.
func (c Claims) checkFor(o VerifyOptions) error {
	found := false
	for _, a := range o.Audiences {
		found = found || (a != "" && a == c.Audience)
	}
	if !found {
		return Errorf(CodeWrongAudience, "signed for %.80q, not for us", c.Audience)
	}
	return c.checkTime(o)
}

func (c Claims) checkTime(o VerifyOptions) error {
	now, skew := o.Now, o.MaxSkew
	if now.IsZero() {
		now = time.Now()
	}
	if skew == 0 {
		skew = defaultSkew
	}
	if now.After(time.Unix(c.Expires, 0).Add(skew)) {
		return &Error{Code: CodeExpired, Message: "the signature has expired", Hint: "sign the request again; check this machine's clock"}
	}
	if now.Before(time.Unix(c.IssuedAt, 0).Add(-skew)) {
		return &Error{Code: CodeNotYetValid, Message: "the signature is from the future", Hint: "check this machine's clock"}
	}
	return nil
}

// loose is what encoding/json would read the claims as.
func (c Claims) loose() map[string]any {
	out := map[string]any{"iss": c.Issuer, "aud": c.Audience, "iat": float64(c.IssuedAt), "exp": float64(c.Expires), "jti": c.JTI, "op": c.Operation}
	if len(c.Mandate) == 0 {
		return out
	}
	blocks := make([]any, len(c.Mandate))
	for i, b := range c.Mandate {
		block := map[string]any{"sub": b.Subject, "via": b.Via}
		if b.Tenant != "" {
			block["tenant"] = b.Tenant
		}
		if len(b.Roles) > 0 {
			roles := make([]any, len(b.Roles))
			for i, role := range b.Roles {
				roles[i] = role
			}
			block["roles"] = roles
		}
		if b.Once != "" {
			block["once"] = b.Once
		}
		blocks[i] = block
	}
	out["mandate"] = blocks
	return out
}
