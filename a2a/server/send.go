package server

import (
	"context"
	"errors"
	"iter"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/taskstore"
)

const (
	appearWait = 2 * time.Second // for a task that was admitted a moment ago by another request
	pollFirst  = 20 * time.Millisecond
	pollMost   = time.Second
)

// SendMessage implements the SDK's RequestHandler: it answers when the task
// has ended, or at once if the request asks for that.
func (h *Handler) SendMessage(ctx context.Context, req *sdk.SendMessageRequest) (sdk.SendMessageResult, error) {
	if away, err := h.elsewhere(ctx, req); err != nil {
		return nil, err
	} else if away != nil {
		task, err := away.wait(ctx, h, req)
		if err != nil {
			return nil, err
		}
		return trimHistory(task, historyLength(req)), nil
	}
	task, reply, reader, err := h.submit(ctx, req)
	if err != nil {
		return nil, err
	}
	if reply != nil {
		return reply, nil
	}
	if reader != nil {
		if c := req.Config; c == nil || !c.ReturnImmediately {
			if err := reader.run.wait(ctx); err != nil {
				return nil, err
			}
		}
		task = reader.run.snapshot().first
	}
	return trimHistory(task, historyLength(req)), nil
}

// SendStreamingMessage implements the SDK's RequestHandler: the task, its
// output as it comes, the report, the end.
func (h *Handler) SendStreamingMessage(ctx context.Context, req *sdk.SendMessageRequest) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		if away, err := h.elsewhere(ctx, req); err != nil {
			yield(nil, err)
			return
		} else if away != nil {
			away.stream(ctx, yield)
			return
		}
		task, reply, reader, err := h.submit(ctx, req)
		if err != nil {
			yield(nil, err)
			return
		}
		if reply != nil {
			yield(reply, nil)
			return
		}
		if reader == nil {
			yield(trimHistory(task, historyLength(req)), nil)
			return
		}
		reader.oneTurn = true
		reader.follow(ctx, historyLength(req), yield)
	}
}

// submit walks the path. It returns a reader of the run, or a task that has
// ended (or lives elsewhere), or a message that is the whole answer.
func (h *Handler) submit(ctx context.Context, req *sdk.SendMessageRequest) (*sdk.Task, *sdk.Message, *reader, error) {
	caller, _ := CallerFrom(ctx)
	if err := checkRequest(req); err != nil {
		return nil, nil, nil, err
	}
	if h.signedOnly && !a2a.IsSigned(req) {
		return nil, nil, nil, unsigned(ctx, req)
	}
	delegation, _ := ctx.Value(delegationKey).([]byte)
	req, push, err := h.inlinePush(req, delegation != nil)
	if err != nil {
		return nil, nil, nil, err
	}
	// What another node placed here is begun here, whatever task it continues there.
	if req.Message.TaskID != "" && delegation == nil {
		task, follow, err := h.resumeTalk(ctx, req, caller, push)
		return task, nil, follow, err
	}
	if err := h.enter(); err != nil {
		return nil, nil, nil, err
	}
	defer h.inProgress.Done()
	once, _ := ctx.Value(onceKey).(string)
	admitted, err := h.path.Submit(ctx, Inbound{Request: req, Caller: caller, Delegation: delegation, Once: once})
	if err != nil {
		return nil, nil, nil, err
	}
	switch {
	case admitted.Existing:
		task, follow, err := h.existing(ctx, admitted, caller, req)
		return task, nil, follow, err
	case admitted.Reply != nil:
		return nil, admitted.Reply, nil, nil
	case admitted.Final != nil:
		task, err := ended(newTask(admitted, req), *admitted.Final, nil)
		return task, nil, nil, err
	case admitted.Run == nil && admitted.Talk == nil:
		return nil, nil, nil, errors.New("path admitted a request without a run")
	}
	var task *sdk.Task
	follow, err := h.start(ctx, admitted, req, push)
	if errors.Is(err, taskstore.ErrExists) {
		task, follow, err = h.askedBefore(ctx, admitted, caller, req)
	}
	return task, nil, follow, err
}

// start stores the task and runs it. A run happens whatever becomes of the
// request or the store; a talk only if the store can keep it, and once:
// [taskstore.ErrExists] if it has begun before.
func (h *Handler) start(ctx context.Context, admitted Admitted, req *sdk.SendMessageRequest, push *sdk.PushConfig) (*reader, error) {
	if admitted.Talk != nil {
		if err := h.mayAsk(admitted.Owner); err != nil {
			return nil, err
		}
	}
	task := newTask(admitted, req)
	r := newRun(task, admitted.Owner)
	r.talks = admitted.Talk != nil
	fromTheStart := r.snapshot()
	door := ""
	if caller, _ := CallerFrom(ctx); caller.Door == DoorMesh {
		door = string(caller.Peer)
	}
	create := func(soon bool) error {
		_, err := h.store.CreatePlaced(task, admitted.Owner, door, *task.Status.Timestamp, soon)
		return err
	}
	if admitted.Talk != nil {
		if err := create(false); err != nil {
			return nil, err
		}
		h.register(ctx, task.ID, push)
		h.hold(task.ID, r)
		h.talk(h.newTurn(ctx, r), admitted.Talk)
		return fromTheStart, nil
	}
	many := h.hold(task.ID, r) >= manyRuns
	// The disk writes the task while the run is prepared and its intent goes to a
	// quorum: whoever is told of the task, and its end, wait for both.
	stored := make(chan struct{})
	h.inProgress.Go(func() {
		// The run is owed an outcome even if the caller has gone.
		owed, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(h.stop, cancel)()
		report := admitted.Run(owed, r)
		<-stored
		h.finish(owed, r, report)
	})
	defer close(stored)
	// There is one already if the request came before and was not run, for want of a
	// quorum or of room: what comes of this time takes its place.
	if err := create(many); err != nil && !errors.Is(err, taskstore.ErrExists) {
		h.log.ErrorContext(ctx, "store task", "task", task.ID, "err", err)
	}
	h.register(ctx, task.ID, push)
	return fromTheStart, nil
}

// manyRuns is how many at the same time take longer than it takes until their tasks
// are stored together.
const manyRuns = 16

// hold makes the run known to who asks for its task, and says how many there are.
func (h *Handler) hold(id sdk.TaskID, r *run) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runs[id] = r
	return len(h.runs)
}

// finish tells and keeps how a run ended, or that it was not to be.
func (h *Handler) finish(ctx context.Context, r *run, report a2a.Report) {
	// No program wrote this code: none ran.
	if e := report.Error; e != nil && e.Code == a2a.CodeConflict && report.Intent == nil {
		h.withdraw(ctx, r, a2a.Errorf(a2a.CodeConflict, "%s", e.Message))
		return
	}
	h.conclude(ctx, r, report)
}

// withdraw takes back a task whose id the log gave to another request, which came
// through another door at the same time. The task is that one's, and what this
// node has of it would contradict the log: its sender is refused, as he would have
// been a moment later.
func (h *Handler) withdraw(ctx context.Context, r *run, refusal error) {
	id := r.now().ID
	if err := h.store.Forget(id); err != nil {
		h.log.ErrorContext(ctx, "task of another request not forgotten", "task", id, "err", err)
	}
	h.mu.Lock()
	delete(h.runs, id)
	h.mu.Unlock()
	r.refuse(refusal)
}

// conclude makes the end durable, then visible. To those who wait for it, one that
// could be made anew is visible at once; whoever asks for the task waits until it
// is stored, see running.
func (h *Handler) conclude(ctx context.Context, r *run, report a2a.Report) {
	if !report.Status.Terminal() {
		report.Status = a2a.Lost
	}
	task := h.endOf(ctx, r, report)
	landed, told := r.endEarly(task)
	h.keepRun(ctx, r, task, nil, told, lastWords(task)...)
	if !told {
		r.end(task)
	}
	h.mu.Lock()
	delete(h.runs, task.ID)
	h.mu.Unlock()
	if told {
		landed()
	}
}

// endOf is the task of a run with the report as its end.
func (h *Handler) endOf(ctx context.Context, r *run, report a2a.Report) *sdk.Task {
	before := r.now()
	task, err := ended(before, report, r.binaryOutput())
	if err != nil {
		h.log.ErrorContext(ctx, "task report", "task", before.ID, "err", err)
		report = a2a.Report{Task: report.Task, Node: report.Node, Status: a2a.Failed, Intent: report.Intent, Outcome: report.Outcome, Error: &a2a.ReportError{Code: a2a.CodeInternal, Message: "the report could not be written"}}
		task, _ = ended(before, report, nil) // without a result it can
	}
	return task
}

// keepRun stores a task with the log of its run, with what comes next in it if
// something does, and has its receivers told of events. The run goes on if it
// cannot. What could be made anew is stored soon, not at once.
func (h *Handler) keepRun(ctx context.Context, r *run, task *sdk.Task, next []sdk.Event, soon bool, told ...sdk.Event) {
	events, err := r.log(next)
	if err != nil {
		h.log.ErrorContext(ctx, "log of a task", "task", task.ID, "err", err)
	}
	if err := h.keep(task, r.owner, taskstore.Change{Events: events, Notices: h.notices(task.ID, told...), Soon: soon}); err != nil {
		h.log.ErrorContext(ctx, "store task", "task", task.ID, "err", err)
	}
}

func (h *Handler) keep(task *sdk.Task, owner string, change taskstore.Change) error {
	_, err := h.store.Update(task, *task.Status.Timestamp, change)
	if errors.Is(err, taskstore.ErrNotFound) {
		_, err = h.store.Create(task, owner, *task.Status.Timestamp)
	}
	if len(change.Notices) > 0 {
		h.push.Wake(task.ID)
	}
	return err
}

// existing finds the task that an earlier request made, here or elsewhere, and
// waits for it like the earlier one did.
func (h *Handler) existing(ctx context.Context, admitted Admitted, caller Caller, req *sdk.SendMessageRequest) (*sdk.Task, *reader, error) {
	id := sdk.TaskID(admitted.Task)
	immediately := req.Config != nil && req.Config.ReturnImmediately
	appeared := time.Now().Add(appearWait)
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		if r := h.running(id); r != nil && r.owner == admitted.Owner {
			return nil, r.reader(ctx), nil
		}
		task, err := h.stored(id, func(owner string) bool { return owner == admitted.Owner })
		if isNotFound(err) {
			task, err = h.path.Fetch(ctx, admitted.Task, admitted.asker(caller))
		}
		switch {
		case err == nil && task.Status.State.Terminal():
			follow, err := h.replay(ctx, task)
			return task, follow, err
		case err == nil && (immediately || Interrupted(task.Status.State)):
			return task, nil, nil
		case err != nil && (!isNotFound(err) || time.Now().After(appeared)):
			return nil, nil, err
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, nil, err
		}
	}
}

// wait waits until the run has ended, or waits for somebody itself.
func (r *run) wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		state, changed, refused := r.task.Status.State, r.changed, r.refused
		r.mu.Unlock()
		if refused != nil {
			return refused
		}
		if state.Terminal() || Interrupted(state) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follow yields the task as it stood, then everything until its end. The pace
// is the reader's: the run never waits for him.
func (f *reader) follow(ctx context.Context, history *int, yield func(sdk.Event, error) bool) {
	if f.first != nil {
		number(ctx, f.at)
		if !yield(trimHistory(f.first, history), nil) || f.first.Status.State.Terminal() {
			return
		}
	}
	for {
		events, task, changed, err := f.read()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, e := range events {
			number(ctx, e.Number)
			if !yield(e.Event, nil) {
				return
			}
		}
		switch state := task.Status.State; {
		case state.Terminal() && !f.run.talks:
			f.farewell(ctx, task, yield)
			return
		case state.Terminal(), f.oneTurn && state == sdk.TaskStateInputRequired:
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			yield(nil, ctx.Err())
			return
		}
	}
}

// farewell yields the end of what the reader has not seen, the last word in any
// case.
func (f *reader) farewell(ctx context.Context, task *sdk.Task, yield func(sdk.Event, error) bool) {
	f.run.mu.Lock()
	n := f.run.length()
	f.run.mu.Unlock()
	farewell(task, func(e sdk.Event, err error) bool {
		n++
		if _, last := e.(*sdk.TaskStatusUpdateEvent); !last && n <= f.at {
			return true
		}
		number(ctx, n)
		return yield(e, err)
	})
}

// farewell yields the report and the terminal status.
func farewell(task *sdk.Task, yield func(sdk.Event, error) bool) {
	for _, e := range lastWords(task) {
		if !yield(e, nil) {
			return
		}
	}
}

// lastWords are the report and the terminal status. Of the output, readers have
// seen the pieces.
func lastWords(task *sdk.Task) []sdk.Event {
	var out []sdk.Event
	for _, artifact := range task.Artifacts {
		if artifact.ID == a2a.ReportArtifact {
			out = append(out, &sdk.TaskArtifactUpdateEvent{TaskID: task.ID, ContextID: task.ContextID, Artifact: artifact, LastChunk: true})
		}
	}
	return append(out, &sdk.TaskStatusUpdateEvent{TaskID: task.ID, ContextID: task.ContextID, Status: task.Status})
}

func newTask(admitted Admitted, req *sdk.SendMessageRequest) *sdk.Task {
	at := now()
	task := &sdk.Task{
		ID:        sdk.TaskID(admitted.Task),
		ContextID: req.Message.ContextID,
		Status:    sdk.TaskStatus{State: sdk.TaskStateWorking, Timestamp: &at},
	}
	if task.ContextID == "" {
		task.ContextID = admitted.Task
	}
	a2a.SetOwner(task, admitted.Owner)
	message := *req.Message
	message.TaskID, message.ContextID = task.ID, task.ContextID
	task.History = []*sdk.Message{&message}
	return task
}

func historyLength(req *sdk.SendMessageRequest) *int {
	if req.Config == nil {
		return nil
	}
	return req.Config.HistoryLength
}

// trimHistory keeps the n most recent messages; nil keeps all.
func trimHistory(task *sdk.Task, n *int) *sdk.Task {
	if n == nil || *n >= len(task.History) {
		return task
	}
	out := *task
	out.History = task.History[len(task.History)-max(*n, 0):]
	return &out
}

func isNotFound(err error) bool {
	return errors.Is(err, taskstore.ErrNotFound) || errors.Is(err, sdk.ErrTaskNotFound)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
