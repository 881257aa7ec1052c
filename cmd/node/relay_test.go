package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/a2a/natsrpc"
	"github.com/agenticraft/node/identity"
)

// Issue 5: a task that waits for its owner is answered through any door of the
// cluster, over HTTP and over NATS, where nobody chooses the node; the node that
// asked verifies and decides, by the door that the message came through.
func TestAnswersThroughAnyDoor(t *testing.T) {
	t.Setenv("AGENTICRAFT_PUSH_ALLOW", "127.0.0.1")
	broker := startBroker(t, false)
	c := startCluster(t, 3)
	conn := broker.Connect(nats.UserInfo("client", clientPassword))
	awaitService(c, conn, 3)
	w := newWire(t, c)
	var runner, other struct{ Key string }
	c.json(&runner, "key", "create", "--name", "asker", "--role", "runner")
	c.json(&other, "key", "create", "--name", "other", "--role", "runner")
	code := executionPart(t, a2a.Execution{Language: "starlark", Code: "print('four')\nresult = 2 + 2"})

	overHTTP := func(node int, key string) *client.Client {
		cfg := client.Config{URL: c.Nodes[node].HTTP + a2aPath, APIKey: key}
		if key == "" {
			cfg.Key, cfg.Audience = w.key, w.audience
		}
		cl, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return cl
	}
	overNATS := func(node int, key string) *client.Client {
		cfg := client.Config{URL: natsrpc.URL(c.Nodes[node].ID), HTTPClient: &http.Client{Transport: &natsrpc.Transport{Conn: conn}}, APIKey: key}
		if key == "" {
			cfg.Key, cfg.Audience = w.key, w.audience
		}
		cl, err := client.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return cl
	}
	// known waits until every node has heard of who asks.
	known := func(at func(node int) *client.Client) {
		t.Helper()
		for node := range c.Nodes {
			c.await("a node to know who asks", func() bool {
				_, err := at(node).List(t.Context(), &sdk.ListTasksRequest{}, nil)
				return err == nil
			})
		}
	}
	for _, key := range []string{runner.Key, other.Key} {
		known(func(node int) *client.Client { return overHTTP(node, key) })
	}
	for name, tc := range map[string]struct {
		over func(node int, key string) *client.Client
		key  string
		via  string
	}{
		"HTTP, signed":          {overHTTP, "", "http"},
		"HTTP, with an API key": {overHTTP, runner.Key, "http"},
		"NATS, signed":          {overNATS, "", "nats"},
		"NATS, with an API key": {overNATS, runner.Key, "nats"},
	} {
		t.Run(name, func(t *testing.T) {
			asks, answers, third := tc.over(0, tc.key), tc.over(1, tc.key), tc.over(2, tc.key)
			begin := func() sdk.TaskID { return beginTalk(t, asks) }
			id := begin()
			if got, err := third.Get(t.Context(), string(id), nil); err != nil || got.Status.State != sdk.TaskStateInputRequired {
				t.Errorf("at the third: %+v, %v", got, err)
			}
			if _, err := tc.over(1, other.Key).Send(t.Context(), toTask(id, code), nil); a2a.FromWire(err).Code != a2a.CodeNotFound {
				t.Errorf("another's message: %v", err)
			}
			if got, err := answers.Send(t.Context(), toTask(id, sdk.NewTextPart("what?")), nil); err != nil || got.Status.State != sdk.TaskStateInputRequired || got.ID != id {
				t.Errorf("no program yet: %+v, %v", got, err)
			}
			done, err := third.Send(t.Context(), toTask(id, code), nil)
			if err != nil || done.Status.State != sdk.TaskStateCompleted || done.ID != id || len(done.History) != 3 {
				t.Fatalf("the program: %+v, %v", done, err)
			}
			rep, err := a2a.ReportOf(done)
			if err != nil || string(rep.Result) != "4" || rep.Outcome == nil {
				t.Fatalf("report %+v, %v", rep, err)
			}
			// The log says through which door it came, not that a node handed it on.
			if body, _ := c.intentOf(rep); body.Asked == nil || body.Asked.Via != tc.via {
				t.Errorf("the intent says %+v, want via %s", body.Asked, tc.via)
			}
			if _, err := answers.Send(t.Context(), toTask(id, code), nil); a2a.FromWire(err).Code != a2a.CodeUnsupported {
				t.Errorf("a message to the ended task: %v", err)
			}

			// A stream, with the numbers of the node that runs it.
			id = begin()
			var last sdk.Event
			for e, err := range answers.Stream(t.Context(), toTask(id, code), nil) {
				if err != nil {
					t.Fatal(err)
				}
				last = e
			}
			if e, ok := last.(*sdk.TaskStatusUpdateEvent); !ok || e.Status.State != sdk.TaskStateCompleted {
				t.Errorf("the stream ended with %+v", last)
			}
			// At once, and followed at the third.
			id = begin()
			req := toTask(id, code)
			req.Config = immediately()
			if got, err := answers.Send(t.Context(), req, nil); err != nil || got.ID != id {
				t.Errorf("at once: %+v, %v", got, err)
			}
			if got, err := third.Wait(t.Context(), string(id)); err != nil || got.Status.State != sdk.TaskStateCompleted {
				t.Errorf("waited for at the third: %+v, %v", got, err)
			}
			// Cancelled from elsewhere.
			id = begin()
			if got, err := answers.Cancel(t.Context(), string(id), nil); err != nil || got.Status.State != sdk.TaskStateCanceled {
				t.Errorf("cancel: %+v, %v", got, err)
			}
		})
	}
	t.Run("a message sent again", func(t *testing.T) {
		asked, err := overHTTP(0, "").Send(t.Context(), toTask("", sdk.NewTextPart("hello")), nil)
		if err != nil {
			t.Fatal(err)
		}
		before := w.intents()
		complete := w.sign(toTask(asked.ID, code), nil)
		for node := range c.Nodes {
			if got, err := overHTTP(node, "").Send(t.Context(), complete, nil); err != nil || got.ID != asked.ID || got.Status.State != sdk.TaskStateCompleted {
				t.Errorf("through node %d: %+v, %v", node+1, got, err)
			}
		}
		if n := w.intents() - before; n != 1 {
			t.Errorf("%d intents, want one", n)
		}
	})
	t.Run("authority over NATS", func(t *testing.T) {
		owner, _ := c.newAgent("owner", "runner")
		plannerFile, plannerID := c.newAgent("planner", "delegator")
		planner, err := identity.Load(plannerFile)
		if err != nil {
			t.Fatal(err)
		}
		at := func(node int) *client.Client {
			cl, err := client.New(client.Config{
				URL: natsrpc.URL(c.Nodes[node].ID), HTTPClient: &http.Client{Transport: &natsrpc.Transport{Conn: conn}}, Key: planner, Audience: w.audience,
			})
			if err != nil {
				t.Fatal(err)
			}
			return cl
		}
		grant := func(name, language string) string {
			text, err := os.ReadFile(c.mandate(name, "grant", "--agent-key", owner, "--to", string(plannerID), "--tenant", defaultTenant, "--lang", language))
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(text))
		}
		known(at)
		asked, err := at(0).Send(t.Context(), toTask("", sdk.NewTextPart("hello")), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, step := range []struct {
			mandate string
			want    sdk.TaskState
		}{{grant("narrow", "python"), sdk.TaskStateAuthRequired}, {grant("good", "starlark"), sdk.TaskStateCompleted}} {
			part := executionPart(t, a2a.Execution{Language: "starlark", Code: "result = 8", Mandate: step.mandate})
			if got, err := at(i+1).Send(t.Context(), toTask(asked.ID, part), nil); err != nil || got.Status.State != step.want {
				t.Errorf("answer %d: %+v, %v", i, got, err)
			}
		}
	})
	t.Run("its receiver", func(t *testing.T) { answersAreTold(t, c, overHTTP(0, runner.Key), overHTTP(1, runner.Key), code) })
	t.Run("a node's header", func(t *testing.T) {
		asked, err := overHTTP(0, runner.Key).Send(t.Context(), toTask("", sdk.NewTextPart("hello")), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := overHTTP(0, runner.Key).Send(t.Context(), toTask(asked.ID, code), http.Header{"Agenticraft-Door": {"nats"}}); a2a.FromWire(err).Code != a2a.CodeInvalidRequest {
			t.Errorf("a client that says through which door it came: %v", err)
		}
	})
}

// answersAreTold: a receiver that comes with the answer, its secret too, is told by
// the node that holds the task.
func answersAreTold(t *testing.T, c *testCluster, asks, answers *client.Client, code *sdk.Part) {
	told := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var out sdk.StreamResponse
		if json.NewDecoder(r.Body).Decode(&out) != nil {
			return
		}
		if e, ok := out.Event.(*sdk.TaskStatusUpdateEvent); ok && e.Status.State.Terminal() {
			told <- r.Header.Get(a2a.NotificationTokenHeader) + " " + string(e.Status.State)
		}
	}))
	defer receiver.Close()
	asked, err := asks.Send(t.Context(), toTask("", sdk.NewTextPart("hello")), nil)
	if err != nil {
		t.Fatal(err)
	}
	req := toTask(asked.ID, code)
	req.Config = &sdk.SendMessageConfig{PushConfig: &sdk.PushConfig{URL: receiver.URL, Token: "s3cret"}}
	if got, err := answers.Send(t.Context(), req, nil); err != nil || got.Status.State != sdk.TaskStateCompleted {
		t.Fatalf("the program: %+v, %v", got, err)
	}
	got := c.awaitTold(told)
	if want := "s3cret TASK_STATE_COMPLETED"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// beginTalk sends a text that names no program, and gives the task that asks for
// one.
func beginTalk(t *testing.T, c *client.Client) sdk.TaskID {
	t.Helper()
	task, err := c.Send(t.Context(), toTask("", sdk.NewTextPart("hello")), nil)
	if err != nil || task.Status.State != sdk.TaskStateInputRequired {
		t.Fatalf("a text: %+v, %v", task, err)
	}
	return task.ID
}
