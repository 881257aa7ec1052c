package server_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
)

// openREST serves the house's handler over HTTP+JSON too.
func openREST(t testing.TB, w *house) *httptest.Server {
	t.Helper()
	binding := server.REST(server.HTTPConfig{Handler: w.Handler, Log: slog.New(slog.DiscardHandler), MaxBody: 1 << 20, WriteTimeout: time.Second})
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		binding.ServeHTTP(rw, r.WithContext(server.WithCaller(r.Context(), w.caller(r))))
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

type restAnswer struct {
	Error struct {
		Code    int
		Status  string
		Message string
		Details []struct {
			Type     string `json:"@type"`
			Reason   string
			Domain   string
			Metadata map[string]string
		}
	}
}

func TestRESTErrorsHaveStatusAndErrorInfo(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	s := openREST(t, w)
	send := `{"message":{"messageId":"1","role":"ROLE_USER","parts":[{"text":"x"}]}}`
	for _, c := range []struct {
		name, method, path, body string
		header                   map[string]string
		status                   int
		rpc, reason, code        string
	}{
		{"no version", "GET", "/tasks/x", "", map[string]string{"A2A-Version": ""}, 400, "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED", "version_not_supported"},
		{"no such task", "GET", "/tasks/x", "", nil, 404, "NOT_FOUND", "TASK_NOT_FOUND", "not_found"},
		{"nobody", "GET", "/tasks/x", "", map[string]string{"Authorization": ""}, 401, "UNAUTHENTICATED", "UNAUTHENTICATED", "unauthenticated"},
		{"no such path", "GET", "/nothing", "", nil, 404, "UNIMPLEMENTED", "UNSUPPORTED_OPERATION", "unsupported"},
		{"no such verb", "POST", "/tasks/x:explode", "", nil, 404, "UNIMPLEMENTED", "UNSUPPORTED_OPERATION", "unsupported"},
		{"dots", "GET", "/tasks/..", "", nil, 404, "UNIMPLEMENTED", "UNSUPPORTED_OPERATION", "unsupported"},
		{"wrong method", "PUT", "/tasks/x", "", nil, 405, "UNIMPLEMENTED", "UNSUPPORTED_OPERATION", "unsupported"},
		{"a form", "POST", "/message:send", send, map[string]string{"Content-Type": "text/plain"}, 400, "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED", "content_type_not_supported"},
		{"garbage", "POST", "/message:send", "{", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"nothing", "POST", "/message:send", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"duplicate", "POST", "/message:send", `{"message":{},"message":{}}`, nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"unsigned", "POST", "/message:stream", send, nil, 401, "UNAUTHENTICATED", "UNAUTHENTICATED", "signature_missing"},
		{"too large", "POST", "/message:send", `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "RESOURCE_EXHAUSTED", "INVALID_REQUEST", "too_large"},
		{"cancel too large", "POST", "/tasks/x:cancel", strings.Repeat(" ", 1<<20+1), nil, 413, "RESOURCE_EXHAUSTED", "INVALID_REQUEST", "too_large"},
		{"cancel without a body", "POST", "/tasks/x:cancel", "", map[string]string{"Content-Type": ""}, 404, "NOT_FOUND", "TASK_NOT_FOUND", "not_found"},
		{"bad number", "GET", "/tasks?pageSize=many", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"bad page", "GET", "/tasks?pageSize=1000", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"bad page in the proto's spelling", "GET", "/tasks?page_size=1000", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"a page in both spellings", "GET", "/tasks?page_size=1&pageSize=1", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"a time that no proto holds", "GET", "/tasks?statusTimestampAfter=0000-01-01T00:00:00Z", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"bad history in the proto's spelling", "GET", "/tasks/x?history_length=-1", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"no such state by number", "GET", "/tasks?status=99", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"a slash in the id", "GET", "/tasks/a%2Fb", "", nil, 404, "NOT_FOUND", "TASK_NOT_FOUND", "not_found"},
		{"a slash in the id, with a verb", "POST", "/tasks/a%2Fb:cancel", "", nil, 404, "NOT_FOUND", "TASK_NOT_FOUND", "not_found"},
		{"no id", "POST", "/tasks/:cancel", "", nil, 400, "INVALID_ARGUMENT", "INVALID_PARAMS", "invalid_request"},
		{"no push", "GET", "/tasks/x/pushNotificationConfigs", "", nil, 400, "FAILED_PRECONDITION", "PUSH_NOTIFICATION_NOT_SUPPORTED", "push_notification_not_supported"},
		{"no extended card", "GET", "/extendedAgentCard", "", nil, 400, "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION", "unsupported"},
		{"subscribe by GET", "GET", "/tasks/x:subscribe", "", nil, 404, "NOT_FOUND", "TASK_NOT_FOUND", "not_found"},
		{"subscribe by POST", "POST", "/tasks/x:subscribe", "", nil, 404, "NOT_FOUND", "TASK_NOT_FOUND", "not_found"},
		{"tenant", "GET", "/acme/tasks/x", "", nil, 404, "NOT_FOUND", "TASK_NOT_FOUND", "not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/a2a+json")
			req.Header.Set("A2A-Version", "1.0")
			req.Header.Set("Authorization", "Bearer someone")
			for name, value := range c.header {
				if req.Header.Del(name); value != "" {
					req.Header.Set(name, value)
				}
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			var got restAnswer
			if err := json.Unmarshal(text, &got); err != nil || len(got.Error.Details) != 1 {
				t.Fatalf("answer %s: %v", text, err)
			}
			e, d := got.Error, got.Error.Details[0]
			if resp.StatusCode != c.status || e.Code != c.status || e.Status != c.rpc || d.Reason != c.reason || d.Metadata["code"] != c.code ||
				d.Domain != sdk.ProtocolDomain || d.Type != "type.googleapis.com/google.rpc.ErrorInfo" || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %s", resp.StatusCode, text)
			}
			if c.status == http.StatusMethodNotAllowed && resp.Header.Get("Allow") != "GET" {
				t.Errorf("Allow = %q", resp.Header.Get("Allow"))
			}
		})
	}
}

// The official client finds everything it expects.
func TestStockClientOverREST(t *testing.T) {
	started := make(chan struct{}, 1)
	w := open(t, &fakePath{run: hello})
	s := openREST(t, w)
	stockClient(t, w, started, []*sdk.AgentInterface{sdk.NewAgentInterface(s.URL, sdk.TransportProtocolHTTPJSON)}, a2aclient.WithRESTTransport(s.Client()))
}

// stockClient holds a binding against the official client.
func stockClient(t *testing.T, w *house, started chan struct{}, at []*sdk.AgentInterface, transport a2aclient.FactoryOption) {
	t.Helper()
	key := newKey(t)
	token, err := a2a.SignToken(key, a2a.SignOptions{Audience: a2a.Audience(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a2aclient.NewFromEndpoints(t.Context(), at, transport, a2aclient.WithCallInterceptors(bearer{token: token}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
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
		t.Errorf("the last event = %+v", last)
	}
	if got, err := c.GetTask(t.Context(), &sdk.GetTaskRequest{ID: task.ID}); err != nil || got.Status.State != sdk.TaskStateCompleted {
		t.Errorf("GetTask = %+v, %v", got, err)
	}
	if list, err := c.ListTasks(t.Context(), &sdk.ListTasksRequest{}); err != nil || len(list.Tasks) != 2 {
		t.Errorf("ListTasks = %+v, %v", list, err)
	}
	_, err = c.GetTask(t.Context(), &sdk.GetTaskRequest{ID: "nothing"})
	wantCode(t, a2a.FromWire(err), a2a.CodeNotFound)
	_, err = c.CancelTask(t.Context(), &sdk.CancelTaskRequest{ID: task.ID})
	wantCode(t, a2a.FromWire(err), a2a.CodeNotCancelable)
	for _, err := range c.SubscribeToTask(t.Context(), &sdk.SubscribeToTaskRequest{ID: task.ID}) {
		wantCode(t, a2a.FromWire(err), a2a.CodeUnsupported)
	}
	_, err = c.SendMessage(t.Context(), request(t)) // unsigned
	wantCode(t, a2a.FromWire(err), a2a.CodeSignatureMissing)

	w.path.run = untilCancelled(started)
	result, err = c.SendMessage(t.Context(), signed(true))
	if err != nil {
		t.Fatal(err)
	}
	task = result.(*sdk.Task)
	<-started
	kinds := 0
	for e, err := range c.SubscribeToTask(t.Context(), &sdk.SubscribeToTaskRequest{ID: task.ID}) {
		if err != nil {
			t.Fatal(err)
		}
		if kinds++; kinds == 1 {
			if first, ok := e.(*sdk.Task); !ok || first.Status.State != sdk.TaskStateWorking {
				t.Errorf("the first event = %+v", e)
			}
			if _, err := c.CancelTask(t.Context(), &sdk.CancelTaskRequest{ID: task.ID}); err != nil {
				t.Fatal(err)
			}
		}
		last = e
	}
	if e, ok := last.(*sdk.TaskStatusUpdateEvent); !ok || e.Status.State != sdk.TaskStateCanceled {
		t.Errorf("the last event = %+v", last)
	}
}
