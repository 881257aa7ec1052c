package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/threat"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// A keeper whose whole folder was put back from an old copy has forgotten what
// it acknowledged and whom it voted for. It hears so from its peers, says so,
// elects nobody until it has caught up, and is a keeper like any other then.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestAnOldCopyOfAKeepersFolderGetsNoVote(t *testing.T) {
	c := startCluster(t, 3)
	runs := func(door int) bool {
		rep, _ := c.exec(door, "--lang", "starlark", "--on", "local", "-c", "result = 1")
		return rep.Status == a2a.Succeeded
	}
	if !runs(0) {
		t.Fatal("the cluster does not run")
	}
	const old = 2
	c.terminate(old)
	backup := filepath.Join(c.dir, "backup")
	if out, err := exec.Command("cp", "-a", c.Nodes[old].Data, backup).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.start(old)
	c.awaitReady(old)
	for range 3 {
		c.await("entries that the copy lacks", func() bool { return runs(0) })
	}
	acknowledged := c.status(0).LogSize
	c.await("the keeper to have them, and to have said so", func() bool {
		return slices.ContainsFunc(c.waterlines(t, 0), func(w waterline) bool { return w.Keeper == c.Nodes[old].ID && w.Size >= acknowledged })
	})

	// The copy takes the folder's place, and of the others only one is there:
	// one that may lack what the keeper had acknowledged.
	c.terminate(old)
	c.kill(1)
	c.await("nobody to lead any more", func() bool { return c.status(0).Leader == "" })
	if err := os.RemoveAll(c.Nodes[old].Data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, c.Nodes[old].Data); err != nil {
		t.Fatal(err)
	}
	c.start(old)
	c.await("it to say that its folder is old", func() bool {
		res, err := http.Get(c.Nodes[old].HTTP + "/readyz")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		var text [1 << 10]byte
		n, _ := res.Body.Read(text[:])
		return res.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(text[:n]), "older than what it had before")
	})
	if runs(0) {
		t.Error("a request was taken on the word of a keeper that had forgotten its votes")
	}
	if s := c.status(old); s.Leader != "" || !strings.Contains(s.NotReady, "gives no vote") {
		t.Errorf("its status: %+v", s)
	}

	// With the third one there is a quorum without it, from which it catches up.
	c.start(1)
	c.awaitReady(1)
	c.awaitReady(old)
	c.await("the others to raise the alarm", func() bool {
		var page logPage
		c.json(&page, "audit", "list", "--kind", "alert")
		return slices.ContainsFunc(page.Entries, func(e httpdoor.LogEntry) bool {
			return strings.Contains(string(e.Entry), threat.RuleRollback) && strings.Contains(string(e.Entry), string(c.Nodes[old].ID))
		})
	})
	if patient {
		// Its vote counts again.
		c.kill(1)
		c.await("it to be half of a quorum", func() bool { return runs(0) })
		c.start(1)
		c.awaitReady(1)
		c.awaitAgreement()
		c.emptied(old)
	}
	c.stopAll()
	for i, n := range c.Nodes {
		if r := c.run("audit", "verify", n.Data, "--trust", c.Trust); r.code != exitOK {
			t.Errorf("node %d does not verify: %s%s", i+1, r.stdout, r.stderr)
		}
	}
}

// emptied starts a keeper whose disk was lost altogether, which is the same case.
func (c *testCluster) emptied(old int) {
	c.t.Helper()
	c.terminate(old)
	files, err := os.ReadDir(c.Nodes[old].Data)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains([]string{nodeKeyFile, genesisFile, "config.yaml"}, f.Name()) {
			if err := os.RemoveAll(filepath.Join(c.Nodes[old].Data, f.Name())); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	c.start(old)
	c.awaitReady(old)
	c.awaitAgreement()
	log, err := os.ReadFile(filepath.Join(c.Nodes[old].Data, "node.log"))
	if err != nil || !strings.Contains(string(log), "data folder is older than it was") {
		c.t.Errorf("the emptied keeper did not notice: %v\n%s", err, log)
	}
}

// waterlines is what a node has written down of the others.
func (c *testCluster) waterlines(t *testing.T, node int) (kept []waterline) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Nodes[node].Data, waterlinesFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// terminate stops a node as its operator would.
func (c *testCluster) terminate(node int) {
	c.t.Helper()
	if err := syscall.Kill(c.Nodes[node].PID, syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	c.await("node to stop", func() bool { return !alive(c.Nodes[node].PID) })
}

// awaitAgreement waits until all nodes have the same log.
func (c *testCluster) awaitAgreement() {
	c.t.Helper()
	c.await("the nodes to agree", func() bool {
		first := c.status(0)
		for i := range c.Nodes {
			if s := c.status(i); s.LogSize != first.LogSize || s.LogRoot != first.LogRoot {
				return false
			}
		}
		return true
	})
}

// What others say of a keeper counts only if it signed it, and what a keeper
// says of itself only if it is one.
func TestWaterlinesAreTheirKeepersOwn(t *testing.T) {
	var keys []*identity.Key
	begin := registry.Genesis{Cluster: "test", Time: time.Unix(0, 0), Tenants: []string{"t"}}
	for range 3 {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		begin.Members = append(begin.Members, registry.MemberBody{ID: key.ID(), Role: registry.Keeper})
	}
	begin.Agents = []registry.AgentBody{{ID: keys[0].ID(), Name: "admin", Tenant: "t", Roles: []string{registry.RoleAdmin}}}
	genesis, err := registry.GenesisLeaf(begin)
	if err != nil {
		t.Fatal(err)
	}
	store, err := audit.OpenStore(audit.StoreConfig{Dir: t.TempDir(), Genesis: genesis, Admit: registry.Admission{Origin: audit.OriginOf(genesis)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	who := &membership{self: keys[0].ID(), registry: registry.New(store), origin: store.Origin(), log: slog.New(slog.DiscardHandler)}
	var fallen []identity.ID
	open := func() *waterlines {
		w, err := openWaterlines(&waterlines{
			dir: t.TempDir(), key: keys[0], store: store, who: who, log: who.log,
			fallen: func(id identity.ID) { fallen = append(fallen, id) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	w := open()
	h := w.handler(http.NotFoundHandler())
	post := func(from identity.ID, text []byte) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/waterline", strings.NewReader(string(text)))
		r.RemoteAddr = string(from)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	signed := func(key *identity.Key, term, index uint64) []byte {
		one := waterline{V: waterlineVersion, Origin: store.Origin(), Keeper: key.ID(), Term: term, Index: index, Size: 1}
		one.Sig = key.Sign(waterlineDomain, one.statement())
		text, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	peer, other := keys[1], keys[2]
	stranger, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from identity.ID
		text []byte
		want int
	}{
		"a stranger's":         {stranger.ID(), signed(stranger, 1, 1), http.StatusForbidden},
		"another keeper's":     {peer.ID(), signed(other, 1, 1), http.StatusBadRequest},
		"a changed one":        {peer.ID(), []byte(strings.Replace(string(signed(peer, 1, 1)), `"index":1`, `"index":2`, 1)), http.StatusBadRequest},
		"none":                 {peer.ID(), nil, http.StatusBadRequest},
		"an unknown field":     {peer.ID(), []byte(`{"more":1}`), http.StatusBadRequest},
		"more than there is":   {peer.ID(), make([]byte, maxWaterline+1), http.StatusBadRequest},
		"another log's origin": {peer.ID(), []byte(strings.Replace(string(signed(peer, 1, 1)), store.Origin(), "agenticraft/x", 1)), http.StatusBadRequest},
	} {
		if rec := post(c.from, c.text); rec.Code != c.want {
			t.Errorf("%s: %d %s, want %d", name, rec.Code, rec.Body, c.want)
		}
	}
	if rec := post(peer.ID(), signed(peer, 2, 10)); rec.Code != http.StatusNoContent {
		t.Errorf("the first: %d %s", rec.Code, rec.Body)
	}
	for _, step := range []struct{ term, index, wasTerm, wasIndex uint64 }{
		{2, 20, 2, 10}, {3, 20, 2, 20}, {3, 5, 3, 20}, {2, 30, 3, 20}, {4, 5, 3, 20}, {4, 21, 3, 20}, {4, 22, 4, 21},
	} {
		rec := post(peer.ID(), signed(peer, step.term, step.index))
		was, err := parseWaterline(rec.Body.Bytes())
		if err != nil || !was.of(peer.ID(), store.Origin()) || was.Term != step.wasTerm || was.Index != step.wasIndex {
			t.Errorf("after %+v: %+v, %v", step, was, err)
		}
	}
	if want := []identity.ID{peer.ID(), peer.ID(), peer.ID()}; !slices.Equal(fallen, want) {
		t.Errorf("told of %v, want %v", fallen, want)
	}

	// They are there after a restart, except those that somebody wrote.
	w.save(t.Context())
	file := filepath.Join(w.dir, waterlinesFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	again := open()
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"as it was":    {string(text), 1},
		"forged":       {strings.Replace(string(text), `"index":22`, `"index":99`, 1), 0},
		"garbage":      {"{", 0},
		"no waterline": {"[{}]", 0},
	} {
		if err := os.WriteFile(filepath.Join(again.dir, waterlinesFile), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		fresh, err := openWaterlines(&waterlines{dir: again.dir, key: keys[0], store: store, who: who, log: who.log})
		if err != nil || len(fresh.others) != c.want {
			t.Errorf("%s: %d are known, %v, want %d", name, len(fresh.others), err, c.want)
		}
	}
}

// FuzzParseWaterline: whatever a peer sends is read or refused.
func FuzzParseWaterline(f *testing.F) {
	key, err := identity.Generate()
	if err != nil {
		f.Fatal(err)
	}
	one := waterline{V: waterlineVersion, Origin: "agenticraft/x", Keeper: key.ID(), Term: 3, Index: 9, Size: 4}
	one.Sig = key.Sign(waterlineDomain, one.statement())
	text, err := json.Marshal(one)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseWaterline(text)
		if err == nil && got.of(key.ID(), one.Origin) && got.above(one) {
			t.Fatalf("%+v was never signed", got)
		}
	})
}
