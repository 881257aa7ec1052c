package taskstore_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a/taskstore"
)

func config(task int, id string) *sdk.PushConfig {
	return &sdk.PushConfig{TaskID: sdk.TaskID(fmt.Sprintf("task-%03d", task)), ID: id, URL: "https://example.com/" + id, Token: "secret"}
}

func notices(texts ...string) taskstore.Change {
	var out taskstore.Change
	for _, text := range texts {
		out.Notices = append(out.Notices, []byte(text))
	}
	return out
}

// Notices are queued with the change that they tell of, for each receiver in
// order, and outlive the process.
func TestNoticesWaitForEachReceiver(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	create(t, s, 1, "alice")
	create(t, s, 2, "alice")
	if err := s.SavePush(config(9, "a")); !errors.Is(err, taskstore.ErrNotFound) {
		t.Errorf("SavePush of an unknown task = %v", err)
	}
	for _, cfg := range []*sdk.PushConfig{config(1, "a"), config(1, "b"), config(2, "a")} {
		if err := s.SavePush(cfg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Update(task(1, sdk.TaskStateCompleted), start.Add(time.Second), notices("one", "two")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	queues, err := s.Queues()
	if want := []taskstore.Queue{{Task: "task-001", ID: "a"}, {Task: "task-001", ID: "b"}}; err != nil || fmt.Sprint(queues) != fmt.Sprint(want) {
		t.Fatalf("Queues = %v, %v", queues, err)
	}
	for _, q := range queues {
		for _, want := range []string{"one", "two"} {
			n, err := s.NextNotice(q)
			if err != nil || string(n.Body) != want || !n.Since.Equal(start.Add(time.Second)) {
				t.Fatalf("NextNotice(%v) = %+v, %v", q, n, err)
			}
			if q.ID == "b" {
				break // what waits goes with its configuration
			}
			if err := s.Delivered(q, n.Number); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(s.DeletePush(queues[1]), s.DeletePush(queues[1])); err != nil {
		t.Error(err)
	}
	if left, err := s.Queues(); err != nil || len(left) != 0 {
		t.Errorf("Queues = %v, %v", left, err)
	}
	if all, err := s.Pushes("task-001"); err != nil || len(all) != 1 || all[0].ID != "a" || all[0].Token != "secret" {
		t.Errorf("Pushes = %+v, %v", all, err)
	}
	if _, err := s.Push(queues[1]); !errors.Is(err, taskstore.ErrNotFound) {
		t.Errorf("Push of a deleted one = %v", err)
	}
}

func TestPushesAreBounded(t *testing.T) {
	s := open(t, t.TempDir())
	create(t, s, 1, "alice")
	for n := range taskstore.MaxPushes {
		if err := s.SavePush(config(1, fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SavePush(config(1, "more")); !errors.Is(err, taskstore.ErrTooMany) {
		t.Errorf("one more = %v", err)
	}
	if err := s.SavePush(config(1, "3")); err != nil {
		t.Errorf("replacing one = %v", err)
	}
	for n := range taskstore.MaxPushes - 1 {
		if err := s.DeletePush(taskstore.Queue{Task: "task-001", ID: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	}
	var many []string
	for n := range taskstore.MaxNotices + 10 {
		many = append(many, fmt.Sprint(n))
	}
	if _, err := s.Update(task(1, sdk.TaskStateWorking), start, notices(many...)); err != nil {
		t.Fatal(err)
	}
	n, err := s.NextNotice(taskstore.Queue{Task: "task-001", ID: fmt.Sprint(taskstore.MaxPushes - 1)})
	if err != nil || string(n.Body) != "10" {
		t.Errorf("the oldest that is left = %s, %v", n.Body, err)
	}
}

// Writes at the same time share a commit, and one that is refused spoils no
// other.
func TestWritesAtTheSameTime(t *testing.T) {
	s := open(t, t.TempDir())
	var all sync.WaitGroup
	for n := range 100 {
		all.Go(func() {
			create(t, s, n, "alice")
			if _, err := s.Create(task(n, sdk.TaskStateWorking), "bob", start); !errors.Is(err, taskstore.ErrExists) {
				t.Errorf("Create twice = %v", err)
			}
			if _, err := s.Create(&sdk.Task{ID: ""}, "bob", start); err == nil {
				t.Error("a task without an id is stored")
			}
			if r, err := s.Update(task(n, sdk.TaskStateCompleted), start, taskstore.Change{}); err != nil || r.Generation != 2 {
				t.Errorf("Update = %+v, %v", r, err)
			}
		})
	}
	all.Wait()
	if page, err := s.List(taskstore.Filter{Owner: "alice", State: sdk.TaskStateCompleted, Limit: 1}); err != nil || page.Total != 100 {
		t.Errorf("List = %d, %v", page.Total, err)
	}
}

func TestPruneForgetsEndedTasks(t *testing.T) {
	s := open(t, t.TempDir())
	for n := range 200 {
		create(t, s, n, "alice")
		if err := s.SavePush(config(n, "a")); err != nil {
			t.Fatal(err)
		}
		if n%4 == 0 {
			continue // goes on working
		}
		more := notices("end")
		more.Events = []taskstore.Event{{Number: 1, Data: []byte("x")}}
		if _, err := s.Update(task(n, sdk.TaskStateCompleted), start.Add(time.Duration(n)*time.Second), more); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Prune(start.Add(100*time.Second), 1000); err != nil || n != 75 {
		t.Errorf("Prune by age = %d, %v", n, err)
	}
	if n, err := s.Prune(time.Time{}, 60); err != nil || n != 65 {
		t.Errorf("Prune by number = %d, %v", n, err)
	}
	if _, err := s.Get("task-001"); !errors.Is(err, taskstore.ErrNotFound) {
		t.Errorf("Get of what was forgotten = %v", err)
	}
	if events, err := s.Events("task-001"); err != nil || len(events) != 0 {
		t.Errorf("Events = %v, %v", events, err)
	}
	page, err := s.List(taskstore.Filter{Owner: "alice", Limit: 100})
	if err != nil || page.Total != 60 || len(page.Records) != 60 {
		t.Errorf("List = %d, %v", page.Total, err)
	}
	queues, err := s.Queues()
	if err != nil || len(queues) != 10 {
		t.Errorf("Queues = %d, %v", len(queues), err)
	}
}
