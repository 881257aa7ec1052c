package taskstore

import (
	"errors"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// unhurried is a store that lets what can wait do so for ever, with one task in it.
func unhurried(t *testing.T) (*Store, *sdk.Task) {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.pace = time.Hour
	task := &sdk.Task{ID: "first", Status: sdk.TaskStatus{State: sdk.TaskStateWorking}}
	// A store that is idle writes at once what could wait.
	if _, err := s.CreatePlaced(task, "alice", "", time.Now(), true); err != nil {
		t.Fatal(err)
	}
	return s, task
}

// commits is how many there were.
func (s *Store) commitsSoFar(t *testing.T) (n int) {
	t.Helper()
	if err := s.db.View(func(tx *bbolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// soon begins so many writes that can wait, and returns when they do.
func soon(t *testing.T, s *Store, task *sdk.Task, n int) (wait func() []error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { _, errs[i] = s.Update(task, time.Now(), Change{Soon: true}) })
	}
	for {
		s.mu.Lock()
		waiting := len(s.waiting)
		s.mu.Unlock()
		if waiting == n {
			return func() []error { wg.Wait(); return errs }
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWhatCanWaitIsWrittenTogether(t *testing.T) {
	for name, end := range map[string]func(s *Store) error{
		"a hurry": func(s *Store) error { s.Hurry(); return nil },
		"a write that somebody waits for": func(s *Store) error {
			_, err := s.Create(&sdk.Task{ID: "second", Status: sdk.TaskStatus{State: sdk.TaskStateWorking}}, "alice", time.Now())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, task := unhurried(t)
			before := s.commitsSoFar(t)
			wait := soon(t, s, task, 20)
			if err := end(s); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(wait()...); err != nil {
				t.Fatal(err)
			}
			if got := s.commitsSoFar(t) - before; got != 1 {
				t.Errorf("%d commits, want 1", got)
			}
			if r, err := s.Get(task.ID); err != nil || r.Generation != 21 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestCloseWritesWhatWaits(t *testing.T) {
	s, task := unhurried(t)
	wait := soon(t, s, task, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(wait()...); err != nil {
		t.Error(err)
	}
	if _, err := s.Update(task, time.Now(), Change{Soon: true}); !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		t.Errorf("afterwards: %v", err)
	}
}

// Before there is a reason to wait, nobody does: the pace is counted from the last
// commit.
func TestASlowPaceIsNoDelayOfItsOwn(t *testing.T) {
	s, task := unhurried(t)
	s.mu.Lock()
	s.began = time.Now().Add(-time.Hour)
	s.mu.Unlock()
	if _, err := s.Update(task, time.Now(), Change{Soon: true}); err != nil {
		t.Error(err)
	}
}
