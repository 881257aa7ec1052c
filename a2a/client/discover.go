package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// Discover makes a client of a node from its agent card, which it fetches
// below base ("http://HOST:PORT") and verifies. The card gives the URL, and
// the audience if cfg has none. With cfg.Node set, a card that this node did
// not sign is refused; without, keep what [Client.Node] says, and set it the
// next time. An error is an [a2a.Error].
func Discover(ctx context.Context, base string, cfg Config) (*Client, error) {
	cfg.URL = strings.TrimSuffix(base, "/") + "/"
	audience := cfg.Audience
	if audience == "" {
		cfg.Audience = "unknown" // for the card, nothing is signed
	}
	c, err := New(cfg)
	if err != nil {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "%v", err)
	}
	card, signer, err := c.Card(ctx)
	if err != nil {
		return nil, err
	}
	if cfg.URL, err = jsonRPC(card); err != nil {
		return nil, err
	}
	cfg.Audience = audience
	if audience == "" && cfg.Key != nil {
		if cfg.Audience, err = a2a.CardAudience(card); err != nil {
			return nil, err
		}
	}
	if c, err = New(cfg); err != nil {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "%v", err)
	}
	c.node = signer
	return c, nil
}

// jsonRPC is the URL of the card's first interface that we speak.
func jsonRPC(card *sdk.AgentCard) (string, error) {
	for _, i := range card.SupportedInterfaces {
		if i != nil && i.ProtocolBinding == sdk.TransportProtocolJSONRPC && a2a.SameVersion(string(i.ProtocolVersion)) && i.Tenant == "" {
			return i.URL, nil
		}
	}
	return "", a2a.Errorf(a2a.CodeUnsupported, "the agent card names no JSON-RPC interface of A2A %s", a2a.Version)
}

// Node is who signed the card that [Discover] read, else Config.Node.
func (c *Client) Node() identity.ID { return c.node }

// Card fetches the server's agent card and says who signed it; a card that is
// not signed, or not by Config.Node if that is set, is an error.
func (c *Client) Card(ctx context.Context) (*sdk.AgentCard, identity.ID, error) {
	raw, err := c.fetch(ctx, a2a.CardPath, false, a2a.MaxCardBytes)
	if err != nil {
		return nil, "", err
	}
	if c.cfg.Node != "" {
		card, err := a2a.VerifyCardBy(raw, c.cfg.Node)
		return card, c.cfg.Node, err
	}
	return a2a.VerifyCard(raw)
}

// maxReceipt is the largest receipt that is read, in bytes.
const maxReceipt = 16 << 20

// Receipt fetches the receipt of a task that has ended: proof of who asked,
// what was decided and what came out, for [audit.VerifyReceipt] or `agenticraft
// verify`, which need no node.
//
// [audit.VerifyReceipt]: https://pkg.go.dev/github.com/agenticraft/node/audit#VerifyReceipt
func (c *Client) Receipt(ctx context.Context, task string) ([]byte, error) {
	if !a2a.ValidTaskID(task) {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "%.40q is not the id of a task", task)
	}
	return c.fetch(ctx, "/v1/tasks/"+task+"/receipt", true, maxReceipt)
}

// fetch gets a document of the server, with our credential if it needs one.
func (c *Client) fetch(ctx context.Context, path string, proved bool, most int64) ([]byte, error) {
	u, err := url.Parse(c.cfg.URL)
	if err != nil {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "URL: %v", err)
	}
	u.Path, u.RawQuery = path, ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "URL: %v", err)
	}
	if proved {
		token, err := c.token()
		if err != nil {
			return nil, err
		}
		for name, values := range c.params(nil, token) {
			req.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	raw, err := again(ctx, c, true, func() ([]byte, error) {
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		return io.ReadAll(io.LimitReader(resp.Body, most+1))
	})
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > most {
		return nil, a2a.Errorf(a2a.CodeTooLarge, "%s has more than %d bytes", path, most)
	}
	return raw, nil
}

// Wait waits until a task has ended and returns it.
func (c *Client) Wait(ctx context.Context, task string) (*sdk.Task, error) {
	for {
		now, err := c.Get(ctx, task, nil)
		if err != nil || now.Status.State.Terminal() {
			return now, err
		}
		for _, err := range c.Subscribe(ctx, task, nil) {
			if e, ok := err.(*a2a.Error); ok && e.Code == a2a.CodeUnsupported { //nolint:errorlint // an Interrupted is none
				break // it ended meanwhile
			}
			if err != nil {
				return nil, err
			}
		}
		if ctx.Err() != nil {
			return nil, wire(ctx.Err())
		}
	}
}
