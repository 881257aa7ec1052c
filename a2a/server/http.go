package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/a2aproject/a2a-go/v2/log"
	"google.golang.org/protobuf/proto"

	"github.com/agenticraft/node/a2a"
)

// DelegationHeader carries one node's signed decision to another, as base64url.
const DelegationHeader = "Agenticraft-Delegation"

const (
	maxDelegation    = 64 << 10 // bytes of the header
	maxRefused       = 64 << 10 // bytes of a request that are read for its id alone
	defaultRead      = 30 * time.Second
	defaultWrite     = 30 * time.Second
	defaultKeepAlive = 15 * time.Second
)

// HTTPConfig of the JSON-RPC and the HTTP+JSON binding.
type HTTPConfig struct {
	Handler      a2asrv.RequestHandler // required; a *Handler
	MaxBody      int64                 // bytes; default [a2a.MaxRequestBytes]
	ReadTimeout  time.Duration         // for a whole body; default 30 s
	WriteTimeout time.Duration         // for each write to a slow reader; default 30 s
	KeepAlive    time.Duration         // between signs of life on an idle stream; default 15 s
	Log          *slog.Logger          // default: none
}

// HTTP is the A2A JSON-RPC binding: the SDK's codec (but for the one call that must
// be quick, see [binding.sendMessage]), and around it what the codec lacks. The door has put its caller into the request's context by
// [WithCaller]. What it adds, each to be deleted when the SDK does it:
//
//   - A2A-Version must be 1.0, in the header or the query; a missing one means
//     0.3 by the specification (3.6) and is refused;
//   - the Content-Type must be JSON;
//   - a body has a size cap and a deadline; a write has a deadline;
//   - garbage is -32700, a wrong or missing params -32602, an unknown method
//     -32601, and duplicate members are refused;
//   - params may be written in snake_case, as ProtoJSON allows;
//   - an error before the first event of a stream is a plain JSON answer, unless
//     the client accepts nothing but a stream;
//   - the id of the answer is the request's, whatever number it is;
//   - errors carry a google.rpc.ErrorInfo that gives the code of [a2a.Error].
func HTTP(cfg HTTPConfig) http.Handler {
	cfg = cfg.withDefaults()
	return &binding{
		cfg:   cfg,
		codec: a2asrv.NewJSONRPCHandler(noting{cfg.Handler}, a2asrv.WithTransportKeepAlive(cfg.KeepAlive)),
	}
}

func (cfg HTTPConfig) withDefaults() HTTPConfig {
	if cfg.MaxBody == 0 {
		cfg.MaxBody = a2a.MaxRequestBytes
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = defaultRead
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = defaultWrite
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = defaultKeepAlive
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

type binding struct {
	cfg   HTTPConfig
	codec http.Handler
}

// envelope is a JSON-RPC request.
type envelope struct {
	JSONRPC string
	ID      json.RawMessage
	Method  string
	Params  json.RawMessage
}

// methods gives each method the message that its params must be.
var methods = map[string]func() proto.Message{
	"SendMessage":                      func() proto.Message { return new(a2apb.SendMessageRequest) },
	"SendStreamingMessage":             func() proto.Message { return new(a2apb.SendMessageRequest) },
	"GetTask":                          func() proto.Message { return new(a2apb.GetTaskRequest) },
	"ListTasks":                        func() proto.Message { return new(a2apb.ListTasksRequest) },
	"CancelTask":                       func() proto.Message { return new(a2apb.CancelTaskRequest) },
	"SubscribeToTask":                  func() proto.Message { return new(a2apb.SubscribeToTaskRequest) },
	"CreateTaskPushNotificationConfig": func() proto.Message { return new(a2apb.TaskPushNotificationConfig) },
	"GetTaskPushNotificationConfig":    func() proto.Message { return new(a2apb.GetTaskPushNotificationConfigRequest) },
	"ListTaskPushNotificationConfigs":  func() proto.Message { return new(a2apb.ListTaskPushNotificationConfigsRequest) },
	"DeleteTaskPushNotificationConfig": func() proto.Message { return new(a2apb.DeleteTaskPushNotificationConfigRequest) },
	"GetExtendedAgentCard":             func() proto.Message { return new(a2apb.GetExtendedAgentCardRequest) },
}

// mayLackParams are the methods without a required parameter.
var mayLackParams = []string{"ListTasks", "GetExtendedAgentCard"}

// ServeHTTP implements http.Handler.
func (b *binding) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := newReply(w, r, b.cfg.WriteTimeout)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		out.status = http.StatusMethodNotAllowed
		out.fail(&rpcError{rpcInvalidRequest, a2a.Errorf(a2a.CodeInvalidRequest, "JSON-RPC requests are sent by POST")})
		return
	}
	ctx, in, err := b.accept(w, r, out)
	if err != nil {
		out.fail(err)
		return
	}
	echoExtensions(w, r)
	switch {
	case in.send != nil:
		b.sendMessage(ctx, out, r, in.send)
	case in.method == sendStream, in.method == subscribe:
		b.stream(ctx, out, r, in)
	default:
		b.ask(ctx, out, r, in)
	}
	out.finish()
}

// ask has the SDK's codec answer.
func (b *binding) ask(ctx context.Context, out *reply, r *http.Request, in accepted) {
	body := slices.Concat([]byte(`{"jsonrpc":"2.0","id":`+codecID+`,"method":"`+in.method+`","params":`), in.params, []byte("}"))
	inner := r.WithContext(ctx)
	inner.Body = io.NopCloser(bytes.NewReader(body))
	inner.ContentLength = int64(len(body))
	b.codec.ServeHTTP(out, inner)
}

// accepted is a request that may go on: for the codec, or read already.
type accepted struct {
	method string
	params []byte // in the form that the SDK reads
	send   *sdk.SendMessageRequest
}

// accept does everything that comes before the codec. What is wrong with the headers
// is said when the body was read, which holds the id of the answer.
func (b *binding) accept(w http.ResponseWriter, r *http.Request, out *reply) (context.Context, accepted, *rpcError) {
	var in accepted
	if r.ContentLength > b.cfg.MaxBody {
		b.discard(w, r)
		return nil, in, b.tooLarge()
	}
	body, err := b.readBody(w, r)
	if err != nil {
		return nil, in, err
	}
	delegation, relayed, err := b.readHeaders(r)
	if err != nil {
		noteID(body, out)
		return nil, in, err
	}
	if call, ok := a2a.ReadCall(body); ok {
		in.send, out.id = call.Request, call.ID
	} else if in.method, in.params, err = normalize(body, out); err != nil {
		return nil, in, err
	}
	ctx, err := b.prepare(r, out)
	if err != nil {
		return nil, in, err
	}
	if delegation != nil {
		ctx = context.WithValue(ctx, delegationKey, delegation)
	}
	if relayed != "" {
		ctx = context.WithValue(ctx, doorKey, relayed)
	}
	return ctx, in, nil
}

// readHeaders checks the headers, and reads what only nodes send.
func (b *binding) readHeaders(r *http.Request) (delegation []byte, relayed string, err *rpcError) {
	if err = b.checkHeaders(r); err != nil {
		return nil, "", err
	}
	if delegation, err = readDelegation(r); err != nil {
		return nil, "", err
	}
	relayed, err = readDoor(r)
	return delegation, relayed, err
}

// prepare makes the context in which the codec runs.
func (b *binding) prepare(r *http.Request, out *reply) (context.Context, *rpcError) {
	out.failure.log = b.cfg.Log
	// What the codec itself logs is about clients that have gone.
	ctx := log.AttachLogger(r.Context(), slog.New(slog.DiscardHandler))
	return withResume(context.WithValue(ctx, failureKey, out.failure), r, &out.numbers)
}

// Refuse answers a request whose credential the door did not accept, with its id if
// it is not long.
func (b *binding) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	out := newReply(w, r, b.cfg.WriteTimeout)
	if r.Method == http.MethodPost && r.ContentLength > 0 && r.ContentLength <= min(maxRefused, b.cfg.MaxBody) {
		if body, late := b.readBody(w, r); late == nil {
			noteID(body, out)
		}
	} else {
		b.discard(w, r)
	}
	refuse(out, err, b.cfg.Log)
}

func refuse(out *reply, err error, log *slog.Logger) {
	e, ok := errors.AsType[*a2a.Error](err)
	if !ok {
		e = internalError(context.Background(), log, err)
	}
	rest := &rpcError{err: e}
	out.status, _ = rest.status()
	if out.status == http.StatusUnauthorized {
		out.Header().Set("WWW-Authenticate", `Bearer realm="agenticraft"`)
	}
	out.Header().Set("Connection", "close") // the body may not have been read whole
	out.asEvent = false
	out.fail(rest)
}

// checkVersion refuses what is not our version of the protocol; a missing one
// means 0.3 (3.6).
func checkVersion(version string) *a2a.Error {
	if a2a.SameVersion(version) {
		return nil
	}
	return &a2a.Error{
		Code:    a2a.CodeVersion,
		Message: "A2A version " + quoteVersion(version) + " is not supported",
		Hint:    "send the header A2A-Version: " + a2a.Version,
	}
}

// versionOf reads the version from the header or the query.
func versionOf(r *http.Request) string {
	if version := oneHeader(r, sdk.SvcParamVersion); version != "" {
		return version
	}
	return r.URL.Query().Get(sdk.SvcParamVersion)
}

// oneHeader is a header that there may be once. Of several lines it is their list
// (RFC 9110, 5.3), which is none of its values: which of them another reader would
// heed, we cannot know.
func oneHeader(r *http.Request, name string) string {
	return strings.Join(r.Header.Values(name), ", ")
}

// checkHeaders checks the headers that say what the request is.
func (b *binding) checkHeaders(r *http.Request) *rpcError {
	if err := checkVersion(versionOf(r)); err != nil {
		return &rpcError{0, err}
	}
	kind, params, err := mime.ParseMediaType(oneHeader(r, "Content-Type"))
	charset := params["charset"]
	if err != nil || (kind != "application/json" && kind != "application/a2a+json") || r.Header.Get("Content-Encoding") != "" ||
		charset != "" && !strings.EqualFold(charset, "utf-8") {
		return &rpcError{0, &a2a.Error{Code: a2a.CodeContentType, Message: "the request is not plain JSON in UTF-8", Hint: "send the header Content-Type: application/json"}}
	}
	return nil
}

func quoteVersion(v string) string {
	if v == "" {
		return "0.3 (no A2A-Version was sent)"
	}
	const most = 16
	return strings.ToValidUTF8(v[:min(len(v), most)], "?")
}

func (b *binding) tooLarge() *rpcError {
	return &rpcError{0, a2a.Errorf(a2a.CodeTooLarge, "the request has more than %d bytes", b.cfg.MaxBody)}
}

// readInTime sets the deadline for a body. Who has read all of it calls done: a deadline
// left behind would look like a client that hung up. Where a body is given up it stays,
// for net/http reads some of what is left before it closes the connection, and would
// wait for that as long as its client does.
func (b *binding) readInTime(w http.ResponseWriter) (done func()) {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(b.cfg.ReadTimeout)); err != nil {
		return func() {}
	}
	return func() { control.SetReadDeadline(time.Time{}) } //nolint:errcheck // it could be set, so it can be unset
}

// discard reads a body that is not wanted, unless it is by far too large or its client
// waits to be asked for it: many clients read no answer before they have written all of
// their request, and would be told nothing but that the connection broke.
func (b *binding) discard(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close") // there may be more of it
	b.readInTime(w)
	most := readBeyond * b.cfg.MaxBody
	if r.ProtoMajor > 1 || r.ContentLength > most || r.Header.Get("Expect") != "" {
		return
	}
	io.CopyN(io.Discard, r.Body, most) //nolint:errcheck // it is not wanted
}

// readBody reads the whole body within the cap and the deadline.
func (b *binding) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *rpcError) {
	done := b.readInTime(w)
	var body bytes.Buffer // doubles, and takes nothing on trust of Content-Length
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, b.cfg.MaxBody))
	if err == nil {
		done()
		return body.Bytes(), nil
	}
	w.Header().Set("Connection", "close")
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		b.discard(w, r)
		return nil, b.tooLarge()
	}
	return nil, &rpcError{0, a2a.Errorf(a2a.CodeInvalidRequest, "the request did not arrive whole in time")}
}

// codecID is the id that the codec sees of every request. It would read the
// client's own as a float64, and give a large one back as another; [reply] writes
// it as it came.
const codecID = "0"

// normalize checks the envelope and rewrites it in the form that the SDK reads.
// It notes the id for the answer even when it refuses.
func normalize(body []byte, out *reply) (method string, params []byte, err *rpcError) {
	if !json.Valid(body) || !utf8.Valid(body) {
		return "", nil, &rpcError{rpcParseError, a2a.Errorf(a2a.CodeInvalidRequest, "the body is not valid JSON")}
	}
	e, malformed := readEnvelope(body)
	if !validID(e.ID) {
		return "", nil, &rpcError{rpcInvalidRequest, a2a.Errorf(a2a.CodeInvalidRequest, "the id must be a string, a number or null")}
	}
	out.id = e.ID
	if malformed != "" {
		return "", nil, &rpcError{rpcInvalidRequest, a2a.Errorf(a2a.CodeInvalidRequest, "%s", malformed)}
	}
	if e.JSONRPC != "2.0" || e.Method == "" {
		return "", nil, &rpcError{rpcInvalidRequest, a2a.Errorf(a2a.CodeInvalidRequest, "not a JSON-RPC 2.0 request")}
	}
	message, ok := methods[e.Method]
	if !ok {
		return "", nil, &rpcError{rpcMethodNotFound, a2a.Errorf(a2a.CodeUnsupported, "there is no method %.60q", e.Method)}
	}
	if len(e.Params) == 0 || string(e.Params) == "null" {
		if !slices.Contains(mayLackParams, e.Method) {
			return "", nil, &rpcError{0, a2a.Errorf(a2a.CodeInvalidRequest, "params are missing")}
		}
		e.Params = json.RawMessage("{}")
	}
	params, err = normalized(e.Params, message())
	return e.Method, params, err
}

// noteID notes the id of a request that is refused for its headers.
func noteID(body []byte, out *reply) {
	if !json.Valid(body) || !utf8.Valid(body) {
		return
	}
	if e, _ := readEnvelope(body); validID(e.ID) {
		out.id = e.ID
	}
}

// validID reports whether id is a text, a number, null or absent.
func validID(id json.RawMessage) bool {
	return len(id) == 0 || id[0] == '"' || id[0] == '-' || id[0] >= '0' && id[0] <= '9' || string(id) == "null"
}

// normalized is outside JSON in the form that the SDK reads, within our limits.
func normalized(raw []byte, m proto.Message) ([]byte, *rpcError) {
	out, err := a2a.Normalize(raw, m)
	if err != nil {
		return nil, &rpcError{0, a2a.FromWire(err)}
	}
	if _, list := m.(*a2apb.ListTasksRequest); list {
		// A state that the proto does not know is dropped, and would list all tasks.
		var given struct{ Status *string }
		if json.Unmarshal(raw, &given) == nil && given.Status != nil && !knownState(*given.Status) {
			return nil, &rpcError{0, errState}
		}
	}
	if err := checkProto(m); err != nil {
		return nil, &rpcError{0, err}
	}
	return out, nil
}

// readEnvelope reads an object's members by their exact names, and says what is
// wrong. encoding/json alone would take any case, and the last of two.
func readEnvelope(body []byte) (e envelope, malformed string) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return e, "not a JSON-RPC request object"
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		var value json.RawMessage
		if err != nil || !ok || d.Decode(&value) != nil {
			return e, "not a JSON-RPC request object" // cannot be: it is valid JSON
		}
		if seen[name] && malformed == "" {
			malformed = "a member of the request is there twice"
		}
		seen[name] = true
		var text *string
		switch name {
		case "jsonrpc":
			text = &e.JSONRPC
		case "method":
			text = &e.Method
		case "id":
			e.ID = value
		case "params":
			e.Params = value
		}
		if text != nil && json.Unmarshal(value, text) != nil && malformed == "" {
			malformed = name + " is not a text"
		}
	}
	return e, malformed
}

func readDelegation(r *http.Request) ([]byte, *rpcError) {
	text := r.Header.Get(DelegationHeader)
	if text == "" {
		return nil, nil
	}
	if err := nodesOnly(r, DelegationHeader); err != nil {
		return nil, err
	}
	if len(text) > maxDelegation {
		return nil, &rpcError{0, a2a.Errorf(a2a.CodeTooLarge, "%s has more than %d bytes", DelegationHeader, maxDelegation)}
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, &rpcError{0, a2a.Errorf(a2a.CodeInvalidRequest, "%s is not base64url", DelegationHeader)}
	}
	return raw, nil
}

// readDoor reads the door through which another node had the message.
func readDoor(r *http.Request) (string, *rpcError) {
	switch door := r.Header.Get(DoorHeader); door {
	case "":
		return "", nil
	case DoorHTTP, DoorMCP, DoorNATS:
		return door, nodesOnly(r, DoorHeader)
	default:
		return "", &rpcError{0, a2a.Errorf(a2a.CodeInvalidRequest, "%s names no door", DoorHeader)}
	}
}

// nodesOnly refuses a header that others than nodes sent.
func nodesOnly(r *http.Request, header string) *rpcError {
	if c, _ := CallerFrom(r.Context()); c.Door != DoorMesh {
		return &rpcError{0, a2a.Errorf(a2a.CodeInvalidRequest, "%s is for nodes only", header)}
	}
	return nil
}
