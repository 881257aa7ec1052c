package natsrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a"
)

// Responder answers requests with what an http.Handler says. It may be used
// concurrently.
type Responder struct {
	Conn      *nats.Conn
	KeepAlive time.Duration // default [KeepAlive]
	// MaxTime is the longest that one reply goes on; then it is cut, and the
	// client resumes. It bounds what is done for clients who have gone, of whom
	// NATS tells nobody. Default 10 minutes.
	MaxTime time.Duration
}

const (
	defaultMaxTime = 10 * time.Minute
	remoteAddr     = "nats" // whom guesses of credentials are counted by: NATS names no sender
)

// Request is one request as NATS delivered it.
type Request struct {
	Reply  string
	Header nats.Header
	Data   []byte
}

// Answer has h answer as if the request had come to it over HTTP. It returns
// when the reply is sent or ctx is done, which cuts it off.
func (s *Responder) Answer(ctx context.Context, in Request, h http.Handler, method, path string) {
	limit := s.MaxTime
	if limit == 0 {
		limit = defaultMaxTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w := &writer{conn: s.Conn, reply: in.Reply, ctx: ctx, header: http.Header{}, status: http.StatusOK}
	r, err := http.NewRequestWithContext(ctx, method, "http://nats"+path, bytes.NewReader(in.Data))
	if err != nil {
		w.refuse(a2a.Errorf(a2a.CodeInvalidRequest, "the request has no valid form"))
		return
	}
	r.RemoteAddr, r.RequestURI = remoteAddr, path
	size := 0
	outside := http.Header{}
	for name, values := range in.Header {
		for _, v := range values {
			size += len(name) + len(v)
			outside.Add(name, v) // their case counts in NATS, not here
		}
	}
	if size > maxHeaders {
		w.refuse(a2a.Errorf(a2a.CodeTooLarge, "the headers have more than %d bytes", maxHeaders))
		return
	}
	copyHeaders(r.Header.Set, outside, requestHeaders)
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPost && path == "" {
		r.URL.Path = "/"
	}

	stop := s.keepAlive(ctx, w, outside.Get(HeaderKeepAlive) != "")
	h.ServeHTTP(w, r)
	stop()
	w.finish()
}

// keepAlive gives signs of life until the function that it returns was called,
// which waits for its goroutine.
func (s *Responder) keepAlive(ctx context.Context, w *writer, asked bool) (stop func()) {
	every := s.KeepAlive
	if every == 0 {
		every = KeepAlive
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.alive(asked)
			}
		}
	})
	return func() { cancel(); work.Wait() }
}

// writer is the http.ResponseWriter that sends a reply over NATS.
type writer struct {
	conn   *nats.Conn
	reply  string
	ctx    context.Context //nolint:containedctx // of this one reply: what is written after its end is dropped
	header http.Header
	status int

	mu     sync.Mutex // guards what follows: signs of life come in between
	seq    uint64
	held   bytes.Buffer // of an answer, all; of a stream, the event that is not whole yet
	stream bool
	begun  bool // more than signs of life was sent
	failed bool // NATS did not take a message
}

const eventStream = "text/event-stream"

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) { w.status = status }

// Flush implements http.Flusher; whole events are sent as they come.
func (w *writer) Flush() {}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.ctx.Err(); err != nil {
		return 0, err // cut: who wrote it was told to stop
	}
	w.held.Write(p)
	if !w.stream && strings.HasPrefix(w.header.Get("Content-Type"), eventStream) {
		w.stream = true
	}
	for w.stream {
		event, rest, whole := bytes.Cut(w.held.Bytes(), []byte("\n\n"))
		if !whole {
			break
		}
		if err := w.event(event); err != nil {
			return 0, err
		}
		left := bytes.Clone(rest)
		w.held.Reset()
		w.held.Write(left)
	}
	return len(p), nil
}

// event sends one server-sent event. The caller holds mu.
func (w *writer) event(text []byte) error {
	header := nats.Header{}
	var data []byte
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if id, ok := bytes.CutPrefix(line, []byte("id: ")); ok {
			header.Set(HeaderEvent, string(id))
		} else if d, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			data = append(data, d...)
		}
	}
	if len(data) == 0 {
		return nil // a comment: we have signs of life of our own
	}
	return w.send(kindEvent, header, data)
}

// send sends one frame in as many messages as it needs. The caller holds mu.
func (w *writer) send(k kind, header nats.Header, data []byte) error {
	if !w.begun && k != kindAlive {
		w.begun = true
		copyHeaders(header.Set, w.header, answerHeaders)
	}
	parts := pieces(data, roomFor(w.conn.MaxPayload()))
	for i, part := range parts {
		m := &nats.Msg{Subject: w.reply, Header: nats.Header{}, Data: part}
		m.Header.Set(HeaderFrame, string(kindMore))
		if i == len(parts)-1 {
			m.Header = header
			m.Header.Set(HeaderFrame, string(k))
		}
		w.seq++
		m.Header.Set(HeaderSeq, strconv.FormatUint(w.seq, 10))
		if err := w.conn.PublishMsg(m); err != nil {
			w.failed = true // nobody can tell the client, who will miss a number
			return err
		}
	}
	return nil
}

func (w *writer) alive(asked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if (asked || w.stream) && !w.failed {
		_ = w.send(kindAlive, nats.Header{}, nil) // the next message would fail, too
	}
}

// finish sends the answer or the end of the stream.
func (w *writer) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	header := nats.Header{}
	switch {
	case w.failed:
	case w.ctx.Err() != nil:
		_ = w.send(kindCut, header, nil) // the client notices the silence otherwise
	case w.stream:
		_ = w.send(kindEnd, header, nil)
	default:
		if w.status >= http.StatusBadRequest {
			header.Set(headerErrorCode, strconv.Itoa(w.status))
			header.Set(headerError, describe(w.status, w.held.Bytes()))
		} else if w.status != http.StatusOK {
			header.Set(headerErrorCode, strconv.Itoa(w.status))
			header.Set(headerError, http.StatusText(w.status))
		}
		_ = w.send(kindAnswer, header, w.held.Bytes())
	}
}

// describe is the error in an answer, in one line.
func describe(status int, body []byte) string {
	var known struct {
		Detail string `json:"detail"`
		Error  struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	text := http.StatusText(status)
	if json.Unmarshal(body, &known) == nil {
		if known.Detail != "" {
			text = known.Detail
		} else if known.Error.Message != "" {
			text = known.Error.Message
		}
	}
	const most = 200 // bytes
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// refuse answers with an error that came before the handler.
func (w *writer) refuse(e *a2a.Error) {
	body, err := json.Marshal(map[string]any{"code": e.Code, "detail": e.Message})
	if err != nil {
		body = nil // text: cannot be
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	header := nats.Header{}
	header.Set(headerErrorCode, strconv.Itoa(http.StatusBadRequest))
	header.Set(headerError, e.Message)
	_ = w.send(kindAnswer, header, body) // there is nobody else to tell
}
