package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/consensus"
)

// A keeper whose raft log finds its disk full, a real small one, leads no more
// and says why; the others go on, and when there is space it has it all.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestTheRaftLogOnAFullDisk(t *testing.T) {
	c := newCluster(t, 3)
	for i := range c.dirs { // whichever leads is to be the one
		small := t.TempDir()
		if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=40m"); err != nil {
			t.Skipf("no small file system to fill: mount: %v", err)
		}
		t.Cleanup(func() {
			c.stop(i)
			if err := syscall.Unmount(small, 0); err != nil {
				t.Error(err)
			}
		})
		c.dirs[i] = filepath.Join(small, "keeper")
		c.start(i)
	}
	full := c.leader()
	ballast := filepath.Join(filepath.Dir(c.dirs[full]), "ballast") // what an operator can remove
	var acknowledged []string
	say := func(by *consensus.Group, n int) {
		for range n {
			cmd := fmt.Sprintf("%d %s", len(acknowledged), strings.Repeat("x", 200<<10))
			propose(t, by, cmd)
			acknowledged = append(acknowledged, cmd)
		}
	}
	say(c.groups[full], 5)
	fill(t, ballast)

	// More than what is left of the files that its log has filled already.
	others := []int{(full + 1) % 3, (full + 2) % 3}
	stalled := func() string { return c.groups[full].Status().Stalled }
	for range 150 {
		if stalled() != "" && !c.groups[full].Lead() {
			break
		}
		say(c.groups[others[0]], 1) // forwards to whoever leads
	}
	eventually(t, "the full keeper to say so", func() bool {
		return strings.Contains(stalled(), "no space left") && !c.groups[full].Status().Healthy
	})
	next := c.leader(full)
	say(c.groups[next], 5)
	if slices.Equal(c.machines[full].Commands(), acknowledged) {
		t.Error("a keeper with a full disk has it all")
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the keeper to be well again", func() bool { return stalled() == "" && c.groups[full].Status().Healthy })
	say(c.groups[full], 1)
	c.same(acknowledged)

	// What it wrote before, while and after is what the next start reads.
	c.stop(full)
	c.start(full)
	say(c.groups[full], 1)
	c.same(acknowledged)
}

// A keeper that is alone has nobody to give the lead to: it refuses, and goes on
// by itself when there is space.
func TestALoneKeeperWithAFullRaftLog(t *testing.T) {
	c := newCluster(t, 1)
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=40m"); err != nil {
		t.Skipf("no small file system to fill: mount: %v", err)
	}
	t.Cleanup(func() {
		c.stop(0)
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	c.dirs[0] = filepath.Join(small, "keeper")
	c.start(0)
	c.leader()
	var acknowledged []string
	say := func() error {
		cmd := fmt.Sprintf("%d %s", len(acknowledged), strings.Repeat("x", 200<<10))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.groups[0].Propose(ctx, []byte(cmd))
		if err == nil || errors.Is(err, consensus.ErrAmbiguous) {
			acknowledged = append(acknowledged, cmd) // or about to be
		}
		return err
	}
	acknowledged = append(acknowledged, "before")
	propose(t, c.groups[0], "before")
	ballast := filepath.Join(small, "ballast")
	fill(t, ballast)
	var err error
	full := func() bool { return err != nil && strings.Contains(err.Error(), "no space left") }
	for n := 0; n < 150 && !full(); n++ {
		err = say() // a slow machine may not answer in time
	}
	if !full() {
		t.Fatalf("a full disk answers %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the keeper to be well again", func() bool { return c.groups[0].Status().Stalled == "" })
	acknowledged = append(acknowledged, "after")
	propose(t, c.groups[0], "after")
	if got := c.machines[0].Commands(); got[len(got)-1] != "after" || len(got) > len(acknowledged) {
		t.Errorf("%d commands after %d were proposed", len(got), len(acknowledged))
	}
}

// fill leaves no room on the file system of a file, which it makes.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for deadline := time.Now().Add(patience); ; {
		n, err := f.Write(chunk)
		if err != nil && len(chunk) == 1 {
			return // not even a byte
		}
		if err != nil || n < len(chunk) {
			chunk = chunk[:max(len(chunk)/2, 1)]
		}
		if time.Now().After(deadline) {
			t.Fatal("the disk does not fill")
		}
	}
}
