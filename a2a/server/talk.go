package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// Conversation is a [Path] whose tasks take more than one message: it answers
// a message to a task that waits for one. Other paths' tasks take one each.
type Conversation interface {
	Path
	// Continue answers a message to a task in an interrupted state, which its
	// owner sends. What it admits has a Talk; or a Run, whose Admitted.Task is
	// the id of what it runs; or it is Final.
	Continue(ctx context.Context, in Inbound, task *sdk.Task) (Admitted, error)
}

// Prover is a [Path] that knows whom a request itself proves.
type Prover interface {
	Path
	// Prove gives the principal behind a request's signature, if it has one,
	// else the one behind its channel, who may be nobody.
	Prove(in Inbound) (identity.Principal, error)
}

// Talk is the work of a path that answers in the protocol's own words. It
// gives artifacts and statuses to say, which keeps them and shows them to
// readers. A status is of this task and its last word ends the turn: terminal,
// input-required or auth-required. It calls say from one goroutine. ctx ends when
// the task is cancelled; what that means the talk says itself.
type Talk func(ctx context.Context, task *sdk.Task, say func(sdk.Event)) error

// Interrupted reports whether a task in this state waits for somebody.
func Interrupted(s sdk.TaskState) bool {
	return s == sdk.TaskStateInputRequired || s == sdk.TaskStateAuthRequired
}

// resumeTalk hands a message to a task that waits for one.
// A message that was sent again finds the task that it went on with.
func (h *Handler) resumeTalk(ctx context.Context, req *sdk.SendMessageRequest, caller Caller, push *sdk.PushConfig) (*sdk.Task, *reader, error) {
	id := req.Message.TaskID
	in := Inbound{Request: req, Caller: caller}
	in.Relayed, _ = ctx.Value(doorKey).(string)
	if prover, ok := h.path.(Prover); ok {
		var err error
		if caller.Principal, err = prover.Prove(in); err != nil {
			return nil, nil, err
		}
	}
	task, err := h.lookUp(ctx, id, caller)
	if err != nil {
		return nil, nil, err
	}
	owned := caller.Principal.String() == a2a.OwnerOf(task)
	if again(task, req.Message) && owned {
		if r := h.running(id); r != nil {
			return nil, r.reader(ctx), nil
		}
		follow, err := h.replay(ctx, task)
		return task, follow, err
	}
	path, talks := h.path.(Conversation)
	state := task.Status.State
	switch {
	case req.Message.ContextID != "" && req.Message.ContextID != task.ContextID:
		return nil, nil, a2a.Errorf(a2a.CodeInvalidRequest, "the task is not of context %.60q", req.Message.ContextID)
	case state.Terminal():
		return nil, nil, a2a.Errorf(a2a.CodeUnsupported, "the task has ended; send a new message without taskId")
	case !talks:
		return nil, nil, a2a.Errorf(a2a.CodeUnsupported, "a task takes one message; send a new one without taskId")
	case !Interrupted(state) || !owned:
		return nil, nil, a2a.Errorf(a2a.CodeUnsupported, "the task waits for no message")
	case !h.holds(id):
		return nil, nil, &a2a.Error{Code: a2a.CodeUnavailable, Message: "the node that holds the task cannot be reached", RetryAfter: time.Second}
	}
	if err := h.enter(); err != nil {
		return nil, nil, err
	}
	defer h.inProgress.Done()
	admitted, err := path.Continue(ctx, in, task)
	if err != nil {
		return nil, nil, err
	}
	if admitted.Talk == nil && admitted.Run == nil && admitted.Final == nil {
		return nil, nil, fmt.Errorf("path continued task %s without a word", id)
	}
	before, err := h.storedRun(task)
	if err != nil {
		return nil, nil, err
	}
	h.register(ctx, id, push)
	turn, err := h.nextTurn(ctx, before, req.Message, admitted)
	if err != nil {
		return nil, nil, err
	}
	follow := turn.run.snapshot()
	if admitted.Talk != nil {
		h.talk(turn, admitted.Talk)
	} else {
		h.runTurn(turn, admitted)
	}
	return nil, follow, nil
}

// nextTurn makes the task work again, with the message in its history. Of two
// messages at the same time one finds the task at work. The run from before is
// used if the task waited since before a restart.
func (h *Handler) nextTurn(ctx context.Context, before *run, message *sdk.Message, admitted Admitted) (*turn, error) {
	h.mu.Lock()
	r := h.runs[before.task.ID]
	if r == nil {
		before.talks = true
		r, h.runs[before.task.ID] = before, before
	}
	h.mu.Unlock()
	r.word.Lock()
	defer r.word.Unlock()
	next, at := *r.now(), now()
	if !Interrupted(next.Status.State) {
		return nil, a2a.Errorf(a2a.CodeUnsupported, "the task waits for no message")
	}
	own := *message
	own.TaskID, own.ContextID = next.ID, next.ContextID
	next.History = append(slices.Clip(next.History), &own)
	next.Status = sdk.TaskStatus{State: sdk.TaskStateWorking, Timestamp: &at}
	if admitted.Run != nil {
		// If we were to crash after this, the log knows under this id what ran.
		a2a.SetExecution(&next, admitted.Task)
	}
	t := h.newTurn(ctx, r)
	h.tell(ctx, r, &next, &sdk.TaskStatusUpdateEvent{TaskID: next.ID, ContextID: next.ContextID, Status: next.Status})
	return t, nil
}

// turn is one talk's right to speak. It ends with the last word: the next turn
// may begin before the talk has returned, and what the talk says or fails to
// say from then on is not about the next turn.
type turn struct {
	h    *Handler
	run  *run
	over bool // the last word was said; guarded by the run's word
	ctx  context.Context
	end  context.CancelFunc
}

// newTurn makes a turn, which can be cancelled from now on.
func (h *Handler) newTurn(ctx context.Context, r *run) *turn {
	t := &turn{h: h, run: r}
	t.ctx, t.end = context.WithCancel(context.WithoutCancel(ctx))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hush = t.end
	return t
}

// talk runs one turn.
func (h *Handler) talk(t *turn, do Talk) {
	h.inProgress.Go(func() {
		defer t.end()
		defer context.AfterFunc(h.stop, t.end)()
		task := t.run.now()
		err := do(t.ctx, task, t.say)
		if err == nil && !t.silent() {
			err = errors.New("the talk ended without a last word")
		}
		if err != nil {
			h.log.ErrorContext(t.ctx, "talk", "task", task.ID, "err", err)
			t.say(sdk.NewStatusUpdateEvent(task, sdk.TaskStateFailed, sdk.NewMessageForTask(sdk.MessageRoleAgent, task, sdk.NewTextPart("the agent failed"))))
		}
	})
}

func (t *turn) silent() bool {
	t.run.word.Lock()
	defer t.run.word.Unlock()
	return t.over
}

// say makes an event durable where it counts, then visible.
func (t *turn) say(e sdk.Event) {
	r := t.run
	r.word.Lock()
	defer r.word.Unlock()
	next := *r.now()
	if t.over || next.Status.State.Terminal() {
		t.over = true
		return
	}
	switch e := e.(type) {
	case *sdk.TaskArtifactUpdateEvent:
		next.Artifacts = withArtifact(next.Artifacts, e)
	case *sdk.TaskStatusUpdateEvent:
		at := now()
		e.Status.Timestamp = &at
		next.Status = e.Status
		t.over = next.Status.State.Terminal() || Interrupted(next.Status.State)
	default:
		t.h.log.ErrorContext(t.ctx, "talk said what is no update", "task", next.ID)
		return
	}
	t.h.tell(t.ctx, r, &next, e)
}

// tell makes next the task as it stands: on disk if something of it must
// outlive this process, then for readers. The caller holds word.
func (h *Handler) tell(ctx context.Context, r *run, next *sdk.Task, e sdk.Event) {
	if _, status := e.(*sdk.TaskStatusUpdateEvent); status || h.notifies(next.ID) {
		h.keepRun(ctx, r, next, []sdk.Event{e}, false, e)
	}
	r.mu.Lock()
	r.task = next
	r.add(e)
	r.mu.Unlock()
	if next.Status.State.Terminal() {
		h.mu.Lock()
		delete(h.runs, next.ID)
		h.mu.Unlock()
	}
}

// hush cancels a task that talks: its turn, or, where the task waits for
// somebody and nothing runs, the task itself. It reports whether the task talks.
// A reason is for one that is given up for nobody answered: a turn then goes on.
func (h *Handler) hush(ctx context.Context, task *sdk.Task, reason string) bool {
	r := h.running(task.ID)
	switch {
	case r != nil && !r.talks:
		return false
	case r == nil && (!Interrupted(task.Status.State) || !h.holds(task.ID)):
		return false
	case r == nil:
		var err error
		if r, err = h.storedRun(task); err != nil {
			h.log.ErrorContext(ctx, "log of a task", "task", task.ID, "err", err)
			r = newRun(task, a2a.OwnerOf(task))
		}
		r.talks = true
	}
	r.word.Lock()
	defer r.word.Unlock()
	next := *r.now()
	if !Interrupted(next.Status.State) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if reason == "" && r.hush != nil {
			r.hush()
		}
		return true
	}
	at := now()
	next.Status = sdk.TaskStatus{State: sdk.TaskStateCanceled, Timestamp: &at}
	if reason != "" {
		next.Status.Message = sdk.NewMessageForTask(sdk.MessageRoleAgent, &next, sdk.NewTextPart(reason))
	}
	h.tell(ctx, r, &next, &sdk.TaskStatusUpdateEvent{TaskID: next.ID, ContextID: next.ContextID, Status: next.Status})
	return true
}

// withArtifact is artifacts after an update.
func withArtifact(artifacts []*sdk.Artifact, e *sdk.TaskArtifactUpdateEvent) []*sdk.Artifact {
	out := slices.Clone(artifacts)
	at := slices.IndexFunc(out, func(a *sdk.Artifact) bool { return a.ID == e.Artifact.ID })
	switch {
	case at < 0:
		return append(out, e.Artifact)
	case e.Append:
		grown := *out[at]
		grown.Parts = append(slices.Clip(grown.Parts), e.Artifact.Parts...)
		out[at] = &grown
	default:
		out[at] = e.Artifact
	}
	return out
}

// now is the task as it stands.
func (r *run) now() *sdk.Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.task
}

// add appends an event of a talk. The caller holds mu.
func (r *run) add(e sdk.Event) {
	r.chunks = append(r.chunks, chunk{event: e})
	r.wake()
}
