package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
)

// Issue 6: roles and tenants are changed by one entry, which holds on every
// node within a second, also for what is running.
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

	c.json(new(map[string]any), "tenant", "create", "acme")
	file := c.dir + "/bob.key"
	c.json(new(map[string]any), "agent", "keygen", file)
	c.json(new(map[string]any), "agent", "add", "--name", "bob", "--role", "runner", "--tenant", "acme", "--agent-key", file)
	c.await("bob to be known at node 2", func() bool {
		rep, _ := c.exec(1, "--lang", "starlark", "--agent-key", file, "-c", "result = 1")
		return rep.Status == a2a.Succeeded
	})
	const spin = "def f():\n    n = 0\n    for i in range(1000000000):\n        n += i\n    return n\nresult = f()"
	ended := make(chan a2a.Report, 1)
	args := []string{"exec", "--json", "--lang", "starlark", "--timeout", "60s", "--agent-key", file, "--server", c.Nodes[1].HTTP, "--on", string(c.Nodes[2].ID), "-c", spin}
	go func() {
		var rep a2a.Report
		_ = json.Unmarshal([]byte(c.run(args...).stdout), &rep) // what it says is checked below
		ended <- rep
	}()
	c.await("the run to begin", func() bool {
		var page struct{ Entries []json.RawMessage }
		c.json(&page, "audit", "list", "--kind", "intent", "--actor", "agent:"+agentOfFile(t, file))
		return len(page.Entries) == 2
	})
	began := time.Now()
	c.json(new(map[string]any), "tenant", "set", "acme", "--suspend")
	select {
	case rep := <-ended:
		if rep.Status != a2a.Cancelled {
			t.Errorf("the run of a suspended tenant ended as %+v", rep)
		}
		t.Logf("cancelled on another node %v after the command began", time.Since(began).Round(time.Millisecond))
	case <-time.After(5 * time.Second):
		t.Error("the run of a suspended tenant goes on")
		<-ended
	}
	for node := range 3 {
		if _, r := c.exec(node, "--lang", "starlark", "--agent-key", file, "-c", "result = 1"); r.code != exitDenied {
			t.Errorf("node %d serves a suspended tenant: exit %d", node+1, r.code)
		}
	}
	c.json(new(map[string]any), "tenant", "set", "acme", "--resume")
	c.await("the tenant to work again", func() bool {
		rep, _ := c.exec(1, "--lang", "starlark", "--agent-key", file, "-c", "result = 1")
		return rep.Status == a2a.Succeeded
	})
}
