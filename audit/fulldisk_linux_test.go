package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// TestAFullFileSystem fills a real, small file system under a store.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestAFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("no small file system to fill: mount: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	ballast := filepath.Join(dir, "ballast") // what an operator can remove
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := audit.OpenStore(audit.StoreConfig{Dir: filepath.Join(dir, "log"), Genesis: audittest.Genesis(t), Linger: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key := audittest.Key(t, 1)
	answered := make(chan uint64, 100_000)
	done := make(chan error, 1)
	go func() {
		for i := uint64(1); ; i++ {
			e := audittest.Intent(t, key.ID(), fmt.Sprint("task", i))
			e.V, e.ID, e.Author, e.Time = audit.EntryVersion, fmt.Sprint(i), key.ID(), "2026-01-01T00:00:00.000Z"
			leaf, err := e.Encode()
			if err == nil {
				_, err = s.Apply(i, 1, [][]byte{audit.SignBatch(key, s.Origin(), [][]byte{leaf})})
			}
			if err != nil {
				done <- err
				return
			}
			answered <- i
		}
	}()
	ctx := deadline(t)
	for s.Stalled() == nil {
		if s.Broken() != nil || ctx.Err() != nil {
			t.Fatalf("a full disk: broken %v, %v", s.Broken(), ctx.Err())
		}
		time.Sleep(time.Millisecond)
	}
	size := s.Size()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for s.Stalled() != nil || s.Size() <= size+100 {
		if s.Broken() != nil || ctx.Err() != nil {
			t.Fatalf("with space again: broken %v, %v, %d entries after %d", s.Broken(), ctx.Err(), s.Size(), size)
		}
		time.Sleep(time.Millisecond)
	}
	for s.Stalled() == nil && ctx.Err() == nil {
		time.Sleep(time.Millisecond) // until it is full once more, so that the writer waits
	}
	s.Release()
	<-done
	if err := s.Close(); err != nil {
		t.Logf("closed on a full disk: %v", err)
	}
	// What is on the disk is whole, and the rest can be applied again elsewhere.
	copied := t.TempDir()
	copyFile(t, filepath.Join(dir, "log", "audit.db"), filepath.Join(copied, "audit.db"))
	r, err := audit.VerifyDir(deadline(t), copied, nil)
	if err != nil || r.Bad != nil {
		t.Fatalf("VerifyDir = %+v, %v, %v", r, r.Bad, err)
	}
	again, err := audit.OpenStore(audit.StoreConfig{Dir: copied})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	durable, _ := again.Applied()
	if durable <= size || durable > uint64(len(answered)) {
		t.Errorf("durable up to %d; it stood still at %d and answered %d", durable, size, len(answered))
	}
	_, leaf, err := again.Entry(durable)
	if err != nil || !bytes.Contains(leaf, fmt.Appendf(nil, `"task":"task%d"`, durable)) {
		t.Errorf("entry %d = %s, %v", durable, leaf, err)
	}
	t.Logf("stood still at %d entries, went on to %d", size, durable)
}
