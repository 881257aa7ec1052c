package server_test

import (
	"context"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
)

// A list, which leaves out reports, tells how each task ended all the same:
// "failed" is four things.
func TestAListTellsHowTasksEnded(t *testing.T) {
	ends := []a2a.Status{a2a.Succeeded, a2a.Failed, a2a.Lost, a2a.TimedOut, a2a.Cancelled}
	n := 0
	w := open(t, &fakePath{run: func(context.Context, a2a.Execution, server.Updates) a2a.Report {
		n++
		return a2a.Report{Status: ends[n-1]}
	}})
	c := w.client(t, newKey(t))
	want := map[sdk.TaskID]a2a.Status{}
	for _, s := range ends {
		task, err := c.Send(t.Context(), request(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		want[task.ID] = s
	}
	page, err := c.List(t.Context(), &sdk.ListTasksRequest{}, nil)
	if err != nil || len(page.Tasks) != len(ends) {
		t.Fatalf("List = %+v, %v", page, err)
	}
	for _, task := range page.Tasks {
		if got := a2a.StatusOf(task); got != want[task.ID] || len(task.Artifacts) != 0 {
			t.Errorf("a task that ended as %s is listed as %s, with %d artifacts", want[task.ID], got, len(task.Artifacts))
		}
	}
}
