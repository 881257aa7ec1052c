package authz_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
)

// provider is a real OpenID provider (zitadel/oidc), with keys that rotate and
// groups that a test sets.
type provider struct {
	*storage.Storage
	url   string
	asked atomic.Int64 // for its keys

	mu     sync.Mutex
	key    *signingKey
	groups any
	life   time.Duration
}

type signingKey struct {
	id  string
	key *rsa.PrivateKey
}

func (k *signingKey) ID() string                                  { return k.id }
func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k *signingKey) Algorithm() jose.SignatureAlgorithm          { return jose.RS256 }
func (k *signingKey) Use() string                                 { return "sig" }
func (k *signingKey) Key() any                                    { return k.key }

type publicKey struct{ *signingKey }

func (k publicKey) Key() any { return &k.key.PublicKey }

// jwtClient gets its access tokens as JWTs.
type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

func newProvider(t *testing.T) *provider {
	t.Helper()
	var handler http.Handler
	p := &provider{groups: []string{"developers"}, life: time.Hour}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/keys") {
			p.asked.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.url, p.Storage = server.URL, storage.NewStorage(storage.NewUserStore(server.URL))
	p.rotate(t)
	made, err := op.NewProvider(&op.Config{}, p, op.StaticIssuer(p.url), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	handler = made
	return p
}

func (p *provider) rotate(t *testing.T) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key = &signingKey{rand.Text(), key}
}

func (p *provider) SigningKey(context.Context) (op.SigningKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key, nil
}

func (p *provider) KeySet(context.Context) ([]op.Key, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []op.Key{publicKey{p.key}}, nil
}

func (p *provider) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	client, err := p.Storage.ClientCredentials(ctx, id, secret)
	return jwtClient{client}, err
}

func (p *provider) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return rand.Text(), time.Now().Add(p.life), nil
}

func (p *provider) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return map[string]any{"groups": p.groups}, nil
}

// token is one that the provider issues over HTTP to a client.
func (p *provider) token(t *testing.T) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"sid1"}, "client_secret": {"verysecret"}, "scope": {"openid"}}
	resp, err := http.PostForm(p.url+"/oauth/token", form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || strings.Count(answer.AccessToken, ".") != 2 {
		t.Fatalf("the provider answers %s: %s", resp.Status, text)
	}
	return answer.AccessToken
}

func (p *provider) oidc(t *testing.T) *authz.OIDC {
	t.Helper()
	o, err := authz.NewOIDC(authz.OIDCConfig{
		Issuer: p.url, Audience: "sid1", Tenant: "acme", Roles: map[string]string{"developers": "runner", "root": "admin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOIDCProvesUsersOfARealProvider(t *testing.T) {
	p := newProvider(t)
	o := p.oidc(t)
	got, err := o.Authenticate(t.Context(), p.token(t))
	if err != nil || got.Kind != identity.User || got.Tenant != "acme" || !slices.Equal(got.Roles, []string{"runner"}) || strings.Contains(got.Name, "sid1") {
		t.Fatalf("Authenticate = %+v, %v", got, err)
	}
	again, err := o.Authenticate(t.Context(), p.token(t))
	if err != nil || again.Name != got.Name {
		t.Errorf("another token of the same subject: %+v, %v", again, err)
	}
	if n := p.asked.Load(); n != 1 {
		t.Errorf("the provider was asked for its keys %d times", n)
	}
	for name, groups := range map[string]any{"strangers": []string{"strangers"}, "none": nil, "an object": map[string]any{"root": true}, "numbers": []any{1, true}, "capitals": "ROOT"} {
		p.groups = groups
		if got, err := o.Authenticate(t.Context(), p.token(t)); err != nil || len(got.Roles) != 0 {
			t.Errorf("groups %s: %+v, %v; want no role", name, got, err)
		}
	}
}

func TestOIDCRefusesForgeries(t *testing.T) {
	p, other := newProvider(t), newProvider(t)
	o := p.oidc(t)
	good := p.token(t)
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	signed := func(key any, alg jose.SignatureAlgorithm, kid, typ string, change func(map[string]any)) string {
		t.Helper()
		var c map[string]any
		if err := json.Unmarshal(claims, &c); err != nil {
			t.Fatal(err)
		}
		change(c)
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		options := (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", kid)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		out, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	own := func(change func(map[string]any)) string {
		return signed(p.key.key, jose.RS256, p.key.id, "JWT", change)
	}
	nothing := func(map[string]any) {}
	now := float64(time.Now().Unix())
	if _, err := o.Authenticate(t.Context(), own(nothing)); err != nil {
		t.Fatalf("the same claims, signed again: %v", err)
	}
	if _, err := o.Authenticate(t.Context(), own(func(c map[string]any) { c["exp"] = now - 30 })); err != nil {
		t.Errorf("within the skew: %v", err)
	}
	// A token that was good is not remembered past its end.
	var ending string
	for accepted := false; !accepted; {
		made := time.Now()
		ending = own(func(c map[string]any) { c["exp"] = float64(made.Unix() - 57) })
		_, err := o.Authenticate(t.Context(), ending)
		// A slow machine asks when it has ended already: then of another one.
		if accepted = err == nil; !accepted && time.Since(made) < 2*time.Second {
			t.Fatalf("just within the skew: %v", err)
		}
	}
	p.life = -2 * time.Minute
	for name, token := range map[string]string{
		"empty":              "",
		"expired by issuer":  p.token(t),
		"other provider":     other.token(t),
		"alg none":           b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + ".",
		"alg none, signed":   b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2],
		"HMAC of public key": signed(p.key.key.N.Bytes(), jose.HS256, p.key.id, "JWT", nothing),
		"claims changed":     parts[0] + "." + b64([]byte(strings.Replace(string(claims), "developers", "root", 1))) + "." + parts[2],
		"other key, our kid": signed(other.key.key, jose.RS256, p.key.id, "JWT", nothing),
		"wrong issuer":       own(func(c map[string]any) { c["iss"] = other.url }),
		"wrong audience":     own(func(c map[string]any) { c["aud"] = "somebody" }),
		"no audience":        own(func(c map[string]any) { delete(c, "aud") }),
		"expired":            own(func(c map[string]any) { c["exp"] = now - 61 }),
		"no end":             own(func(c map[string]any) { delete(c, "exp") }),
		"not yet":            own(func(c map[string]any) { c["nbf"] = now + 120 }),
		"from the future":    own(func(c map[string]any) { c["iat"] = now + 120 }),
		"no subject":         own(func(c map[string]any) { c["sub"] = "" }),
		"other type":         signed(p.key.key, jose.RS256, p.key.id, "logout+jwt", nothing),
		"huge":               good + strings.Repeat("A", 1<<20),
	} {
		if got, err := o.Authenticate(t.Context(), token); !errors.Is(err, authz.ErrCredentials) || !got.IsZero() {
			t.Errorf("%s: Authenticate = %+v, %v", name, got, err)
		}
	}
	for until := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if got, err := o.Authenticate(t.Context(), ending); errors.Is(err, authz.ErrCredentials) && got.IsZero() {
			break
		}
		if time.Now().After(until) {
			t.Fatal("a token that was good is good after its end")
		}
	}
}

func TestOIDCFollowsKeyRotation(t *testing.T) {
	p := newProvider(t)
	o := p.oidc(t)
	old := p.token(t)
	if _, err := o.Authenticate(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	p.rotate(t)
	fresh := p.token(t)
	var wait sync.WaitGroup
	for range 50 { // a moment after the last question, nobody asks again
		wait.Go(func() {
			if _, err := o.Authenticate(t.Context(), fresh); !errors.Is(err, authz.ErrCredentials) {
				t.Errorf("before the pause is over: %v", err)
			}
		})
	}
	wait.Wait()
	if n := p.asked.Load(); n != 1 {
		t.Errorf("tokens with unknown keys made us ask %d times", n)
	}
	authz.ForgetPause(o)
	for range 50 { // then one asks for all
		wait.Go(func() {
			if _, err := o.Authenticate(t.Context(), fresh); err != nil {
				t.Errorf("after the rotation: %v", err)
			}
		})
	}
	wait.Wait()
	if n := p.asked.Load(); n != 2 {
		t.Errorf("the provider was asked %d times, want 2", n)
	}
	if _, err := o.Authenticate(t.Context(), old); !errors.Is(err, authz.ErrCredentials) {
		t.Errorf("a token of a key that was withdrawn: %v", err)
	}
}

func TestOIDCConfiguration(t *testing.T) {
	for _, cfg := range []authz.OIDCConfig{
		{}, {Issuer: "https://x", Tenant: "t"}, {Issuer: "http://example.org", Audience: "a", Tenant: "t"}, {Issuer: "://", Audience: "a", Tenant: "t"}, {Issuer: "https://x", Audience: "a"},
	} {
		if _, err := authz.NewOIDC(cfg); err == nil {
			t.Errorf("NewOIDC(%+v) succeeded", cfg)
		}
	}
	p := newProvider(t)
	o, err := authz.NewOIDC(authz.OIDCConfig{Issuer: "http://127.0.0.1:1", Audience: "sid1", Tenant: "t"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := o.Authenticate(t.Context(), p.token(t)); !errors.Is(err, authz.ErrCredentials) {
			t.Errorf("a provider that is not there: %v", err)
		}
	}
}
