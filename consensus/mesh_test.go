package consensus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/consensus/consensustest"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

// meshKeeper is a keeper on the real mesh.
type meshKeeper struct {
	key     *identity.Key
	listen  []string
	dir     string
	machine *consensustest.Machine
	node    *mesh.Node
	group   *consensus.Group
	ran     chan error
}

func (k *meshKeeper) start(t testing.TB, ids []identity.ID) {
	t.Helper()
	member := map[identity.ID]bool{}
	for _, id := range ids {
		member[id] = true
	}
	var err error
	k.node, err = mesh.New(mesh.Config{Key: k.key, Cluster: "test", Listen: k.listen, Allow: func(id identity.ID) bool { return member[id] }})
	if err != nil {
		t.Fatal(err)
	}
	k.listen = k.node.Addrs() // a restart takes the same port
	k.ran = make(chan error, 1)
	go func() { k.ran <- k.node.Run(context.WithoutCancel(t.Context())) }()
	k.group, err = consensus.Open(consensus.Config{Self: k.key.ID(), Keepers: ids, Dir: k.dir}, k.node, k.machine)
	if err != nil {
		t.Fatal(err)
	}
}

// crash takes the network away first, so that nobody is told anything.
func (k *meshKeeper) crash(t testing.TB) {
	t.Helper()
	if k.node == nil {
		return
	}
	if err := k.node.Close(); err != nil {
		t.Errorf("close mesh: %v", err)
	}
	if err := k.group.Close(); err != nil {
		t.Errorf("close group: %v", err)
	}
	<-k.ran
	k.node, k.group = nil, nil
}

func startOnMesh(t testing.TB) ([]*meshKeeper, []identity.ID) {
	t.Helper()
	var keepers []*meshKeeper
	var ids []identity.ID
	for range 3 {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		keepers = append(keepers, &meshKeeper{key: key, dir: t.TempDir(), machine: consensustest.NewMachine()})
		ids = append(ids, key.ID())
	}
	for _, k := range keepers {
		k.start(t, ids)
		t.Cleanup(func() { k.crash(t) })
	}
	introduce(keepers)
	return keepers, ids
}

func introduce(keepers []*meshKeeper) {
	at := map[identity.ID][]string{}
	for _, k := range keepers {
		at[k.key.ID()] = k.listen
	}
	for _, k := range keepers {
		if k.node != nil {
			k.node.SetPeers(at)
		}
	}
}

func leaderOf(t testing.TB, keepers []*meshKeeper) *meshKeeper {
	t.Helper()
	var lead *meshKeeper
	eventually(t, "a leader on the mesh", func() bool {
		for _, k := range keepers {
			if k.group != nil && k.group.Lead() {
				lead = k
				return true
			}
		}
		return false
	})
	return lead
}

func TestKeepersOnTheRealMesh(t *testing.T) {
	begin := time.Now()
	keepers, ids := startOnMesh(t)
	leaderOf(t, keepers)
	t.Logf("leader after %v", time.Since(begin))
	var want []string
	for i := range 9 {
		want = append(want, fmt.Sprint("command ", i))
		propose(t, keepers[i%3].group, want[i])
	}
	lost := leaderOf(t, keepers)
	lost.crash(t)
	begin = time.Now()
	next := leaderOf(t, keepers)
	t.Logf("another leader after %v", time.Since(begin))
	want = append(want, "without one")
	propose(t, next.group, "without one")
	lost.start(t, ids)
	introduce(keepers)
	want = append(want, "after return")
	propose(t, lost.group, "after return")
	for _, k := range keepers {
		eventually(t, "all commands", func() bool { return len(k.machine.Commands()) == len(want) })
		for i, cmd := range k.machine.Commands() {
			if cmd != want[i] {
				t.Errorf("command %d is %q, want %q", i, cmd, want[i])
			}
		}
	}
}

func BenchmarkProposeOnMesh(b *testing.B) {
	for _, writers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			keepers, _ := startOnMesh(b)
			group := leaderOf(b, keepers).group
			jobs := make(chan int)
			payload := make([]byte, 600)
			var work sync.WaitGroup
			for range writers {
				work.Go(func() {
					for i := range jobs {
						propose(b, group, fmt.Sprintf("%d %s", i, payload))
					}
				})
			}
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
