package taskstore_test

import (
	"slices"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a/taskstore"
)

// Events come with the change that they belong to, in order, and belong to one
// task.
func TestEventsAreKeptWithTheTask(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for n := 1; n <= 2; n++ {
		create(t, s, n, "alice")
	}
	want := []taskstore.Event{{Number: 2, Data: []byte("b")}, {Number: 7, Data: []byte("a")}, {Number: 300, Data: []byte("c")}}
	shuffled := []taskstore.Event{want[2], want[0], want[1]}
	if _, err := s.Update(task(1, sdk.TaskStateCompleted), start.Add(time.Second), taskstore.Change{Events: shuffled}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(task(3, sdk.TaskStateCompleted), start, taskstore.Change{Events: want}); err == nil {
		t.Error("Update of an unknown task succeeds")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	got, err := s.Events("task-001")
	if err != nil || !slices.EqualFunc(got, want, func(a, b taskstore.Event) bool { return a.Number == b.Number && string(a.Data) == string(b.Data) }) {
		t.Errorf("Events = %v, %v", got, err)
	}
	for _, id := range []sdk.TaskID{"task-002", "task-003", "task-00"} {
		if got, err := s.Events(id); err != nil || len(got) != 0 {
			t.Errorf("Events(%s) = %v, %v", id, got, err)
		}
	}
}
