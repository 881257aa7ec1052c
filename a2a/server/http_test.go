package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2asrv"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/internal/leaktest"
)

// TestMain checks that nothing is left running.
func TestMain(m *testing.M) {
	os.Exit(leaktest.Run(m, "node/a2a", "net/http.", "google.golang.org/grpc"))
}

type rpcAnswer struct {
	ID     json.RawMessage
	Result json.RawMessage
	Error  *struct {
		Code    int
		Message string
		Data    []struct {
			Type     string `json:"@type"`
			Reason   string
			Domain   string
			Metadata map[string]string
		}
	}
}

// post sends a body with the right headers, unless changed.
func (w *house) post(t testing.TB, body string, change func(*http.Request)) (*http.Response, rpcAnswer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.http.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("A2A-Version", "1.0")
	if change != nil {
		change(req)
	}
	resp, err := w.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer rpcAnswer
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatalf("answer is not JSON: %v", err)
	}
	return resp, answer
}

func TestProtocolErrors(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) {
			if r.Header.Del(name); value != "" {
				r.Header.Set(name, value)
			}
		}
	}
	get := `{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"x"}}`
	for _, c := range []struct {
		name, body string
		change     func(*http.Request)
		rpc        int
		reason     string
	}{
		{"no version", get, header("A2A-Version", ""), -32009, "VERSION_NOT_SUPPORTED"},
		{"old version", get, header("A2A-Version", "0.3"), -32009, "VERSION_NOT_SUPPORTED"},
		{"no content type", get, header("Content-Type", ""), -32005, "CONTENT_TYPE_NOT_SUPPORTED"},
		{"a form", get, header("Content-Type", "application/x-www-form-urlencoded"), -32005, "CONTENT_TYPE_NOT_SUPPORTED"},
		{"compressed", get, header("Content-Encoding", "gzip"), -32005, "CONTENT_TYPE_NOT_SUPPORTED"},
		{"GET", get, func(r *http.Request) { r.Method = http.MethodGet }, -32600, "INVALID_REQUEST"},
		{"empty", ``, nil, -32700, "INVALID_REQUEST"},
		{"garbage", `{"jsonrpc`, nil, -32700, "INVALID_REQUEST"},
		{"two values", get + get, nil, -32700, "INVALID_REQUEST"},
		{"batch", `[` + get + `]`, nil, -32600, "INVALID_REQUEST"},
		{"JSON-RPC 1", `{"id":1,"method":"GetTask"}`, nil, -32600, "INVALID_REQUEST"},
		{"id object", `{"jsonrpc":"2.0","id":{},"method":"GetTask"}`, nil, -32600, "INVALID_REQUEST"},
		{"unknown method", `{"jsonrpc":"2.0","id":1,"method":"message/send"}`, nil, -32601, "UNSUPPORTED_OPERATION"},
		{"no params", `{"jsonrpc":"2.0","id":1,"method":"GetTask"}`, nil, -32602, "INVALID_REQUEST"},
		{"params list", `{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[1]}`, nil, -32602, "INVALID_REQUEST"},
		{"params type", `{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":1}}`, nil, -32602, "INVALID_REQUEST"},
		{"duplicate param", `{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"a","id":"b"}}`, nil, -32602, "INVALID_REQUEST"},
		{"bogus role", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"1","role":"ROLE_KING","parts":[{"text":"x"}]}}}`, nil, -32602, "INVALID_REQUEST"},
		{"no message", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{}}`, nil, -32602, "INVALID_REQUEST"},
		{"deep", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"metadata":{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}}}`, nil, -32602, "INVALID_REQUEST"},
		{"unsigned", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"x"}]}}}`, nil, -31401, "SIGNATURE_MISSING"},
		{"unsigned stream", `{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage","params":{"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"x"}]}}}`, nil, -31401, "SIGNATURE_MISSING"},
		{"nobody's get", get, nil, -31401, "UNAUTHENTICATED"},
		{"no such task", get, header("Authorization", "Bearer runner"), -32001, "TASK_NOT_FOUND"},
		{"subscribe", strings.Replace(get, "GetTask", "SubscribeToTask", 1), header("Authorization", "Bearer runner"), -32001, "TASK_NOT_FOUND"},
		{"push", `{"jsonrpc":"2.0","id":1,"method":"ListTaskPushNotificationConfigs","params":{"taskId":"x"}}`, nil, -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED"},
		{"push create", `{"jsonrpc":"2.0","id":1,"method":"CreateTaskPushNotificationConfig","params":{"taskId":"x","url":"http://127.0.0.1"}}`, nil, -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED"},
		{"push in a message", `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"configuration":{"taskPushNotificationConfig":{"url":"http://127.0.0.1"}},"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"x"}]}}}`, nil, -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED"},
		{"extended card", `{"jsonrpc":"2.0","id":1,"method":"GetExtendedAgentCard"}`, nil, -32004, "UNSUPPORTED_OPERATION"},
		{"delegation by HTTP", get, header("Agenticraft-Delegation", "e30"), -32602, "INVALID_REQUEST"},
	} {
		resp, answer := w.post(t, c.body, c.change)
		if answer.Error == nil || len(answer.Error.Data) != 1 {
			t.Errorf("%s: answer = %+v", c.name, answer)
			continue
		}
		info := answer.Error.Data[0]
		wantDomain := "agenticraft.dev"
		if c.rpc < -32000 && c.rpc > -32010 || c.rpc == -32601 {
			wantDomain = "a2a-protocol.org"
		}
		if answer.Error.Code != c.rpc || info.Reason != c.reason || info.Type != "type.googleapis.com/google.rpc.ErrorInfo" || info.Domain != wantDomain || info.Metadata["code"] == "" {
			t.Errorf("%s: error = %+v, want %d %s of %s", c.name, answer.Error, c.rpc, c.reason, wantDomain)
		}
		if kind := resp.Header.Get("Content-Type"); kind != "application/json" {
			t.Errorf("%s: Content-Type = %s", c.name, kind)
		}
		if wantStatus := map[bool]int{true: 405, false: 200}[c.name == "GET"]; resp.StatusCode != wantStatus {
			t.Errorf("%s: HTTP status = %d", c.name, resp.StatusCode)
		}
	}
}

func TestToleratesWhatProtoJSONAllows(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	task, err := w.client(t, newKey(t)).Send(t.Context(), request(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*http.Request){
		"version in the query": func(r *http.Request) { r.Header.Del("A2A-Version"); r.URL.RawQuery = "A2A-Version=1.0" },
		"a2a media type":       func(r *http.Request) { r.Header.Set("Content-Type", "application/a2a+json; charset=utf-8") },
		"extensions":           func(r *http.Request) { r.Header.Set("A2A-Extensions", "https://example.org/x, "+a2a.SignedMessageURI) },
	} {
		resp, answer := w.post(t, `{"jsonrpc":"2.0","id":"ä","method":"GetTask","params":{"id":"`+string(task.ID)+`","history_length":0,"unknown":{}}}`, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer admin")
			change(r)
		})
		var got sdk.Task
		if err := json.Unmarshal(answer.Result, &got); err != nil || got.ID != task.ID || len(got.History) != 0 || string(answer.ID) != `"ä"` {
			t.Errorf("%s: answer = %+v", name, answer)
		}
		if name == "extensions" && resp.Header.Get("A2A-Extensions") != a2a.SignedMessageURI {
			t.Errorf("extensions in force = %q", resp.Header.Get("A2A-Extensions"))
		}
	}
}

func TestHugeBodyIsRefusedCheaply(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	const huge = 64 << 20
	for name, chunked := range map[string]bool{"with a length": false, "chunked": true} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		body := &countingReader{left: huge}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.http.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		if !chunked {
			req.ContentLength = huge
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("A2A-Version", "1.0")
		resp, err := w.http.Client().Do(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var answer rpcAnswer
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err != nil || answer.Error == nil || answer.Error.Data[0].Reason != "TOO_LARGE" {
			t.Errorf("%s: answer = %+v, %v", name, answer, err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 10*a2a.MaxRequestBytes { // to read it all would cost five times as much
			t.Errorf("%s: %d bytes were allocated", name, used)
		}
	}
}

// Who writes all of a request before he reads is told what is wrong with it, too.
func TestWhoWritesFirstIsAnswered(t *testing.T) {
	const most = 8 << 20 // far beyond what the buffers of a connection hold
	w := open(t, &fakePath{run: hello})
	cfg := server.HTTPConfig{Handler: w.Handler, MaxBody: most}
	rpc, rest := server.HTTP(cfg), server.REST(cfg)
	mux := http.NewServeMux()
	mux.Handle("/rpc", rpc)
	mux.Handle("/message:send", rest)
	for path, binding := range map[string]http.Handler{"/refused": rpc, "/rest/refused": rest} {
		mux.HandleFunc(path, func(rw http.ResponseWriter, r *http.Request) {
			binding.(interface {
				Refuse(rw http.ResponseWriter, r *http.Request, err error)
			}).Refuse(rw, r, a2a.Errorf(a2a.CodeUnauthenticated, "the credentials were refused"))
		})
	}
	s := httptest.NewServer(mux)
	defer s.Close()
	for _, c := range []struct {
		path, header string
		status       int
	}{
		{"/rpc", "Content-Type: application/json\r\n", http.StatusOK},
		{"/message:send", "Content-Type: application/json\r\n", http.StatusRequestEntityTooLarge},
		{"/message:send", "Content-Type: text/plain\r\n", http.StatusBadRequest},
		{"/refused", "", http.StatusUnauthorized},
		{"/rest/refused", "", http.StatusUnauthorized},
	} {
		for _, chunked := range []bool{false, true} {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			body, length := strings.Repeat(" ", most+most/2), ""
			if length = fmt.Sprintf("Content-Length: %d", len(body)); chunked {
				length, body = "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
			}
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nA2A-Version: 1.0\r\n%s%s\r\n\r\n%s", c.path, c.header, length, body); err != nil {
				t.Errorf("%s %s%s: it cannot be written: %v", c.path, c.header, length, err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || res.StatusCode != c.status {
				t.Errorf("%s %s%s: %+v, %v", c.path, c.header, length, res, err)
			} else {
				res.Body.Close()
			}
			conn.Close()
		}
	}
}

type countingReader struct{ left int }

func (r *countingReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(p), r.left)
	for i := range n {
		p[i] = ' '
	}
	r.left -= n
	return n, nil
}

// Who sends no more of a body, or too much of it, gets an answer, and the connection
// ends, although the client keeps it open and reads on.
func TestBodyThatNeverComesIsGivenUp(t *testing.T) {
	h := server.HTTP(server.HTTPConfig{Handler: open(t, &fakePath{run: hello}).Handler, ReadTimeout: 50 * time.Millisecond, MaxBody: 1 << 10})
	s := httptest.NewServer(h)
	defer s.Close()
	for name, body := range map[string]string{
		"half":                  "Content-Length: 100\r\n\r\n{",
		"none":                  "Content-Length: 100\r\n\r\n",
		"chunks without end":    "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		"more than may be":      "Content-Length: 2000\r\n\r\n{",
		"chunks of more":        "Transfer-Encoding: chunked\r\n\r\n800\r\n" + strings.Repeat(" ", 2<<10) + "\r\n",
		"chunks that are none":  "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
		"half of another type":  "Content-Type: text/plain\r\nContent-Length: 100\r\n\r\n{",
		"a length and no bytes": "Content-Length: 1024\r\n\r\n",
	} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nA2A-Version: 1.0\r\nContent-Type: application/json\r\n%s", body)
		conn.SetReadDeadline(time.Now().Add(time.Minute)) // ends what hangs
		from := bufio.NewReader(conn)
		resp, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer resp.Body.Close()
		var answer rpcAnswer
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Error == nil || !resp.Close {
			t.Errorf("%s: answer = %+v, %v", name, answer, err)
		}
		if _, err := from.ReadByte(); err == nil || os.IsTimeout(err) {
			t.Errorf("%s: the connection goes on: %v", name, err)
		}
	}
}

// The deadline is for the body alone: the answer may take as long as the run.
func TestARunMayTakeLongerThanItsBodyMay(t *testing.T) {
	const deadline = 500 * time.Millisecond // a small body comes sooner, also to a slow machine
	w := open(t, &fakePath{run: func(ctx context.Context, e a2a.Execution, out server.Updates) a2a.Report {
		<-time.After(deadline + 100*time.Millisecond)
		return hello(ctx, e, out)
	}})
	h := server.HTTP(server.HTTPConfig{Handler: w.Handler, ReadTimeout: deadline, WriteTimeout: deadline})
	s := httptest.NewServer(h)
	defer s.Close()
	c, err := client.New(client.Config{URL: s.URL, HTTPClient: s.Client(), Key: newKey(t), Audience: a2a.Audience(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second on the same connection
		if task, err := c.Send(t.Context(), request(t), nil); err != nil || task.Status.State != sdk.TaskStateCompleted {
			t.Errorf("Send = %+v, %v", task, err)
		}
	}
}

func TestDelegationComesThroughTheMeshDoorOnly(t *testing.T) {
	var got []byte
	w := open(t, &fakePath{run: hello, seen: func(in server.Inbound) { got = in.Delegation }})
	c := w.client(t, newKey(t))
	header := http.Header{server.DelegationHeader: {"eyJhIjoxfQ"}}
	raw, err := c.Signed(request(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.SendRaw(t.Context(), raw, header)
	wantCode(t, err, a2a.CodeInvalidRequest)
	w.door = server.DoorMesh
	if _, err := c.SendRaw(t.Context(), raw, header); err != nil || string(got) != `{"a":1}` {
		t.Errorf("delegation = %q, %v", got, err)
	}
	_, err = c.SendRaw(t.Context(), raw, http.Header{server.DelegationHeader: {"!"}})
	wantCode(t, err, a2a.CodeInvalidRequest)
}

// The executor must receive exactly what the agent signed.
func TestWhatArrivesIsWhatWasSigned(t *testing.T) {
	var got []byte
	w := open(t, &fakePath{run: hello, seen: func(in server.Inbound) {
		var err error
		if got, err = a2a.MarshalRequest(in.Request); err != nil {
			t.Error(err)
		}
	}})
	c := w.client(t, newKey(t))
	req := request(t)
	req.Config = &sdk.SendMessageConfig{AcceptedOutputModes: []string{"application/json"}}
	req.Tenant, req.Metadata = "acme", map[string]any{"\u2028": []any{nil, 1e-7, "\U0001F980"}, "empty": map[string]any{}}
	_, raw, err := c.SendSigned(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(raw) {
		t.Errorf("arrived %s\nsigned  %s", got, raw)
	}
	if _, err := a2a.VerifyRaw(got, a2a.Audience(cluster)); err != nil {
		t.Error(err)
	}
}

// The official client, unchanged, works with our server.
func TestStockClient(t *testing.T) {
	started := make(chan struct{}, 1)
	w := open(t, &fakePath{run: hello})
	key := newKey(t)
	token, err := a2a.SignToken(key, a2a.SignOptions{Audience: a2a.Audience(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a2aclient.NewFromEndpoints(t.Context(), []*sdk.AgentInterface{sdk.NewAgentInterface(w.http.URL, sdk.TransportProtocolJSONRPC)}, a2aclient.WithJSONRPCTransport(w.http.Client()), a2aclient.WithCallInterceptors(bearer{token: token}))
	if err != nil {
		t.Fatal(err)
	}
	signed := func(immediately bool) *sdk.SendMessageRequest {
		req := request(t)
		req.Config = &sdk.SendMessageConfig{ReturnImmediately: immediately}
		out, err := a2a.Sign(key, req, a2a.SignOptions{Audience: a2a.Audience(cluster)})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	result, err := c.SendMessage(t.Context(), signed(false))
	if err != nil {
		t.Fatal(err)
	}
	task := result.(*sdk.Task)
	if report, err := a2a.ReportOf(task); err != nil || report.Stdout != "hello world\n" {
		t.Errorf("report = %+v, %v", report, err)
	}
	var last sdk.Event
	for e, err := range c.SendStreamingMessage(t.Context(), signed(false)) {
		if err != nil {
			t.Fatal(err)
		}
		last = e
	}
	if e, ok := last.(*sdk.TaskStatusUpdateEvent); !ok || e.Status.State != sdk.TaskStateCompleted {
		t.Errorf("last event = %+v", last)
	}
	if got, err := c.GetTask(t.Context(), &sdk.GetTaskRequest{ID: task.ID}); err != nil || got.ID != task.ID {
		t.Errorf("GetTask = %+v, %v", got, err)
	}
	if list, err := c.ListTasks(t.Context(), &sdk.ListTasksRequest{PageSize: 1}); err != nil || len(list.Tasks) != 1 || list.TotalSize != 2 || list.NextPageToken == "" {
		t.Errorf("ListTasks = %+v, %v", list, err)
	}
	w.path.run = untilCancelled(started)
	result, err = c.SendMessage(t.Context(), signed(true))
	if err != nil {
		t.Fatal(err)
	}
	<-started
	if got, err := c.CancelTask(t.Context(), &sdk.CancelTaskRequest{ID: result.(*sdk.Task).ID}); err != nil || got.Status.State != sdk.TaskStateCanceled {
		t.Errorf("CancelTask = %+v, %v", got, err)
	}
	_, err = c.SendMessage(t.Context(), request(t))
	wantCode(t, a2a.FromWire(err), a2a.CodeSignatureMissing)
	_, err = c.GetTask(t.Context(), &sdk.GetTaskRequest{ID: "x"})
	wantCode(t, a2a.FromWire(err), a2a.CodeNotFound)
	errs := 0
	for _, err := range c.SubscribeToTask(t.Context(), &sdk.SubscribeToTaskRequest{ID: task.ID}) {
		wantCode(t, a2a.FromWire(err), a2a.CodeUnsupported)
		errs++
	}
	for _, err := range c.SendStreamingMessage(t.Context(), request(t)) {
		wantCode(t, a2a.FromWire(err), a2a.CodeSignatureMissing)
		errs++
	}
	if errs != 2 {
		t.Errorf("%d errors of two streams arrived", errs)
	}
}

// echo is an executor for the SDK's own handler that does what hello does.
type echo struct{}

func (echo) Execute(_ context.Context, e *a2asrv.ExecutorContext) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		if !yield(sdk.NewSubmittedTask(e, e.Message), nil) {
			return
		}
		artifact, err := a2a.Report{Status: a2a.Succeeded, Result: []byte("42"), Stdout: "hello world\n"}.Artifact()
		if err != nil {
			yield(nil, err)
			return
		}
		if yield(&sdk.TaskArtifactUpdateEvent{TaskID: e.TaskID, ContextID: e.ContextID, Artifact: artifact}, nil) {
			yield(sdk.NewStatusUpdateEvent(e, sdk.TaskStateCompleted, nil), nil)
		}
	}
}

func (echo) Cancel(context.Context, *a2asrv.ExecutorContext) iter.Seq2[sdk.Event, error] {
	return func(func(sdk.Event, error) bool) {}
}

// BenchmarkSendMessage compares our handler, which verifies signatures and
// keeps tasks on disk, with the SDK's, which does neither.
func BenchmarkSendMessage(b *testing.B) {
	key := newKey(b)
	run := func(url string, hc *http.Client) func(b *testing.B) {
		return func(b *testing.B) {
			c, err := a2aclient.NewFromEndpoints(b.Context(), []*sdk.AgentInterface{sdk.NewAgentInterface(url, sdk.TransportProtocolJSONRPC)}, a2aclient.WithJSONRPCTransport(hc))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				signed, err := a2a.Sign(key, request(b), a2a.SignOptions{Audience: a2a.Audience(cluster)})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.SendMessage(b.Context(), signed); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	w := open(b, &fakePath{run: hello})
	b.Run("ours", run(w.http.URL, w.http.Client()))
	s := httptest.NewServer(a2asrv.NewJSONRPCHandler(a2asrv.NewHandler(echo{})))
	defer s.Close()
	b.Run("sdk", run(s.URL, s.Client()))
}

// Whatever comes, the answer is a JSON-RPC answer and no task is found.
func FuzzHTTP(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"x"}}`,
		`{"jsonrpc":"2.0","id":"a","method":"SendMessage","params":{"message":{"message_id":"1","role":"ROLE_USER","parts":[{"text":"x"},{"data":[1]}]}}}`,
		`{"jsonrpc":"2.0","id":null,"method":"ListTasks"}`,
		`[]`, `{"jsonrpc`,
	} {
		f.Add([]byte(s))
	}
	w := open(f, &fakePath{run: hello})
	h := server.HTTP(server.HTTPConfig{Handler: w.Handler})
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("A2A-Version", "1.0")
		r = r.WithContext(server.WithCaller(r.Context(), server.Caller{Principal: agent("x"), Door: server.DoorHTTP}))
		out := httptest.NewRecorder()
		h.ServeHTTP(out, r)
		var answer rpcAnswer
		if err := json.Unmarshal(out.Body.Bytes(), &answer); err != nil || (answer.Error == nil) == (answer.Result == nil) {
			t.Fatalf("%q is answered %q: %v", body, out.Body, err)
		}
	})
}
