package server

import (
	"context"
	"errors"
	"iter"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/taskstore"
)

var (
	errPush     = a2a.Errorf(a2a.CodePushUnsupported, "push notifications are not supported")
	errHistory  = a2a.Errorf(a2a.CodeInvalidRequest, "historyLength is negative")
	errNoID     = a2a.Errorf(a2a.CodeInvalidRequest, "the id of the task is missing")
	errExtended = a2a.Errorf(a2a.CodeUnsupported, "there is no extended agent card")
)

// GetTask implements the SDK's RequestHandler.
func (h *Handler) GetTask(ctx context.Context, req *sdk.GetTaskRequest) (*sdk.Task, error) {
	caller, err := known(ctx)
	if err != nil {
		return nil, err
	}
	if req.HistoryLength != nil && *req.HistoryLength < 0 {
		return nil, errHistory
	}
	task, err := h.lookUp(ctx, req.ID, caller)
	if err != nil {
		return nil, err
	}
	return trimHistory(task, req.HistoryLength), nil
}

// CancelTask implements the SDK's RequestHandler: it asks the run to stop and
// answers when it has. To cancel what is cancelled is no error.
func (h *Handler) CancelTask(ctx context.Context, req *sdk.CancelTaskRequest) (*sdk.Task, error) {
	caller, err := known(ctx)
	if err != nil {
		return nil, err
	}
	task, err := h.lookUp(ctx, req.ID, caller)
	if err != nil {
		return nil, err
	}
	if !MayHandle(caller.Principal, a2a.OwnerOf(task)) {
		return nil, a2a.Errorf(a2a.CodeDenied, "you may see this task, not cancel it")
	}
	for !task.Status.State.Terminal() { // again if it ended its turn just now
		if !h.hush(ctx, task, "") {
			if err := h.halt(ctx, req.ID); err != nil {
				// Found above, it is not gone: it ended just now, here or elsewhere.
				if now, gone := h.lookUp(ctx, req.ID, caller); isNotFound(err) && gone == nil && now.Status.State.Terminal() {
					task = now
					continue
				}
				return nil, err
			}
		}
		if task, err = h.await(ctx, req.ID, h.running(req.ID), caller); err != nil {
			return nil, err
		}
	}
	if task.Status.State != sdk.TaskStateCanceled {
		return nil, a2a.Errorf(a2a.CodeNotCancelable, "the task has ended: %s", task.Status.State)
	}
	return task, nil
}

// halt asks the path to stop a task. The path comes to know a task a moment later
// than we do, and forgets it a moment earlier: meanwhile it is asked again.
func (h *Handler) halt(ctx context.Context, id sdk.TaskID) error {
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		err := h.path.Cancel(ctx, string(id))
		r := h.running(id)
		if !isNotFound(err) || r == nil {
			return err
		}
		soon, cancel := context.WithTimeout(ctx, pause)
		ended := r.wait(soon) == nil
		cancel()
		if ended || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// SubscribeToTask implements the SDK's RequestHandler.
func (h *Handler) SubscribeToTask(ctx context.Context, req *sdk.SubscribeToTaskRequest) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		switch here, task, err := h.subscribe(ctx, req.ID); {
		case err != nil:
			yield(nil, err)
		case here != nil:
			here.follow(ctx, nil, yield)
		default:
			h.relay(ctx, task, yield)
		}
	}
}

// subscribe finds what to follow: a task that this process runs or has the log of, or
// one of elsewhere. It is apart from the following, so that its stack is not kept
// while a stream waits.
func (h *Handler) subscribe(ctx context.Context, id sdk.TaskID) (here *reader, elsewhere *sdk.Task, err error) {
	caller, err := known(ctx)
	if err != nil {
		return nil, nil, err
	}
	task, err := h.lookUp(ctx, id, caller)
	if err != nil {
		return nil, nil, err
	}
	if r := h.running(id); r != nil {
		return r.reader(ctx), nil, nil
	}
	if task.Status.State.Terminal() {
		switch follow, err := h.replay(ctx, task); {
		case err != nil:
			return nil, nil, err
		case follow != nil && h.holds(id):
			return follow, nil, nil
		case follow == nil:
			return nil, nil, a2a.Errorf(a2a.CodeUnsupported, "the task has ended; get it instead")
		}
	}
	return nil, task, nil
}

// await waits for the end of a task that runs here (r) or elsewhere.
func (h *Handler) await(ctx context.Context, id sdk.TaskID, r *run, caller Caller) (*sdk.Task, error) {
	if r != nil {
		if err := r.wait(ctx); err != nil {
			return nil, err
		}
		return r.snapshot().first, nil
	}
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		task, err := h.lookUp(ctx, id, caller)
		if err != nil || task.Status.State.Terminal() {
			return task, err
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// lookUp finds a task for a caller, here or elsewhere. What he may not see is
// not found.
func (h *Handler) lookUp(ctx context.Context, id sdk.TaskID, caller Caller) (*sdk.Task, error) {
	if id == "" {
		return nil, errNoID
	}
	if !a2a.ValidTaskID(string(id)) || caller.Principal.IsZero() {
		return nil, a2a.ErrNoTask
	}
	if r := h.running(id); r != nil {
		if !MaySee(caller.Principal, r.owner) {
			return nil, a2a.ErrNoTask
		}
		return r.snapshot().first, nil
	}
	task, err := h.stored(id, func(owner string) bool { return MaySee(caller.Principal, owner) })
	if !errors.Is(err, taskstore.ErrNotFound) {
		return task, err
	}
	return h.path.Fetch(ctx, string(id), caller.Principal)
}

// stored reads a task that this node holds: [taskstore.ErrNotFound] if it does
// not, not_found for the caller if it is not for him.
func (h *Handler) stored(id sdk.TaskID, visible func(owner string) bool) (*sdk.Task, error) {
	record, err := h.store.Get(id)
	if err != nil {
		return nil, err
	}
	if !visible(record.Owner) {
		return nil, a2a.ErrNoTask
	}
	return record.Task, nil
}

// GetExtendedAgentCard implements the SDK's RequestHandler: the card as its
// caller may see it.
func (h *Handler) GetExtendedAgentCard(ctx context.Context, _ *sdk.GetExtendedAgentCardRequest) (*sdk.AgentCard, error) {
	if h.card == nil {
		return nil, errExtended
	}
	caller, err := known(ctx)
	if err != nil {
		return nil, err
	}
	return h.card(ctx, caller)
}
