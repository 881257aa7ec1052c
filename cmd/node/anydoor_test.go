package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/identity"
)

// agentAt is the agent as a client of one node.
func (c *testCluster) agentAt(node int) *client.Client {
	c.t.Helper()
	key, err := identity.Load(filepath.Join(c.data, agentKeyFile))
	if err != nil {
		c.t.Fatal(err)
	}
	door := &api{base: c.Nodes[node].HTTP, agent: key, http: http.DefaultClient}
	audience, err := door.audience(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	cl, err := client.New(client.Config{URL: c.Nodes[node].HTTP + a2aPath, Key: key, Audience: audience})
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// begin starts a program on one node through another's door.
func (c *testCluster) begin(door, executor int, code string, push *sdk.PushConfig) string {
	c.t.Helper()
	req, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: code, On: string(c.Nodes[executor].ID)})
	if err != nil {
		c.t.Fatal(err)
	}
	req.Config = &sdk.SendMessageConfig{ReturnImmediately: true, PushConfig: push}
	task, err := c.agentAt(door).Send(c.t.Context(), req, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.await("its intent", func() bool {
		_, err := c.agentAt((door+1)%len(c.Nodes)).Get(c.t.Context(), string(task.ID), nil)
		return err == nil
	})
	return string(task.ID)
}

const (
	countsSlowly = "import time\nfor n in range(20):\n    print(n, flush=True)\n    time.sleep(0.3)\nresult = 'end'\n"
	sleepsLong   = "import time\ntime.sleep(60)\n"
)

// counted is what countsSlowly prints in all.
func counted() string {
	var b strings.Builder
	for n := range 20 {
		fmt.Fprintln(&b, n)
	}
	return b.String()
}

// read follows a task from after an event, until enough or the end. It gives
// the output, the last number and the last state.
func (c *testCluster) read(at *client.Client, task string, after *uint64, enough func(stdout string) bool) (stdout string, last uint64, state sdk.TaskState) {
	c.t.Helper()
	for e, err := range at.SubscribeAfter(c.t.Context(), task, after, nil) {
		if err != nil {
			c.t.Fatalf("stream after %q: %v", stdout, err)
		}
		if e.Number > 0 {
			last = e.Number
		}
		take := func(a *sdk.Artifact) {
			if a.ID == "stdout" {
				stdout += a.Parts[0].Text()
			}
		}
		switch v := e.Event.(type) {
		case *sdk.Task:
			state = v.Status.State
			for _, a := range v.Artifacts {
				take(a)
			}
		case *sdk.TaskArtifactUpdateEvent:
			take(v.Artifact)
		case *sdk.TaskStatusUpdateEvent:
			state = v.Status.State
		}
		if enough != nil && enough(stdout) {
			return stdout, last, state
		}
	}
	return stdout, last, state
}

// listed are all tasks that a client is shown, page by page, and how they stand.
func (c *testCluster) listed(at *client.Client) map[string]a2a.Status {
	c.t.Helper()
	out := map[string]a2a.Status{}
	for cursor := ""; ; {
		page, err := at.List(c.t.Context(), &sdk.ListTasksRequest{PageSize: 1, PageToken: cursor}, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, task := range page.Tasks {
			if _, again := out[string(task.ID)]; again {
				c.t.Errorf("task %s is listed twice", task.ID)
			}
			out[string(task.ID)] = a2a.StatusOf(task)
		}
		if cursor = page.NextPageToken; cursor == "" {
			if page.TotalSize != len(out) {
				c.t.Errorf("%d tasks in all, %d were listed", page.TotalSize, len(out))
			}
			return out
		}
	}
}

// Issue 5: a client who comes back to another node of the cluster gets its task
// and its stream, where it left off, also when the door that it came by is dead.
func TestATaskThroughAnyDoor(t *testing.T) {
	needPython(t)
	c := startCluster(t, 3)
	const door, executor, other = 0, 1, 2
	counts, sleeps := c.begin(door, executor, countsSlowly, nil), c.begin(door, executor, sleepsLong, nil)

	// Some of it at the door, some more at another node, after what was seen.
	first, at, _ := c.read(c.agentAt(door), counts, nil, func(s string) bool { return strings.Contains(s, "2\n") })
	second, at, _ := c.read(c.agentAt(other), counts, &at, func(s string) bool { return strings.Contains(s, "5\n") })
	for node := range c.Nodes {
		if got := c.listed(c.agentAt(node)); len(got) != 2 {
			t.Errorf("node %d lists %v", node+1, got)
		}
	}
	c.kill(door)
	rest, _, state := c.read(c.agentAt(other), counts, &at, nil)
	if got := first + second + rest; got != counted() || state != sdk.TaskStateCompleted {
		t.Errorf("through three streams came %q, then %s", got, state)
	}

	// The other node knows the rest of what one can ask of it.
	cl := c.agentAt(other)
	if got := c.listed(cl); got[counts] != a2a.Succeeded || got[sleeps] != a2a.Running || len(got) != 2 {
		t.Errorf("without their door the tasks are listed as %v", got)
	}
	task, err := cl.Get(t.Context(), counts, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := a2a.ReportOf(task); err != nil || rep.Stdout != counted() {
		t.Errorf("report = %+v, %v", rep, err)
	}
	if again, _, state := c.read(cl, counts, &at, nil); again != rest || state != sdk.TaskStateCompleted {
		t.Errorf("replayed after the end: %q, %s", again, state)
	}
	if task, err := cl.Cancel(t.Context(), sleeps, nil); err != nil || task.Status.State != sdk.TaskStateCanceled {
		t.Errorf("cancel = %+v, %v", task, err)
	}
}

// Issue 5: who is to be told of a task is told through any door, and after a
// restart.
func TestReceiversAreToldAcrossTheCluster(t *testing.T) {
	needPython(t)
	t.Setenv("AGENTICRAFT_PUSH_ALLOW", "127.0.0.1")
	c := startCluster(t, 3)
	told := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var out sdk.StreamResponse
		if json.NewDecoder(r.Body).Decode(&out) != nil {
			return
		}
		if e, ok := out.Event.(*sdk.TaskStatusUpdateEvent); ok {
			told <- r.URL.Path + " " + string(e.TaskID) + " " + string(e.Status.State)
		}
	}))
	defer receiver.Close()
	const door, executor, other = 0, 1, 2
	task := c.begin(door, executor, sleepsLong, &sdk.PushConfig{ID: "inline", URL: receiver.URL + "/inline"})
	cl := c.agentAt(other)
	if _, err := cl.CreatePush(t.Context(), &sdk.PushConfig{TaskID: sdk.TaskID(task), ID: "later", URL: receiver.URL + "/later"}); err != nil {
		t.Fatal(err)
	}
	for node := range c.Nodes {
		if all, err := c.agentAt(node).ListPushes(t.Context(), task); err != nil || len(all) != 2 {
			t.Errorf("node %d lists %+v, %v", node+1, all, err)
		}
	}
	if err := c.agentAt(executor).DeletePush(t.Context(), task, "inline"); err != nil {
		t.Error(err)
	}
	// The door dies and comes back, while the task goes on and ends.
	c.kill(door)
	if _, err := cl.Cancel(t.Context(), task, nil); err != nil {
		t.Fatal(err)
	}
	c.restart(door)
	got := c.awaitTold(told)
	if want := "/later " + task + " TASK_STATE_CANCELED"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// awaitTold waits for what a receiver of notifications is told.
func (c *testCluster) awaitTold(told <-chan string) (got string) {
	c.t.Helper()
	c.await("the receiver to be told", func() bool {
		select {
		case got = <-told:
			return true
		default:
			return false
		}
	})
	return got
}
