package server_test

import (
	"context"
	"slices"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/a2a/server"
)

// What takes long before a program starts is told to who streams, in its place,
// and changes neither the output nor the end. Who comes back later, by the number
// of an event, still finds both.
func TestProgressIsToldToWhoStreams(t *testing.T) {
	w := open(t, &fakePath{run: func(ctx context.Context, e a2a.Execution, out server.Updates) a2a.Report {
		tell := out.(interface{ Progress(line string) })
		tell.Progress("pulling the image x")
		tell.Progress("")
		tell.Progress(string(make([]byte, 1<<20)))
		tell.Progress("making the image y")
		return hello(ctx, e, out)
	}})
	var told []string
	c := w.client(t, newKey(t))
	task, err := client.Follow(c.Stream(t.Context(), request(t), nil), client.Watcher{
		Progress: func(line string) { told = append(told, line) },
		Output:   func(stream string, _ int64, data []byte) { told = append(told, stream+": "+string(data)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	rep, err := a2a.ReportOf(task)
	if err != nil || rep.Status != a2a.Succeeded || rep.Stdout != "hello world\n" {
		t.Errorf("report is %+v, %v", rep, err)
	}
	if want := []string{"pulling the image x", "making the image y"}; len(told) < 3 || !slices.Equal(told[:2], want) {
		t.Errorf("told %q, want %q and then output", told, want)
	}
}
