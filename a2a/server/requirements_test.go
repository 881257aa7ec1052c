package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// Requirements of A2A 1.0.1 that no public suite tests; docs/bindings.md lists
// them with the test that holds each.

// VER-CLIENT-002 (3.6), VER-SERVER-001 to 003 (3.6.2): a version is Major.Minor,
// a patch number does not count, and nothing else is taken for ours.
func TestVersionsOfTheProtocol(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	rest := openREST(t, w).URL
	conn := dialGRPC(t, openGRPC(t, w))
	for version, ours := range map[string]bool{
		"1.0": true, "1.0.0": true, "1.0.1": true, "1.0.99": true,
		"": false, "0.3": false, "1": false, "1.1": false, "1.00": false, "1.0.": false, "1.0.x": false, "1.0.1.2": false, "1.0.-1": false, "v1.0": false, " 1.0.": false, "2.0.1": false,
	} {
		_, answer := w.post(t, `{"jsonrpc":"2.0","id":7,"method":"ListTasks"}`, func(r *http.Request) {
			r.Header.Set("A2A-Version", version)
			r.Header.Set("Authorization", "Bearer runner")
		})
		if got := answer.Error == nil; got != ours || !ours && answer.Error.Code != -32009 || string(answer.ID) != "7" && ours {
			t.Errorf("JSON-RPC, version %q: %+v", version, answer.Error)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, rest+"/tasks", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("A2A-Version", version)
		req.Header.Set("Authorization", "Bearer runner")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.StatusCode == http.StatusOK; got != ours {
			t.Errorf("HTTP+JSON, version %q: %s", version, res.Status)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "a2a-version", version, "authorization", "Bearer runner")
		_, err = a2apb.NewA2AServiceClient(conn).ListTasks(ctx, &a2apb.ListTasksRequest{})
		if got := status.Code(err); got == codes.OK != ours || !ours && got != codes.FailedPrecondition {
			t.Errorf("gRPC, version %q: %v", version, err)
		}
	}
}

// AUTH-SERVER-002 (7.4), AUTH-SCOPE-001 (13.1): every operation wants to know who
// asks, whether or not what it names is there.
func TestEveryOperationIsAuthorized(t *testing.T) {
	started := make(chan struct{}, 1)
	w := open(t, &fakePath{run: untilCancelled(started)})
	id := begin(t, w.client(t, newKey(t)), started)
	for _, task := range []string{id, strings.Repeat("0", 32)} {
		for method, params := range map[string]string{
			"SendMessage":          `{"message":{"messageId":"1","role":"ROLE_USER","taskId":"` + task + `","parts":[{"text":"x"}]}}`,
			"SendStreamingMessage": `{"message":{"messageId":"1","role":"ROLE_USER","taskId":"` + task + `","parts":[{"text":"x"}]}}`,
			"GetTask":              `{"id":"` + task + `"}`,
			"ListTasks":            `{}`,
			"CancelTask":           `{"id":"` + task + `"}`,
			"SubscribeToTask":      `{"id":"` + task + `"}`,
		} {
			for bearer, want := range map[string]string{"": a2a.CodeUnauthenticated, "Bearer stranger": a2a.CodeNotFound} {
				if method == "ListTasks" && bearer != "" {
					continue // a stranger has a list: of nothing
				}
				if strings.HasPrefix(method, "Send") {
					want = a2a.CodeNotFound // nobody has no task
				}
				_, answer := w.post(t, `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params+`}`, func(r *http.Request) { r.Header.Set("Authorization", bearer) })
				if answer.Error == nil || len(answer.Error.Data) != 1 || answer.Error.Data[0].Metadata["code"] != want {
					t.Errorf("%s of %s by %q: %+v, want %s", method, task, bearer, answer.Error, want)
				}
			}
		}
	}
}

// AUTH-INTASK-001 to 003, 005 and 006 (7.6.1): what lacks authority is a task in
// the state auth-required that says why; its streams stay open, and a message to
// it goes on with it.
func TestStreamsStayOpenWhileAuthorityLacks(t *testing.T) {
	path := &talker{fakePath: &fakePath{}, owner: "service:anna"}
	path.turn = func(n int) server.Talk {
		if n == 1 {
			return says(sdk.TaskStateAuthRequired, "show a mandate")
		}
		return says(sdk.TaskStateCompleted, "done")
	}
	w := openPath(t, path, t.TempDir())
	ctx := server.WithCaller(t.Context(), server.Caller{Principal: identity.Principal{Kind: identity.Service, Name: "anna"}, Door: server.DoorHTTP})
	var states []sdk.TaskState
	answered := make(chan error, 1)
	answer := func(id sdk.TaskID) {
		_, err := w.SendMessage(ctx, message(id, "here it is"))
		answered <- err
	}
	for e, err := range w.SendStreamingMessage(ctx, message("", "begin")) {
		if err != nil {
			t.Fatal(err)
		}
		u, ok := e.(*sdk.TaskStatusUpdateEvent)
		if !ok {
			continue
		}
		states = append(states, u.Status.State)
		if u.Status.State == sdk.TaskStateAuthRequired {
			if u.Status.Message == nil || u.Status.Message.Parts[0].Text() != "show a mandate" {
				t.Errorf("it does not say why: %+v", u.Status.Message)
			}
			go answer(u.TaskID)
		}
	}
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the message had no answer")
	}
	if n := len(states); n < 2 || states[n-1] != sdk.TaskStateCompleted || states[0] != sdk.TaskStateAuthRequired {
		t.Errorf("states %v", states)
	}
}
