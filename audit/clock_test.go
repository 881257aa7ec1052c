package audit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
)

// Clocks that jump, there and back, cost no entry and no order: who is alone
// with its time signs nothing, and who leads with it is told to give the lead
// away. The others' checkpoints go on.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestClocksThatJump(t *testing.T) {
	c := newCluster(t, 3)
	c.run()
	covered := func(index uint64, keepers ...int) {
		t.Helper()
		for _, i := range keepers {
			if _, _, err := c.stores[i].WaitCheckpoint(deadline(t), index); err != nil {
				t.Fatalf("keeper %d: entry %d: %v", i, index, err)
			}
		}
	}
	_, at := c.execution(0, "before")
	covered(at, 0, 1, 2)

	// A follower's: forward an hour, back a year, then as it was.
	for n, jump := range []time.Duration{time.Hour, -365 * 24 * time.Hour} {
		c.clocks[2].Store(int64(jump))
		_, at = c.execution(1, "follower"+string(rune('a'+n)))
		covered(at, 0, 1, 2) // it has the checkpoint that the others signed
		size, root, err := c.stores[2].Tree()
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.points[2].Cosign(deadline(t), audit.Checkpoint{Origin: c.stores[2].Origin(), Size: size, Root: root}, time.Now())
		if !errors.Is(err, audit.ErrConflict) {
			t.Errorf("a keeper %v off signs: %v", jump, err)
		}
	}
	c.clocks[2].Store(0)

	// The leader's: no quorum signs, it hears why, and another one leads.
	if c.outvoted.Load() != 0 {
		t.Error("a leader with the right time was outvoted")
	}
	c.clocks[0].Store(int64(time.Hour))
	_, at = c.execution(0, "leader")
	for ctx := deadline(t); c.outvoted.Load() == 0; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("the leader was not told that its clock is off")
		}
	}
	c.leader.Store(1)
	covered(at, 0, 1, 2)

	// Entries bear what their authors' clocks said; order and roots are the same
	// everywhere.
	c.clocks[0].Store(0)
	_, at = c.execution(0, "after")
	covered(at, 0, 1, 2)
	c.halt()
	size, root, err := c.stores[0].Tree()
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range c.stores {
		if n, other, err := s.Tree(); err != nil || n != size || other != root {
			t.Errorf("keeper %d has %d entries, root %v, %v; keeper 0 %d, %v", i, n, other, err, size, root)
		}
	}
}
