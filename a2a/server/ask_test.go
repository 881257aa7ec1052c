package server_test

import (
	"context"
	"slices"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// asker asks for a program first and runs what comes then.
type asker struct {
	*fakePath
	execution string
	run       func(ctx context.Context, out server.Updates) a2a.Report
}

func (p *asker) Submit(context.Context, server.Inbound) (server.Admitted, error) {
	return server.Admitted{Task: a2a.NewJTI(), Owner: "service:anna", Talk: says(sdk.TaskStateInputRequired, "which program?")}, nil
}

func (p *asker) Continue(context.Context, server.Inbound, *sdk.Task) (server.Admitted, error) {
	return server.Admitted{Task: p.execution, Owner: "service:anna", Run: p.run}, nil
}

// A task that waits for its owner outlives the process and is nobody's to end;
// one that died at the program that it was brought names that program's id, under
// which the log knows what became of it.
func TestATaskThatWaitsSurvivesItsProcess(t *testing.T) {
	dir := t.TempDir()
	anna := server.WithCaller(t.Context(), server.Caller{Principal: identity.Principal{Kind: identity.Service, Name: "anna"}, Door: server.DoorHTTP})
	began, forever := make(chan struct{}), make(chan struct{})
	path := &asker{fakePath: &fakePath{}, execution: a2a.NewJTI(), run: func(context.Context, server.Updates) a2a.Report {
		close(began)
		<-forever
		return a2a.Report{Status: a2a.Succeeded}
	}}
	w := openPath(t, path, dir)
	got, err := w.SendMessage(anna, message("", "hello"))
	if err != nil {
		t.Fatal(err)
	}
	asked := got.(*sdk.Task)
	w.store.Close() // as a kill would: nothing more is written

	w = openPath(t, path, dir)
	t.Cleanup(func() { close(forever) }) // before the house closes, which waits for the run
	if open := w.Unfinished(); len(open) != 0 {
		t.Errorf("Unfinished = %v, but it waits", open)
	}
	if task, err := w.GetTask(anna, &sdk.GetTaskRequest{ID: asked.ID}); err != nil || task.Status.State != sdk.TaskStateInputRequired {
		t.Fatalf("after a restart: %+v, %v", task, err)
	}
	program := message(asked.ID, "run this")
	program.Config = &sdk.SendMessageConfig{ReturnImmediately: true}
	if _, err := w.SendMessage(anna, program); err != nil {
		t.Fatal(err)
	}
	<-began
	w.store.Close()

	w = openPath(t, path, dir)
	if open := w.Unfinished(); !slices.Equal(open, []server.Unfinished{{Task: string(asked.ID), Execution: path.execution}}) {
		t.Fatalf("Unfinished = %v, want %s as %s", open, asked.ID, path.execution)
	}
	if err := w.Finish(t.Context(), string(asked.ID), a2a.Report{Task: path.execution, Status: a2a.Succeeded}); err != nil {
		t.Fatal(err)
	}
	task, err := w.GetTask(anna, &sdk.GetTaskRequest{ID: asked.ID})
	if err != nil || task.Status.State != sdk.TaskStateCompleted || len(task.History) != 2 {
		t.Fatalf("at its end: %+v, %v", task, err)
	}
	if rep, err := a2a.ReportOf(task); err != nil || rep.Task != path.execution {
		t.Errorf("report %+v, %v", rep, err)
	}
}

// Nobody's questions pile up: an owner has so many, then he must answer.
func TestQuestionsAreBounded(t *testing.T) {
	w := openPath(t, &asker{fakePath: &fakePath{}}, t.TempDir())
	anna := server.WithCaller(t.Context(), server.Caller{Principal: identity.Principal{Kind: identity.Service, Name: "anna"}, Door: server.DoorHTTP})
	var first sdk.TaskID
	for n := range 101 {
		got, err := w.SendMessage(anna, message("", "hello"))
		if n == 100 {
			if a2a.FromWire(err).Code != a2a.CodeBusy {
				t.Errorf("the 101st: %v, %v", got, err)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		first = got.(*sdk.Task).ID
	}
	if _, err := w.CancelTask(anna, &sdk.CancelTaskRequest{ID: first}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.SendMessage(anna, message("", "hello")); err != nil {
		t.Errorf("after one was cancelled: %v", err)
	}
}
