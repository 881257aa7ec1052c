// Package client calls an A2A server: it signs requests inside the SDK's
// JSON-RPC transport, over TCP or any HTTP client that dials elsewhere, and
// turns every failure into an [a2a.Error].
//
// A signed request is the same task however often it is sent, so when the
// connection breaks it is sent again, and a stream goes on after the last event
// that came; Config.Resume says for how long. Of the rest only what reads is
// repeated. Whoever wants to repeat a request himself signs it once
// ([Client.Signed]) and sends the same bytes again ([Client.SendRaw]).
package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// Config of a client.
type Config struct {
	URL        string        // of the JSON-RPC binding; required
	HTTPClient *http.Client  // default: a new one; its Timeout must be 0 for long runs
	Key        *identity.Key // signs requests, and tokens for operations that carry none
	APIKey     string        // sent as a bearer token; without it and Key the channel must prove us
	Audience   string        // whom requests are signed for, see a2a.Audience; required with Key
	TTL        time.Duration // of signatures; default 2 minutes
	MaxReply   int64         // bytes of one answer or stream; default 256 MiB
	Version    string        // A2A version to ask for; default [a2a.Version]
	Node       identity.ID   // who must have signed the agent card; default: anybody
	// Resume is how long a connection that broke is tried again before that is
	// an error. Default 30 seconds; negative: not at all.
	Resume time.Duration
}

// Client calls one server. It may be used concurrently.
type Client struct {
	cfg       Config
	http      *http.Client
	transport a2aclient.Transport
	node      identity.ID
	calls     atomic.Uint64 // ids of what sendMessage sends
}

const defaultMaxReply = 256 << 20

// New makes a client. It opens no connection.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("a2a client: URL %q is not an http URL", cfg.URL)
	}
	if cfg.Key != nil && cfg.Audience == "" {
		return nil, errors.New("a2a client: Audience is required with Key")
	}
	if cfg.Version == "" {
		cfg.Version = a2a.Version
	}
	if cfg.MaxReply == 0 {
		cfg.MaxReply = defaultMaxReply
	}
	if cfg.Resume == 0 {
		cfg.Resume = defaultResume
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = &http.Client{}
	}
	hc := *cfg.HTTPClient
	hc.Transport = &roundTripper{next: hc.Transport, max: cfg.MaxReply}
	return &Client{cfg: cfg, http: &hc, transport: a2aclient.NewJSONRPCTransport(cfg.URL, &hc), node: cfg.Node}, nil
}

// Send sends a request and waits for its task to end, unless the request says
// returnImmediately. header may add HTTP headers, or be nil.
func (c *Client) Send(ctx context.Context, req *sdk.SendMessageRequest, header http.Header) (*sdk.Task, error) {
	req, err := c.sign(req)
	if err != nil {
		return nil, err
	}
	result, err := again(ctx, c, a2a.IsSigned(req), func() (sdk.SendMessageResult, error) {
		return c.sendMessage(ctx, c.params(header, ""), req)
	})
	if err != nil {
		return nil, err
	}
	task, ok := result.(*sdk.Task)
	if !ok {
		return nil, a2a.Errorf(a2a.CodeInternal, "the server answered with a %T instead of a task", result)
	}
	return task, nil
}

// Run sends an execution and waits for its report.
func (c *Client) Run(ctx context.Context, e a2a.Execution) (a2a.Report, error) {
	req, err := a2a.NewRequest(e)
	if err != nil {
		return a2a.Report{}, err
	}
	nothing := 0 // the caller has what he sent
	req.Config = &sdk.SendMessageConfig{HistoryLength: &nothing}
	task, err := c.Send(ctx, req, nil)
	if err != nil {
		return a2a.Report{}, err
	}
	return a2a.ReportOf(task)
}

// Signed signs a request without sending it and returns the JSON to keep and
// to send by [Client.SendRaw].
func (c *Client) Signed(req *sdk.SendMessageRequest) ([]byte, error) {
	signed, err := c.sign(req)
	if err != nil {
		return nil, err
	}
	if !a2a.IsSigned(signed) {
		return nil, a2a.Errorf(a2a.CodeSignatureMissing, "this client has no key to sign with")
	}
	return a2a.MarshalRequest(signed)
}

// SendSigned signs and sends a request and returns, with the task, the signed
// JSON. That is returned even when sending failed: the request may have
// arrived, and the same bytes may be sent again.
func (c *Client) SendSigned(ctx context.Context, req *sdk.SendMessageRequest, header http.Header) (*sdk.Task, []byte, error) {
	raw, err := c.Signed(req)
	if err != nil {
		return nil, nil, err
	}
	task, err := c.SendRaw(ctx, raw, header)
	return task, raw, err
}

// SendRaw sends a signed request as it is, such as one that another signed.
func (c *Client) SendRaw(ctx context.Context, raw []byte, header http.Header) (*sdk.Task, error) {
	req, err := signedRequest(raw)
	if err != nil {
		return nil, err
	}
	return c.Send(ctx, req, header)
}

// Stream sends a request and yields its task, then what happens until its end.
// It ends with the first error.
func (c *Client) Stream(ctx context.Context, req *sdk.SendMessageRequest, header http.Header) iter.Seq2[sdk.Event, error] {
	req, err := c.sign(req)
	if err != nil {
		return func(yield func(sdk.Event, error) bool) { yield(nil, err) }
	}
	open := func(ctx context.Context) iter.Seq2[sdk.Event, error] { return c.streamOnce(ctx, req, header) }
	if c.cfg.Resume < 0 {
		return open(ctx)
	}
	return c.resumed(ctx, header, "", a2a.IsSigned(req), open)
}

// streamOnce is the stream of a request over one connection.
func (c *Client) streamOnce(ctx context.Context, req *sdk.SendMessageRequest, header http.Header) iter.Seq2[sdk.Event, error] {
	req, err := c.sign(req)
	if err != nil {
		return func(yield func(sdk.Event, error) bool) { yield(nil, err) }
	}
	return wired(c.transport.SendStreamingMessage(ctx, c.params(header, ""), req))
}

// StreamRaw is [Client.Stream] for a signed request as it is.
func (c *Client) StreamRaw(ctx context.Context, raw []byte, header http.Header) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		req, err := signedRequest(raw)
		if err != nil {
			yield(nil, err)
			return
		}
		for e, err := range c.Stream(ctx, req, header) {
			if !yield(e, err) {
				return
			}
		}
	}
}

// Get reads a task.
func (c *Client) Get(ctx context.Context, task string, header http.Header) (*sdk.Task, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	return again(ctx, c, true, func() (*sdk.Task, error) {
		return c.transport.GetTask(ctx, c.params(header, token), &sdk.GetTaskRequest{ID: sdk.TaskID(task)})
	})
}

// List reads one page of the tasks that the caller may see.
func (c *Client) List(ctx context.Context, req *sdk.ListTasksRequest, header http.Header) (*sdk.ListTasksResponse, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	return again(ctx, c, true, func() (*sdk.ListTasksResponse, error) {
		return c.transport.ListTasks(ctx, c.params(header, token), req)
	})
}

// Cancel asks a task to stop and waits until it has.
func (c *Client) Cancel(ctx context.Context, task string, header http.Header) (*sdk.Task, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	out, err := c.transport.CancelTask(ctx, c.params(header, token), &sdk.CancelTaskRequest{ID: sdk.TaskID(task)})
	return out, wire(err)
}

// Subscribe follows a task that has not ended.
func (c *Client) Subscribe(ctx context.Context, task string, header http.Header) iter.Seq2[sdk.Event, error] {
	open := func(ctx context.Context) iter.Seq2[sdk.Event, error] { return c.subscribe(ctx, task, header) }
	if c.cfg.Resume < 0 {
		return open(ctx)
	}
	return c.resumed(ctx, header, task, true, open)
}

func (c *Client) subscribe(ctx context.Context, task string, header http.Header) iter.Seq2[sdk.Event, error] {
	token, err := c.token()
	if err != nil {
		return func(yield func(sdk.Event, error) bool) { yield(nil, err) }
	}
	return wired(c.transport.SubscribeToTask(ctx, c.params(header, token), &sdk.SubscribeToTaskRequest{ID: sdk.TaskID(task)}))
}

func (c *Client) sign(req *sdk.SendMessageRequest) (*sdk.SendMessageRequest, error) {
	if c.cfg.Key == nil || a2a.IsSigned(req) {
		return req, nil
	}
	return a2a.Sign(c.cfg.Key, req, a2a.SignOptions{Audience: c.cfg.Audience, TTL: c.cfg.TTL})
}

// token proves us for an operation that carries no signature. A token is good
// for anything that its bearer may do, so it is never sent where the request's
// own signature serves.
func (c *Client) token() (string, error) {
	if c.cfg.APIKey != "" || c.cfg.Key == nil {
		return "", nil
	}
	return a2a.SignToken(c.cfg.Key, a2a.SignOptions{Audience: c.cfg.Audience, TTL: c.cfg.TTL})
}

func (c *Client) params(header http.Header, token string) a2aclient.ServiceParams {
	out := a2aclient.ServiceParams{sdk.SvcParamVersion: {c.cfg.Version}}
	if c.cfg.APIKey != "" {
		token = c.cfg.APIKey
	}
	if token != "" {
		out["Authorization"] = []string{"Bearer " + token}
	}
	for name, values := range header {
		out[http.CanonicalHeaderKey(name)] = values
	}
	return out
}

func signedRequest(raw []byte) (*sdk.SendMessageRequest, error) {
	req, err := a2a.ParseRequest(raw)
	if err != nil {
		return nil, err
	}
	if !a2a.IsSigned(req) {
		return nil, a2a.Errorf(a2a.CodeSignatureMissing, "the request is not signed")
	}
	return req, nil
}

func wired(events iter.Seq2[sdk.Event, error]) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		for e, err := range events {
			if !yield(e, wire(err)) || err != nil {
				return
			}
		}
	}
}
