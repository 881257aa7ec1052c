package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/agenticraft/node/a2a"
)

// loginProvider is a real OpenID provider (zitadel/oidc) with the device flow, for
// a public client that may refresh.
type loginProvider struct {
	*storage.Storage
	url string

	mu      sync.Mutex
	key     *rsa.PrivateKey
	refresh map[string]*op.DeviceAuthorizationState
	revoked []string
	life    time.Duration // of ID tokens
}

type providerKey struct{ key *rsa.PrivateKey }

func (providerKey) ID() string                                  { return "k1" }
func (providerKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (providerKey) Algorithm() jose.SignatureAlgorithm          { return jose.RS256 }
func (providerKey) Use() string                                 { return "sig" }
func (k providerKey) Key() any                                  { return k.key }

type providerPublicKey struct{ providerKey }

func (k providerPublicKey) Key() any { return &k.key.PublicKey }

// commandLine is the client that our command is: it has no secret.
type commandLine struct {
	*storage.Client
	p *loginProvider
}

func (commandLine) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeDeviceCode, oidc.GrantTypeRefreshToken}
}

func (c commandLine) IDTokenLifetime() time.Duration {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	return c.p.life
}

func newLoginProvider(t *testing.T, codes time.Duration) *loginProvider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil) // it has its address already
	p := &loginProvider{url: "http://" + server.Listener.Addr().String(), key: key, refresh: map[string]*op.DeviceAuthorizationState{}, life: time.Hour}
	p.Storage = storage.NewStorageWithClients(storage.NewUserStore(p.url), map[string]*storage.Client{"agenticraft": storage.NativeClient("agenticraft")})
	config := &op.Config{
		GrantTypeRefreshToken: true,
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: codes, PollInterval: time.Second, UserFormPath: "/device", UserCode: op.UserCodeBase20,
		},
	}
	server.Config.Handler, err = op.NewProvider(config, p, op.StaticIssuer(p.url), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	return p
}

func (p *loginProvider) SigningKey(context.Context) (op.SigningKey, error) {
	return providerKey{p.key}, nil
}

func (p *loginProvider) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{providerPublicKey{providerKey{p.key}}}, nil
}

func (p *loginProvider) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := p.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return commandLine{c.(*storage.Client), p}, nil
}

func (p *loginProvider) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, _ []string) error {
	info.Subject = r.GetSubject()
	info.AppendClaims("groups", []string{"developers"})
	return nil
}

type refreshed struct{ *op.DeviceAuthorizationState }

func (r refreshed) SetCurrentScopes(scopes []string) { r.Scopes = scopes }

// Refresh tokens are good for one use each.
func (p *loginProvider) CreateAccessAndRefreshTokens(_ context.Context, r op.TokenRequest, current string) (id, refresh string, end time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var state *op.DeviceAuthorizationState
	switch r := r.(type) {
	case *op.DeviceAuthorizationState:
		state = r
	case refreshed:
		state = r.DeviceAuthorizationState
	}
	if _, known := p.refresh[current]; current != "" && !known {
		return "", "", time.Time{}, op.ErrInvalidRefreshToken
	}
	delete(p.refresh, current)
	refresh = rand.Text()
	p.refresh[refresh] = state
	return rand.Text(), refresh, time.Now().Add(p.life), nil
}

func (p *loginProvider) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state, ok := p.refresh[token]
	if !ok {
		return nil, op.ErrInvalidRefreshToken
	}
	return refreshed{state}, nil
}

func (p *loginProvider) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state, ok := p.refresh[token]; ok {
		return state.Subject, token, nil
	}
	return "", "", op.ErrInvalidRefreshToken
}

func (p *loginProvider) RevokeToken(_ context.Context, token, _, _ string) *oidc.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked = append(p.revoked, token)
	delete(p.refresh, token)
	return nil
}

func (p *loginProvider) setLife(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life = d
}

var userCode = regexp.MustCompile(`enter the code (\S+)\n`)

// login runs the command, with a user who does as decide says.
func (c *testCluster) login(decide func(code string) error, args ...string) result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, testBinary, append([]string{"login", "--json"}, args...)...)
	cmd.Env = c.env()
	var stdout bytes.Buffer
	var stderr printout
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.await("the code", func() bool { return userCode.MatchString(stderr.String()) })
	if err := decide(userCode.FindStringSubmatch(stderr.String())[1]); err != nil {
		c.t.Error(err)
	}
	err := cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// Issue 6: a user logs in by the device flow at a real provider, his login is kept
// to himself, refreshed, and ended by logout.
func TestLoginByDeviceFlow(t *testing.T) {
	p := newLoginProvider(t, time.Minute)
	t.Setenv("AGENTICRAFT_OIDC_ISSUER", p.url)
	t.Setenv("AGENTICRAFT_OIDC_AUDIENCE", "agenticraft")
	t.Setenv("AGENTICRAFT_OIDC_ROLES", "developers=runner")
	c := startCluster(t, 1)
	allow := func(code string) error { return p.CompleteDeviceAuthorization(t.Context(), code, "id1") }
	deny := func(code string) error { return p.DenyDeviceAuthorization(t.Context(), code) }

	for _, name := range []string{"../me", ".me", "-me", "me\n", "m e", "mé", strings.Repeat("m", 200)} {
		c.try(exitUsage, "is not a name for a context", "login", "--name", name)
	}
	p.setLife(20 * time.Second) // so short that every use refreshes
	if r := c.login(deny, "--name", "me"); r.code != exitDenied || !strings.Contains(r.stdout, "access_denied") {
		t.Errorf("a user who refuses: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	var got struct {
		Context   string
		Principal struct {
			Kind, Tenant string
			Roles        []string
		}
	}
	r := c.login(allow, "--name", "me")
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got.Context != "me" || got.Principal.Kind != "user" || strings.Join(got.Principal.Roles, " ") != "runner" {
		t.Fatalf("login: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	file := filepath.Join(c.dir, "config", "agenticraft", "logins", "me.json")
	before := c.session(file)
	for range 2 {
		var rep a2a.Report
		c.json(&rep, "exec", "--lang", "starlark", "-c", "result = 1")
		if rep.Status != a2a.Succeeded {
			t.Errorf("a user's run: %+v", rep)
		}
	}
	after := c.session(file)
	if after.Refresh == before.Refresh || after.Token == before.Token {
		t.Error("the login was not refreshed")
	}
	// Many at once refresh once each in turn: the provider takes a refresh token once.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if r := c.run("status"); r.code != exitOK {
				t.Errorf("status beside others: exit %d, %s", r.code, r.stderr)
			}
		})
	}
	all.Wait()
	// Somebody replays an old refresh token: the provider refuses it, and so do we.
	current := c.session(file)
	stolen := current
	stolen.Refresh, stolen.Expires = before.Refresh, time.Now()
	c.writeSession(file, stolen)
	if r := c.run("status"); r.code != exitDenied || !strings.Contains(r.stderr, "agenticraft login") {
		t.Errorf("a replayed refresh token: exit %d, %s", r.code, r.stderr)
	}
	c.writeSession(file, current)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := c.run("status"); r.code == exitOK || !strings.Contains(r.stderr, "chmod 600") {
		t.Errorf("a login that others can read: exit %d, %s", r.code, r.stderr)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}

	var list settings
	c.json(&list, "context", "list")
	if list.Current != "me" || !list.Contexts["me"].Login || len(list.Contexts) != 2 {
		t.Errorf("context list = %+v", list)
	}
	if r := c.run("context", "list", "--json"); strings.Contains(r.stdout, current.Token) || strings.Contains(r.stdout, current.Refresh) {
		t.Error("I10: context list shows a token")
	}
	c.try(exitOK, "", "context", "use", "dev")
	c.try(exitOK, "", "logout", "me")
	if len(p.revoked) == 0 || p.revoked[len(p.revoked)-1] != current.Refresh {
		t.Error("logout did not revoke the login at the provider")
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tokens are still there: %v", err)
	}
	c.try(exitFailed, "no context", "context", "use", "me")
	if r := c.run("whoami"); r.code != exitOK || !strings.Contains(r.stdout, `"service"`) {
		t.Errorf("whoami: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	c.try(exitFailed, "not the context of a login", "logout", "dev")
}

// A code that nobody confirms ends, and the command says so.
func TestLoginThatNobodyConfirms(t *testing.T) {
	found, err := discover(t.Context(), newLoginProvider(t, 2*time.Second).url)
	if err != nil {
		t.Fatal(err)
	}
	var says bytes.Buffer
	a := &app{stderr: &says}
	err = a.byDevice(t.Context(), found, &session{ClientID: "agenticraft", Scopes: []string{"openid"}})
	if e := new(a2a.Error); !errors.As(err, &e) || !strings.Contains(e.Message, "nobody confirmed") || e.Hint == "" {
		t.Errorf("login ends with %v", err)
	}
	if !strings.Contains(says.String(), "waiting for you until ") {
		t.Errorf("login says %q", says.String())
	}
}

func (c *testCluster) session(file string) session {
	c.t.Helper()
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		c.t.Fatalf("the login's file: %v, %v", info, err)
	}
	text, err := os.ReadFile(file)
	var s session
	if err != nil || json.Unmarshal(text, &s) != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return s
}

func (c *testCluster) writeSession(file string, s session) {
	c.t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// What a provider says is believed only where it can do no harm.
func TestProvidersThatLie(t *testing.T) {
	var answer string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away/.well-known/openid-configuration" {
			http.Redirect(w, r, "https://elsewhere.example", http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	for name, text := range map[string]string{
		"another issuer":    `{"issuer":"https://elsewhere.example"}`,
		"tokens over http":  `{"issuer":"` + server.URL + `","token_endpoint":"http://elsewhere.example/token"}`,
		"no document":       `<html>`,
		"megabytes":         `{"issuer":"` + strings.Repeat("x", 2<<20) + `"}`,
		"a user in the URL": `{"issuer":"` + server.URL + `","device_authorization_endpoint":"https://a:b@elsewhere.example/"}`,
		"something else":    `{"issuer":"` + server.URL + `","revocation_endpoint":"file:///etc/passwd"}`,
	} {
		answer = text
		if p, err := discover(t.Context(), server.URL); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for _, issuer := range []string{server.URL + "/away", "http://elsewhere.example", "ftp://x", "", "https://"} {
		if p, err := discover(t.Context(), issuer); err == nil {
			t.Errorf("issuer %q: %+v", issuer, p)
		}
	}
}
