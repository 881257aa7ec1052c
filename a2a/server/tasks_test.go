package server_test

import (
	"context"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// as is a client whose API key is the role it has.
func (w *house) as(t *testing.T, role string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{URL: w.http.URL, HTTPClient: w.http.Client(), APIKey: role})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// begin sends a request that returns at once and gives its task, once it runs.
func begin(t *testing.T, c *client.Client, started <-chan struct{}) string {
	t.Helper()
	req := request(t)
	req.Config = &sdk.SendMessageConfig{ReturnImmediately: true}
	task, err := c.Send(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if task.Status.State != sdk.TaskStateWorking {
		t.Fatalf("state = %s, want working", task.Status.State)
	}
	<-started
	return string(task.ID)
}

func TestTasksAreTheirOwnersOnly(t *testing.T) {
	started := make(chan struct{}, 1)
	w := open(t, &fakePath{run: untilCancelled(started)})
	owner, stranger := w.client(t, newKey(t)), w.client(t, newKey(t))
	id := begin(t, owner, started)
	check := func(when string) {
		t.Helper()
		_, err := stranger.Get(t.Context(), id, nil)
		wantCode(t, err, a2a.CodeNotFound)
		_, err = stranger.Cancel(t.Context(), id, nil)
		wantCode(t, err, a2a.CodeNotFound)
		refused := false
		for _, err := range stranger.Subscribe(t.Context(), id, nil) {
			wantCode(t, err, a2a.CodeNotFound)
			refused = true
		}
		if !refused {
			t.Errorf("%s: a stranger's subscription was not refused", when)
		}
		req := request(t)
		req.Message.TaskID = sdk.TaskID(id)
		_, err = stranger.Send(t.Context(), req, nil) // signed, but for another's task
		wantCode(t, err, a2a.CodeNotFound)
		if list, err := stranger.List(t.Context(), &sdk.ListTasksRequest{}, nil); err != nil || len(list.Tasks) != 0 || list.TotalSize != 0 {
			t.Errorf("%s: a stranger's list = %+v, %v", when, list, err)
		}
		_, err = w.as(t, "runner").Get(t.Context(), id, nil)
		wantCode(t, err, a2a.CodeNotFound)
		nobody, err := client.New(client.Config{URL: w.http.URL, HTTPClient: w.http.Client()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = nobody.Get(t.Context(), id, nil)
		wantCode(t, err, a2a.CodeUnauthenticated)
		_, err = nobody.List(t.Context(), &sdk.ListTasksRequest{}, nil)
		wantCode(t, err, a2a.CodeUnauthenticated)
		for _, role := range []string{"operator", "auditor", "admin"} {
			if _, err := w.as(t, role).Get(t.Context(), id, nil); err != nil {
				t.Errorf("%s: %s: %v", when, role, err)
			}
			if list, err := w.as(t, role).List(t.Context(), &sdk.ListTasksRequest{}, nil); err != nil || len(list.Tasks) != 1 {
				t.Errorf("%s: %s's list = %+v, %v", when, role, list, err)
			}
		}
		if list, err := owner.List(t.Context(), &sdk.ListTasksRequest{}, nil); err != nil || len(list.Tasks) != 1 || list.Tasks[0].Artifacts != nil {
			t.Errorf("%s: the owner's list = %+v, %v", when, list, err)
		}
	}
	check("running")
	_, err := w.as(t, "auditor").Cancel(t.Context(), id, nil)
	wantCode(t, err, a2a.CodeDenied)
	task, err := w.as(t, "operator").Cancel(t.Context(), id, nil)
	if err != nil || task.Status.State != sdk.TaskStateCanceled {
		t.Fatalf("an operator's cancel = %+v, %v", task, err)
	}
	check("ended")
}

// Who was told of an end finds it, although it is told while it is stored.
func TestAnEndThatIsToldIsFound(t *testing.T) {
	w := open(t, &fakePath{run: func(ctx context.Context, e a2a.Execution, out server.Updates) a2a.Report {
		rep := hello(ctx, e, out)
		out.Kept()
		return rep
	}})
	c := w.client(t, newKey(t))
	for i := range 50 {
		task, err := c.Send(t.Context(), request(t), nil)
		if err != nil || task.Status.State != sdk.TaskStateCompleted {
			t.Fatalf("Send = %+v, %v", task, err)
		}
		if i%2 == 0 {
			got, err := c.Get(t.Context(), string(task.ID), nil)
			if diff := cmp.Diff(task, got); err != nil || diff != "" {
				t.Fatalf("Get = %v; it differs from what was told (-told +got):\n%s", err, diff)
			}
			for _, err := range c.Subscribe(t.Context(), string(task.ID), nil) {
				wantCode(t, err, a2a.CodeUnsupported)
			}
			continue
		}
		list, err := c.List(t.Context(), &sdk.ListTasksRequest{PageSize: 1}, nil)
		if err != nil || len(list.Tasks) != 1 || list.Tasks[0].ID != task.ID || list.Tasks[0].Status.State != sdk.TaskStateCompleted || list.TotalSize != i+1 {
			t.Fatalf("List = %+v, %v", list, err)
		}
	}
}

func TestCancelWaitsForTheEndAndIsIdempotent(t *testing.T) {
	started := make(chan struct{}, 1)
	w := open(t, &fakePath{run: untilCancelled(started)})
	c := w.client(t, newKey(t))
	id := begin(t, c, started)
	for range 2 {
		task, err := c.Cancel(t.Context(), id, nil)
		if err != nil || task.Status.State != sdk.TaskStateCanceled || task.Status.Message == nil {
			t.Fatalf("Cancel = %+v, %v", task, err)
		}
		if report, err := a2a.ReportOf(task); err != nil || report.Status != a2a.Cancelled || report.ExitCode != 130 {
			t.Errorf("report = %+v, %v", report, err)
		}
	}
	w.path.run = hello
	task, err := c.Send(t.Context(), request(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Cancel(t.Context(), string(task.ID), nil)
	wantCode(t, err, a2a.CodeNotCancelable)
}

// A task that ends while it is being cancelled is one that has ended, not one that
// there is not: the path forgets it a moment before it has landed here.
func TestCancelOfATaskThatIsEnding(t *testing.T) {
	started, goOn := make(chan struct{}, 1), make(chan struct{})
	w := open(t, &fakePath{run: func(ctx context.Context, e a2a.Execution, out server.Updates) a2a.Report {
		started <- struct{}{}
		<-goOn
		return hello(ctx, e, out)
	}})
	asked := 0
	w.path.forgets = func() error {
		if asked++; asked == 2 { // once it waits for what comes next
			close(goOn)
		}
		return a2a.ErrNoTask
	}
	c := w.client(t, newKey(t))
	id := begin(t, c, started)
	_, err := c.Cancel(t.Context(), id, nil)
	wantCode(t, err, a2a.CodeNotCancelable)
}

func TestSubscribeGoesOnFromTheTaskAsItStands(t *testing.T) {
	started, goOn := make(chan struct{}, 1), make(chan struct{})
	w := open(t, &fakePath{run: func(_ context.Context, _ a2a.Execution, out server.Updates) a2a.Report {
		out.Output("stdout", 0, []byte("one "))
		out.Output("stderr", 0, []byte{0xff, 0xfe})
		started <- struct{}{}
		<-goOn
		out.Output("stdout", 4, []byte("two"))
		return a2a.Report{Status: a2a.Failed, Stdout: "one two", Stderr: "\ufffd\ufffd", ExitCode: 7, Error: &a2a.ReportError{Code: "exit", Message: "exit 7"}}
	}})
	c := w.client(t, newKey(t))
	id := begin(t, c, started)
	var stdout string
	var stderr []byte
	var states []sdk.TaskState
	for e, err := range c.Subscribe(t.Context(), id, nil) {
		if err != nil {
			t.Fatal(err)
		}
		take := func(a *sdk.Artifact) {
			switch a.ID {
			case "stdout":
				stdout += a.Parts[0].Text()
			case "stderr":
				stderr = append(stderr, a.Parts[0].Raw()...)
			}
		}
		switch e := e.(type) {
		case *sdk.Task:
			for _, a := range e.Artifacts {
				take(a)
			}
			states = append(states, e.Status.State)
			close(goOn)
		case *sdk.TaskArtifactUpdateEvent:
			take(e.Artifact)
		case *sdk.TaskStatusUpdateEvent:
			states = append(states, e.Status.State)
		}
	}
	if stdout != "one two" || string(stderr) != "\xff\xfe" || !slices.Equal(states, []sdk.TaskState{sdk.TaskStateWorking, sdk.TaskStateFailed}) {
		t.Errorf("stdout %q, stderr %x, states %v", stdout, stderr, states)
	}
	for _, err := range c.Subscribe(t.Context(), id, nil) {
		wantCode(t, err, a2a.CodeUnsupported)
	}
	task, err := c.Get(t.Context(), id, nil)
	if err != nil || len(task.Artifacts) != 2 || string(task.Artifacts[0].Parts[0].Raw()) != "\xff\xfe" {
		t.Errorf("the raw bytes of stderr are not kept: %+v, %v", task, err)
	}
}

// INVARIANT: I8, at most one run per (issuer, jti, attempt): here, that the
// same request twice is answered with the one task.
func TestTheSameRequestTwiceIsOneTask(t *testing.T) {
	var runs atomic.Int32
	goOn := make(chan struct{})
	w := open(t, &fakePath{run: func(ctx context.Context, e a2a.Execution, out server.Updates) a2a.Report {
		runs.Add(1)
		<-goOn
		return hello(ctx, e, out)
	}})
	c := w.client(t, newKey(t))
	raw, err := c.Signed(request(t))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	tasks := make([]*sdk.Task, 8)
	for i := range tasks {
		wg.Go(func() {
			var err error
			if tasks[i], err = c.SendRaw(t.Context(), raw, nil); err != nil {
				t.Error(err)
			}
		})
	}
	close(goOn)
	wg.Wait()
	again, err := c.SendRaw(t.Context(), raw, nil)
	if err != nil || again.Status.State != sdk.TaskStateCompleted {
		t.Fatalf("sent again: %+v, %v", again, err)
	}
	for _, task := range tasks {
		if task == nil || task.ID != again.ID || task.Status.State != sdk.TaskStateCompleted {
			t.Errorf("task = %+v, want %s completed", task, again.ID)
		}
	}
	for e, err := range c.StreamRaw(t.Context(), raw, nil) {
		if task, ok := e.(*sdk.Task); err != nil || !ok || task.ID != again.ID {
			t.Errorf("streamed again: %+v, %v", e, err)
		}
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("%d runs", n)
	}
}

func TestTheSameJTIForAnotherRequestIsAConflict(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	key := newKey(t)
	c := w.client(t, key)
	jti := a2a.NewJTI()
	for i, want := range []string{"", a2a.CodeConflict} {
		signed, err := a2a.Sign(key, request(t), a2a.SignOptions{Audience: a2a.Audience(cluster), JTI: jti})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Send(t.Context(), signed, nil)
		if i == 0 && err != nil {
			t.Fatal(err)
		} else if i == 1 {
			wantCode(t, err, want)
		}
	}
}

func TestATaskOfAnotherNodeIsFetched(t *testing.T) {
	var asked identity.Principal
	elsewhere := &sdk.Task{ContextID: "c", Status: sdk.TaskStatus{State: sdk.TaskStateWorking}}
	var polls atomic.Int32
	p := &fakePath{run: hello, digest: map[string]string{}, cancel: map[string]context.CancelFunc{}}
	p.fetch = func(task string, caller identity.Principal) (*sdk.Task, error) {
		asked = caller
		out := *elsewhere
		out.ID = sdk.TaskID(task)
		if polls.Add(1) > 2 {
			out.Status.State = sdk.TaskStateCompleted
		}
		return &out, nil
	}
	w := open(t, p)
	key := newKey(t)
	c := w.client(t, key)
	signed, err := a2a.Sign(key, request(t), a2a.SignOptions{Audience: a2a.Audience(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a2a.Verify(signed, a2a.VerifyOptions{Audiences: []string{a2a.Audience(cluster)}})
	if err != nil {
		t.Fatal(err)
	}
	p.digest[s.Task()] = s.Digest // admitted through another door
	task, err := c.Send(t.Context(), signed, nil)
	if err != nil || task.Status.State != sdk.TaskStateCompleted || polls.Load() != 3 {
		t.Errorf("Send = %+v, %v after %d polls", task, err, polls.Load())
	}
	if _, err := c.Get(t.Context(), s.Task(), nil); err != nil || asked.String() != agent(key.ID()).String() {
		t.Errorf("Get asked as %s: %v", asked, err)
	}
	p.fetch = nil
	_, err = c.Get(t.Context(), s.Task(), nil)
	wantCode(t, err, a2a.CodeNotFound)
	_, err = c.Get(t.Context(), "../../etc/passwd", nil)
	wantCode(t, err, a2a.CodeNotFound)
}

func TestADeniedRequestIsRejectedAndNotKept(t *testing.T) {
	w := open(t, &fakePath{final: func(a2a.Execution) *a2a.Report {
		return &a2a.Report{Status: a2a.Denied, Error: &a2a.ReportError{Code: "denied", Message: "policy says no"}}
	}})
	c := w.client(t, newKey(t))
	task, err := c.Send(t.Context(), request(t), nil)
	if err != nil || task.Status.State != sdk.TaskStateRejected || task.Status.Message.Parts[0].Text() != "policy says no" {
		t.Fatalf("Send = %+v, %v", task, err)
	}
	if report, err := a2a.ReportOf(task); err != nil || report.Status != a2a.Denied {
		t.Errorf("report = %+v, %v", report, err)
	}
	events := 0
	for e, err := range c.Stream(t.Context(), request(t), nil) {
		if got, ok := e.(*sdk.Task); err != nil || !ok || got.Status.State != sdk.TaskStateRejected {
			t.Errorf("event = %+v, %v", e, err)
		}
		events++
	}
	if events != 1 {
		t.Errorf("%d events", events)
	}
	_, err = c.Get(t.Context(), string(task.ID), nil)
	wantCode(t, err, a2a.CodeNotFound)
}

func TestARunOutlivesItsRequest(t *testing.T) {
	started, goOn := make(chan struct{}, 1), make(chan struct{})
	w := open(t, &fakePath{run: func(ctx context.Context, e a2a.Execution, out server.Updates) a2a.Report {
		started <- struct{}{}
		<-goOn
		if ctx.Err() != nil {
			return a2a.Report{Status: a2a.Cancelled}
		}
		return hello(ctx, e, out)
	}})
	c := w.client(t, newKey(t))
	ctx, cancel := context.WithCancel(t.Context())
	raw, err := c.Signed(request(t))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _, err := c.SendRaw(ctx, raw, nil); wantCode(t, err, a2a.CodeUnavailable) })
	<-started
	cancel()
	wg.Wait()
	close(goOn)
	task, err := c.SendRaw(t.Context(), raw, nil)
	if err != nil || task.Status.State != sdk.TaskStateCompleted {
		t.Errorf("Send again = %+v, %v", task, err)
	}
}

func TestTaskOfAProcessThatDiedEndsAsLost(t *testing.T) {
	dir := t.TempDir()
	started := make(chan struct{}, 1)
	forever := make(chan struct{})
	w := openIn(t, &fakePath{run: func(context.Context, a2a.Execution, server.Updates) a2a.Report {
		started <- struct{}{}
		<-forever
		return a2a.Report{Status: a2a.Succeeded}
	}}, dir)
	t.Cleanup(func() { close(forever) })
	key := newKey(t)
	id := begin(t, w.client(t, key), started)
	if got := w.Unfinished(); len(got) != 0 {
		t.Errorf("Unfinished names %v, which run", got)
	}
	if err := w.Finish(t.Context(), id, a2a.Report{Status: a2a.Lost}); err == nil {
		t.Error("Finish of a running task succeeded")
	}
	w.store.Close() // as a kill would: nothing more is written

	w = openIn(t, &fakePath{run: hello}, dir)
	if got := w.Unfinished(); !slices.Equal(got, []server.Unfinished{{Task: id, Execution: id}}) {
		t.Fatalf("Unfinished = %v, want %s", got, id)
	}
	c := w.client(t, key)
	if task, err := c.Get(t.Context(), id, nil); err != nil || task.Status.State != sdk.TaskStateWorking {
		t.Errorf("Get before recovery = %+v, %v", task, err)
	}
	for range 2 {
		if err := w.Finish(t.Context(), id, a2a.Report{Task: id, Status: a2a.Lost, Error: &a2a.ReportError{Code: "lost", Message: "the node died"}}); err != nil {
			t.Fatal(err)
		}
	}
	task, err := c.Get(t.Context(), id, nil)
	if err != nil || task.Status.State != sdk.TaskStateFailed {
		t.Fatalf("Get = %+v, %v", task, err)
	}
	if report, err := a2a.ReportOf(task); err != nil || report.Status != a2a.Lost {
		t.Errorf("report = %+v, %v", report, err)
	}
	if got := w.Unfinished(); len(got) != 0 {
		t.Errorf("Unfinished = %v", got)
	}
	wantCode(t, w.Finish(t.Context(), strings.Repeat("0", 32), a2a.Report{}), a2a.CodeNotFound)
}

func TestCloseWaitsThenCancels(t *testing.T) {
	started := make(chan struct{}, 1)
	w := open(t, &fakePath{run: untilCancelled(started)})
	c := w.client(t, newKey(t))
	id := begin(t, c, started)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for range 2 {
		if err := w.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if task, err := c.Get(t.Context(), id, nil); err != nil || task.Status.State != sdk.TaskStateCanceled {
		t.Errorf("Get = %+v, %v", task, err)
	}
	_, err := c.Send(t.Context(), request(t), nil)
	wantCode(t, err, a2a.CodeUnavailable)
}

func TestAReaderWhoDoesNotReadHurtsNobody(t *testing.T) {
	const total = 4 << 20
	started := make(chan struct{}, 1)
	w := open(t, &fakePath{run: func(_ context.Context, _ a2a.Execution, out server.Updates) a2a.Report {
		started <- struct{}{}
		line := []byte(strings.Repeat("x", 1023) + "\n")
		for i := range total / len(line) {
			out.Output("stdout", int64(i*len(line)), line)
		}
		return a2a.Report{Status: a2a.Succeeded}
	}})
	key := newKey(t)
	stalled := make(chan struct{})
	c, err := client.New(client.Config{URL: w.http.URL, Key: key, Audience: a2a.Audience(cluster), HTTPClient: &http.Client{Transport: &http.Transport{ReadBufferSize: 1 << 10}}})
	if err != nil {
		t.Fatal(err)
	}
	var id atomic.Value
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range c.Stream(t.Context(), request(t), nil) {
			if task, ok := e.(*sdk.Task); ok {
				id.Store(string(task.ID))
			}
			<-stalled // reads no more
			return
		}
	})
	<-started
	other := w.client(t, key)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if name, ok := id.Load().(string); ok {
			if task, err := other.Get(t.Context(), name, nil); err == nil && task.Status.State == sdk.TaskStateCompleted {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the run waits for its reader")
		}
	}
	close(stalled)
	wg.Wait()
}

func TestHistoryLength(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	c := w.client(t, newKey(t))
	req, none := request(t), 0
	req.Config = &sdk.SendMessageConfig{HistoryLength: &none}
	task, err := c.Send(t.Context(), req, nil)
	if err != nil || len(task.History) != 0 {
		t.Errorf("Send = %+v, %v", task, err)
	}
	list, err := c.List(t.Context(), &sdk.ListTasksRequest{IncludeArtifacts: true}, nil)
	if err != nil || len(list.Tasks[0].History) != 1 || len(list.Tasks[0].Artifacts) == 0 || list.NextPageToken != "" {
		t.Errorf("List = %+v, %v", list, err)
	}
	for _, bad := range []*sdk.ListTasksRequest{{PageSize: 101}, {PageSize: -1}, {PageToken: "?"}} {
		_, err := c.List(t.Context(), bad, nil)
		wantCode(t, err, a2a.CodeInvalidRequest)
	}
}

// A task whose id the log gave to another request is that one's: whoever sent this
// one is refused, and this node has nothing of it.
func TestARunThatWasNotToBe(t *testing.T) {
	refused := a2a.Report{Status: a2a.Failed, Error: &a2a.ReportError{Code: a2a.CodeConflict, Message: "used before"}}
	goOn := make(chan struct{})
	var other *sdk.Task
	w := open(t, &fakePath{
		run: func(ctx context.Context, _ a2a.Execution, _ server.Updates) a2a.Report {
			select {
			case <-goOn:
			case <-ctx.Done():
			}
			return refused
		},
		fetch: func(string, identity.Principal) (*sdk.Task, error) {
			if other == nil {
				return nil, a2a.ErrNoTask
			}
			return other, nil
		},
	})
	c := w.client(t, newKey(t))
	req := request(t)
	req.Config = &sdk.SendMessageConfig{ReturnImmediately: true}
	task, err := c.Send(t.Context(), req, nil)
	if err != nil || task.Status.State != sdk.TaskStateWorking {
		t.Fatalf("Send = %+v, %v", task, err)
	}
	subscribed := make(chan error, 1)
	follow, stop := iter.Pull2(c.Subscribe(t.Context(), string(task.ID), nil))
	defer stop()
	if _, err, ok := follow(); err != nil || !ok {
		t.Fatalf("Subscribe = %v, %v", err, ok)
	}
	go func() {
		_, err, _ := follow()
		subscribed <- err
	}()
	close(goOn)
	wantCode(t, <-subscribed, a2a.CodeConflict)
	_, err = c.Get(t.Context(), string(task.ID), nil)
	wantCode(t, err, a2a.CodeNotFound)
	other = &sdk.Task{ID: task.ID, ContextID: "theirs", Status: sdk.TaskStatus{State: sdk.TaskStateCompleted}}
	if got, err := c.Get(t.Context(), string(task.ID), nil); err != nil || got.ContextID != "theirs" {
		t.Errorf("Get = %+v, %v, want the other request's task", got, err)
	}

	_, err = c.Send(t.Context(), request(t), nil)
	wantCode(t, err, a2a.CodeConflict)
	var last error
	for _, err := range c.Stream(t.Context(), request(t), nil) {
		last = err
	}
	wantCode(t, last, a2a.CodeConflict)
	if list, err := c.List(t.Context(), &sdk.ListTasksRequest{}, nil); err != nil || list.TotalSize != 0 || len(list.Tasks) != 0 {
		t.Errorf("List = %+v, %v, want nothing", list, err)
	}
}
