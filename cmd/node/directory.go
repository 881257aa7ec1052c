package main

import (
	"context"
	"errors"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// directory is the registry as agent, mesh and authz want to see it.
type directory struct {
	*registry.Registry
}

// Suspended reports whether a tenant is barred. A tenant that cannot be read
// is.
func (d directory) Suspended(tenant string) bool {
	t, err := d.Tenant(tenant)
	return err != nil || t.Suspended
}

// Ceiling is the most that a tenant's people may be allowed to run. A tenant
// that cannot be read is suspended, so its ceiling does not matter.
func (d directory) Ceiling(tenant string) authz.Ceiling {
	t, err := d.Tenant(tenant)
	if err != nil || t.Ceiling == nil {
		return authz.Ceiling{}
	}
	return authz.Ceiling(*t.Ceiling)
}

// retention is how long a tenant's evidence is kept.
func (d directory) retention(tenant string) time.Duration {
	t, err := d.Tenant(tenant)
	if err != nil || t.EvidenceHours == 0 {
		return agent.DefaultRetention
	}
	return time.Duration(t.EvidenceHours) * time.Hour
}

func (d directory) apiKey(id string) (authz.KeyRecord, bool) {
	k, err := d.KeyByID(id)
	if err != nil {
		return authz.KeyRecord{}, false
	}
	before, until := k.SumBefore()
	return authz.KeyRecord{Hash: k.Sum(), Before: before, Until: until, Principal: k.Principal(), Expires: k.ExpiresAt(), Revoked: k.Revoked != nil}, true
}

// credentials proves the callers of the HTTP door: API keys, and tokens that
// agents sign themselves.
type credentials struct {
	keys      *authz.APIKeys
	users     *authz.OIDC // nil: no OpenID provider is configured
	directory directory
	audience  string
	noted     func(code string) // counts refusals for the log
	used      func(key string)  // an API key proved somebody
	tls       *tlsFiles         // nil: no TLS
	// stalled says why the registry cannot be read now; nil: it can.
	stalled func() error
}

func (c *credentials) Authenticate(ctx context.Context, bearer, source string) (identity.Principal, error) {
	p, err := c.prove(ctx, bearer, source)
	if err != nil && c.stalled() != nil {
		// Whoever it is, the node cannot look him up.
		return identity.Principal{}, &a2a.Error{
			Code: a2a.CodeUnavailable, Message: "this node's disk is full: until there is space it cannot tell who is asking", Hint: "make room on its disk, and ask another node meanwhile",
		}
	}
	if known := new(a2a.Error); errors.As(err, &known) {
		c.noted(known.Code)
	}
	return p, err
}

func (c *credentials) prove(ctx context.Context, bearer, source string) (identity.Principal, error) {
	refused := &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "the credentials were refused"}
	if a2a.IsToken(bearer) {
		if c.users != nil && !a2a.IsOwnToken(bearer) {
			p, err := c.users.Authenticate(ctx, bearer)
			if err != nil {
				return identity.Principal{}, refused
			}
			return p, nil
		}
		token, err := a2a.VerifyToken(bearer, a2a.VerifyOptions{Audiences: []string{c.audience}})
		if known, ok := errors.AsType[*a2a.Error](err); ok && (known.Code == a2a.CodeInvalidRequest || known.Code == a2a.CodeTooLarge) {
			// Of a message it would be a malformed request; of a credential it is none.
			return identity.Principal{}, &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "the token is malformed: " + known.Message}
		} else if err != nil {
			return identity.Principal{}, err
		}
		p, ok := c.directory.Agent(token.Issuer)
		if !ok {
			return identity.Principal{}, refused
		}
		return p, nil
	}
	p, err := c.keys.Authenticate(ctx, source, bearer)
	if throttled := new(authz.ThrottledError); errors.As(err, &throttled) {
		return identity.Principal{}, &a2a.Error{Code: a2a.CodeBusy, Message: "too many failures from this address", RetryAfter: throttled.RetryAfter}
	}
	if err != nil {
		return identity.Principal{}, refused
	}
	c.used(p.Name)
	return p, nil
}

// gate asks policy about acts that run no code.
type gate struct {
	policy    *authz.Policy
	directory directory
	door      string // through which they come
	odd       *quarantine
	denied    func(p identity.Principal, action, code, via string, d authz.Decision)
}

func (g *gate) Permit(ctx context.Context, p identity.Principal, action string) error {
	// Of a log that is not the cluster's nothing is told but that it is not.
	if err := g.odd.err(); err != nil && action != authz.StatusRead && action != authz.NodeList {
		return err
	}
	dec, err := g.policy.Decide(ctx, authz.Query{
		Principal: p, Action: action, Tenant: p.Tenant, Suspended: g.directory.Suspended(p.Tenant),
		Via: g.door, Now: time.Now(),
		// Who has no key signs nothing: the node speaks for him in what follows.
		Vouched: p.Kind != identity.Agent,
	})
	if err == nil && dec.Allow {
		return nil
	}
	// The auditor gets the codes, the policy and the facts' digest; the caller, what
	// he can do about it.
	g.denied(p, action, a2a.CodeDenied, g.door, dec)
	denied := &a2a.Error{Code: a2a.CodeDenied, Message: "policy does not allow " + action}
	for i, r := range dec.Reasons {
		if i == 0 {
			denied.Message = r.Message
		} else {
			denied.Message += "; " + r.Message
		}
	}
	return denied
}

// Malformed notes a request that nobody could read.
func (g *gate) Malformed(p identity.Principal, action, code string) {
	g.denied(p, action, code, "", authz.Decision{})
}
