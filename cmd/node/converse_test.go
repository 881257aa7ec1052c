package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	a2agrpc "github.com/a2aproject/a2a-go/v2/a2agrpc/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/identity"
)

// toTask is a message of one part to a task; "" begins one.
func toTask(task sdk.TaskID, part *sdk.Part) *sdk.SendMessageRequest {
	m := sdk.NewMessage(sdk.MessageRoleUser, part)
	m.TaskID = task
	return &sdk.SendMessageRequest{Message: m}
}

// executionPart is the data part of an execution.
func executionPart(t *testing.T, e a2a.Execution) *sdk.Part {
	t.Helper()
	req, err := a2a.NewRequest(e)
	if err != nil {
		t.Fatal(err)
	}
	return req.Message.Parts[0]
}

func questionOf(task *sdk.Task) string {
	if task.Status.Message == nil {
		return ""
	}
	return task.Status.Message.Parts[0].Text()
}

// Issue 5: a text without a program is asked for one, on every binding, and the
// message that brings it runs like any other: verified, decided, on record.
func TestAskedForAProgram(t *testing.T) {
	c := startCluster(t, 2)
	var runner, other, looker struct{ Key string }
	c.json(&runner, "key", "create", "--name", "asker", "--role", "runner")
	c.json(&other, "key", "create", "--name", "other", "--role", "runner")
	c.json(&looker, "key", "create", "--name", "looker", "--role", "viewer")
	_, text := c.get("GET", a2a.CardPath, nil)
	card, _, err := a2a.VerifyCard(text)
	if err != nil {
		t.Fatal(err)
	}
	options := []a2aclient.FactoryOption{
		a2aclient.WithJSONRPCTransport(nil), a2aclient.WithRESTTransport(nil),
		a2agrpc.WithGRPCTransport(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	for i, at := range card.SupportedInterfaces {
		t.Run(string(at.ProtocolBinding), func(t *testing.T) {
			dial := func(key string) *a2aclient.Client {
				cl, err := a2aclient.NewFromEndpoints(t.Context(), []*sdk.AgentInterface{at}, options[i], a2aclient.WithCallInterceptors(bearer{token: key}))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = cl.Destroy() }) // the connection only
				return cl
			}
			cl := dial(runner.Key)
			send := func(cl *a2aclient.Client, req *sdk.SendMessageRequest) (*sdk.Task, error) {
				got, err := cl.SendMessage(t.Context(), req)
				task, _ := got.(*sdk.Task)
				return task, err
			}
			asked, err := send(cl, toTask("", sdk.NewTextPart("Please add two and two.")))
			if err != nil || asked.Status.State != sdk.TaskStateInputRequired || !strings.Contains(questionOf(asked), "language") {
				t.Fatalf("a text without code: %+v, %v", asked, err)
			}
			again, err := send(cl, toTask(asked.ID, sdk.NewTextPart("```\n2+2\n```")))
			if err != nil || again.ID != asked.ID || again.Status.State != sdk.TaskStateInputRequired || !strings.Contains(questionOf(again), "names no language") {
				t.Fatalf("a fence without a language: %+v, %v", again, err)
			}
			if _, err := send(dial(other.Key), toTask(asked.ID, sdk.NewTextPart("```starlark\nresult = 1\n```"))); a2a.FromWire(err).Code != a2a.CodeNotFound {
				t.Errorf("another's message: %v", err)
			}
			if _, err := send(cl, toTask(asked.ID, executionPart(t, a2a.Execution{Language: "starlark", Code: "result = 1", On: "local", Limits: a2a.Limits{MemoryBytes: 1 << 50}}))); err != nil {
				t.Errorf("a denied message: %v", err)
			}
			denied, err := cl.GetTask(t.Context(), &sdk.GetTaskRequest{ID: asked.ID})
			if err != nil || denied.Status.State != sdk.TaskStateRejected {
				t.Errorf("after a denial: %+v, %v", denied, err)
			}

			// A stream of the whole talk, and a run on the other node.
			asked, err = send(cl, toTask("", sdk.NewTextPart("hello")))
			if err != nil {
				t.Fatal(err)
			}
			var states []sdk.TaskState
			var ended *sdk.Task
			for e, err := range cl.SendStreamingMessage(t.Context(), toTask(asked.ID, executionPart(t, a2a.Execution{Language: "starlark", Code: "print('four')\nresult = 2 + 2", On: string(c.Nodes[1].ID)}))) {
				if err != nil {
					t.Fatal(err)
				}
				if u, ok := e.(*sdk.TaskStatusUpdateEvent); ok {
					states = append(states, u.Status.State)
				}
			}
			if len(states) == 0 || states[len(states)-1] != sdk.TaskStateCompleted {
				t.Fatalf("states %v\n%s", states, c.logs())
			}
			if ended, err = cl.GetTask(t.Context(), &sdk.GetTaskRequest{ID: asked.ID}); err != nil || len(ended.History) != 2 {
				t.Fatalf("the ended task: %+v, %v", ended, err)
			}
			rep, err := a2a.ReportOf(ended)
			if err != nil || rep.Status != a2a.Succeeded || string(rep.Result) != "4" || rep.Node != c.Nodes[1].ID || rep.Intent == nil || rep.Outcome == nil || rep.Task != a2a.ExecutionOf(ended) {
				t.Errorf("report %+v, %v", rep, err)
			}
			receipt := filepath.Join(t.TempDir(), "receipt.json")
			proof, err := c.agentAt(0).Receipt(t.Context(), rep.Task)
			if a2a.FromWire(err).Code != a2a.CodeNotFound {
				t.Errorf("a receipt for another: %s, %v", proof, err)
			}
			own, err := client.New(client.Config{URL: c.Nodes[0].HTTP + a2aPath, APIKey: runner.Key})
			if err != nil {
				t.Fatal(err)
			}
			if proof, err = own.Receipt(t.Context(), rep.Task); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(receipt, proof, 0o600); err != nil {
				t.Fatal(err)
			}
			if r := c.run("verify", receipt, "--trust", c.Trust); r.code != exitOK {
				t.Errorf("verify: %s%s", r.stdout, r.stderr)
			}
			if _, err := send(cl, toTask(asked.ID, sdk.NewTextPart("once more"))); a2a.FromWire(err).Code != a2a.CodeUnsupported {
				t.Errorf("a message to the ended task: %v", err)
			}

			// Who may run nothing is asked, and denied when he sends a program.
			asked, err = send(dial(looker.Key), toTask("", sdk.NewTextPart("hello")))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := send(dial(looker.Key), toTask(asked.ID, sdk.NewTextPart("```starlark\nresult = 1\n```"))); err != nil || got.Status.State != sdk.TaskStateRejected {
				t.Errorf("a viewer's program: %+v, %v", got, err)
			}
			asked, err = send(cl, toTask("", sdk.NewTextPart("hello")))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := cl.CancelTask(t.Context(), &sdk.CancelTaskRequest{ID: asked.ID}); err != nil || got.Status.State != sdk.TaskStateCanceled {
				t.Errorf("cancel: %+v, %v", got, err)
			}
		})
	}
}

// The same with signed messages: only their signer goes on with the task, a
// message that is sent again is the same one, and one that lacks authority is
// asked for more.
func TestAskedForAuthority(t *testing.T) {
	c := startCluster(t, 1)
	w := newWire(t, c)
	first := w.sign(toTask("", sdk.NewTextPart("hello")), func(o *a2a.SignOptions) { o.JTI = a2a.NewJTI() })
	asked, err := w.client.Send(t.Context(), first, nil)
	if err != nil || asked.Status.State != sdk.TaskStateInputRequired {
		t.Fatalf("a text: %+v, %v", asked, err)
	}
	if same, err := w.client.Send(t.Context(), first, nil); err != nil || same.ID != asked.ID {
		t.Errorf("the same again: %+v, %v", same, err)
	}
	jti := a2a.NewJTI()
	use := func(o *a2a.SignOptions) { o.JTI = jti }
	if _, err := w.client.Send(t.Context(), w.sign(toTask("", sdk.NewTextPart("one")), use), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Send(t.Context(), w.sign(toTask("", sdk.NewTextPart("two")), use), nil); a2a.FromWire(err).Code != a2a.CodeConflict {
		t.Errorf("the same jti with other words: %v", err)
	}

	stranger, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	code := executionPart(t, a2a.Execution{Language: "starlark", Code: "result = 7"})
	foreign, err := a2a.Sign(stranger, toTask(asked.ID, code), a2a.SignOptions{Audience: w.audience})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Send(t.Context(), foreign, nil); a2a.FromWire(err).Code != a2a.CodeUnauthenticated {
		t.Errorf("a stranger's message: %v", err)
	}
	if _, err := w.client.Send(t.Context(), toTask(asked.ID, code), nil); a2a.FromWire(err).Code != a2a.CodeNotFound {
		t.Errorf("nobody's message: %v", err)
	}
	if n := w.intents(); n != 0 {
		t.Fatalf("%d intents before anybody sent a program that may run", n)
	}
	complete := w.sign(toTask(asked.ID, code), nil)
	done, err := w.client.Send(t.Context(), complete, nil)
	if err != nil || done.Status.State != sdk.TaskStateCompleted {
		t.Fatalf("the program: %+v, %v", done, err)
	}
	if same, err := w.client.Send(t.Context(), complete, nil); err != nil || same.ID != asked.ID || same.Status.State != sdk.TaskStateCompleted {
		t.Errorf("the program again: %+v, %v", same, err)
	}
	if n := w.intents(); n != 1 {
		t.Errorf("%d intents, want one", n)
	}

	owner, _ := c.newAgent("owner", "runner")
	plannerFile, plannerID := c.newAgent("planner", "delegator")
	planner, err := identity.Load(plannerFile)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Config{URL: c.Nodes[0].HTTP + a2aPath, Key: planner, Audience: w.audience})
	if err != nil {
		t.Fatal(err)
	}
	grant := func(name, language string, more ...string) string {
		file := c.mandate(name, append([]string{"grant", "--agent-key", owner, "--to", string(plannerID), "--tenant", defaultTenant, "--lang", language}, more...)...)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	narrow, revoked, good := grant("narrow", "python"), grant("revoked", "starlark"), grant("good", "starlark")
	expired := grant("expired", "starlark", "--expires", "1s")
	ended := time.Now().Add(2 * time.Second) // its end is a whole second
	if r := c.run("mandate", "revoke", filepath.Join(c.dir, "revoked"), "--agent-key", owner); r.code != exitOK {
		t.Fatalf("revoke: %s", r.stderr)
	}
	if asked, err = cl.Send(t.Context(), toTask("", sdk.NewTextPart("hello")), nil); err != nil {
		t.Fatal(err)
	}
	c.await("the end of a mandate", func() bool { return time.Now().After(ended) })
	for _, step := range []struct {
		name, mandate string
		want          sdk.TaskState
	}{
		{"one that does not cover it", narrow, sdk.TaskStateAuthRequired},
		{"one that was revoked", revoked, sdk.TaskStateAuthRequired},
		{"one that has expired", expired, sdk.TaskStateAuthRequired},
		{"a good one", good, sdk.TaskStateCompleted},
	} {
		got, err := cl.Send(t.Context(), toTask(asked.ID, executionPart(t, a2a.Execution{Language: "starlark", Code: "result = 8", Mandate: step.mandate})), nil)
		if err != nil || got.Status.State != step.want {
			t.Fatalf("%s: %+v, %v", step.name, got, err)
		}
		if step.want == sdk.TaskStateAuthRequired && !strings.Contains(questionOf(got), "mandate") {
			t.Errorf("%s: asked %q", step.name, questionOf(got))
		}
	}
	if n := w.intents(); n != 2 {
		t.Errorf("%d intents, want two", n)
	}
}
