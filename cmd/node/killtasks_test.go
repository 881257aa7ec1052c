package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
)

// Issue 5: a node is killed in the middle of everything, a blocking request, an open
// stream, a receiver that has yet to be told, a task that waits for its client and one
// whose client has answered. When it is back each task has an end or can be answered,
// readers go on where they left off, and the receiver is told.
func TestKilledInTheMiddleOfEverything(t *testing.T) {
	needPython(t)
	t.Setenv("AGENTICRAFT_PUSH_ALLOW", "127.0.0.1")
	c := startCluster(t, 1)
	cl := c.agentAt(0)

	// The receiver takes nothing until the node has been killed.
	var takes atomic.Bool
	told := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var out sdk.StreamResponse
		if !takes.Load() || json.NewDecoder(r.Body).Decode(&out) != nil {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if e, ok := out.Event.(*sdk.TaskStatusUpdateEvent); ok && e.Status.State.Terminal() {
			told <- string(e.TaskID) + " " + string(e.Status.State)
		}
	}))
	defer receiver.Close()

	// One task has ended: a reader left in its middle, and its receiver is not told.
	ended := c.begin(0, 0, "import time\nfor n in range(4):\n    print(n, flush=True)\n    time.sleep(0.2)\n", &sdk.PushConfig{URL: receiver.URL})
	first, at, _ := c.read(cl, ended, nil, func(s string) bool { return strings.Contains(s, "1\n") })
	if task, err := cl.Wait(t.Context(), ended); err != nil || task.Status.State != sdk.TaskStateCompleted {
		t.Fatalf("the ended task: %+v, %v", task, err)
	}
	// One waits for its client, one was answered and runs.
	python := func(code string) *sdk.Part { return executionPart(t, a2a.Execution{Language: "python", Code: code}) }
	ask := func() sdk.TaskID { return beginTalk(t, cl) }
	waiting, answered := ask(), ask()
	answer := toTask(answered, python(sleepsLong))
	answer.Config = immediately()
	if _, err := cl.Send(t.Context(), answer, nil); err != nil {
		t.Fatal(err)
	}
	// One is waited for by a blocking request, one is streamed.
	type result struct {
		task *sdk.Task
		err  error
	}
	blocked, streamed := make(chan result, 1), make(chan result, 1)
	sleeps := func() *sdk.SendMessageRequest {
		return &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser, python("print('begun', flush=True)\n"+sleepsLong))}
	}
	go func() {
		task, err := cl.Send(t.Context(), sleeps(), nil)
		blocked <- result{task, err}
	}()
	begun := make(chan struct{})
	go func() {
		task, err := client.Follow(cl.Stream(t.Context(), sleeps(), nil), client.Watcher{Output: func(string, int64, []byte) { close(begun) }})
		streamed <- result{task, err}
	}()
	<-begun
	c.await("the intents of three runs", func() bool { return len(c.open(0)) == 3 })

	c.kill(0)
	takes.Store(true)
	c.restart(0)

	for name, of := range map[string]chan result{"the blocking request": blocked, "the stream": streamed} {
		got := <-of
		if got.err != nil || got.task == nil || a2a.StatusOf(got.task) != a2a.Lost {
			t.Errorf("%s ended with %+v, %v", name, got.task, got.err)
		}
	}
	if rest, _, state := c.read(cl, ended, &at, nil); first+rest != "0\n1\n2\n3\n" || state != sdk.TaskStateCompleted {
		t.Errorf("the reader got %q, and after %d %q, then %s", first, at, rest, state)
	}
	got := c.awaitTold(told)
	if want := ended + " TASK_STATE_COMPLETED"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if task, err := cl.Send(t.Context(), toTask(waiting, executionPart(t, a2a.Execution{Language: "starlark", Code: "result = 7"})), nil); err != nil || task.ID != waiting || task.Status.State != sdk.TaskStateCompleted {
		t.Errorf("the answer to the task that waited: %+v, %v", task, err)
	}
	c.await("the end of the task that had its answer", func() bool {
		task, err := cl.Get(t.Context(), string(answered), nil)
		return err == nil && a2a.StatusOf(task) == a2a.Lost
	})
	if _, err := cl.Send(t.Context(), toTask(answered, python("")), nil); a2a.FromWire(err).Code != a2a.CodeUnsupported {
		t.Errorf("a message to the lost task: %v", err)
	}
	c.await("every intent to have its outcome", func() bool { return len(c.open(0)) == 0 })
	for id, status := range c.listed(cl) {
		if !status.Terminal() {
			t.Errorf("task %s is %s", id, status)
		}
	}
}
