package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/threat"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// falsify gives a stopped keeper a log of its own: well formed, signed by the
// keeper itself, and not what the cluster agreed on.
func (c *testCluster) falsify(node int) {
	c.t.Helper()
	dir := c.Nodes[node].Data
	genesis, err := os.ReadFile(filepath.Join(c.data, genesisFile))
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := identity.Load(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		c.t.Fatal(err)
	}
	store, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: genesis, Admit: registry.Admission{Origin: audit.OriginOf(genesis)}})
	if err != nil {
		c.t.Fatal(err)
	}
	f := &falsifier{store: store}
	r := audit.NewRecorder(audit.RecorderConfig{Key: key, Proposer: f, Origin: store.Origin()})
	body, err := audit.MarshalBody(audit.DenialBody{Code: "invented"})
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := r.Record(c.t.Context(), audit.Entry{Kind: audit.KindDenial, Actor: "unauthenticated", Body: body}); err != nil {
		c.t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		c.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		c.t.Fatal(err)
	}
	if err := consensus.MarkRestored(dir, f.index); err != nil {
		c.t.Fatal(err)
	}
}

// falsifier applies what raft never agreed on.
type falsifier struct {
	store *audit.Store
	index uint64
}

func (f *falsifier) Propose(_ context.Context, cmd []byte) ([]byte, error) {
	index, term := f.store.Applied()
	f.index = index + 1
	answers, err := f.store.Apply(f.index, term, [][]byte{cmd})
	if err != nil {
		return nil, err
	}
	return answers[0], nil
}

// A keeper whose log is another one than its peers' signs, serves and runs
// nothing, says why, and is repaired from them; the bad log stays as evidence.
func TestTheOddKeeperIsQuarantinedAndRepaired(t *testing.T) {
	c := startCluster(t, 3)
	for range 3 {
		if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); rep.Status != a2a.Succeeded {
			t.Fatalf("%+v %s", rep, r.stderr)
		}
	}
	const odd = 2
	c.kill(odd)
	c.falsify(odd)
	// The others go on without it, or what it invented at the end of its log
	// would be the newest: raft would let it lead, and they would take it over.
	c.await("the others to go on", func() bool {
		rep, _ := c.exec(0, "--lang", "starlark", "--on", string(c.Nodes[1].ID), "-c", "result = 1")
		return rep.Status == a2a.Succeeded
	})
	c.start(odd)
	ready := func() (int, string) {
		res, err := http.Get(c.Nodes[odd].HTTP + "/readyz")
		if err != nil {
			return 0, ""
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			return 0, ""
		}
		return res.StatusCode, string(text)
	}
	c.await("the odd keeper to say that it is", func() bool {
		if rep, r := c.exec(0, "--lang", "starlark", "--on", string(c.Nodes[1].ID), "-c", "result = 1"); rep.Status != a2a.Succeeded {
			t.Logf("meanwhile: %+v %s", rep.Error, r.stderr)
		}
		code, text := ready()
		return code == http.StatusServiceUnavailable && strings.Contains(text, "quarantined")
	})
	if s := c.status(odd); s.Role != "quarantined" || !strings.Contains(s.NotReady, "quorum of keepers signed") {
		t.Errorf("its status: %+v", s)
	}
	for _, r := range []result{
		c.run("exec", "--server", c.Nodes[odd].HTTP, "--lang", "starlark", "-c", "result = 1"),
		c.run("exec", "--on", string(c.Nodes[odd].ID), "--lang", "starlark", "-c", "result = 1"),
		c.run("audit", "list", "--server", c.Nodes[odd].HTTP),
		c.run("audit", "checkpoint", "--server", c.Nodes[odd].HTTP),
	} {
		if r.code != exitUnavailable {
			t.Errorf("the odd keeper went on: exit %d, %s%s", r.code, r.stdout, r.stderr)
		}
	}
	c.await("the others to raise the alarm", func() bool {
		var page logPage
		c.json(&page, "audit", "list", "--kind", "alert")
		return slices.ContainsFunc(page.Entries, func(e httpdoor.LogEntry) bool {
			return strings.Contains(string(e.Entry), threat.RuleDivergence) && strings.Contains(string(e.Entry), string(c.Nodes[odd].ID))
		})
	})
	// A restart does not help it, and its folder does not verify.
	if err := syscall.Kill(c.Nodes[odd].PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.await("it to stop", func() bool { return !alive(c.Nodes[odd].PID) })
	if r := c.run("audit", "verify", c.Nodes[odd].Data, "--trust", c.Trust); r.code != exitUnverified || !strings.Contains(r.stdout, "BAD") {
		t.Errorf("its folder: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	c.start(odd)
	c.await("it to say so again", func() bool { code, _ := ready(); return code == http.StatusServiceUnavailable })
	if r := c.run("audit", "repair", "--data", c.Nodes[odd].Data); r.code == exitOK {
		t.Error("the log of a running node was repaired")
	}
	if err := syscall.Kill(c.Nodes[odd].PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.await("it to stop", func() bool { return !alive(c.Nodes[odd].PID) })

	r := c.run("audit", "repair", "--data", c.Nodes[odd].Data, "--json")
	var repaired struct {
		Evidence string `json:"evidence"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &repaired); r.code != exitOK || err != nil {
		t.Fatalf("repair: exit %d, %v, %s%s", r.code, err, r.stdout, r.stderr)
	}
	if r := c.run("audit", "verify", repaired.Evidence, "--trust", c.Trust); r.code != exitUnverified {
		t.Errorf("the evidence: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r := c.run("audit", "repair", "--data", c.Nodes[odd].Data); r.code != exitFailed || !strings.Contains(r.stderr, "nothing to repair") {
		t.Errorf("a second repair: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	c.start(odd)
	c.awaitReady(odd)
	if rep, r := c.exec(odd, "--lang", "starlark", "--on", "local", "-c", "result = 1"); rep.Status != a2a.Succeeded {
		t.Errorf("after the repair: %+v %s", rep, r.stderr)
	}
	// Its vote counts again: with another one gone the two are a quorum.
	c.kill(1)
	c.await("the repaired keeper to be half of a quorum", func() bool {
		rep, _ := c.exec(0, "--lang", "starlark", "--on", "local", "-c", "result = 1")
		return rep.Status == a2a.Succeeded
	})
	c.start(1)
	c.awaitReady(1)
	c.await("the keepers to agree", func() bool {
		first := c.status(0)
		return !slices.ContainsFunc([]int{1, 2}, func(i int) bool { s := c.status(i); return s.LogSize != first.LogSize || s.LogRoot != first.LogRoot })
	})
	c.stopAll()
	for i, n := range c.Nodes {
		if r := c.run("audit", "verify", n.Data, "--trust", c.Trust); r.code != exitOK {
			t.Errorf("node %d does not verify: %s%s", i+1, r.stdout, r.stderr)
		}
	}
}
