package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
)

// invite asks node 1 for a token.
func (c *testCluster) invite(role string) string {
	c.t.Helper()
	var made httpdoor.Invitation
	c.json(&made, "invite", "--role", role)
	return made.Token
}

// join makes a node by a token and starts it. It is c.Nodes' last.
func (c *testCluster) join(role string) int {
	c.t.Helper()
	n := len(c.Nodes)
	data := filepath.Join(c.dir, fmt.Sprintf("joined%d", n+1))
	ports, err := freePorts(c.t.Context(), 1)
	if err != nil {
		c.t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	var made struct {
		ID      identity.ID `json:"id"`
		Role    string      `json:"role"`
		LogSize uint64      `json:"log_size"`
	}
	c.json(&made, "join", c.invite(role), "--data", data, "--http", addr, "--name", fmt.Sprintf("joined%d", n+1))
	if made.Role != role || made.LogSize == 0 {
		c.t.Fatalf("join said %+v", made)
	}
	c.Nodes = append(c.Nodes, devNode{ID: made.ID, HTTP: "http://" + addr, Data: data})
	c.restart(n)
	c.awaitReady(n)
	return n
}

func (c *testCluster) awaitReady(node int) {
	c.t.Helper()
	c.await(fmt.Sprintf("node %d to be ready", node+1), func() bool {
		res, err := http.Get(c.Nodes[node].HTTP + "/readyz")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// members are the nodes as a node lists them, by ID.
func (c *testCluster) members(at int) map[identity.ID]nodeView {
	c.t.Helper()
	var out struct {
		Nodes []nodeView `json:"nodes"`
	}
	c.json(&out, "nodes", "--server", c.Nodes[at].HTTP)
	views := map[identity.ID]nodeView{}
	for _, n := range out.Nodes {
		views[n.ID] = n
	}
	return views
}

func (c *testCluster) status(at int) statusView {
	c.t.Helper()
	var s statusView
	c.json(&s, "status", "--server", c.Nodes[at].HTTP)
	return s
}

// A worker, then an auditor join by a token each, do their part, and leave.
func TestNodesComeAndGo(t *testing.T) {
	c := startCluster(t, 3)
	token := c.invite("worker")

	// Tokens that let nobody in.
	elsewhere := []string{"--data", filepath.Join(c.dir, "nobody"), "--http", "127.0.0.1:1"}
	parsed, err := parseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(t *inviteToken)) string {
		other := parsed
		change(&other)
		text, err := other.encode()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]struct {
		token, says string
		code        int
	}{
		"no token":          {"hello", "not a whole token", exitUsage},
		"cut short":         {token[:len(token)-5], "not a whole token", exitUsage},
		"a letter changed":  {strings.Replace(token, token[40:41], "_", 1), "not a whole token", exitUsage},
		"expired":           {changed(func(t *inviteToken) { t.Expires = time.Now().Unix() - 1 }), "expired", exitDenied},
		"another cluster's": {changed(func(t *inviteToken) { t.Origin = "agenticraft/" + strings.Repeat("0", 64) }), "another node, role or cluster", exitDenied},
		"for a worker":      {changed(func(t *inviteToken) { t.Role = "keeper" }), "for a worker", exitDenied},
		"nobody's":          {changed(func(t *inviteToken) { t.Seed = key.Private().Seed() }), "no keeper took the token", exitUnavailable},
	} {
		if bad.code == exitUnavailable && !patient {
			continue
		}
		if r := c.run(append([]string{"join", bad.token}, elsewhere...)...); r.code != bad.code || !strings.Contains(r.stderr, bad.says) {
			t.Errorf("token %s: exit %d, %s", name, r.code, r.stderr)
		}
	}
	if r := c.run("invite", "--role", "king"); r.code != exitUsage {
		t.Errorf("invite a king: exit %d", r.code)
	}
	if r := c.run("join", token, "--data", c.Nodes[0].Data); r.code == exitOK {
		t.Error("a folder that is in use was joined")
	}

	w := c.join("worker")
	if r := c.run("join", token, "--data", filepath.Join(c.dir, "other")); r.code != exitOK {
		t.Errorf("an open token: exit %d, %s", r.code, r.stderr)
	}
	if r := c.run(append([]string{"join", token}, elsewhere...)...); r.code != exitDenied || !strings.Contains(r.stderr, "used already") {
		t.Errorf("a used token: exit %d, %s", r.code, r.stderr)
	}

	// The worker runs code, takes requests in, and tells what the log says.
	receipt := filepath.Join(c.dir, "worker.json")
	rep, r := c.exec(0, "--lang", "starlark", "--on", string(c.Nodes[w].ID), "--receipt", receipt, "-c", "result = 6 * 7")
	if rep.Status != a2a.Succeeded || rep.Node != c.Nodes[w].ID {
		t.Fatalf("run on the worker: %+v\n%s", rep, r.stderr)
	}
	if r := c.run("verify", receipt, "--trust", c.Trust); r.code != exitOK {
		t.Errorf("receipt of the worker: %s%s", r.stdout, r.stderr)
	}
	for _, on := range []string{"local", string(c.Nodes[1].ID)} {
		if rep, r := c.exec(w, "--lang", "starlark", "--on", on, "-c", "result = 1"); rep.Status != a2a.Succeeded {
			t.Errorf("asked the worker to run on %s: %+v\n%s", on, rep, r.stderr)
		}
	}
	if got := len(c.open(w)); got != 0 {
		c.await("the worker's copy of the log to be complete", func() bool { return len(c.open(w)) == 0 })
	}
	if r := c.run("tenant", "create", "acme", "--server", c.Nodes[w].HTTP); r.code == exitOK {
		t.Error("a worker vouched for a change of the registry")
	}

	a := c.join("auditor")
	for _, r := range []result{
		c.run("exec", "--server", c.Nodes[a].HTTP, "--lang", "starlark", "-c", "result = 1"),
		c.run("exec", "--on", string(c.Nodes[a].ID), "--lang", "starlark", "-c", "result = 1"),
	} {
		if r.code != exitDenied {
			t.Errorf("the auditor ran code, or refused with exit %d: %s%s", r.code, r.stdout, r.stderr)
		}
	}
	c.await("the auditor to have it all", func() bool {
		at, own := c.status(0), c.status(a)
		return at.LogSize == own.LogSize && at.LogRoot == own.LogRoot
	})
	c.await("the auditor to have a checkpoint of the keepers", func() bool {
		r := c.run("audit", "checkpoint", "--server", c.Nodes[a].HTTP)
		return r.code == exitOK && strings.Count(r.stdout, "— ") >= 2
	})
	if r := c.run("audit", "prove", "1", "--server", c.Nodes[a].HTTP); r.code != exitOK {
		t.Errorf("the auditor proves nothing: %s", r.stderr)
	}
	c.await("the keepers to hear the witness", func() bool {
		return slices.ContainsFunc(c.status(0).Witnesses, func(w witnessView) bool { return w.ID == c.Nodes[a].ID && w.Size > 0 })
	})

	c.await("proofs to bear the auditor's signature", func() bool {
		return strings.Contains(c.run("audit", "prove", "1", "--tlog-proof").stdout, "\n— "+string(c.Nodes[a].ID)+" ")
	})

	// A worker leaves by its own word; its process ends, and does not come back.
	if r := c.run("leave", "--server", c.Nodes[w].HTTP); r.code != exitOK {
		t.Fatalf("leave: %s%s", r.stdout, r.stderr)
	}
	c.await("the worker's process to end", func() bool { return !alive(c.Nodes[w].PID) })
	c.await("every node to know", func() bool {
		for _, at := range []int{0, 1, 2, a} {
			if _, still := c.members(at)[c.Nodes[w].ID]; still {
				return false
			}
		}
		return true
	})
	// Another one is cut off from elsewhere, at once.
	w2 := c.join("worker")
	if r := c.run("leave", string(c.Nodes[w2].ID)); r.code != exitOK {
		t.Fatalf("remove: %s%s", r.stdout, r.stderr)
	}
	if rep, _ := c.exec(0, "--lang", "starlark", "--on", string(c.Nodes[w2].ID), "-c", "result = 1"); rep.Status == a2a.Succeeded {
		t.Error("a removed worker ran code")
	}
	if rep, _ := c.exec(w2, "--lang", "starlark", "--on", "local", "-c", "result = 1"); rep.Status == a2a.Succeeded {
		t.Error("a removed worker ran code of its own")
	}
	if r := c.run("leave", "nobody"); r.code == exitOK {
		t.Error("nobody left")
	}

	c.stopAll()
	for i, n := range c.Nodes {
		if r := c.run("audit", "verify", n.Data, "--trust", c.Trust); r.code != exitOK {
			t.Errorf("node %d does not verify: %s%s", i+1, r.stdout, r.stderr)
		}
	}
}

// Keepers go from 3 to 5, one is replaced, the leader is removed, all under
// load: nothing that was acknowledged is lost, and receipts of every epoch
// verify from one trust file, an old one as well as the newest.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestKeepersChangeUnderLoad(t *testing.T) {
	c := startCluster(t, 3)
	acked := newLedger()
	stop := make(chan struct{})
	var work sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); work.Wait() })
	t.Cleanup(end) // before the cluster ends, whatever comes
	before := *c   // the nodes that the load knows stay the same
	before.Nodes = slices.Clone(c.Nodes)
	for door := range 2 {
		work.Go(func() { before.load(door, stop, acked) })
	}
	var receipts []string
	receipt := func(node int) {
		t.Helper()
		name := filepath.Join(c.dir, fmt.Sprintf("epoch%d.json", len(receipts)+1))
		c.await("a receipt of epoch "+fmt.Sprint(len(receipts)+1), func() bool {
			rep, _ := c.exec(node, "--lang", "starlark", "--on", "local", "--receipt", name, "-c", "result = 1")
			return rep.Status == a2a.Succeeded
		})
		receipts = append(receipts, name)
	}
	epoch := func(node int, want uint64, keepers int) {
		t.Helper()
		c.await(fmt.Sprintf("epoch %d of %d keepers", want, keepers), func() bool {
			s := c.status(node)
			return s.Epoch == want && len(s.Keepers) == keepers && s.Checkpoint > 0 && s.Ready
		})
	}
	receipt(0)
	fourth := c.join("keeper")
	epoch(0, 2, 4)
	receipt(fourth)
	fifth := c.join("keeper")
	epoch(fifth, 3, 5)
	receipt(fifth)

	// The leader goes; then one that lives, while another one is dead; then the dead
	// one, which is replaced.
	leader := slices.IndexFunc(c.Nodes, func(n devNode) bool { return n.ID == c.status(0).Leader })
	rest := []int{}
	for i := range c.Nodes {
		if i != leader {
			rest = append(rest, i)
		}
	}
	if r := c.run("leave", "--server", c.Nodes[leader].HTTP); r.code != exitOK {
		t.Fatalf("the leader does not leave: %s%s\n%s", r.stdout, r.stderr, c.logs())
	}
	epoch(rest[0], 4, 4)
	receipt(rest[0])
	dead, goes := rest[1], rest[3]
	rest = []int{rest[0], rest[2]}
	c.kill(dead)
	// If that one led, the change may fall between two leaders, which leave says.
	c.await("a keeper to leave while another one is dead", func() bool {
		r := c.run("leave", "--server", c.Nodes[goes].HTTP)
		return r.code == exitOK || strings.Contains(r.stderr, "no answer from") // it has gone
	})
	epoch(rest[0], 5, 3)
	receipt(rest[1])
	c.await("the dead one to be missed", func() bool { return !c.members(rest[0])[c.Nodes[dead].ID].Connected })
	if r := c.run("leave", string(c.Nodes[rest[1]].ID), "--server", c.Nodes[rest[0]].HTTP); r.code != exitUnavailable || !strings.Contains(r.stderr, "would stand still") {
		t.Fatalf("one of the last two that live: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r := c.run("leave", string(c.Nodes[dead].ID), "--server", c.Nodes[rest[0]].HTTP); r.code != exitOK {
		t.Fatalf("a dead keeper is not removed: %s%s\n%s", r.stdout, r.stderr, c.logs())
	}
	epoch(rest[0], 6, 2)
	receipt(rest[1])
	end()
	if acked.size() == 0 {
		t.Fatal("nothing was acknowledged")
	}
	t.Logf("%d executions acknowledged over 5 changes of keepers", acked.size())

	newest := filepath.Join(c.dir, "newest.json")
	r := c.run("trust", "export", "--server", c.Nodes[rest[0]].HTTP)
	if r.code != exitOK {
		t.Fatal(r.stderr)
	}
	if err := os.WriteFile(newest, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, name := range receipts {
		for _, trust := range []string{c.Trust, newest} {
			if r := c.run("verify", name, "--trust", trust); r.code != exitOK {
				t.Errorf("receipt of epoch %d by %s: %s%s", i+1, filepath.Base(trust), r.stdout, r.stderr)
			}
		}
	}
	// Whoever stayed has everything, also after a restart of all.
	c.await("the keepers to agree", func() bool {
		first := c.status(rest[0])
		return !slices.ContainsFunc(rest, func(i int) bool { s := c.status(i); return s.LogSize != first.LogSize || s.LogRoot != first.LogRoot })
	})
	for _, i := range rest {
		acked.check(t, c, i)
	}
	for _, i := range rest {
		c.kill(i)
	}
	for _, i := range rest {
		c.start(i)
	}
	for _, i := range rest {
		c.awaitReady(i)
	}
	if rep, r := c.exec(rest[0], "--lang", "starlark", "-c", "result = 1"); rep.Status != a2a.Succeeded {
		t.Errorf("after a restart of all: %+v\n%s", rep, r.stderr)
	}
	c.stopAll()
	for i, n := range c.Nodes {
		for _, trust := range []string{c.Trust, newest} {
			if r := c.run("audit", "verify", n.Data, "--trust", trust); r.code != exitOK {
				t.Errorf("node %d does not verify by %s: %s%s", i+1, filepath.Base(trust), r.stdout, r.stderr)
			}
		}
	}
}

func FuzzParseToken(f *testing.F) {
	key, err := identity.FromSeed(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	text, err := inviteToken{
		Cluster: "c", Origin: "o", Role: "worker", Expires: 1, Seed: key.Private().Seed(),
		Peers: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + string(key.ID())},
	}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseToken(text)
		if err != nil {
			return
		}
		again, err := token.encode()
		if err != nil {
			t.Fatal(err)
		}
		if same, err := parseToken(again); err != nil || same.Origin != token.Origin || len(same.Peers) != len(token.Peers) {
			t.Errorf("%q reads as %+v, %v", again, same, err)
		}
	})
}

func FuzzParseJoinAsk(f *testing.F) {
	key, err := identity.FromSeed(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(joinAsk{V: joinVersion, ID: key.ID(), Role: "worker", Proof: "p", Sig: key.Sign(joinAskDomain, []byte("p"))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if ask, err := parseJoinAsk(body); err == nil && !ask.ID.Verify(joinAskDomain, []byte(ask.Proof), ask.Sig) {
			t.Errorf("%q was taken", body)
		}
	})
}
