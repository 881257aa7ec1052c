package authz

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/agenticraft/node/identity"
)

// OIDCConfig of an [OIDC].
type OIDCConfig struct {
	Issuer   string            // URL, as the tokens name it; https, or http on loopback
	Audience string            // that tokens must name
	Tenant   string            // of all its users
	Roles    map[string]string // group -> role; users of no such group have no role
	Groups   string            // the claim that holds the groups; default "groups"
	Log      *slog.Logger      // nil: discarded
}

// OIDC proves users by the JWTs of one OpenID provider. The provider is asked
// for its keys when they are needed, not at the start, and not again within ten
// seconds, whatever is presented. Its methods may be called concurrently.
type OIDC struct {
	cfg    OIDCConfig
	client *http.Client
	log    *slog.Logger

	keys    atomic.Pointer[map[string]jose.JSONWebKey] // by kid; replaced, never changed
	mu      sync.Mutex                                 // held while the provider is asked, so that one asks for all who wait
	asked   time.Time
	failure error
}

const (
	oidcSkew     = 60 * time.Second
	oidcTimeout  = 5 * time.Second
	oidcPause    = 10 * time.Second // between two questions to the provider
	maxToken     = 16 << 10         // bytes
	maxJWKS      = 1 << 20          // bytes of the provider's answers
	maxGroups    = 1_000
	maxUserRoles = 32
)

// oidcAlgorithms are the signatures that are accepted: none, and none with
// shared secrets, are not among them.
var oidcAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// NewOIDC checks the configuration; it asks the provider nothing.
func NewOIDC(cfg OIDCConfig) (*OIDC, error) {
	var faults []error
	u, err := url.Parse(cfg.Issuer)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())) {
		faults = append(faults, fmt.Errorf("oidc issuer %q is not an https URL", cfg.Issuer))
	}
	if cfg.Audience == "" {
		faults = append(faults, errors.New("oidc audience is missing"))
	}
	if cfg.Tenant == "" {
		faults = append(faults, errors.New("oidc tenant is missing"))
	}
	cfg.Groups = cmp.Or(cfg.Groups, "groups")
	cfg.Roles = maps.Clone(cfg.Roles)
	return &OIDC{
		cfg: cfg, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		client: &http.Client{Timeout: oidcTimeout, Transport: cappedTransport{http.DefaultTransport}},
	}, errors.Join(faults...)
}

// Authenticate returns whom a token proves. Every failure wraps
// [ErrCredentials] and is the same to the caller; the log has the cause.
func (o *OIDC) Authenticate(ctx context.Context, token string) (identity.Principal, error) {
	p, err := o.prove(ctx, token)
	if err != nil {
		o.log.DebugContext(ctx, "token refused", "err", err)
		return identity.Principal{}, fmt.Errorf("%w: token", ErrCredentials)
	}
	return p, nil
}

func (o *OIDC) prove(ctx context.Context, token string) (identity.Principal, error) {
	if len(token) > maxToken {
		return identity.Principal{}, errors.New("too long")
	}
	// Claims are read only behind a signature that holds. Times are judged below,
	// with a skew of our own.
	verifier := oidc.NewVerifier(o.cfg.Issuer, keySet{o}, &oidc.Config{
		ClientID: o.cfg.Audience, SkipExpiryCheck: true, SupportedSigningAlgs: algorithmNames(),
	})
	verified, err := verifier.Verify(ctx, token)
	if err != nil {
		return identity.Principal{}, err
	}
	var claims map[string]any
	if err := verified.Claims(&claims); err != nil {
		return identity.Principal{}, err
	}
	if err := checkTimes(claims, time.Now()); err != nil {
		return identity.Principal{}, err
	}
	if verified.Subject == "" {
		return identity.Principal{}, errors.New("no subject")
	}
	return identity.Principal{
		Kind: identity.User, Name: userName(o.cfg.Issuer, verified.Subject), Tenant: o.cfg.Tenant, Roles: o.roles(claims[o.cfg.Groups]),
	}, nil
}

// checkTimes wants an end, and allows for clocks that differ.
func checkTimes(claims map[string]any, now time.Time) error {
	at := func(name string) (time.Time, bool, error) {
		v, ok := claims[name]
		n, isNumber := v.(float64)
		if ok && !isNumber {
			return time.Time{}, false, fmt.Errorf("%s is not a number", name)
		}
		return time.Unix(int64(n), 0), ok, nil
	}
	expires, ok, err := at("exp")
	if err != nil || !ok || !now.Before(expires.Add(oidcSkew)) {
		return errors.Join(err, errors.New("expired, or without end"))
	}
	for _, name := range []string{"nbf", "iat"} {
		begins, ok, err := at(name)
		if err != nil || ok && now.Add(oidcSkew).Before(begins) {
			return errors.Join(err, fmt.Errorf("%s is in the future", name))
		}
	}
	return nil
}

// userName is how logs and tasks name a user: the same for every token of the
// subject, and no personal data, which a log that nobody can edit must not hold.
func userName(issuer, subject string) string {
	sum := sha256.Sum256([]byte("agenticraft user v1\x00" + issuer + "\x00" + subject))
	return "u" + hex.EncodeToString(sum[:16])
}

// roles maps the groups that the configuration names; others give nothing.
func (o *OIDC) roles(claim any) []string {
	groups, _ := claim.([]any)
	if one, ok := claim.(string); ok {
		groups = []any{one}
	}
	var roles []string
	for _, g := range groups[:min(len(groups), maxGroups)] {
		name, _ := g.(string)
		if role, ok := o.cfg.Roles[name]; ok && name != "" {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	roles = slices.Compact(roles)
	return roles[:min(len(roles), maxUserRoles)]
}

func algorithmNames() []string {
	var names []string
	for _, a := range oidcAlgorithms {
		names = append(names, string(a))
	}
	return names
}

// keySet is the provider's keys as go-oidc asks for them.
type keySet struct{ o *OIDC }

// VerifySignature returns the payload of a token whose signature holds.
func (k keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(token, oidcAlgorithms)
	if err != nil {
		return nil, err
	}
	header := jws.Signatures[0].Protected
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok && typ != "JWT" && typ != "at+jwt" {
		return nil, fmt.Errorf("token is of type %.20v", typ)
	}
	key, err := k.o.key(ctx, header.KeyID)
	if err != nil {
		return nil, err
	}
	if key.Algorithm != "" && key.Algorithm != header.Algorithm || key.Use != "" && key.Use != "sig" {
		return nil, errors.New("the key is for something else")
	}
	return jws.Verify(key.Key)
}

// key finds a key by its id, and asks the provider for one that it does not
// know, unless it asked a moment ago.
func (o *OIDC) key(ctx context.Context, kid string) (jose.JSONWebKey, error) {
	known := func() (key jose.JSONWebKey, ok bool) {
		if keys := o.keys.Load(); keys != nil {
			key, ok = (*keys)[kid]
		}
		return key, ok
	}
	// Who bears a known key waits for nobody.
	if key, ok := known(); ok {
		return key, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if key, ok := known(); ok {
		return key, nil
	}
	if time.Since(o.asked) < oidcPause {
		return jose.JSONWebKey{}, cmp.Or(o.failure, errors.New("no such key"))
	}
	// The answer is for all callers, so it does not end with this one's patience.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), oidcTimeout)
	defer cancel()
	keys, err := o.fetch(ctx)
	o.asked, o.failure = time.Now(), err
	if err != nil {
		o.log.WarnContext(ctx, "keys of the OpenID provider not read", "issuer", o.cfg.Issuer, "err", err)
		return jose.JSONWebKey{}, err
	}
	o.keys.Store(&keys)
	key, ok := keys[kid]
	if !ok {
		return jose.JSONWebKey{}, errors.New("no such key")
	}
	return key, nil
}

// fetch reads the provider's discovery document and its keys.
func (o *OIDC) fetch(ctx context.Context) (map[string]jose.JSONWebKey, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, o.client), o.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	var found struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&found); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, found.Keys, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("keys: %s", resp.Status)
	}
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	keys := make(map[string]jose.JSONWebKey)
	for _, k := range set.Keys {
		if k.IsPublic() && k.Valid() {
			keys[k.KeyID] = k
		}
	}
	return keys, nil
}

// cappedTransport bounds what a provider can make us read.
type cappedTransport struct{ base http.RoundTripper }

// RoundTrip caps the answer's body.
func (t cappedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxJWKS), resp.Body}
	return resp, nil
}
