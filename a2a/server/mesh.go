package server

import (
	"context"
	"iter"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/identity"
)

// Mesh is a [Path] that reaches the tasks of other nodes, so that a client may
// come back to any door of the cluster. Its methods check that the caller may
// see the task; one that he may not see is not found.
type Mesh interface {
	Path
	// Follow streams a task from the node that runs it, after an event if the
	// reader saw some. A stream that ends before the task does was cut; whoever
	// reads it may ask [Path.Fetch] what became of the task.
	Follow(ctx context.Context, task string, caller identity.Principal, after *uint64) iter.Seq2[Numbered, error]
	// Pushes are the task's push configurations at the node that took it in; nil
	// if that is this one. Who may see a task by his role may not see those.
	Pushes(ctx context.Context, task string, caller identity.Principal) (Pushes, error)
}

// Pushes are the push configurations of one task on another node.
type Pushes interface {
	CreatePush(ctx context.Context, cfg *sdk.PushConfig) (*sdk.PushConfig, error)
	GetPush(ctx context.Context, task, id string) (*sdk.PushConfig, error)
	ListPushes(ctx context.Context, task string) ([]*sdk.PushConfig, error)
	DeletePush(ctx context.Context, task, id string) error
}

// Numbered is an event with its number, the id that a reader may resume after.
// A task's numbers rise: each byte of output counts one, each other event one.
// So a number is a place in the task's log, whoever read it, at what pace, and
// on which node.
type Numbered struct {
	Number uint64
	Event  sdk.Event
}

// relay yields the stream of a task that this process does not run: from the
// node that does, and again from there when it was cut, until the task has
// ended, as the log may say of a node that is gone.
func (h *Handler) relay(ctx context.Context, task *sdk.Task, yield func(sdk.Event, error) bool) {
	caller, err := known(ctx)
	if err != nil {
		yield(nil, err)
		return
	}
	mesh, meshed := h.path.(Mesh)
	f := follower{yield: yield}
	if after, ok := resumeAfter(ctx); ok {
		f.after = &after
	}
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		if meshed && caller.Door != DoorMesh {
			for e, err := range mesh.Follow(ctx, string(task.ID), caller.Principal, f.after) {
				if err != nil {
					break // the task itself says more
				}
				if pause = pollFirst; !f.event(ctx, e) {
					return
				}
			}
		}
		if task, err = h.lookUp(ctx, task.ID, caller); err != nil {
			yield(nil, err)
			return
		}
		switch {
		case !f.begun && !f.event(ctx, Numbered{Event: task}):
			return
		case task.Status.State.Terminal():
			farewell(task, yield)
			return
		}
		if err := sleep(ctx, pause); err != nil {
			yield(nil, err)
			return
		}
	}
}

// follower hands on a stream that may come in pieces.
type follower struct {
	yield func(sdk.Event, error) bool
	after *uint64 // what the reader saw last, if it has a number
	begun bool    // he saw the task
}

// event hands on an event, and reports whether the stream goes on.
func (f *follower) event(ctx context.Context, e Numbered) bool {
	ended := false
	switch v := e.Event.(type) {
	case *sdk.Task:
		if ended = v.Status.State.Terminal(); f.begun && f.after != nil && !ended {
			return true // the beginning of another piece
		}
		f.begun = true
	case *sdk.TaskStatusUpdateEvent:
		ended = v.Status.State.Terminal()
	}
	if e.Number > 0 {
		f.after = &e.Number
		number(ctx, e.Number)
	}
	return f.yield(e.Event, nil) && !ended
}
