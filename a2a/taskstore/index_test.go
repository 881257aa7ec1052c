package taskstore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/a2a/taskstore"
)

// A list gives what a look at every task would, whatever narrows it.
func TestFiltersGiveWhatTheySay(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	states := []sdk.TaskState{sdk.TaskStateWorking, sdk.TaskStateCompleted, sdk.TaskStateFailed}
	contexts := []string{"a", "a\x00b", "ab", "a\x00", "ä"}
	owners := []string{"alice", "bob"}
	n := 0
	for _, owner := range owners {
		for _, context := range contexts {
			for i, state := range states {
				made := task(n, sdk.TaskStateWorking)
				made.ContextID = context
				if _, err := s.Create(made, owner, start.Add(time.Duration(n)*time.Second)); err != nil {
					t.Fatal(err)
				}
				if i > 0 { // it moves in the indexes
					ended := *made
					ended.Status.State = state
					if _, err := s.Update(&ended, start.Add(time.Duration(n)*time.Second+time.Millisecond), taskstore.Change{}); err != nil {
						t.Fatal(err)
					}
				}
				n++
			}
		}
	}
	check := func(t *testing.T) {
		t.Helper()
		for _, owner := range append(owners, "", "al") {
			for _, context := range append(contexts, "", "b") {
				for _, state := range append(states, "", sdk.TaskStateCanceled) {
					want := 1
					for _, f := range []struct {
						given bool
						of    int
						knows bool
					}{{owner != "", len(owners), owner != "al"}, {context != "", len(contexts), context != "b"}, {state != "", len(states), state != sdk.TaskStateCanceled}} {
						switch {
						case !f.given:
							want *= f.of
						case !f.knows:
							want = 0
						}
					}
					seen, total := map[sdk.TaskID]bool{}, 0
					for f := (taskstore.Filter{Owner: owner, Any: owner == "", Context: context, State: state, Limit: 4}); ; {
						page, err := s.List(f)
						if err != nil {
							t.Fatal(err)
						}
						total = page.Total
						for _, r := range page.Records {
							if owner != "" && r.Owner != owner || context != "" && r.Task.ContextID != context || state != "" && r.Task.Status.State != state || seen[r.Task.ID] {
								t.Errorf("%q %q %q lists %+v", owner, context, state, r)
							}
							seen[r.Task.ID] = true
						}
						if f.Cursor = page.Next; f.Cursor == "" {
							break
						}
					}
					if len(seen) != want || total != want {
						t.Errorf("%q %q %q: %d listed of %d, want %d", owner, context, state, len(seen), total, want)
					}
				}
			}
		}
	}
	t.Run("as they were made", check)

	// A store of format 1 has none of the further indexes, and gets them; its
	// records are one JSON object each.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, taskstore.FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{"states", "contexts", "counts"} {
			if err := tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
		}
		tasks := tx.Bucket([]byte("tasks"))
		older := map[string][]byte{}
		err := tasks.ForEach(func(id, raw []byte) error {
			head, task, _ := bytes.Cut(raw, []byte("\n"))
			var record map[string]json.RawMessage
			if err := json.Unmarshal(head, &record); err != nil {
				return err
			}
			delete(record, "state")
			delete(record, "context")
			record["task"] = task
			old, err := json.Marshal(record)
			older[string(id)] = old
			return err
		})
		for id, record := range older {
			err = errors.Join(err, tasks.Put([]byte(id), record))
		}
		return errors.Join(err, tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("1")))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	t.Run("after an older program", check)
	first := task(0, sdk.TaskStateWorking)
	first.ContextID = contexts[0]
	if r, err := s.Update(first, start, taskstore.Change{}); err != nil || r.Generation != 2 || r.Owner != owners[0] {
		t.Errorf("%+v, %v", r, err)
	}
	t.Run("after a change of what the older program wrote", check)

	// One of format 3 has no counts.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = bbolt.Open(filepath.Join(dir, taskstore.FileName), 0o600, nil); err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket([]byte("counts")), tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("3")))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	t.Run("after a program of format 3", check)
	if n, err := s.Prune(start.Add(time.Hour), 0); err != nil || n != 20 {
		t.Errorf("pruned %d, %v", n, err)
	}
	for _, c := range []struct {
		taskstore.Filter
		total int
	}{
		{taskstore.Filter{Owner: "alice", State: sdk.TaskStateCompleted}, 0},
		{taskstore.Filter{Any: true, Context: "a", State: sdk.TaskStateFailed}, 0},
		{taskstore.Filter{Owner: "alice"}, 5},
		{taskstore.Filter{Any: true}, 10},
	} {
		if page, err := s.List(c.Filter); err != nil || page.Total != c.total {
			t.Errorf("%+v after they were forgotten: %+v, %v", c.Filter, page, err)
		}
	}
}

// What a page of 50 costs among a hundred thousand tasks of one owner.
func BenchmarkList(b *testing.B) {
	s := open(b, b.TempDir())
	const tasks, writers = 100_000, 256
	var work sync.WaitGroup
	for w := range writers {
		work.Go(func() {
			for n := w; n < tasks; n += writers {
				state := sdk.TaskStateCompleted
				if n%1000 == 0 {
					state = sdk.TaskStateFailed
				}
				made := task(n, state)
				made.ContextID = fmt.Sprintf("context-%d", n%1000)
				if _, err := s.Create(made, "alice", start.Add(time.Duration(n)*time.Millisecond)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
	for name, f := range map[string]taskstore.Filter{
		"owner":             {Owner: "alice"},
		"context":           {Owner: "alice", Context: "context-7"},
		"state, of few":     {Owner: "alice", State: sdk.TaskStateFailed},
		"state, of most":    {Owner: "alice", State: sdk.TaskStateCompleted},
		"state, any owner":  {Any: true, State: sdk.TaskStateFailed},
		"context and state": {Any: true, Context: "context-7", State: sdk.TaskStateFailed},
	} {
		f.Limit = 50
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.List(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
