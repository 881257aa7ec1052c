package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
)

// Issue 2: killing any one of three nodes at any moment loses no acknowledged
// entry and leaves no task without an end.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
// INVARIANT: I2, every intent gets exactly one outcome.
func TestKillsUnderLoadLoseNothing(t *testing.T) {
	c := startCluster(t, 3)
	acked := newLedger()
	for round := range rounds {
		victim := round % 3
		var work sync.WaitGroup
		stop := make(chan struct{})
		for door := range 3 {
			if door == victim {
				continue
			}
			for range 2 {
				work.Go(func() { c.load(door, stop, acked) })
			}
		}
		time.Sleep(time.Duration(200+rand.IntN(600)) * time.Millisecond) // any moment
		c.kill(victim)
		time.Sleep(2 * time.Second) // and the load goes on without it
		close(stop)
		work.Wait()
		c.restart(victim)
	}
	if acked.size() == 0 {
		t.Fatal("nothing was acknowledged")
	}
	t.Logf("%d executions acknowledged over %d kills", acked.size(), rounds)

	c.nothingLost(acked)
}

// Killing all nodes at once under load, as a power cut does, loses no
// acknowledged entry either.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestKillingAllAtOnceLosesNothing(t *testing.T) {
	c := startCluster(t, 3)
	acked := newLedger()
	var work sync.WaitGroup
	stop := make(chan struct{})
	for door := range 3 {
		work.Go(func() { c.load(door, stop, acked) })
	}
	c.await("some executions", func() bool { return acked.size() >= 5 })
	for _, n := range c.Nodes {
		if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	work.Wait()
	for i, n := range c.Nodes {
		c.await("node to die", func() bool { return !alive(n.PID) })
		c.start(i)
	}
	for i := range c.Nodes {
		c.awaitReady(i)
	}
	c.nothingLost(acked)
}

// nothingLost checks that every intent gets its outcome, that the nodes agree,
// that each has every acknowledged entry once and at its index, and that their
// folders verify. The nodes are stopped then.
func (c *testCluster) nothingLost(acked *ledger) {
	c.t.Helper()
	for i := range c.Nodes {
		c.await(fmt.Sprintf("every intent to have its outcome on node %d", i+1), func() bool { return len(c.open(i)) == 0 })
	}
	c.await("the nodes to agree", func() bool {
		roots := map[uint64]string{}
		for _, n := range c.Nodes {
			var s statusView
			c.json(&s, "status", "--server", n.HTTP)
			if root, ok := roots[s.LogSize]; ok && root != s.LogRoot {
				c.t.Fatalf("two roots at size %d: %s and %s", s.LogSize, root, s.LogRoot)
			}
			roots[s.LogSize] = s.LogRoot
		}
		return len(roots) == 1
	})
	for i := range c.Nodes {
		acked.check(c.t, c, i)
	}
	c.stopAll()
	for i, n := range c.Nodes {
		if r := c.run("audit", "verify", n.Data, "--trust", c.Trust); r.code != exitOK {
			c.t.Errorf("node %d does not verify: %s%s", i+1, r.stdout, r.stderr)
		}
	}
}

// ledger is what the cluster acknowledged: task to indexes.
type ledger struct {
	mu    sync.Mutex
	tasks map[string][2]uint64
}

func newLedger() *ledger { return &ledger{tasks: map[string][2]uint64{}} }

func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tasks)
}

// load runs small programs at a door until stop, and notes those that were
// acknowledged.
func (c *testCluster) load(door int, stop <-chan struct{}, l *ledger) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		rep, _ := c.exec(door, "--lang", "starlark", "-c", "result = 1")
		if rep.Status != a2a.Succeeded || rep.Outcome == nil {
			continue
		}
		l.mu.Lock()
		l.tasks[rep.Task] = [2]uint64{*rep.Intent, *rep.Outcome}
		l.mu.Unlock()
	}
}

// check looks every acknowledged entry up in a node's own copy.
func (l *ledger) check(t testing.TB, c *testCluster, node int) {
	t.Helper()
	found := map[string][]uint64{} // the intent is before its outcome
	c.list(node, "intent,outcome", func(index uint64, entry taskEntry) {
		found[entry.Task] = append(found[entry.Task], index)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for task, want := range l.tasks {
		got := found[task]
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("node %d has task %s at %v, acknowledged at %v", node+1, task, got, want)
		}
	}
}

// open are the tasks that have an intent and no outcome in a node's copy.
func (c *testCluster) open(node int) []string {
	c.t.Helper()
	var open []string
	c.list(node, "intent,outcome", func(_ uint64, entry taskEntry) {
		if entry.Kind == "intent" {
			open = append(open, entry.Task)
		} else {
			open = slices.DeleteFunc(open, func(task string) bool { return task == entry.Task })
		}
	})
	return open
}

// taskEntry is what tests of kills read of an entry.
type taskEntry struct{ Kind, Task string }

// list goes through all entries of some kinds in a node's copy, oldest first.
func (c *testCluster) list(node int, kinds string, each func(index uint64, entry taskEntry)) {
	c.t.Helper()
	for cursor := ""; ; {
		args := []string{"audit", "list", "--kind", kinds, "--limit", "1000", "--order", "oldest", "--server", c.Nodes[node].HTTP}
		if cursor != "" {
			args = append(args, "--cursor", cursor)
		}
		var page logPage
		c.json(&page, args...)
		for _, e := range page.Entries {
			var entry taskEntry
			if err := json.Unmarshal(e.Entry, &entry); err != nil {
				c.t.Fatal(err)
			}
			each(e.Index, entry)
		}
		if cursor = page.Next; cursor == "" {
			return
		}
	}
}

// count is how many entries of a kind a node's copy holds, up to 1000.
func (c *testCluster) count(node int, kind string) int {
	c.t.Helper()
	var page logPage
	c.json(&page, "audit", "list", "--kind", kind, "--limit", "1000", "--server", c.Nodes[node].HTTP)
	return len(page.Entries)
}
