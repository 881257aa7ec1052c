package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/a2aproject/a2a-go/v2/errordetails"

	"github.com/agenticraft/node/a2a"
)

// JSON-RPC and A2A error codes (A2A 1.0.1, 5.4 and 9.5).
const (
	rpcParseError     = -32700
	rpcInvalidRequest = -32600
	rpcMethodNotFound = -32601
	rpcInternal       = -32603
)

var rpcCodes = map[error]int{
	sdk.ErrInvalidRequest:               rpcInvalidRequest,
	sdk.ErrInvalidParams:                -32602,
	sdk.ErrInternalError:                rpcInternal,
	sdk.ErrServerError:                  -32000,
	sdk.ErrTaskNotFound:                 -32001,
	sdk.ErrTaskNotCancelable:            -32002,
	sdk.ErrPushNotificationNotSupported: -32003,
	sdk.ErrUnsupportedOperation:         -32004,
	sdk.ErrUnsupportedContentType:       -32005,
	sdk.ErrExtensionSupportRequired:     -32008,
	sdk.ErrVersionNotSupported:          -32009,
	sdk.ErrUnauthenticated:              -31401,
	sdk.ErrUnauthorized:                 -31403,
}

// rpcError is an answer. Code 0 follows from the error.
type rpcError struct {
	code int
	err  *a2a.Error
}

func (e *rpcError) Error() string { return e.err.Error() }

// body is the whole JSON-RPC answer.
func (e *rpcError) body(id json.RawMessage) []byte {
	type rpc struct {
		Code    int                   `json:"code"`
		Message string                `json:"message"`
		Data    []*errordetails.Typed `json:"data"`
	}
	code := e.code
	if code == 0 {
		code = rpcInternal
		if c, ok := rpcCodes[e.err.Unwrap()]; ok {
			code = c
		}
	}
	out, err := json.Marshal(struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   rpc             `json:"error"`
	}{"2.0", idOf(id), rpc{code, e.err.Error(), []*errordetails.Typed{e.err.Info()}}})
	if err != nil { // an id that is no JSON: cannot be, it was parsed
		return []byte(`{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"internal error"}}`)
	}
	return out
}

// failure remembers the error of a call, which the codec would flatten.
type failure struct {
	err atomic.Pointer[rpcError]
	log *slog.Logger
}

// note turns any error into one fit for the caller and remembers it.
func note(ctx context.Context, err error) {
	f, ok := ctx.Value(failureKey).(*failure)
	if !ok || err == nil {
		return
	}
	if e, ok := errors.AsType[*a2a.Error](err); ok {
		f.err.Store(&rpcError{err: e})
		return
	}
	if ctx.Err() != nil {
		f.err.Store(&rpcError{err: a2a.Errorf(a2a.CodeUnavailable, "the request ended before its answer")})
		return
	}
	f.err.Store(&rpcError{err: internalError(ctx, f.log, err)})
}

// internalError logs err under a reference, which is all that the caller is
// told.
func internalError(ctx context.Context, log *slog.Logger, err error) *a2a.Error {
	var ref [4]byte
	rand.Read(ref[:])
	log.ErrorContext(ctx, "request failed", "reference", hex.EncodeToString(ref[:]), "err", err)
	return a2a.Errorf(a2a.CodeInternal, "internal error (reference %x)", ref)
}

// reply writes the codec's answer with our errors, headers held back until the
// first event, and a deadline for each write.
type reply struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration // of one write
	failure *failure
	id      json.RawMessage
	status  int
	begun   bool
	failed  bool
	asEvent bool // the client reads nothing but a stream, not even for an error
	rest    bool // errors are a google.rpc.Status, with an HTTP status of their own
	written int
	numbers numbers // of the events to come
	pending []byte  // the id line of the event that comes next
}

var (
	frameID     = []byte("id: ")
	frameData   = []byte("data: ")
	eventStream = "text/event-stream"
)

func newReply(w http.ResponseWriter, r *http.Request, timeout time.Duration) *reply {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	return &reply{
		ResponseWriter: w,
		control:        http.NewResponseController(w),
		timeout:        timeout,
		failure:        new(failure),
		status:         http.StatusOK,
		asEvent:        strings.Contains(accept, eventStream) && !strings.Contains(accept, "application/json"),
	}
}

// WriteHeader waits for the first byte, which decides what the answer is.
func (r *reply) WriteHeader(status int) { r.status = status }

// Flush implements http.Flusher.
func (r *reply) Flush() {
	if r.begun {
		r.control.Flush() //nolint:errcheck // the next write will say
	}
}

// Write implements io.Writer.
func (r *reply) Write(p []byte) (int, error) {
	if r.failed {
		return len(p), nil // what the codec makes of an error that is answered
	}
	streaming := r.Header().Get("Content-Type") == eventStream
	if streaming && bytes.HasPrefix(p, frameID) { // random, good for nothing: ours goes with the data
		r.pending = r.pending[:0]
		if n, ok := r.numbers.pop(); ok {
			r.pending = append(strconv.AppendUint(append(r.pending, frameID...), n, 10), '\n')
		}
		return len(p), nil
	}
	if e := r.failure.err.Load(); (e != nil || !r.begun) && r.isError(bytes.TrimPrefix(p, frameData)) {
		if e == nil { // the codec refused it before the handler saw it
			e = malformed(bytes.TrimPrefix(p, frameData))
		}
		r.fail(e)
		return len(p), nil
	}
	if r.rest && !r.begun && !streaming {
		r.Header().Set("Content-Type", "application/a2a+json")
	}
	data := streaming && bytes.HasPrefix(p, frameData)
	head, rest := r.readdress(p)
	if data && len(r.pending) > 0 {
		head = append(r.pending, head...)
		r.pending = head[:0]
	}
	if len(head) > 0 {
		if _, err := r.write(head); err != nil {
			return 0, err
		}
	}
	if _, err := r.write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}

// codecStart begins each answer of the JSON-RPC codec.
var codecStart = []byte(`{"jsonrpc":"2.0","id":` + codecID)

// readdress gives what to write in place of the beginning of p, for the answer to
// bear the client's own id, and what follows of p. It adds the result that the
// codec leaves out where there is nothing to say: JSON-RPC wants one.
func (r *reply) readdress(p []byte) (head, rest []byte) {
	rest, ok := bytes.CutPrefix(p, codecStart)
	if r.rest || !ok {
		return nil, p
	}
	head = append(append(head, codecStart[:len(codecStart)-len(codecID)]...), idOf(r.id)...)
	if rest[0] == '}' {
		head = append(head, `,"result":{}`...)
	}
	return head, rest
}

// answer is the whole answer to a JSON-RPC request that went well.
func (r *reply) answer(result []byte) {
	r.Header().Set("Content-Type", "application/json")
	r.write(append(r.appendAnswer(nil, result), '\n')) //nolint:errcheck // the client has gone
}

// appendAnswer adds a JSON-RPC answer with a result to out.
func (r *reply) appendAnswer(out, result []byte) []byte {
	out = slices.Grow(out, len(result)+len(r.id)+64)
	out = append(append(out, `{"jsonrpc":"2.0","id":`...), idOf(r.id)...)
	return append(append(append(out, `,"result":`...), result...), '}')
}

// idOf is the id of an answer.
func idOf(id json.RawMessage) json.RawMessage {
	if len(id) == 0 {
		return json.RawMessage("null")
	}
	return id
}

// fail answers with an error: as an event if a stream has begun or if the
// client accepts only a stream (the official Go and JavaScript clients read no
// other answer to a streaming request), else plainly.
func (r *reply) fail(e *rpcError) {
	body := e.body(r.id)
	r.failed = true
	h := r.Header()
	if r.rest {
		r.status, body = e.status()
		if !r.begun && e.err.RetryAfter > 0 {
			h.Set("Retry-After", strconv.Itoa(int((e.err.RetryAfter+time.Second-1)/time.Second)))
		}
	}
	switch {
	case r.begun && h.Get("Content-Type") == eventStream, !r.begun && r.asEvent:
		h.Set("Content-Type", eventStream)
		body = append(append(slices.Clip(frameData), body...), "\n\n"...)
	default:
		h.Set("Content-Type", "application/json")
		h.Del("X-Accel-Buffering")
	}
	r.write(body) //nolint:errcheck // the client has gone
	r.finish()
}

func (r *reply) write(p []byte) (int, error) {
	r.control.SetWriteDeadline(time.Now().Add(r.timeout)) //nolint:errcheck // not every writer has one
	if !r.begun {
		r.begun = true
		r.ResponseWriter.WriteHeader(r.status)
	}
	n, err := r.ResponseWriter.Write(p)
	r.written += n
	return n, err
}

// finish sends what is buffered while the deadline holds, then takes it away:
// the connection may serve others.
func (r *reply) finish() {
	const buffered = 2 << 10 // bytes that net/http keeps until the handler returns
	if r.written > buffered {
		r.control.Flush() //nolint:errcheck // the client has gone
	}
	r.control.SetWriteDeadline(time.Time{}) //nolint:errcheck // not every writer has one
}

// isError reports whether the codec's answer is an error.
func (r *reply) isError(frame []byte) bool {
	if !r.rest {
		rest, _ := bytes.CutPrefix(frame, codecStart)
		return bytes.HasPrefix(rest, []byte(`,"error":`))
	}
	var answer struct {
		Error json.RawMessage `json:"error"`
	}
	return json.Unmarshal(frame, &answer) == nil && len(answer.Error) > 0
}

// malformed is the codec's own refusal in our words, with what it says of it.
func malformed(frame []byte) *rpcError {
	var answer struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(frame, &answer) != nil || answer.Error.Message == "" {
		return badParameter("it cannot be read")
	}
	return badParameter(answer.Error.Message)
}

func badParameter(why string) *rpcError {
	return &rpcError{0, a2a.Errorf(a2a.CodeInvalidRequest, "a parameter of the request is malformed: %s", a2a.Clip(why))}
}

// noting is a handler whose errors are noted.
type noting struct{ a2asrv.RequestHandler }

func noted[T any](ctx context.Context, v T, err error) (T, error) {
	note(ctx, err)
	return v, err
}

func notedAll(ctx context.Context, events iter.Seq2[sdk.Event, error]) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		for e, err := range events {
			note(ctx, err)
			if !yield(e, err) {
				return
			}
		}
	}
}

func (n noting) GetTask(ctx context.Context, req *sdk.GetTaskRequest) (*sdk.Task, error) {
	v, err := n.RequestHandler.GetTask(ctx, req)
	return noted(ctx, v, err)
}

func (n noting) ListTasks(ctx context.Context, req *sdk.ListTasksRequest) (*sdk.ListTasksResponse, error) {
	v, err := n.RequestHandler.ListTasks(ctx, req)
	return noted(ctx, v, err)
}

func (n noting) CancelTask(ctx context.Context, req *sdk.CancelTaskRequest) (*sdk.Task, error) {
	v, err := n.RequestHandler.CancelTask(ctx, req)
	return noted(ctx, v, err)
}

func (n noting) SendMessage(ctx context.Context, req *sdk.SendMessageRequest) (sdk.SendMessageResult, error) {
	v, err := n.RequestHandler.SendMessage(ctx, req)
	return noted(ctx, v, err)
}

func (n noting) SubscribeToTask(ctx context.Context, req *sdk.SubscribeToTaskRequest) iter.Seq2[sdk.Event, error] {
	return notedAll(ctx, n.RequestHandler.SubscribeToTask(ctx, req))
}

func (n noting) SendStreamingMessage(ctx context.Context, req *sdk.SendMessageRequest) iter.Seq2[sdk.Event, error] {
	return notedAll(ctx, n.RequestHandler.SendStreamingMessage(ctx, req))
}

func (n noting) GetTaskPushConfig(ctx context.Context, req *sdk.GetTaskPushConfigRequest) (*sdk.PushConfig, error) {
	v, err := n.RequestHandler.GetTaskPushConfig(ctx, req)
	return noted(ctx, v, err)
}

func (n noting) ListTaskPushConfigs(ctx context.Context, req *sdk.ListTaskPushConfigRequest) (*sdk.ListTaskPushConfigResponse, error) {
	v, err := n.RequestHandler.ListTaskPushConfigs(ctx, req)
	return noted(ctx, v, err)
}

func (n noting) CreateTaskPushConfig(ctx context.Context, req *sdk.PushConfig) (*sdk.PushConfig, error) {
	v, err := n.RequestHandler.CreateTaskPushConfig(ctx, req)
	return noted(ctx, v, err)
}

func (n noting) DeleteTaskPushConfig(ctx context.Context, req *sdk.DeleteTaskPushConfigRequest) error {
	err := n.RequestHandler.DeleteTaskPushConfig(ctx, req)
	note(ctx, err)
	return err
}

func (n noting) GetExtendedAgentCard(ctx context.Context, req *sdk.GetExtendedAgentCardRequest) (*sdk.AgentCard, error) {
	v, err := n.RequestHandler.GetExtendedAgentCard(ctx, req)
	return noted(ctx, v, err)
}
