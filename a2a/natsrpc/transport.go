package natsrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// Transport is an http.RoundTripper whose way leads over NATS: with it in its
// http.Client, an A2A client for JSON-RPC speaks this binding. The host of a
// URL is a node's peer ID, or anything else for any node of the cluster; see
// [URL]. It also fetches agent cards and receipts, from the paths where an HTTP
// door has them. It may be used concurrently, and closes nothing.
type Transport struct {
	Conn    *nats.Conn    // required
	Subject string        // of the cluster; default [DefaultSubject]
	Silence time.Duration // without a sign of life after which a reply is given up; default 45 s
	// MaxReply is the largest frame in bytes, an answer or one event. Default 64 MiB.
	MaxReply int64
}

const (
	silentKeepAlives = 3
	defaultMaxReply  = 64 << 20
)

// RoundTrip implements http.RoundTripper. An error is one of the way, or of
// this side; what the node answered is in the response.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	act, payload, err := t.request(r)
	if err != nil {
		return nil, err
	}
	prefix := t.Subject
	if prefix == "" {
		prefix = DefaultSubject
	}
	m := &nats.Msg{Subject: Subject(prefix, act), Data: payload, Header: nats.Header{}}
	if node, err := identity.ParseID(r.URL.Host); err == nil {
		m.Subject = NodeSubject(prefix, node, act)
	}
	copyHeaders(m.Header.Set, r.Header, requestHeaders)
	m.Header.Set(HeaderKeepAlive, "1")
	reply, err := t.open(r.Context(), m)
	if err != nil {
		return nil, err
	}
	first, err := reply.next()
	if err != nil {
		return nil, errors.Join(err, reply.Close())
	}
	return reply.response(r, act, first)
}

// request reads what a request is in the words of the binding.
func (t *Transport) request(r *http.Request) (act string, payload []byte, err error) {
	if r.Body != nil {
		defer r.Body.Close()
		if payload, err = io.ReadAll(io.LimitReader(r.Body, a2a.MaxRequestBytes+1)); err != nil {
			return "", nil, err
		}
	}
	task, receipt := taskOfReceipt(r.URL.Path)
	switch {
	case r.Method == http.MethodPost:
		act = ActA2A
	case r.Method == http.MethodGet && r.URL.Path == a2a.CardPath:
		act = ActCard
	case r.Method == http.MethodGet && receipt:
		act = ActReceipt
		payload, err = json.Marshal(taskPayload{task})
	default:
		err = a2a.Errorf(a2a.CodeUnsupported, "%s %s has no counterpart over NATS", r.Method, r.URL.Path)
	}
	if err != nil {
		return "", nil, err
	}
	if !t.Conn.IsConnected() {
		return "", nil, a2a.Errorf(a2a.CodeUnavailable, "there is no connection to NATS")
	}
	if most := t.Conn.MaxPayload() - frameMargin; int64(len(payload)) > most {
		return "", nil, &a2a.Error{Code: a2a.CodeTooLarge, Message: fmt.Sprintf("the request has %d bytes, this NATS server takes %d", len(payload), max(most, 0)), Hint: "raise max_payload of the NATS server, or use another binding"}
	}
	return act, payload, nil
}

// open sends a request and listens for its reply.
func (t *Transport) open(ctx context.Context, m *nats.Msg) (*reply, error) {
	m.Reply = t.Conn.NewInbox()
	sub, err := t.Conn.SubscribeSync(m.Reply)
	if err != nil {
		return nil, fmt.Errorf("listen for a reply over NATS: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	p := &reply{sub: sub, conn: t.Conn, ctx: ctx, cancel: cancel, silence: t.Silence, frames: assembler{max: t.MaxReply}}
	if p.silence == 0 {
		p.silence = silentKeepAlives * KeepAlive
	}
	if p.frames.max == 0 {
		p.frames.max = defaultMaxReply
	}
	// What NATS drops while the connection is away is gone for good, so a reply
	// does not outlive it.
	p.lost = t.Conn.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	p.watched = make(chan struct{})
	go func() {
		defer close(p.watched)
		select {
		case <-p.lost:
			cancel(fmt.Errorf("the connection to NATS broke: %w", errLost))
		case <-ctx.Done():
		}
	}()
	if err := t.Conn.PublishMsg(m); err != nil {
		return nil, errors.Join(fmt.Errorf("send over NATS: %w", err), p.Close())
	}
	return p, nil
}

// reply is what comes back, as the body of an HTTP response.
type reply struct {
	sub     *nats.Subscription
	conn    *nats.Conn
	ctx     context.Context //nolint:containedctx // of the one request whose reply it is
	cancel  context.CancelCauseFunc
	lost    chan nats.Status
	watched chan struct{}
	silence time.Duration
	frames  assembler

	pending []byte // of the body, not read yet
	err     error  // what comes after it
}

// next waits for the next frame that is more than a sign of life.
func (p *reply) next() (frame, error) {
	for {
		ctx, cancel := context.WithTimeoutCause(p.ctx, p.silence, fmt.Errorf("no sign of life for %v: %w", p.silence, errLost))
		m, err := p.sub.NextMsgWithContext(ctx)
		cause := context.Cause(ctx)
		cancel()
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			return frame{}, a2a.Errorf(a2a.CodeUnavailable, "no node of the cluster listens on NATS")
		case err != nil && cause != nil:
			return frame{}, cause
		case err != nil:
			return frame{}, err
		}
		f, whole, err := p.frames.add(m)
		switch {
		case err != nil:
			return frame{}, err
		case !whole, f.kind == kindAlive:
		case f.kind == kindCut:
			return frame{}, fmt.Errorf("the node gave the reply up: %w", errLost)
		default:
			return f, nil
		}
	}
}

// response makes the HTTP response of which f is the beginning.
func (p *reply) response(r *http.Request, act string, f frame) (*http.Response, error) {
	res := &http.Response{
		StatusCode: http.StatusOK, Proto: "NATS", ProtoMajor: 1, Header: http.Header{}, Body: p, Request: r, ContentLength: -1,
	}
	outside := http.Header{}
	for name, values := range f.header {
		for _, v := range values {
			outside.Add(name, v)
		}
	}
	copyHeaders(res.Header.Set, outside, answerHeaders)
	// JSON-RPC says in its body what is wrong, and clients read no other.
	if code, err := strconv.Atoi(outside.Get(headerErrorCode)); err == nil && act != ActA2A && code >= 100 && code < 1000 {
		res.StatusCode = code
	}
	res.Status = strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode)
	switch f.kind {
	case kindAnswer:
		p.err = io.EOF
		p.pending = f.data
		if act == ActA2A && strings.Contains(r.Header.Get("Accept"), eventStream) {
			// Official clients read nothing but a stream, not even for an error.
			res.Header.Set("Content-Type", eventStream)
			p.pending = asEvent("", oneLine(f.data))
		}
	case kindEvent:
		res.Header.Set("Content-Type", eventStream)
		p.pending = asEvent(f.event, f.data)
	default:
		return nil, errors.Join(fmt.Errorf("a reply that begins with its %s: %w", f.kind, errLost), p.Close())
	}
	return res, nil
}

// Read implements io.Reader.
func (p *reply) Read(b []byte) (int, error) {
	for len(p.pending) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		f, err := p.next()
		switch {
		case err != nil:
			p.err = err
		case f.kind == kindEvent:
			p.pending = asEvent(f.event, f.data)
		case f.kind == kindEnd:
			p.err = io.EOF
		default:
			p.err = fmt.Errorf("an answer in the middle of a stream: %w", errLost)
		}
	}
	n := copy(b, p.pending)
	p.pending = p.pending[n:]
	return n, nil
}

// Close implements io.Closer.
func (p *reply) Close() error {
	p.cancel(context.Canceled)
	<-p.watched
	p.conn.RemoveStatusListener(p.lost)
	err := p.sub.Unsubscribe()
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil // gone already, and with it the subscription
	}
	return err
}

// asEvent is a server-sent event.
func asEvent(id string, data []byte) []byte {
	var out bytes.Buffer
	if id != "" {
		fmt.Fprintf(&out, "id: %s\n", strings.Map(func(r rune) rune {
			if r < ' ' {
				return -1
			}
			return r
		}, id))
	}
	out.WriteString("data: ")
	out.Write(oneLine(data))
	out.WriteString("\n\n")
	return out.Bytes()
}

// oneLine is JSON without line breaks, which would end the event early.
func oneLine(data []byte) []byte {
	if !bytes.ContainsAny(data, "\r\n") {
		return data
	}
	var out bytes.Buffer
	if json.Compact(&out, data) != nil {
		return bytes.Map(func(r rune) rune {
			if r == '\r' || r == '\n' {
				return ' '
			}
			return r
		}, data)
	}
	return out.Bytes()
}
