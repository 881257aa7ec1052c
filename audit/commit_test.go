package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// deferredStore is a store that commits when it is told to, and commands for it.
func deferredStore(t *testing.T, linger time.Duration) (*audit.Store, [][]byte) {
	t.Helper()
	s, err := audit.OpenStore(audit.StoreConfig{Dir: t.TempDir(), Genesis: audittest.Genesis(t), Linger: linger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	key := audittest.Key(t, 1)
	var cmds [][]byte
	for i := range 20 {
		e := audittest.Intent(t, key.ID(), fmt.Sprint("task", i))
		e.V, e.ID, e.Author, e.Time = audit.EntryVersion, fmt.Sprint(i), key.ID(), "2026-01-01T00:00:00.000Z"
		e.Once = &audit.Once{Key: fmt.Sprintf("%064x", i), Digest: digestA}
		leaf, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, audit.SignBatch(key, s.Origin(), [][]byte{leaf}))
	}
	return s, cmds
}

func apply(t *testing.T, s *audit.Store, index uint64, cmd []byte) []byte {
	t.Helper()
	answers, err := s.Apply(index, 1, [][]byte{cmd})
	if err != nil {
		t.Fatalf("Apply %d: %v", index, err)
	}
	return answers[0]
}

// Readers see what is applied before it is durable; Applied is what is durable.
func TestReadersSeeTheOpenTransaction(t *testing.T) {
	s, cmds := deferredStore(t, time.Hour)
	for i, cmd := range cmds[:3] {
		apply(t, s, uint64(i+1), cmd)
	}
	if index, _ := s.Applied(); index != 0 {
		t.Errorf("durable up to %d, want 0", index)
	}
	if e, _, err := s.Entry(3); err != nil || e.Task != "task2" {
		t.Errorf("Entry = %+v, %v", e, err)
	}
	if index, _, err := s.Once(fmt.Sprintf("%064x", 1)); err != nil || index != 2 {
		t.Errorf("Once = %d, %v", index, err)
	}
	if rec, err := s.Task("task0"); err != nil || rec.Intent == nil || *rec.Intent != 1 {
		t.Errorf("Task = %+v, %v", rec, err)
	}
	if open, err := s.OpenIntents(); err != nil || len(open) != 3 {
		t.Errorf("OpenIntents = %d, %v", len(open), err)
	}
	if s.Size() != 4 {
		t.Errorf("Size = %d", s.Size())
	}
	// At-most-once holds within the transaction, too.
	if again := apply(t, s, 4, cmds[0]); string(again) == "" || s.Size() != 4 {
		t.Errorf("the same command again: %x, size %d", again, s.Size())
	}
	if index, _ := s.Applied(); index != 0 {
		t.Errorf("durable up to %d after look-ups, want 0", index)
	}
	if page, err := s.Query(deadline(t), audit.Filter{}); err != nil || len(page.Entries) != 4 {
		t.Errorf("Query = %d entries, %v", len(page.Entries), err)
	}
	if index, _ := s.Applied(); index != 4 {
		t.Errorf("durable up to %d after a query, want 4", index)
	}
}

func TestCommitFollowsByItself(t *testing.T) {
	s, cmds := deferredStore(t, time.Millisecond)
	apply(t, s, 1, cmds[0])
	ctx := deadline(t)
	for index := uint64(0); index != 1; index, _ = s.Applied() {
		if ctx.Err() != nil {
			t.Fatal("nothing was committed")
		}
		time.Sleep(time.Millisecond)
	}
}

// What a power loss leaves is the durable state; raft applies the rest again.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestReplayAfterPowerLoss(t *testing.T) {
	s, cmds := deferredStore(t, time.Hour)
	for i, cmd := range cmds {
		apply(t, s, uint64(i+1), cmd)
		if i == 7 {
			if err := s.Settle(); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir() // the file as the disk has it: the open transaction is in memory
	copyFile(t, filepath.Join(s.Dir(), "audit.db"), filepath.Join(dir, "audit.db"))
	size, root, err := s.Tree()
	if err != nil {
		t.Fatal(err)
	}
	again, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Linger: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	durable, _ := again.Applied()
	if durable != 8 || again.Size() != 9 {
		t.Fatalf("durable up to %d, size %d; want 8, 9", durable, again.Size())
	}
	for i := range cmds {
		if uint64(i+1) > durable-2 { // some of what is there, too
			if _, err := again.Apply(uint64(i+1), 1, cmds[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, r, err := again.Tree(); err != nil || n != size || r != root {
		t.Errorf("after replay: %d %s, %v; want %d %s", n, r, err, size, root)
	}
}

// A full disk costs nothing that was answered: the store stands still, says so,
// and goes on when there is space.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestFullDiskStandsStillAndRecovers(t *testing.T) {
	for _, stage := range []string{"before commit", "after commit"} {
		t.Run(stage, func(t *testing.T) {
			s, cmds := deferredStore(t, time.Hour)
			apply(t, s, 1, cmds[0])
			if err := s.Settle(); err != nil {
				t.Fatal(err)
			}
			s.FailAt(t, stage, fmt.Errorf("write: %w", syscall.ENOSPC))
			s.FailAlso(t, "before redo", fmt.Errorf("write: %w", syscall.ENOSPC))
			apply(t, s, 2, cmds[1])
			apply(t, s, 3, cmds[2])
			if err := s.Settle(); !errors.Is(err, audit.ErrUnavailable) || s.Stalled() == nil {
				t.Fatalf("Settle = %v, Stalled = %v", err, s.Stalled())
			}
			if _, _, err := s.Once(fmt.Sprintf("%064x", 1)); !errors.Is(err, audit.ErrUnavailable) {
				t.Errorf("a look-up that cannot see what was answered = %v, want ErrUnavailable", err)
			}
			var late sync.WaitGroup
			late.Go(func() { apply(t, s, 4, cmds[3]) }) // waits
			time.Sleep(50 * time.Millisecond)
			if s.Broken() != nil {
				t.Fatal(s.Broken())
			}
			s.FailAt(t, "", nil) // there is space
			late.Wait()
			if err := s.Settle(); err != nil {
				t.Fatal(err)
			}
			for i := range uint64(4) {
				if e, _, err := s.Entry(i + 1); err != nil || e.ID != fmt.Sprint(i) {
					t.Errorf("entry %d = %+v, %v", i+1, e, err)
				}
			}
			if index, _ := s.Applied(); index != 4 || s.Size() != 5 || s.Stalled() != nil {
				t.Errorf("durable %d, size %d, %v", index, s.Size(), s.Stalled())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err := audit.VerifyDir(deadline(t), s.Dir(), nil); err != nil || r.Bad != nil || r.Size != 5 {
				t.Errorf("VerifyDir = %+v, %v, %v", r, r.Bad, err)
			}
		})
	}
}

// Whoever closes a store whose disk is full does not wait for the disk.
func TestReleaseEndsAWaitingApply(t *testing.T) {
	s, cmds := deferredStore(t, time.Hour)
	s.FailAt(t, "before commit", syscall.ENOSPC)
	s.FailAlso(t, "before redo", syscall.ENOSPC)
	apply(t, s, 1, cmds[0])
	_ = s.Settle() // stalls
	ended := make(chan error, 1)
	go func() {
		_, err := s.Apply(2, 1, cmds[1:2])
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("Apply did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	s.Release()
	if err := <-ended; !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("Apply = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A disk that fails is not a full one: the store must be opened again.
func TestDiskErrorBreaksTheStore(t *testing.T) {
	s, cmds := deferredStore(t, time.Millisecond)
	s.FailAt(t, "before commit", fmt.Errorf("fsync: %w", syscall.EIO))
	apply(t, s, 1, cmds[0])
	ctx := deadline(t)
	for s.Broken() == nil && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Apply(2, 1, cmds[1:2]); !errors.Is(err, syscall.EIO) {
		t.Errorf("Apply = %v", err)
	}
}

// Readers of all kinds beside a writer, for the race detector.
func TestReadersBesideAWriter(t *testing.T) {
	s, cmds := deferredStore(t, time.Millisecond)
	ctx, cancel := context.WithCancel(deadline(t))
	var readers sync.WaitGroup
	for _, read := range []func() error{
		func() error { _, _, err := s.Tree(); return err },
		func() error { _, _, err := s.Entry(0); return err },
		func() error { _, err := s.Query(ctx, audit.Filter{Actor: "nobody"}); return err },
		func() error { _, err := s.OpenIntents(); return err },
		func() error { _, err := s.Snapshot(); return err },
		func() error { _, err := s.ProveEntry(0, s.Size()); return err },
		func() error { return s.View(func(audit.Tx) error { return nil }) },
	} {
		readers.Go(func() {
			for ctx.Err() == nil {
				if err := read(); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 200 {
		apply(t, s, uint64(i+1), cmds[i%len(cmds)])
	}
	cancel()
	readers.Wait()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err == nil {
		_, err = io.Copy(out, in)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}
