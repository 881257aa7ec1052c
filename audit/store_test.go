package audit_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

func TestRecordAndRead(t *testing.T) {
	l := audittest.New(t, nil, nil)
	key := audittest.Key(t, 1)
	r := l.Recorder(key)
	ctx := context.Background()
	intent := audittest.Intent(t, key.ID(), "task1")
	ack, err := r.Record(ctx, intent)
	if err != nil {
		t.Fatal(err)
	}
	if want := (audit.Ack{Index: 1}); ack != want {
		t.Fatalf("Record = %+v, want %+v", ack, want)
	}
	if open, err := l.Store.OpenIntents(); err != nil || len(open) != 1 || open[0].Index != 1 {
		t.Fatalf("OpenIntents = %v, %v", open, err)
	}
	outcome := l.Record(key, audittest.Outcome(t, "task1", 1, audit.StatusSucceeded))
	if outcome != 2 {
		t.Fatalf("outcome at %d, want 2", outcome)
	}
	rec, err := l.Store.Task("task1")
	if err != nil || rec.Attempt != 1 || *rec.Intent != 1 || *rec.Outcome != 2 {
		t.Fatalf("Task = %+v, %v", rec, err)
	}
	if _, _, err := l.Store.Entry(3); !errors.Is(err, audit.ErrNotFound) {
		t.Errorf("Entry(3) = %v, want ErrNotFound", err)
	}
	page, err := l.Store.Query(ctx, audit.Filter{Newest: true})
	if err != nil || len(page.Entries) != 3 || page.Entries[0].Index != 2 {
		t.Errorf("Query = %+v, %v", page, err)
	}
	a, err := l.Store.Attestation(2)
	if err != nil || !a.Verify(l.Store.Origin()) || a.Author != key.ID() {
		t.Errorf("Attestation = %+v, %v", a, err)
	}
}

// Close waits for what Check began, whenever it comes, and nothing is begun
// behind it.
func TestCloseWaitsForWhatWasBegun(t *testing.T) {
	l := audittest.New(t, nil, nil)
	key := audittest.Key(t, 1)
	var cmds [][]byte
	for i := range 64 {
		cmds = append(cmds, audit.SignBatch(key, l.Store.Origin(), [][]byte{fmt.Appendf(nil, "leaf %d", i)}))
	}
	var checks sync.WaitGroup
	for _, cmd := range cmds {
		checks.Go(func() {
			if err := l.Store.Check(cmd); err != nil {
				t.Error(err)
			}
		})
	}
	release, over := make(chan struct{}), false
	l.Store.Beside(func() {
		<-release
		for range 1000 {
			runtime.Gosched()
		}
		over = true
	})
	closed := make(chan error)
	go func() { closed <- l.Store.Close() }()
	close(release)
	if err := <-closed; err != nil || !over {
		t.Errorf("Close = %v, what was begun is over: %v", err, over)
	}
	checks.Wait()
	l.Store.Beside(func() { t.Error("begun after Close") })
	if err := l.Store.Close(); err != nil {
		t.Error(err)
	}
}
