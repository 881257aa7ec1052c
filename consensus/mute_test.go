package consensus_test

import (
	"sync/atomic"
	"testing"

	"github.com/agenticraft/node/consensus"
)

// A keeper that may not vote elects nobody, not even itself, yet takes the log
// from a leader that the others elected.
func TestAMuteKeeperTakesTheLogAndElectsNobody(t *testing.T) {
	const mute = 2
	var speaks atomic.Bool
	var asked atomic.Int64
	c := newCluster(t, 3)
	c.adjust = func(cfg *consensus.Config) {
		if cfg.Self == c.ids[mute] {
			cfg.MayVote = func(uint64) bool {
				asked.Add(1)
				return speaks.Load()
			}
		}
	}
	// With one other keeper it would be half of a quorum.
	c.start(0)
	c.start(mute)
	eventually(t, "it to be asked for its vote again and again", func() bool { return asked.Load() >= 4 })
	for _, g := range c.groups {
		if g != nil && g.Lead() {
			t.Fatal("a keeper leads by a vote that was not to be given")
		}
	}
	c.start(1) // now the others are a quorum by themselves
	lead := c.leader()
	if lead == mute {
		t.Fatal("the mute keeper leads")
	}
	propose(t, c.groups[lead], "one")
	c.same([]string{"one"})

	// It may vote again: with the leader gone the two that are left elect one.
	speaks.Store(true)
	c.stop(lead)
	next := c.leader(lead)
	propose(t, c.groups[next], "two")
	c.same([]string{"one", "two"})
}
