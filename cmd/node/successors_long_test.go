//go:build long

package main

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
)

// A keeper that was away while all others that it knew were replaced follows the
// signed changes of keepers to those of today, as soon as it reaches anybody who
// has them: an auditor that stayed, or the one that its operator names.
func TestAKeeperFindsThoseWhoCameMeanwhile(t *testing.T) {
	t.Run("by an auditor", func(t *testing.T) { keepersReplaced(t, true) })
	t.Run("by its operator's word", func(t *testing.T) { keepersReplaced(t, false) })
}

func keepersReplaced(t *testing.T, witness bool) {
	c := startCluster(t, 3)
	const away = 2
	if witness {
		a := c.join("auditor")
		c.await("the keeper to know the auditor", func() bool {
			_, known := c.members(away)[c.Nodes[a].ID]
			return known
		})
	}
	c.kill(away)
	var came []int
	for range 2 {
		n := c.join("keeper")
		came = append(came, n)
		c.await("it to vote", func() bool { return slices.Contains(c.status(n).Keepers, c.Nodes[n].ID) })
	}
	at := []string{"--server", c.Nodes[came[0]].HTTP}
	for _, n := range []int{1, 0} {
		if r := c.run(append([]string{"leave", string(c.Nodes[n].ID)}, at...)...); r.code != exitOK {
			t.Fatalf("a keeper is not removed: %s%s\n%s", r.stdout, r.stderr, c.logs())
		}
		c.await("it to be gone", func() bool { _, still := c.members(came[0])[c.Nodes[n].ID]; return !still })
	}
	want := c.status(came[0]).Keepers
	if len(want) != 3 || !slices.Contains(want, c.Nodes[away].ID) {
		t.Fatalf("the keepers are %v", want)
	}

	c.start(away)
	if !witness {
		c.await("it to say that it finds nobody", func() bool {
			res, err := http.Get(c.Nodes[away].HTTP + "/readyz")
			if err != nil {
				return false
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			return err == nil && strings.Contains(string(text), "name one of today's in peers")
		})
		c.terminate(away)
		t.Setenv("AGENTICRAFT_PEERS", c.addresses(came[0]))
		c.start(away)
	}
	c.awaitReady(away)
	// It is one of a quorum again: with another one dead nothing is written without it.
	c.kill(came[1])
	c.await("a run that it had a part in", func() bool {
		rep, _ := c.exec(away, "--lang", "starlark", "--on", "local", "-c", "result = 1")
		return rep.Status == a2a.Succeeded
	})
	if s := c.status(away); !slices.Equal(s.Keepers, want) {
		t.Errorf("it knows the keepers %v, want %v", s.Keepers, want)
	}
	c.stopAll()
	for _, n := range []int{away, came[0]} {
		if r := c.run("audit", "verify", c.Nodes[n].Data, "--trust", c.Trust); r.code != exitOK {
			t.Errorf("node %d does not verify: %s%s", n+1, r.stdout, r.stderr)
		}
	}
}

// addresses are where a node is, as the log says.
func (c *testCluster) addresses(node int) string {
	c.t.Helper()
	var state stateView
	c.json(&state, "audit", "state", "--server", c.Nodes[node].HTTP)
	var out []string
	for _, m := range state.Members {
		if m.ID == c.Nodes[node].ID {
			for _, addr := range m.Addrs {
				out = append(out, addr+"/p2p/"+string(m.ID))
			}
		}
	}
	if len(out) == 0 {
		c.t.Fatalf("the log does not say where node %d is", node+1)
	}
	return strings.Join(out, ",")
}
