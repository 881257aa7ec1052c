package server

import (
	"context"
	"errors"
	"fmt"
	"slices"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
)

// Conversation is a [Path] whose tasks take more than one message: it answers
// a message to a task that waits for one. Other paths' tasks take one each.
type Conversation interface {
	Path
	// Continue answers a message to a task in an interrupted state, which its
	// owner sends. What it admits has a Talk.
	Continue(ctx context.Context, in Inbound, task *sdk.Task) (Admitted, error)
}

// Talk is the work of a path that answers in the protocol's own words. It
// gives artifacts and statuses to say, which keeps them and shows them to
// readers. A status is of this task and its last word ends the turn: terminal,
// input-required or auth-required. It calls say from one goroutine.
type Talk func(ctx context.Context, task *sdk.Task, say func(sdk.Event)) error

// interrupted are the states in which a task waits for somebody.
func interrupted(s sdk.TaskState) bool {
	return s == sdk.TaskStateInputRequired || s == sdk.TaskStateAuthRequired
}

// resumeTalk hands a message to a task that waits for one.
func (h *Handler) resumeTalk(ctx context.Context, req *sdk.SendMessageRequest, caller Caller) (*reader, error) {
	id := req.Message.TaskID
	task, err := h.lookUp(ctx, id, caller)
	if err != nil {
		return nil, err
	}
	path, talks := h.path.(Conversation)
	state := task.Status.State
	switch {
	case req.Message.ContextID != "" && req.Message.ContextID != task.ContextID:
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "the task is not of context %.60q", req.Message.ContextID)
	case state.Terminal():
		return nil, a2a.Errorf(a2a.CodeUnsupported, "the task has ended; send a new message without taskId")
	case !talks:
		return nil, a2a.Errorf(a2a.CodeUnsupported, "a task takes one message; send a new one without taskId")
	case !interrupted(state) || !caller.is(ownerOf(task), nil):
		return nil, a2a.Errorf(a2a.CodeUnsupported, "the task waits for no message")
	}
	if err := h.enter(); err != nil {
		return nil, err
	}
	defer h.inProgress.Done()
	admitted, err := path.Continue(ctx, Inbound{Request: req, Caller: caller}, task)
	if err != nil {
		return nil, err
	}
	if admitted.Talk == nil {
		return nil, fmt.Errorf("path continued task %s without a talk", id)
	}
	before, err := h.storedRun(task)
	if err != nil {
		return nil, err
	}
	r, err := h.nextTurn(before, req.Message)
	if err != nil {
		return nil, err
	}
	follow := r.snapshot()
	h.talk(ctx, r, admitted.Talk)
	return follow, nil
}

// nextTurn is the run of a task that works again, with the message in its
// history. Of two messages at the same time one finds the task at work. The run
// from before is used if the task waited since before a restart.
func (h *Handler) nextTurn(before *run, message *sdk.Message) (*run, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.runs[before.task.ID]
	if r == nil {
		before.talks = true
		r, h.runs[before.task.ID] = before, before
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !interrupted(r.task.Status.State) {
		return nil, a2a.Errorf(a2a.CodeUnsupported, "the task waits for no message")
	}
	next, at := *r.task, now()
	own := *message
	own.TaskID, own.ContextID = next.ID, next.ContextID
	next.History = append(slices.Clip(next.History), &own)
	next.Status = sdk.TaskStatus{State: sdk.TaskStateWorking, Timestamp: &at}
	r.task = &next
	r.add(&sdk.TaskStatusUpdateEvent{TaskID: next.ID, ContextID: next.ContextID, Status: next.Status})
	return r, nil
}

// talk runs one turn.
func (h *Handler) talk(ctx context.Context, r *run, do Talk) {
	h.inProgress.Go(func() {
		turn, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(h.stop, cancel)()
		task := r.now()
		err := do(turn, task, func(e sdk.Event) { h.say(turn, r, e) })
		if state := r.now().Status.State; err == nil && !state.Terminal() && !interrupted(state) {
			err = errors.New("the talk ended without a last word")
		}
		if err != nil {
			h.log.ErrorContext(turn, "talk", "task", task.ID, "err", err)
			h.say(turn, r, sdk.NewStatusUpdateEvent(task, sdk.TaskStateFailed, sdk.NewMessageForTask(sdk.MessageRoleAgent, task, sdk.NewTextPart("the agent failed"))))
		}
	})
}

// say makes an event of a talk durable where it counts, then visible.
func (h *Handler) say(ctx context.Context, r *run, e sdk.Event) {
	next := *r.now()
	if next.Status.State.Terminal() {
		return // the last word was said
	}
	switch e := e.(type) {
	case *sdk.TaskArtifactUpdateEvent:
		next.Artifacts = withArtifact(next.Artifacts, e)
	case *sdk.TaskStatusUpdateEvent:
		at := now()
		e.Status.Timestamp = &at
		next.Status = e.Status
		if next.Status.State.Terminal() || interrupted(next.Status.State) {
			h.keepRun(ctx, r, &next, e)
		}
	default:
		h.log.ErrorContext(ctx, "talk said what is no update", "task", next.ID)
		return
	}
	r.mu.Lock()
	r.task = &next
	r.add(e)
	r.mu.Unlock()
	if next.Status.State.Terminal() {
		h.mu.Lock()
		delete(h.runs, next.ID)
		h.mu.Unlock()
	}
}

// hush cancels a task that waits for somebody, so that nothing runs.
func (h *Handler) hush(ctx context.Context, task *sdk.Task) {
	r := h.running(task.ID)
	if r == nil {
		var err error
		if r, err = h.storedRun(task); err != nil {
			h.log.ErrorContext(ctx, "log of a task", "task", task.ID, "err", err)
			r = newRun(task, ownerOf(task))
		}
		r.talks = true
	}
	if interrupted(r.now().Status.State) {
		h.say(ctx, r, sdk.NewStatusUpdateEvent(task, sdk.TaskStateCanceled, nil))
	}
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
