package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
)

// INVARIANT: I7, an acknowledged command is never lost, changed or reordered:
// not while keepers come, go, lead as they go, and restart.
func TestI7KeepersChangeUnderLoad(t *testing.T) {
	c := newCluster(t, 5)
	first := c.ids[:3]
	c.adjust = func(cfg *consensus.Config) {
		cfg.Keepers = first
		cfg.Join = !slices.Contains(first, cfg.Self)
		cfg.Members = func() []identity.ID { return c.ids }
		cfg.TrailingLogs, cfg.SnapshotThreshold = 10, 10
	}
	for i := range 3 {
		c.start(i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var mu sync.Mutex
	acked := map[string]string{} // command -> position
	groups := func() []*consensus.Group {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(c.groups)
	}
	for w := range 4 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				g := groups()[w%3]
				if g == nil {
					g = groups()[(w+1)%3]
				}
				cmd := fmt.Sprintf("w%d-%d", w, i)
				if answer, err := g.Propose(ctx, []byte(cmd)); err == nil {
					mu.Lock()
					acked[cmd] = string(answer)
					mu.Unlock()
				}
			}
		})
	}
	arrange := func(voters []identity.ID, learners ...identity.ID) {
		t.Helper()
		eventually(t, "the members to change", func() bool {
			for _, g := range groups() {
				if g == nil || !g.Lead() {
					continue
				}
				done, err := g.Arrange(ctx, voters, learners)
				if err != nil && !errors.Is(err, consensus.ErrNoLeader) {
					t.Logf("arrange: %v", err)
				}
				return done
			}
			return false
		})
	}
	join := func(i int) {
		t.Helper()
		// As a node does that becomes a keeper: a copy first, then its place.
		from := c.machines[0]
		var index, term uint64
		var meta []byte
		eventually(t, "a description that belongs to its index", func() bool {
			index, term = from.Applied()
			text, err := from.Snapshot()
			again, _ := from.Applied()
			meta = text
			return err == nil && index == again && index > 0
		})
		if err := c.machines[i].Restore(ctx, index, term, meta); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		c.start(i)
		mu.Unlock()
	}

	for n := 3; n < 5; n++ { // 3 to 5
		arrange(c.ids[:n], c.ids[n])
		join(n)
		arrange(c.ids[:n+1])
	}
	lead := c.leader()
	// A keeper that was away while the members changed, and whose log was
	// truncated elsewhere, comes back with what it had.
	away := (lead + 1) % 3
	mu.Lock()
	c.stop(away)
	mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(c.ids), func(id identity.ID) bool { return id == c.ids[lead] })
	arrange(rest) // removes the leader
	eventually(t, "another leader", func() bool {
		for i, g := range groups() {
			if i != lead && g != nil && g.Lead() {
				return true
			}
		}
		return false
	})
	mu.Lock()
	c.start(away)
	mu.Unlock()
	cancel()
	load.Wait()
	c.stop(lead)

	if len(acked) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	// Everybody who stayed restarts, and knows who belongs to the group.
	for i, g := range c.groups {
		if g != nil {
			c.stop(i)
			c.start(i)
		}
	}
	propose(t, c.groups[4], "after it all")
	slices.Sort(rest)
	eventually(t, "the keepers to agree", func() bool {
		want := c.machines[4].Commands()
		for i := range c.groups {
			if c.groups[i] != nil && !slices.Equal(c.machines[i].Commands(), want) {
				return false
			}
		}
		return true
	})
	for i, g := range c.groups {
		if g == nil {
			continue
		}
		if got := g.Status().Keepers; !slices.Equal(got, rest) {
			t.Errorf("keeper %d knows the keepers %v, want %v", i, got, rest)
		}
		commands := c.machines[i].Commands()
		for cmd, position := range acked {
			if at := slices.Index(commands, cmd); fmt.Sprint(at) != position {
				t.Errorf("keeper %d has %s at %d, acknowledged at %s", i, cmd, at, position)
			}
		}
	}
	t.Logf("%d commands acknowledged", len(acked))
}

func TestJoinNeedsACopyOfTheState(t *testing.T) {
	c := startCluster(t, 1)
	propose(t, c.groups[0], "a")
	cfg := c.config(0)
	cfg.Self, cfg.Join, cfg.Dir = newID(t), true, t.TempDir()
	if g, err := consensus.Open(cfg, c.net.Node(cfg.Self), c.machines[0]); err == nil {
		t.Cleanup(func() { g.Close() })
	} else {
		t.Errorf("Open with a copy: %v", err)
	}
	cfg.Self, cfg.Dir = newID(t), t.TempDir()
	fresh := newCluster(t, 1)
	if g, err := consensus.Open(cfg, c.net.Node(cfg.Self), fresh.machines[0]); err == nil {
		t.Error("Open without a copy succeeded")
		g.Close()
	}
}

// A leader that is cut off while it changes the members changes nothing: the
// others elect another one, whose word stands when the parts meet again.
func TestPartitionWhileTheMembersChange(t *testing.T) {
	c := newCluster(t, 4)
	first := c.ids[:3]
	c.adjust = func(cfg *consensus.Config) {
		cfg.Keepers = first
		cfg.Members = func() []identity.ID { return c.ids }
	}
	for i := range 3 {
		c.start(i)
	}
	old := -1
	eventually(t, "a leader", func() bool {
		old = slices.IndexFunc(c.groups, func(g *consensus.Group) bool { return g != nil && g.Lead() })
		return old >= 0
	})
	propose(t, c.groups[old], "before")
	var others []identity.ID
	for i, id := range c.ids {
		if i != old {
			others = append(others, id)
		}
	}
	c.net.Isolate(c.ids[old], others...)
	alone := make(chan error, 1)
	go func() { // it believes that it leads, for a moment
		_, err := c.groups[old].Arrange(t.Context(), c.ids, nil)
		alone <- err
	}()
	next := -1
	eventually(t, "another leader", func() bool {
		next = slices.IndexFunc(c.groups, func(g *consensus.Group) bool { return g != nil && g != c.groups[old] && g.Lead() })
		return next >= 0
	})
	// Among those who are left the members change in another way.
	rest := slices.Sorted(slices.Values(slices.DeleteFunc(slices.Clone(first), func(id identity.ID) bool { return id == c.ids[old] })))
	eventually(t, "the cut-off leader to be removed", func() bool {
		done, err := c.groups[next].Arrange(t.Context(), rest, nil)
		return err == nil && done
	})
	propose(t, c.groups[next], "after")
	if err := <-alone; err == nil {
		t.Error("a leader without a quorum changed the members")
	}
	c.net.Heal()
	eventually(t, "the old leader to stand down", func() bool { return !c.groups[old].Lead() })
	for i, g := range c.groups {
		if g == nil || i == old {
			continue
		}
		eventually(t, "everybody to know the members", func() bool { return slices.Equal(g.Status().Keepers, rest) })
		eventually(t, fmt.Sprintf("keeper %d to have both commands and no other", i), func() bool {
			return slices.Equal(c.machines[i].Commands(), []string{"before", "after"})
		})
	}
}
