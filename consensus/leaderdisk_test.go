package consensus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/agenticraft/node/consensus"
)

// A leader sends entries while its own disk writes them. One that dies before it
// has written them must not have led anybody to apply them: the others may go on
// without the only keeper that has them.
//
// INVARIANT: I7 keepers never differ, and an acknowledged entry is never lost.
func TestI7AnEntryThatOnlyAFollowerWroteIsNotApplied(t *testing.T) {
	c := newCluster(t, 3)
	c.adjust = steady
	for i := range 3 {
		c.start(i)
	}
	lead := c.leader()
	has, lacks := (lead+1)%3, (lead+2)%3
	propose(t, c.groups[lead], "before")
	c.same([]string{"before"})
	c.net.Isolate(c.ids[lacks], c.ids...)
	release, answered := c.proposeHeld(lead, lead, has)
	// Long enough for the leader to tell what it thinks is committed.
	time.Sleep(300 * time.Millisecond)
	if got := c.machines[has].Commands(); len(got) != 1 {
		t.Errorf("the follower applied %q, which its leader may lose", got)
	}
	// The leader dies with what it did not write.
	c.net.Isolate(c.ids[lead], c.ids...)
	c.groups[lead].LoseDisk(errors.New("power lost"))
	if err := <-answered; err == nil {
		t.Error("the entry is acknowledged, although only one keeper has it")
	}
	select {
	case <-c.groups[lead].Failed():
	case <-time.After(patience):
		t.Error("the leader goes on without its disk")
	}
	release()
	c.stop(lead)
	if got := c.machines[lead].Commands(); len(got) != 1 {
		t.Fatalf("the dead leader applied %q", got)
	}
	// It comes back without the entry, and goes on with the one that never had it.
	c.net.Heal()
	c.net.Isolate(c.ids[has], c.ids...)
	c.start(lead)
	next := c.leader(has)
	propose(t, c.groups[next], "other")
	c.net.Heal()
	c.leader()
	c.same([]string{"before", "other"})
}

// A follower answers for what its disk has, not for what it was sent.
func TestI7AFollowerAnswersForItsDisk(t *testing.T) {
	c := newCluster(t, 3)
	c.adjust = func(cfg *consensus.Config) { steady(cfg); cfg.WriteTimeout = patience }
	for i := range 3 {
		c.start(i)
	}
	lead := c.leader()
	slow, gone := (lead+1)%3, (lead+2)%3
	propose(t, c.groups[lead], "before")
	c.same([]string{"before"})
	c.stop(gone)
	release, answered := c.proposeHeld(slow, lead, slow)
	select {
	case err := <-answered:
		release()
		t.Fatalf("answered with %v while one disk of three has the entry", err)
	case <-time.After(300 * time.Millisecond):
	}
	release()
	if err := <-answered; err != nil {
		t.Errorf("Propose = %v", err)
	}
	c.same([]string{"before", "during"})
}

// proposeHeld has one keeper's disk finish nothing until release is called, and
// another, or the same, propose "during". It returns once the raft log of the
// keeper to has that, on its disk or not.
func (c *cluster) proposeHeld(held, by, to int) (release func(), answered <-chan error) {
	c.t.Helper()
	last, err := c.groups[to].LastIndex()
	if err != nil {
		c.t.Fatal(err)
	}
	release = c.groups[held].HoldDisk(c.t)
	proposer, answers := c.groups[by], make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := proposer.Propose(ctx, []byte("during"))
		answers <- err
	}()
	eventually(c.t, "the entry to be sent", func() bool {
		now, err := c.groups[to].LastIndex()
		return err == nil && now > last
	})
	return release, answers
}
