package server_test

import (
	"context"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// talker is a path whose tasks talk: each turn does what the test says.
type talker struct {
	*fakePath
	owner string
	turn  func(n int) server.Talk
	turns int
}

func (p *talker) Submit(context.Context, server.Inbound) (server.Admitted, error) {
	return p.admit(a2a.NewJTI())
}

func (p *talker) Continue(_ context.Context, _ server.Inbound, task *sdk.Task) (server.Admitted, error) {
	return p.admit(string(task.ID))
}

func (p *talker) admit(task string) (server.Admitted, error) {
	p.turns++
	return server.Admitted{Task: task, Owner: p.owner, Talk: p.turn(p.turns)}, nil
}

func message(task sdk.TaskID, text string) *sdk.SendMessageRequest {
	m := sdk.NewMessage(sdk.MessageRoleUser, sdk.NewTextPart(text))
	m.TaskID = task
	return &sdk.SendMessageRequest{Message: m}
}

// A turn ends with its last word, not when its talk returns: a client who
// answers at once begins the next turn before that.
func TestATalkThatReturnsLateDoesNotEndTheNextTurn(t *testing.T) {
	nextBegan, firstReturned := make(chan struct{}), make(chan struct{})
	path := &talker{fakePath: &fakePath{}, owner: "service:anna"}
	path.turn = func(n int) server.Talk {
		if n == 1 {
			return func(_ context.Context, task *sdk.Task, say func(sdk.Event)) error {
				defer close(firstReturned)
				say(sdk.NewStatusUpdateEvent(task, sdk.TaskStateInputRequired, nil))
				<-nextBegan
				say(sdk.NewStatusUpdateEvent(task, sdk.TaskStateFailed, nil)) // it has no say any more
				return nil
			}
		}
		return func(_ context.Context, task *sdk.Task, say func(sdk.Event)) error {
			close(nextBegan)
			<-firstReturned
			time.Sleep(10 * time.Millisecond) // what follows the return, if anything does
			say(sdk.NewStatusUpdateEvent(task, sdk.TaskStateCompleted, nil))
			return nil
		}
	}
	w := openPath(t, path, t.TempDir())
	ctx := server.WithCaller(t.Context(), server.Caller{Principal: identity.Principal{Kind: identity.Service, Name: "anna"}, Door: server.DoorHTTP})
	first, err := w.SendMessage(ctx, message("", "begin"))
	if err != nil {
		t.Fatal(err)
	}
	task := first.(*sdk.Task)
	if task.Status.State != sdk.TaskStateInputRequired {
		t.Fatalf("after the first turn: %s", task.Status.State)
	}
	second, err := w.SendMessage(ctx, message(task.ID, "go on"))
	if err != nil {
		t.Fatal(err)
	}
	if got := second.(*sdk.Task); got.Status.State != sdk.TaskStateCompleted || len(got.History) != 2 {
		t.Errorf("after the second turn: %s, %d messages", got.Status.State, len(got.History))
	}
	if stored, err := w.store.Get(task.ID); err != nil || stored.Task.Status.State != sdk.TaskStateCompleted {
		t.Errorf("stored: %+v, %v", stored.Task, err)
	}
}

// says is a turn of one word.
func says(state sdk.TaskState, text string) server.Talk {
	return func(_ context.Context, task *sdk.Task, say func(sdk.Event)) error {
		say(sdk.NewStatusUpdateEvent(task, state, sdk.NewMessageForTask(sdk.MessageRoleAgent, task, sdk.NewTextPart(text))))
		return nil
	}
}
