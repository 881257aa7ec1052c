package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/consensus/consensustest"
	"github.com/agenticraft/node/identity"
)

// patience ends a test that hangs; nothing is measured by it.
const patience = time.Minute

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// cluster is a set of keepers whose folders and machines outlive their groups.
type cluster struct {
	t        testing.TB
	net      *consensustest.Network
	ids      []identity.ID
	dirs     []string
	machines []*consensustest.Machine
	groups   []*consensus.Group
	adjust   func(*consensus.Config)
}

func newID(t testing.TB) identity.ID {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key.ID()
}

// newCluster prepares n keepers and starts none.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, net: consensustest.NewNetwork(), groups: make([]*consensus.Group, n), adjust: func(*consensus.Config) {}}
	for range n {
		c.ids = append(c.ids, newID(t))
		c.dirs = append(c.dirs, t.TempDir())
		c.machines = append(c.machines, consensustest.NewMachine())
	}
	for _, m := range c.machines {
		m.Peers = c.machines
	}
	t.Cleanup(func() {
		for i := range c.groups {
			c.stop(i)
		}
	})
	return c
}

func startCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := newCluster(t, n)
	for i := range n {
		c.start(i)
	}
	c.leader()
	return c
}

func (c *cluster) config(i int) consensus.Config {
	cfg := consensus.Config{Self: c.ids[i], Keepers: c.ids, Dir: c.dirs[i], Heartbeat: 200 * time.Millisecond}
	if len(c.ids) == 1 {
		cfg.Heartbeat = 0
	}
	c.adjust(&cfg)
	return cfg
}

// steady has a leader stay one although the machine stands still for a moment, for
// tests in which another could not be elected, or would be none of what they show.
func steady(cfg *consensus.Config) { cfg.Heartbeat = time.Second }

func (c *cluster) start(i int) *consensus.Group {
	c.t.Helper()
	g, err := consensus.Open(c.config(i), c.net.Node(c.ids[i]), c.machines[i])
	if err != nil {
		c.t.Fatal(err)
	}
	c.groups[i] = g
	return g
}

func (c *cluster) stop(i int) {
	c.t.Helper()
	if g := c.groups[i]; g != nil {
		c.groups[i] = nil
		if err := g.Close(); err != nil {
			c.t.Errorf("Close: %v", err)
		}
	}
}

// leader waits until every reachable group agrees on one and returns its place.
func (c *cluster) leader(without ...int) int {
	c.t.Helper()
	found := -1
	eventually(c.t, "a leader", func() bool {
		found = -1
		for i, g := range c.groups {
			if g == nil || slices.Contains(without, i) {
				continue
			}
			id, known := g.Leader()
			if at := slices.Index(c.ids, id); known && (found == -1 || found == at) && !slices.Contains(without, at) {
				found = at
			} else {
				return false
			}
		}
		return found >= 0 && c.groups[found] != nil && c.groups[found].Lead()
	})
	return found
}

func (c *cluster) follower() int { return (c.leader() + 1) % len(c.ids) }

func propose(t testing.TB, g *consensus.Group, cmd string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		out, err := g.Propose(ctx, []byte(cmd))
		if errors.Is(err, consensus.ErrAmbiguous) && ctx.Err() == nil {
			continue // the machine knows a command that it has seen
		}
		if err != nil {
			t.Fatalf("Propose(%s): %v", cmd, err)
		}
		position, err := strconv.Atoi(string(out))
		if err != nil {
			t.Fatal(err)
		}
		return position
	}
}

// same waits until every running machine holds exactly want.
func (c *cluster) same(want []string) {
	c.t.Helper()
	for i, g := range c.groups {
		if g == nil {
			continue
		}
		eventually(c.t, "all commands applied", func() bool { return len(c.machines[i].Commands()) >= len(want) })
		if diff := cmp.Diff(want, c.machines[i].Commands()); diff != "" {
			c.t.Errorf("keeper %d differs (-want +got):\n%s", i, diff)
		}
	}
}

func TestASingleKeeperElectsItselfAtOnce(t *testing.T) {
	c := newCluster(t, 1)
	c.adjust = func(cfg *consensus.Config) { cfg.Heartbeat = time.Hour } // it does not wait for it
	c.start(0)
	c.leader()
	if got := propose(t, c.groups[0], "a"); got != 0 {
		t.Errorf("first command at %d", got)
	}
	// raft answers a moment before it counts the entry as applied.
	eventually(t, "an applied index", func() bool { return c.groups[0].Status().AppliedIndex > 0 })
	st := c.groups[0].Status()
	if st.Role != "leader" || st.Leader != c.ids[0] || !st.Healthy || st.CommitIndex != st.LastIndex || st.Term == 0 {
		t.Errorf("Status() = %+v", st)
	}
}

func TestThreeKeepersAgree(t *testing.T) {
	c := newCluster(t, 3)
	c.adjust = func(cfg *consensus.Config) { cfg.Heartbeat = 0 } // as in production
	begin := time.Now()
	for i := range 3 {
		c.start(i)
	}
	c.leader()
	t.Logf("leader after %v", time.Since(begin))
	var want []string
	for i := range 9 {
		cmd := fmt.Sprint("command ", i)
		if got := propose(t, c.groups[i%3], cmd); got != i {
			t.Errorf("%s answered %d", cmd, got)
		}
		want = append(want, cmd)
	}
	c.same(want)
}

func TestAWorkerForwardsIfItIsAllowed(t *testing.T) {
	worker, stranger := newID(t), newID(t)
	c := newCluster(t, 3)
	c.adjust = func(cfg *consensus.Config) { cfg.AllowForward = func(id identity.ID) bool { return id == worker } }
	for i := range 3 {
		c.start(i)
	}
	c.leader()
	open := func(id identity.ID) *consensus.Group {
		g, err := consensus.Open(consensus.Config{Self: id, Keepers: c.ids}, c.net.Node(id), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g
	}
	g := open(worker)
	if got := propose(t, g, "from a worker"); got != 0 {
		t.Errorf("answered %d", got)
	}
	if st := g.Status(); st.Role != "worker" || st.Leader != c.ids[c.leader()] {
		t.Errorf("Status() = %+v", st)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := open(stranger).Propose(ctx, []byte("x")); !errors.Is(err, consensus.ErrNoLeader) && !errors.Is(err, consensus.ErrAmbiguous) {
		t.Errorf("a stranger's proposal = %v, want it refused", err)
	}
	c.same([]string{"from a worker"})
}

func TestLeaderLossInMidProposal(t *testing.T) {
	c := startCluster(t, 3)
	lost := c.leader()
	origin := (lost + 1) % 3
	const writers, each = 8, 20
	var work sync.WaitGroup
	for w := range writers {
		work.Go(func() {
			for i := range each {
				propose(t, c.groups[origin], fmt.Sprintf("w%d-%d", w, i))
			}
		})
	}
	eventually(t, "some commands", func() bool { return len(c.machines[origin].Commands()) > 10 })
	c.net.Isolate(c.ids[lost], c.ids...)
	begin := time.Now()
	c.leader(lost)
	t.Logf("another leader after %v", time.Since(begin))
	work.Wait()
	c.net.Heal()
	eventually(t, "all commands", func() bool { return len(c.machines[origin].Commands()) >= writers*each })
	commands := c.machines[origin].Commands()
	if len(commands) != writers*each {
		t.Errorf("%d commands, want each of %d once", len(commands), writers*each)
	}
	c.same(commands)
}

func TestAMinorityIsUnavailable(t *testing.T) {
	c := startCluster(t, 3)
	lost := c.leader()
	c.net.Isolate(c.ids[lost], c.ids...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := c.groups[lost].Propose(ctx, []byte("lost"))
	if !errors.Is(err, consensus.ErrAmbiguous) && !errors.Is(err, consensus.ErrNoLeader) {
		t.Errorf("Propose without quorum = %v", err)
	}
	eventually(t, "the old leader steps down", func() bool { return !c.groups[lost].Lead() })
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.groups[lost].Propose(ctx, []byte("lost too")); !errors.Is(err, consensus.ErrNoLeader) {
		t.Errorf("Propose without a leader = %v, want ErrNoLeader", err)
	}
	propose(t, c.groups[c.leader(lost)], "kept")
	c.net.Heal()
	c.leader()
	c.same([]string{"kept"})
}

func TestRestartKeepsEverything(t *testing.T) {
	c := startCluster(t, 3)
	var want []string
	for i := range 3 {
		for range 5 {
			cmd := fmt.Sprint("command ", len(want))
			propose(t, c.groups[c.leader()], cmd)
			want = append(want, cmd)
		}
		c.stop(i)
		cmd := fmt.Sprint("without ", i)
		propose(t, c.groups[c.leader()], cmd)
		want = append(want, cmd)
		c.start(i)
		c.leader()
	}
	for i := range 3 {
		c.stop(i)
	}
	for i := range 3 {
		c.start(i)
	}
	if got := propose(t, c.groups[c.leader()], want[0]); got != 0 {
		t.Errorf("a known command answered %d", got)
	}
	c.same(want)
}

// A machine may lose what it had not made durable: the raft log still has it.
func TestTheRaftLogIsReplayed(t *testing.T) {
	c := startCluster(t, 1)
	want := []string{"a", "b", "c"}
	for _, cmd := range want {
		propose(t, c.groups[0], cmd)
	}
	c.stop(0)
	c.machines[0] = consensustest.NewMachine()
	c.start(0)
	c.leader()
	c.same(want)
}

func TestALateJoinerRestores(t *testing.T) {
	c := newCluster(t, 3)
	c.adjust = func(cfg *consensus.Config) {
		cfg.SnapshotInterval, cfg.SnapshotThreshold, cfg.TrailingLogs = 20*time.Millisecond, 10, 5
	}
	c.start(0)
	c.start(1)
	c.leader()
	var want []string
	for i := range 60 {
		want = append(want, fmt.Sprint("command ", i))
		propose(t, c.groups[0], want[i])
	}
	eventually(t, "the log is shortened", func() bool {
		for i := range 2 {
			first, err := c.groups[i].FirstIndex()
			if err != nil || first < 30 {
				return false
			}
		}
		return true
	})
	c.start(2)
	c.same(want)
	if got := c.machines[2].Restores(); got == 0 {
		t.Error("the late joiner was not restored")
	}
	// It goes on from there, also after a restart.
	want = append(want, "after")
	propose(t, c.groups[2], "after")
	c.same(want)
	c.stop(2)
	c.start(2)
	want = append(want, "after restart")
	propose(t, c.groups[2], "after restart")
	c.same(want)
}

func TestABrokenMachineStopsTheNode(t *testing.T) {
	c := startCluster(t, 3)
	lead := c.leader()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := c.groups[lead].Propose(ctx, []byte("fail")); err == nil {
		t.Error("a command that broke the machine was acknowledged")
	}
	select {
	case err := <-c.groups[lead].Failed():
		t.Logf("failed: %v", err)
	case <-time.After(patience):
		t.Fatal("Failed said nothing")
	}
	if st := c.groups[lead].Status(); st.Role != "stopped" || st.Healthy {
		t.Errorf("Status() = %+v", st)
	}
}

func TestOpenRefuses(t *testing.T) {
	a, b := newID(t), newID(t)
	node := consensustest.NewNetwork().Node(a)
	for name, cfg := range map[string]consensus.Config{
		"nobody":         {Keepers: []identity.ID{a}, Dir: "x"},
		"no keepers":     {Self: a, Dir: "x"},
		"no folder":      {Self: a, Keepers: []identity.ID{a}},
		"keeper twice":   {Self: a, Keepers: []identity.ID{a, b, a}, Dir: "x"},
		"too long lease": {Self: a, Keepers: []identity.ID{a}, Dir: "x", Heartbeat: time.Second, Lease: 2 * time.Second},
	} {
		if g, err := consensus.Open(cfg, node, consensustest.NewMachine()); err == nil {
			t.Errorf("%s: Open succeeded", name)
			g.Close()
		}
	}
}

func TestOpenRefusesOtherKeepers(t *testing.T) {
	c := startCluster(t, 1)
	propose(t, c.groups[0], "a")
	c.stop(0)
	cfg := c.config(0)
	cfg.Keepers = append([]identity.ID{newID(t), newID(t)}, c.ids...)
	if g, err := consensus.Open(cfg, c.net.Node(c.ids[0]), c.machines[0]); err == nil {
		t.Error("Open with other keepers succeeded")
		g.Close()
	}
}

func TestOpenRefusesLostVotes(t *testing.T) {
	c := startCluster(t, 1)
	propose(t, c.groups[0], "a")
	c.stop(0)
	cfg := c.config(0)
	cfg.Dir = filepath.Join(t.TempDir(), "new")
	if g, err := consensus.Open(cfg, c.net.Node(c.ids[0]), c.machines[0]); err == nil {
		t.Error("Open without the raft log succeeded")
		g.Close()
	}
}

// One member must not be able to stop every keeper by a command that none of
// them knows: it never gets into the raft log.
func TestWhatTheMachineRefusesIsNotProposed(t *testing.T) {
	c := startCluster(t, 3)
	leader := c.leader()
	for i, g := range c.groups {
		_, err := g.Propose(t.Context(), []byte("refuse me"))
		for errors.Is(err, consensus.ErrAmbiguous) && t.Context().Err() == nil { // the leader changed meanwhile
			_, err = g.Propose(t.Context(), []byte("refuse me"))
		}
		if !errors.Is(err, consensus.ErrRefused) {
			t.Errorf("keeper %d (leader is %d): Propose = %v, want ErrRefused", i, leader, err)
		}
	}
	propose(t, c.groups[leader], "good")
	c.same([]string{"good"})
}

func TestTooLarge(t *testing.T) {
	c := startCluster(t, 1)
	if _, err := c.groups[0].Propose(t.Context(), make([]byte, consensus.MaxCommandBytes+1)); !errors.Is(err, consensus.ErrTooLarge) {
		t.Errorf("Propose = %v, want ErrTooLarge", err)
	}
	if _, err := c.groups[0].Propose(t.Context(), make([]byte, consensus.MaxCommandBytes)); err != nil {
		t.Errorf("Propose of the largest command: %v", err)
	}
}

func TestCloseEndsProposals(t *testing.T) {
	c := startCluster(t, 3)
	g := c.groups[c.follower()]
	for i := range 3 {
		if c.groups[i] != g {
			c.stop(i)
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := g.Propose(t.Context(), []byte("x"))
		done <- err
	}()
	time.AfterFunc(50*time.Millisecond, func() { g.Close() })
	select {
	case err := <-done:
		if !errors.Is(err, consensus.ErrNoLeader) && !errors.Is(err, consensus.ErrAmbiguous) {
			t.Errorf("Propose = %v", err)
		}
	case <-time.After(patience):
		t.Error("Propose outlived Close")
	}
}

func TestConcurrentProposalsShareEntries(t *testing.T) {
	c := startCluster(t, 3)
	lead, follower := c.leader(), c.follower()
	const writers, each = 64, 10
	var work sync.WaitGroup
	for w := range writers {
		work.Go(func() {
			g := c.groups[lead]
			if w%2 == 0 {
				g = c.groups[follower]
			}
			for i := range each {
				propose(t, g, fmt.Sprintf("w%d-%d", w, i))
			}
		})
	}
	work.Wait()
	if got := len(c.machines[lead].Commands()); got != writers*each {
		t.Errorf("%d commands, want %d", got, writers*each)
	}
	entries := c.groups[lead].Status().AppliedIndex
	t.Logf("%d commands in %d entries and %d applies", writers*each, entries, c.machines[lead].Applies())
	if entries > writers*each {
		t.Errorf("%d entries for %d commands", entries, writers*each)
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, writers := range []int{1, 64, 512} {
		for _, from := range []string{"leader", "follower"} {
			b.Run(fmt.Sprintf("writers=%d/%s", writers, from), func(b *testing.B) {
				c := startCluster(b, 3)
				g := c.groups[c.leader()]
				if from == "follower" {
					g = c.groups[c.follower()]
				}
				payload := make([]byte, 600)
				jobs := make(chan int)
				var work sync.WaitGroup
				for range writers {
					work.Go(func() {
						for i := range jobs {
							propose(b, g, fmt.Sprintf("%d %s", i, payload))
						}
					})
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					jobs <- i
				}
				close(jobs)
				work.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
			})
		}
	}
}
