//go:build long && linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A node whose whole data folder has no space left gives the lead away and says
// why; the others go on, and when there is space it goes on by itself.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestANodeOnAFullDisk(t *testing.T) {
	c := onDisks(t, func(dir string) (undo func() error, err error) {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m,mode=700")
		return func() error { return syscall.Unmount(dir, 0) }, err
	})
	acked := newLedger()
	lead := c.leads()
	others := []int{(lead + 1) % 3, (lead + 2) % 3}
	stop := c.loadAt(others, acked)
	c.await("some executions", func() bool { return acked.size() >= 3 })

	ballast := filepath.Join(c.Nodes[lead].Data, "ballast") // what an operator can remove
	if out, err := exec.Command("sh", "-c", `cat /dev/zero > "$0"`, ballast).CombinedOutput(); err == nil {
		t.Fatalf("the disk does not fill: %s", out)
	}
	c.await("the full node to say so", func() bool {
		res, err := http.Get(c.Nodes[lead].HTTP + "/readyz")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		why, err := io.ReadAll(res.Body)
		return err == nil && res.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(why), "the disk is full")
	})
	c.try(exitUnavailable, "disk is full", "status", "--server", c.Nodes[lead].HTTP)
	c.await("another one to lead", func() bool { return c.agreeing(others, lead) })
	before := acked.size()
	c.await("the others to go on", func() bool { return acked.size() >= before+3 })

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.await("the node to be ready again", func() bool { return c.glimpse(lead).Ready })
	stop()
	c.nothingLost(acked)
}

// A disk that takes no write and fails none, as one whose controller hangs does,
// costs the node its lead, not the cluster its log; and when the disk goes on the
// node has it all, if need be after a restart.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestANodeOnAHungDisk(t *testing.T) {
	c := onDisks(t, func(dir string) (undo func() error, err error) {
		image := filepath.Join(t.TempDir(), "disk")
		for _, args := range [][]string{
			{"truncate", "-s", "256M", image},
			{"mkfs.ext4", "-q", "-F", image},
			{"mount", "-o", "loop", image, dir},
		} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("%v: %w: %s", args, err, out)
			}
		}
		return func() error { return exec.Command("umount", dir).Run() }, nil
	})
	acked := newLedger()
	lead := c.leads()
	others := []int{(lead + 1) % 3, (lead + 2) % 3}
	stop := c.loadAt(others, acked)
	c.await("some executions", func() bool { return acked.size() >= 3 })
	thaw := sync.OnceValue(func() error { return exec.Command("fsfreeze", "-u", c.Nodes[lead].Data).Run() })
	t.Cleanup(func() { _ = thaw() }) // before anything else ends: it was told of below
	if out, err := exec.Command("fsfreeze", "-f", c.Nodes[lead].Data).CombinedOutput(); err != nil {
		t.Fatalf("fsfreeze: %v: %s", err, out)
	}
	c.await("another one to lead", func() bool { return c.agreeing(others, lead) })
	before := acked.size()
	c.await("the others to go on", func() bool { return acked.size() >= before+3 })
	if err := thaw(); err != nil {
		t.Fatalf("fsfreeze: %v", err)
	}
	c.await("the node to go on, or to stop", func() bool { return !alive(c.Nodes[lead].PID) || c.glimpse(lead).Ready })
	if !alive(c.Nodes[lead].PID) {
		c.start(lead)
		c.awaitReady(lead)
	}
	stop()
	c.nothingLost(acked)
}

// onDisks is a cluster of three whose data folders are disks of their own, since
// any of them may come to lead.
func onDisks(t *testing.T, mount func(dir string) (undo func() error, err error)) *testCluster {
	t.Helper()
	dir := t.TempDir()
	c := &testCluster{t: t, dir: dir, data: filepath.Join(dir, "data"), out: new(printout)}
	for i := range 3 {
		at := filepath.Join(c.data, fmt.Sprintf("node%d", i+1))
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		undo, err := mount(at)
		if err != nil && os.Getenv("CI") == "" {
			t.Skipf("no disk of its own for a node: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := undo(); err != nil {
				t.Errorf("unmount %s: %v", at, err)
			}
		})
	}
	c.startDev(3)
	t.Cleanup(func() { c.stopAll() })
	return c
}

// loadAt runs small programs at doors until it is told to stop.
func (c *testCluster) loadAt(doors []int, acked *ledger) (stop func()) {
	var work sync.WaitGroup
	done := make(chan struct{})
	for _, door := range doors {
		work.Go(func() { c.load(door, done, acked) })
	}
	stop = sync.OnceFunc(func() {
		close(done)
		work.Wait()
	})
	c.t.Cleanup(stop)
	return stop
}

// leads is the node that leads, as one of the nodes sees it.
func (c *testCluster) leads() (lead int) {
	c.t.Helper()
	c.await("a leader", func() bool {
		for i := range c.Nodes {
			leader := c.glimpse(i).Leader
			for lead = range c.Nodes {
				if c.Nodes[lead].ID == leader {
					return true
				}
			}
		}
		return false
	})
	return lead
}

// agreeing reports whether nodes see the same leader, and not the one before.
func (c *testCluster) agreeing(nodes []int, before int) bool {
	c.t.Helper()
	next := c.glimpse(nodes[0]).Leader
	for _, i := range nodes[1:] {
		if c.glimpse(i).Leader != next {
			return false
		}
	}
	return next != "" && next != c.Nodes[before].ID
}

// glimpse is what a node says of itself, if it says anything.
func (c *testCluster) glimpse(at int) (s statusView) {
	c.t.Helper()
	r := c.run("status", "--json", "--server", c.Nodes[at].HTTP)
	_ = json.Unmarshal([]byte(r.stdout), &s) // then it is empty
	return s
}
