package client_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
)

const taskID = "0123456789abcdef0123456789abcdef"

// event writes one event of a stream as a node does.
func event(t *testing.T, w io.Writer, id int, e sdk.Event) {
	t.Helper()
	raw, err := json.Marshal(sdk.StreamResponse{Event: e})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(w, "id: %d\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":%s}\n\n", id, raw)
}

func working() *sdk.Task {
	return &sdk.Task{ID: taskID, ContextID: "c", Status: sdk.TaskStatus{State: sdk.TaskStateWorking}}
}

func output(text string) sdk.Event {
	return &sdk.TaskArtifactUpdateEvent{TaskID: taskID, ContextID: "c", Append: true, Artifact: &sdk.Artifact{ID: "stdout", Parts: sdk.ContentParts{sdk.NewTextPart(text)}}}
}

func completed() sdk.Event {
	return &sdk.TaskStatusUpdateEvent{TaskID: taskID, ContextID: "c", Status: sdk.TaskStatus{State: sdk.TaskStateCompleted}}
}

// script serves one connection after the other.
func script(t *testing.T, connections ...func(w http.ResponseWriter, method, after string)) (url string, served *atomic.Int32) {
	t.Helper()
	served = new(atomic.Int32)
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := int(served.Add(1)) - 1
		if n >= len(connections) {
			t.Errorf("connection %d was not expected", n+1)
			return
		}
		var call struct{ Method string }
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		if call.Method != "GetTask" {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		connections[n](w, call.Method, r.Header.Get("Last-Event-ID"))
	}), served
}

func cut() { panic(http.ErrAbortHandler) }

func want(t *testing.T, what, got, wanted string) {
	t.Helper()
	if got != wanted {
		t.Errorf("%s is %q, want %q", what, got, wanted)
	}
}

// A stream that breaks, in the middle of an event even, goes on where it
// was: the reader sees every event once.
func TestAStreamIsResumed(t *testing.T) {
	url, served := script(t,
		func(w http.ResponseWriter, method, after string) {
			want(t, "method", method+after, "SendStreamingMessage")
			event(t, w, 0, working())
			event(t, w, 3, output("one"))
			io.WriteString(w, "id: 6\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{\"art")
			w.(http.Flusher).Flush()
			cut()
		},
		func(_ http.ResponseWriter, method, after string) {
			want(t, "method", method+after, "SubscribeToTask3")
			cut()
		},
		func(w http.ResponseWriter, method, after string) {
			want(t, "method", method+after, "SubscribeToTask3")
			event(t, w, 3, working()) // shown again, no news
			event(t, w, 6, output("two"))
			// ends in good order, but too soon
		},
		func(w http.ResponseWriter, method, after string) {
			want(t, "method", method+after, "SubscribeToTask6")
			event(t, w, 6, working())
			event(t, w, 7, completed())
		},
	)
	c := dial(t, client.Config{URL: url, Key: newKey(t), Audience: a2a.Audience(cluster)})
	var seen []string
	for e, err := range c.Stream(t.Context(), request(t), nil) {
		if err != nil {
			t.Fatal(err)
		}
		switch e := e.(type) {
		case *sdk.Task:
			seen = append(seen, "task")
		case *sdk.TaskArtifactUpdateEvent:
			seen = append(seen, string(e.Artifact.Parts[0].Content.(sdk.Text)))
		case *sdk.TaskStatusUpdateEvent:
			seen = append(seen, string(e.Status.State))
		}
	}
	want(t, "stream", strings.Join(seen, " "), "task one two "+string(sdk.TaskStateCompleted))
	if served.Load() != 4 {
		t.Errorf("%d connections", served.Load())
	}
}

// A server that gives no ids shows the task whole again; the reader of the
// output gets what is new in it.
func TestAStreamWithoutIDsIsResumed(t *testing.T) {
	plain := func(w io.Writer, e sdk.Event) {
		raw, err := json.Marshal(sdk.StreamResponse{Event: e})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":%s}\n\n", raw)
	}
	whole := working()
	whole.Artifacts = []*sdk.Artifact{{ID: "stdout", Parts: sdk.ContentParts{sdk.NewTextPart("onet"), sdk.NewTextPart("wo")}}}
	ended := *whole
	ended.Status.State = sdk.TaskStateCompleted
	ended.Artifacts = []*sdk.Artifact{{ID: "stdout", Parts: sdk.ContentParts{sdk.NewTextPart("onetwothree")}}}
	url, _ := script(t,
		func(w http.ResponseWriter, _, _ string) {
			plain(w, working())
			plain(w, output("one"))
			w.(http.Flusher).Flush()
			cut()
		},
		func(w http.ResponseWriter, _, after string) {
			want(t, "id", after, "")
			plain(w, whole)
			w.(http.Flusher).Flush()
			cut()
		},
		func(w http.ResponseWriter, method, _ string) {
			want(t, "method", method, "SubscribeToTask")
			fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":\"1\",\"error\":{\"code\":-32004,\"message\":\"it has ended\"}}\n\n")
		},
		func(w http.ResponseWriter, method, _ string) {
			want(t, "method", method, "GetTask")
			raw, err := json.Marshal(ended)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":%s}", raw)
		},
	)
	c := dial(t, client.Config{URL: url, APIKey: "ac_1_2"})
	var out strings.Builder
	task, err := client.Follow(c.Stream(t.Context(), request(t), nil), client.Watcher{Output: func(_ string, at int64, data []byte) {
		if int(at) != out.Len() {
			t.Errorf("output at %d after %d bytes", at, out.Len())
		}
		out.Write(data)
	}})
	if err != nil || task.Status.State != sdk.TaskStateCompleted {
		t.Errorf("task %+v, %v", task, err)
	}
	want(t, "output", out.String(), "onetwothree")
}

// What may run twice is not sent twice, and nothing is tried for ever.
func TestWhatIsNotTriedAgain(t *testing.T) {
	broken := func(_ http.ResponseWriter, _, _ string) { cut() }
	signed := client.Config{Key: newKey(t), Audience: a2a.Audience(cluster)}
	send := func(cfg client.Config, url string) error {
		cfg.URL = url
		_, err := dial(t, cfg).Send(t.Context(), request(t), nil)
		return err
	}
	url, served := script(t, broken)
	if err := send(client.Config{APIKey: "ac_1_2"}, url); err == nil || served.Load() != 1 {
		t.Errorf("an unsigned request was sent %d times, %v", served.Load(), err)
	}
	url, served = script(t, broken)
	for _, err := range dial(t, client.Config{URL: url, APIKey: "ac_1_2"}).Stream(t.Context(), request(t), nil) {
		if _, ok := errors.AsType[*client.Interrupted](err); !ok || served.Load() != 1 {
			t.Errorf("an unsigned stream was opened %d times, %v", served.Load(), err)
		}
	}
	none := signed
	none.Resume = -1
	url, served = script(t, broken)
	if err := send(none, url); err == nil || served.Load() != 1 {
		t.Errorf("sent %d times, %v", served.Load(), err)
	}
	short := signed
	short.Resume = 100 * time.Millisecond
	url, served = script(t, broken, broken, broken, broken, broken, broken)
	if err := send(short, url); asError(t, err).Code != a2a.CodeUnavailable || served.Load() < 2 {
		t.Errorf("sent %d times, %v", served.Load(), err)
	}
	if err := send(signed, "http://127.0.0.1:1"); err == nil {
		t.Error("nobody was ever there, and that is no error")
	}
	url, _ = script(t, broken, func(w http.ResponseWriter, method, _ string) {
		want(t, "method", method, "SendMessage")
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"jsonrpc":"2.0","id":"1","result":{"task":{"id":"1","contextId":"1","status":{"state":"TASK_STATE_COMPLETED"}}}}`)
	})
	if err := send(signed, url); err != nil {
		t.Errorf("a signed request is not sent again: %v", err)
	}
}

// A card that somebody else signed is not believed.
func TestDiscover(t *testing.T) {
	key := newKey(t)
	var base string
	card := func(interfaces ...a2a.CardInterface) []byte {
		raw, err := a2a.Card(a2a.CardConfig{Key: key, Name: "n", Version: "1", Cluster: cluster, Interfaces: interfaces, Languages: []string{"python"}, Sandboxes: []string{"process"}})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var served []byte
	base = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == a2a.CardPath {
			w.Write(served)
			return
		}
		want(t, "path", r.URL.Path, "/rpc")
		io.WriteString(w, `{"jsonrpc":"2.0","id":"1","result":{"task":{"id":"1","contextId":"1","status":{"state":"TASK_STATE_COMPLETED"}}}}`)
	})
	served = card(a2a.CardInterface{URL: "x:1", Binding: "GRPC"}, a2a.CardInterface{URL: base + "/rpc"})
	c, err := client.Discover(t.Context(), base+"/", client.Config{Key: newKey(t)})
	if err != nil || c.Node() != key.ID() {
		t.Fatalf("node %v, %v", c, err)
	}
	if _, err := c.Send(t.Context(), request(t), nil); err != nil {
		t.Error(err)
	}
	if _, err := client.Discover(t.Context(), base, client.Config{Key: newKey(t), Node: key.ID()}); err != nil {
		t.Error(err)
	}
	if _, err := client.Discover(t.Context(), base, client.Config{Node: newKey(t).ID()}); asError(t, err).Code != a2a.CodeSignatureInvalid {
		t.Errorf("another node's card: %v", err)
	}
	good := served
	served = []byte(strings.Replace(string(good), "/rpc", "/evil", 1))
	if _, err := client.Discover(t.Context(), base, client.Config{}); asError(t, err).Code != a2a.CodeSignatureInvalid {
		t.Errorf("a tampered card: %v", err)
	}
	served = []byte(`{"name":"unsigned"}`)
	if _, err := client.Discover(t.Context(), base, client.Config{}); asError(t, err).Code != a2a.CodeSignatureMissing {
		t.Errorf("an unsigned card: %v", err)
	}
	served = card(a2a.CardInterface{URL: "x:1", Binding: "GRPC"})
	if _, err := client.Discover(t.Context(), base, client.Config{}); asError(t, err).Code != a2a.CodeUnsupported {
		t.Errorf("no JSON-RPC: %v", err)
	}
	if _, err := client.Discover(t.Context(), "ftp://x", client.Config{}); asError(t, err).Code != a2a.CodeInvalidRequest {
		t.Errorf("no http: %v", err)
	}
}

// A server whose certificate nobody signed that the client trusts is asked once.
func TestAStrangerIsAskedOnce(t *testing.T) {
	var connections atomic.Int64
	stranger := httptest.NewUnstartedServer(nil)
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	stranger.StartTLS()
	defer stranger.Close()
	c, err := client.New(client.Config{URL: stranger.URL, HTTPClient: &http.Client{Transport: &http.Transport{}}, Resume: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(t.Context(), "task", nil)
	if _, is := errors.AsType[*tls.CertificateVerificationError](err); !is || connections.Load() != 1 {
		t.Errorf("%v, after %d connections", err, connections.Load())
	}
}
