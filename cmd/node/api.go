package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
)

// api speaks to one node's HTTP door.
type api struct {
	base  string
	key   string        // API key, or ""
	agent *identity.Key // signs, or nil
	http  *http.Client
}

const (
	apiTimeout = 30 * time.Second
	maxAnswer  = 64 << 20 // bytes
)

// api is the door of the context in force.
func (a *app) api(ctx context.Context) (*api, error) {
	c, err := a.current()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(c.Server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, usage("--server %q is not an http:// or https:// URL", c.Server)
	}
	out := &api{base: strings.TrimSuffix(c.Server, "/")}
	if out.http, err = httpClient(u, c.CAFile); err != nil {
		return nil, err
	}
	if c.AgentKey != "" {
		if out.agent, err = identity.Load(c.AgentKey); err != nil {
			return nil, err
		}
		return out, nil
	}
	out.key, err = a.apiKey(ctx, c)
	return out, err
}

// httpClient speaks to a node. In the clear it speaks to this machine only:
// API keys and tokens would be anybody's who reads the network.
func httpClient(to *url.URL, caFile string) (*http.Client, error) {
	if to.Scheme == "http" {
		if !loopback(to.Hostname()) {
			return nil, &a2a.Error{Code: "usage", Message: fmt.Sprintf("%s is not this machine, and http:// would show credentials to the network", to.Host), Hint: "use https:// (see tls_cert in docs/operations.md)"}
		}
		return &http.Client{}, nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		var err error
		if secure.RootCAs, err = readAuthorities("ca-file", caFile); err != nil {
			return nil, failed("%v", err)
		}
	}
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, ForceAttemptHTTP2: true, TLSHandshakeTimeout: apiTimeout,
	}}, nil
}

// do performs one /v1 request. A nil body sends none; a nil into drops the
// answer.
func (c *api) do(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("marshal request: %w", err)
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return usage("%v", err)
	}
	if err := c.authorize(ctx, req); err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return c.unreachable(err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		return httpdoor.ParseProblem(res.StatusCode, text)
	}
	if into == nil {
		return nil
	}
	if raw, ok := into.(*json.RawMessage); ok {
		*raw = text
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return failed("%s answered with something that is not JSON of this interface: %v", c.base, err)
	}
	return nil
}

func (c *api) authorize(ctx context.Context, req *http.Request) error {
	switch {
	case c.agent != nil:
		audience, err := c.audience(ctx)
		if err != nil {
			return err
		}
		token, err := a2a.SignToken(c.agent, a2a.SignOptions{Audience: audience})
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case c.key != "":
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	return nil
}

// audience is the cluster's name as signed requests bear it, from the node's
// own card.
func (c *api) audience(ctx context.Context) (string, error) {
	cl, err := client.New(client.Config{URL: c.base + a2aPath, HTTPClient: c.http, Resume: doorResume})
	if err != nil {
		return "", err
	}
	card, _, err := cl.Card(ctx)
	if err != nil {
		return "", c.unreachable(err)
	}
	return a2a.CardAudience(card)
}

// doorResume is how long a command tries to go on with a run when the
// connection to its node broke.
const doorResume = 4 * time.Second

// client speaks A2A to the node.
func (c *api) client(ctx context.Context) (*client.Client, error) {
	cfg := client.Config{URL: c.base + a2aPath, HTTPClient: c.http, APIKey: c.key, Resume: doorResume}
	if c.agent != nil {
		audience, err := c.audience(ctx)
		if err != nil {
			return nil, err
		}
		cfg.Key, cfg.Audience = c.agent, audience
	}
	return client.New(cfg)
}

// unreachable says that nobody answered; what a node answered stays as it is, and
// so does what is known of a connection that broke.
func (c *api) unreachable(err error) error {
	if cut := new(client.Interrupted); errors.As(err, &cut) && cut.NeverSent() {
		err = cut.Cause
	} else if known := new(a2a.Error); errors.As(err, &known) {
		return known
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if unknown := new(tls.CertificateVerificationError); errors.As(err, &unknown) {
		return &a2a.Error{Code: "failed", Message: c.base + ": " + unknown.Err.Error(), Hint: "name the file of the authority that signed the node's certificate: --ca-file"}
	}
	return &a2a.Error{Code: "unavailable", Message: "no answer from " + c.base + ": " + rootCause(err), Hint: "is the node running? agenticraft dev starts a cluster"}
}

func rootCause(err error) string {
	if u := new(url.Error); errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}
