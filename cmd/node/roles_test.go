package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// Issue 6: roles and tenants are changed by one entry, which holds on every node.
func TestRolesAndTenants(t *testing.T) {
	c := startCluster(t, 3)
	key, id := c.newAgent("ann", "viewer")
	run := func(node int, more ...string) (a2a.Report, result) {
		return c.exec(node, append([]string{"--lang", "starlark", "--agent-key", key}, more...)...)
	}
	if rep, r := run(0, "-c", "result = 1"); r.code != exitDenied || rep.Error.Code != "role_missing" {
		t.Fatalf("a viewer runs: exit %d, %+v", r.code, rep.Error)
	}
	var granted roleView
	c.json(&granted, "role", "grant", "ann", "runner")
	if granted.Principal != "agent:"+id.DID() || strings.Join(granted.Roles, " ") != "runner viewer" {
		t.Errorf("role grant = %+v", granted)
	}
	c.await("the role to hold at node 3", func() bool {
		rep, _ := run(2, "-c", "result = 1")
		return rep.Status == a2a.Succeeded
	})
	var roles struct{ Roles []roleView }
	c.json(&roles, "role", "list")
	if len(roles.Roles) < 2 {
		t.Errorf("role list = %+v", roles)
	}
	for _, bad := range [][]string{{"role", "grant", "ann", "runner"}, {"role", "grant", "ann", "emperor"}, {"role", "grant", "nobody", "runner"}, {"tenant", "set", "nowhere", "--suspend"}, {"tenant", "create", "no spaces"}} {
		if r := c.run(bad...); r.code == exitOK || r.code == exitDenied || strings.Contains(r.stderr, "ref") {
			t.Errorf("%v: exit %d, %s", bad, r.code, r.stderr)
		}
	}
	if r := c.run("tenant", "set", "nowhere"); r.code != exitUsage {
		t.Errorf("tenant set without a change: exit %d", r.code)
	}
	if r := c.run("role", "grant", "ann", "admin", "--agent-key", key); r.code != exitDenied {
		t.Errorf("a runner makes himself admin: exit %d, %s", r.code, r.stderr)
	}
}

// Issue 6: one entry suspends an agent or a tenant: what runs for them ends, on
// the node that took it in and on another, and every node refuses what they ask.
func TestSuspensionEndsWhatRuns(t *testing.T) {
	needPython(t)
	c := startCluster(t, 3)
	c.json(new(map[string]any), "tenant", "create", "acme")
	for name, tc := range map[string]struct{ suspend, resume []string }{
		"tenant": {[]string{"tenant", "set", "acme", "--suspend"}, []string{"tenant", "set", "acme", "--resume"}},
		"agent":  {[]string{"agent", "suspend", "bob-agent", "--tenant", "acme"}, []string{"agent", "resume", "bob-agent", "--tenant", "acme"}},
	} {
		file := filepath.Join(c.dir, name+".key")
		c.json(new(map[string]any), "agent", "keygen", file)
		c.json(new(map[string]any), "agent", "add", "--name", "bob-"+name, "--role", "runner", "--tenant", "acme", "--agent-key", file)
		works := func(node int) bool {
			rep, _ := c.exec(node, "--lang", "starlark", "--agent-key", file, "-c", "result = 1")
			return rep.Status == a2a.Succeeded
		}
		for node := range 3 {
			c.await("bob to be known on every node", func() bool { return works(node) })
		}
		c.await("what ran to be in the log of node 1", func() bool { return c.intentsOf(file) == 3 })

		// Taken in by node 2; what begins is seen in the log, by node 1.
		ended := make(chan a2a.Report, 2)
		begin := func(on int, lang, code string) {
			args := []string{"exec", "--json", "--lang", lang, "--timeout", "50s", "--agent-key", file, "--server", c.Nodes[1].HTTP, "--on", string(c.Nodes[on].ID), "-c", code}
			go func() {
				var rep a2a.Report
				_ = json.Unmarshal([]byte(c.run(args...).stdout), &rep) // what it says is checked below
				ended <- rep
			}()
		}
		begin(2, "starlark", "def f():\n    n = 0\n    for i in range(1000000000000):\n        n += i\n    return n\nresult = f()")
		begin(1, "python", "import time; time.sleep(100)")
		c.await("both runs to begin", func() bool { return c.intentsOf(file) == 5 })
		began := time.Now()
		c.json(new(map[string]any), tc.suspend...)
		nodes := map[identity.ID]bool{}
		for range 2 {
			rep := <-ended // at the latest when its time is up, which is another status
			if nodes[rep.Node] = true; rep.Status != a2a.Cancelled || rep.Intent == nil || rep.Outcome == nil {
				t.Errorf("%s: what ran on %s ended as %+v", name, rep.Node, rep)
			}
			t.Logf("%s: cancelled %v after the command began", name, time.Since(began).Round(time.Millisecond))
		}
		if !nodes[c.Nodes[1].ID] || !nodes[c.Nodes[2].ID] {
			t.Errorf("%s: the runs were on %v", name, nodes)
		}
		for node := range 3 {
			c.await("every node to refuse", func() bool {
				_, r := c.exec(node, "--lang", "starlark", "--agent-key", file, "-c", "result = 1")
				return r.code == exitDenied
			})
		}
		c.json(new(map[string]any), tc.resume...)
		for node := range 3 {
			c.await("bob to work again", func() bool { return works(node) })
		}
	}
}

// intentsOf counts the executions of an agent that the log of node 1 has.
func (c *testCluster) intentsOf(keyFile string) int {
	c.t.Helper()
	var page logPage
	c.json(&page, "audit", "list", "--kind", "intent", "--actor", "agent:"+agentOfFile(c.t, keyFile))
	return len(page.Entries)
}
