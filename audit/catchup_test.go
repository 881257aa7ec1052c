package audit_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// INVARIANT: I7: of parts that share a transaction, those before one that does
// not belong to the log are kept, and nothing of that one or of those behind it.
func TestPartsBeforeABadOneAreKept(t *testing.T) {
	key := audittest.Key(t, 1)
	honest := audittest.New(t, nil, nil)
	const tasks = 4
	for i := range tasks {
		honest.Record(key, audittest.Intent(t, key.ID(), fmt.Sprint("task", i)))
	}
	meta, err := honest.Store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	one := func(i uint64) audit.Batches { // the part of one entry
		t.Helper()
		all, err := honest.Store.Batches(i, tasks+1)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := honest.Store.ProveGrowth(i+1, tasks+1)
		if err != nil {
			t.Fatal(err)
		}
		return audit.Batches{Batches: all.Batches[:1], Proof: proof}
	}
	other := one(3)
	other.Batches = [][]byte{audit.SignBatch(key, honest.Store.Origin(), [][]byte{[]byte("{}")})}
	for bad := range uint64(3) {
		s := openWith(t, nil)
		parts := []audit.Batches{one(1), one(2), one(3)}
		parts[bad].Batches = other.Batches
		if err := audit.ApplyParts(s, meta, parts...); !errors.Is(err, audit.ErrFork) {
			t.Errorf("part %d is bad: %v, want ErrFork", bad, err)
		}
		root, err := s.Root(1 + bad)
		if err != nil || s.Size() != 1+bad {
			t.Fatalf("part %d is bad: size %d, %v", bad, s.Size(), err)
		}
		if want, err := honest.Store.Root(1 + bad); err != nil || root != want {
			t.Errorf("part %d is bad: root %s, want %s, %v", bad, root, want, err)
		}
	}
	s := openWith(t, nil)
	if err := audit.ApplyParts(s, meta, one(1), one(2), one(3), one(4)); err != nil || s.Size() != tasks+1 {
		t.Errorf("good parts: %v, size %d", err, s.Size())
	}
}
