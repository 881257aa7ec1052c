package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"
	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
)

// session is a user's login at an OpenID provider, as its file holds it (0600).
type session struct {
	Issuer   string    `json:"issuer"`
	ClientID string    `json:"client_id"`
	Scopes   []string  `json:"scopes"`
	Token    string    `json:"token"` // that nodes are shown
	Refresh  string    `json:"refresh,omitempty"`
	Expires  time.Time `json:"expires"`
}

// provider is what the discovery document of an OpenID provider says.
type provider struct {
	Issuer string `json:"issuer"`
	Device string `json:"device_authorization_endpoint"`
	Tokens string `json:"token_endpoint"`
	Revoke string `json:"revocation_endpoint"`
}

const (
	maxDiscovery   = 1 << 20          // bytes of a provider's answer
	providerWait   = 10 * time.Second // of one question to it
	refreshBefore  = 30 * time.Second // of a token's end
	maxSessionFile = 64 << 10         // bytes
	maxUserCode    = 64
	maxContextName = 128 // bytes; it is a part of a file's name
)

func (a *app) loginCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "login [--server URL] [--name CONTEXT]", Short: "Log in as a user of the cluster's OpenID provider", Args: noArgs,
		Long: `Log in as a user of the cluster's OpenID provider, by the device flow (RFC 8628): the
command prints an address and a code, which you open and confirm in any browser. The
login is kept in a context of its own, refreshed when it ends, and ended by logout.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context(), name) },
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the context (default: the server's host and port)")
	return cmd
}

func (a *app) login(ctx context.Context, name string) error {
	c, err := a.current()
	if err != nil {
		return err
	}
	u, err := url.Parse(c.Server)
	if err != nil || u.Host == "" {
		return usage("--server %q is not an http:// or https:// URL", c.Server)
	}
	name = or(name, u.Host)
	if len(name) > maxContextName || strings.ContainsRune("-.", rune(name[0])) || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == '\\' }) {
		return usage("--name %.80q is not a name for a context: give up to %d letters, digits and signs, without / and spaces", name, maxContextName)
	}
	door := &api{base: strings.TrimSuffix(c.Server, "/")}
	if door.http, err = httpClient(u, c.CAFile); err != nil {
		return err
	}
	var asked httpdoor.Login
	if err := door.do(ctx, "GET", "/v1/login", nil, &asked); err != nil {
		return err
	}
	p, err := discover(ctx, asked.Issuer)
	if err != nil {
		return err
	}
	if p.Device == "" {
		return failed("%s does not offer the device flow; use an API key, or a token of its in AGENTICRAFT_API_KEY", asked.Issuer)
	}
	s := session{Issuer: asked.Issuer, ClientID: asked.ClientID, Scopes: asked.Scopes}
	if err := a.byDevice(ctx, p, &s); err != nil {
		return err
	}
	door.key = s.Token
	var me identity.Principal
	if err := door.do(ctx, "GET", "/v1/whoami", nil, &me); err != nil {
		return &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "the provider logged you in, but the node refuses its token: " + err.Error(), Hint: "oidc_audience of the node must be the client or audience of the token"}
	}
	if err := a.keepSession(name, s); err != nil {
		return err
	}
	all, err := a.loadSettings()
	if err != nil {
		return err
	}
	all.Contexts[name] = clientContext{Server: c.Server, CAFile: c.CAFile, Login: true}
	all.Current = name
	if err := a.saveSettings(all); err != nil {
		return err
	}
	if a.json {
		a.print(map[string]any{"context": name, "server": c.Server, "principal": me, "expires": s.Expires.UTC()})
		return nil
	}
	fmt.Fprintf(a.stdout, "logged in at %s as %s, tenant %s, roles: %s\n", c.Server, me.Name, me.Tenant, or(strings.Join(me.Roles, ", "), "none"))
	return nil
}

// byDevice has the user confirm in a browser, and waits for it.
func (a *app) byDevice(ctx context.Context, p provider, s *session) error {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, providerClient())
	conf := p.oauth(*s)
	code, err := conf.DeviceAuth(ctx)
	if err != nil {
		return loginError("the provider began no login", err)
	}
	// Both go to a terminal, and the provider may be anybody's.
	where, err := endpoint(code.VerificationURI)
	if err != nil || len(code.UserCode) > maxUserCode || strings.ContainsFunc(code.UserCode, func(r rune) bool { return r < ' ' || r > '~' }) {
		return failed("the provider's address or code makes no sense")
	}
	fmt.Fprintf(a.stderr, "agenticraft: open %s and enter the code %s\n", where, code.UserCode)
	if complete, err := endpoint(code.VerificationURIComplete); err == nil {
		fmt.Fprintf(a.stderr, "agenticraft: or open %s\n", complete)
	}
	if !code.Expiry.IsZero() {
		fmt.Fprintf(a.stderr, "agenticraft: waiting for you until %s\n", code.Expiry.Local().Format(time.TimeOnly))
	}
	token, err := conf.DeviceAccessToken(ctx, code)
	if err != nil {
		refused := new(oauth2.RetrieveError)
		if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &refused) && refused.ErrorCode == "expired_token" {
			return &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "nobody confirmed the code before it ended", Hint: "agenticraft login"}
		}
		return loginError("you were not logged in", err)
	}
	return s.take(token)
}

// take remembers what the provider gave: nodes are shown the ID token, whose
// audience is the client's, or where there is none the access token.
func (s *session) take(t *oauth2.Token) error {
	s.Token, s.Expires = t.AccessToken, t.Expiry
	if id, ok := t.Extra("id_token").(string); ok && id != "" {
		s.Token = id
		if end, ok := endOf(id); ok {
			s.Expires = end
		}
	}
	if t.RefreshToken != "" {
		s.Refresh = t.RefreshToken
	}
	if s.Token == "" {
		return failed("the provider gave no token")
	}
	return nil
}

func (p provider) oauth(s session) *oauth2.Config {
	return &oauth2.Config{
		ClientID: s.ClientID, Scopes: s.Scopes,
		Endpoint: oauth2.Endpoint{DeviceAuthURL: p.Device, TokenURL: p.Tokens, AuthStyle: oauth2.AuthStyleInParams},
	}
}

// discover reads a provider's discovery document.
func discover(ctx context.Context, issuer string) (provider, error) {
	var p provider
	if _, err := endpoint(issuer); err != nil {
		return p, failed("the issuer %.200q: %v", issuer, err)
	}
	ctx, cancel := context.WithTimeout(ctx, providerWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", http.NoBody)
	if err != nil {
		return p, err
	}
	res, err := providerClient().Do(req)
	if err != nil {
		return p, &a2a.Error{Code: a2a.CodeUnavailable, Message: "no answer from the OpenID provider: " + rootCause(err)}
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return p, failed("the OpenID provider answers %s", res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		return p, failed("the OpenID provider's discovery document: %v", err)
	}
	if p.Issuer != issuer {
		return p, failed("the OpenID provider says that it is %.200q, not %q", p.Issuer, issuer)
	}
	for _, at := range []string{p.Device, p.Tokens, p.Revoke} {
		if _, err := endpoint(at); at != "" && err != nil {
			return p, failed("the OpenID provider names %.200q: %v", at, err)
		}
	}
	return p, nil
}

// endpoint holds that secrets go over TLS, or stay on this machine.
func endpoint(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return "", errors.New("not a URL")
	}
	local := slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return "", errors.New("not an https:// URL")
	}
	return u.String(), nil
}

// providerClient speaks to providers: what they send is bounded, and they cannot
// send us elsewhere.
func providerClient() *http.Client {
	return &http.Client{
		Timeout:       providerWait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the provider redirects") },
		Transport:     capped{http.DefaultTransport},
	}
}

type capped struct{ base http.RoundTripper }

// RoundTrip caps the answer's body.
func (c capped) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxDiscovery), res.Body}
	return res, nil
}

// loginError says what the provider said, without what it was told.
func loginError(what string, err error) error {
	if refused := new(oauth2.RetrieveError); errors.As(err, &refused) && refused.ErrorCode != "" {
		return &a2a.Error{Code: a2a.CodeUnauthenticated, Message: fmt.Sprintf("%s: %.100q", what, refused.ErrorCode), Hint: "agenticraft login"}
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return failed("%s: %v", what, rootCause(err))
}

// endOf reads when a JWT ends. It proves nothing: nodes do.
func endOf(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Expires <= 0 {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.Expires), 0), true
}

func (a *app) sessionFile(name string) (string, error) {
	file, err := a.settingsFile()
	return filepath.Join(filepath.Dir(file), "logins", name+".json"), err
}

func (a *app) keepSession(name string, s session) error {
	file, err := a.sessionFile(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("keep login: %w", err)
	}
	return durable.WriteFile(file, append(text, '\n'), 0o600)
}

func (a *app) readSession(name string) (session, error) {
	var s session
	file, err := a.sessionFile(name)
	if err != nil {
		return s, err
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "you are not logged in", Hint: "agenticraft login"}
	case err != nil:
		return s, err
	case info.Mode().Perm()&0o077 != 0:
		return s, failed("%s can be read by others; run: chmod 600 %s", file, file)
	}
	text, err := readSmall(file, maxSessionFile)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, failed("%s is not a login: %v", file, err)
	}
	return s, nil
}

// loginToken is the token of a login, refreshed if it is about to end. Two
// commands at once do not both refresh: providers take a refresh token once.
func (a *app) loginToken(ctx context.Context, name string) (string, error) {
	s, err := a.readSession(name)
	if err != nil || s.fresh() {
		return s.Token, err
	}
	unlock, err := a.lockSession(name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if s, err = a.readSession(name); err != nil || s.fresh() {
		return s.Token, err
	}
	if s.Refresh == "" {
		return "", &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "your login has ended", Hint: "agenticraft login"}
	}
	p, err := discover(ctx, s.Issuer)
	if err != nil {
		return "", err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, providerClient())
	token, err := p.oauth(s).TokenSource(ctx, &oauth2.Token{RefreshToken: s.Refresh}).Token()
	if err != nil {
		return "", loginError("your login has ended", err)
	}
	if err := s.take(token); err != nil {
		return "", err
	}
	return s.Token, a.keepSession(name, s)
}

func (s session) fresh() bool {
	return s.Token != "" && (s.Expires.IsZero() || time.Now().Add(refreshBefore).Before(s.Expires))
}

func (a *app) lockSession(name string) (unlock func(), err error) {
	file, err := a.sessionFile(name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock login: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock login: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout [CONTEXT]", Short: "End a login: revoke its tokens at the provider and forget them", Args: firstArgs(0, "CONTEXT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := a.loadSettings()
			if err != nil {
				return err
			}
			name := all.Current
			if len(args) == 1 {
				name = args[0]
			}
			if c, ok := all.Contexts[name]; !ok || !c.Login {
				return failed("%q is not the context of a login; there are: %s", name, strings.Join(sortedKeys(all.Contexts), ", "))
			}
			revoked := a.revokeSession(cmd.Context(), name)
			file, err := a.sessionFile(name)
			if err != nil {
				return err
			}
			for _, f := range []string{file, file + ".lock"} {
				if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("forget login: %w", err)
				}
			}
			delete(all.Contexts, name)
			if all.Current == name {
				all.Current = ""
			}
			if err := a.saveSettings(all); err != nil {
				return err
			}
			switch {
			case a.json:
				a.print(map[string]any{"context": name, "revoked": revoked == nil})
			case revoked != nil:
				fmt.Fprintf(a.stderr, "agenticraft: forgotten here, but the provider did not revoke the login: %v\n", revoked)
			default:
				fmt.Fprintln(a.stdout, "logged out of", name)
			}
			return nil
		},
	}
}

// revokeSession ends the login at the provider (RFC 7009).
func (a *app) revokeSession(ctx context.Context, name string) error {
	s, err := a.readSession(name)
	if err != nil {
		return err
	}
	if s.Refresh == "" {
		return errors.New("there is nothing to revoke; its token ends by itself")
	}
	p, err := discover(ctx, s.Issuer)
	if err != nil {
		return err
	}
	if p.Revoke == "" {
		return errors.New("it cannot")
	}
	form := url.Values{"token": {s.Refresh}, "token_type_hint": {"refresh_token"}, "client_id": {s.ClientID}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Revoke, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := providerClient().Do(req)
	if err != nil {
		return errors.New(rootCause(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
