package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// newAgent makes a key and registers it; it returns the key's file.
func (c *testCluster) newAgent(name, role string) (file string, id identity.ID) {
	c.t.Helper()
	file = filepath.Join(c.dir, name+".key")
	if r := c.run("agent", "keygen", file); r.code != exitOK {
		c.t.Fatalf("keygen: %s", r.stderr)
	}
	if r := c.run("agent", "add", "--name", name, "--role", role, "--agent-key", file); r.code != exitOK {
		c.t.Fatalf("agent add: %s", r.stderr)
	}
	key, err := identity.Load(file)
	if err != nil {
		c.t.Fatal(err)
	}
	return file, key.ID()
}

// mandate runs a mandate command and keeps what it prints in a file.
func (c *testCluster) mandate(name string, args ...string) string {
	c.t.Helper()
	r := c.run(append([]string{"mandate"}, args...)...)
	if r.code != exitOK {
		c.t.Fatalf("mandate %v: exit %d: %s", args, r.code, r.stderr)
	}
	file := filepath.Join(c.dir, name)
	if err := os.WriteFile(file, []byte(r.stdout), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return file
}

// Issue 6: authority that is handed on narrows at every hop, is spent
// cluster-wide, and ends with any key of its chain.
func TestMandate(t *testing.T) {
	c := startCluster(t, 3)
	owner, ownerID := c.newAgent("owner", "runner")
	planner, plannerID := c.newAgent("planner", "delegator")
	worker, workerID := c.newAgent("worker", "delegator")
	runner, runnerID := c.newAgent("bare", "runner")
	var list struct {
		Agents []struct{ ID, Tenant string }
	}
	c.json(&list, "agent", "list")
	tenant := list.Agents[0].Tenant

	given := c.mandate("m1", "grant", "--agent-key", owner, "--to", string(plannerID), "--tenant", tenant,
		"--lang", "python,starlark", "--memory", "64MiB", "--runs", "4", "--depth", "1")
	handed := c.mandate("m2", "narrow", given, "--agent-key", planner, "--to", string(workerID), "--lang", "starlark", "--runs", "3")
	if r := c.run("mandate", "narrow", given, "--agent-key", planner, "--to", string(workerID), "--lang", "sh"); r.code == exitOK || !strings.Contains(r.stderr, "language sh") {
		t.Errorf("a wider block: exit %d, %s", r.code, r.stderr)
	}
	var view mandateView
	c.json(&view, "mandate", "show", handed)
	if view.Root != ownerID.DID() || view.Holder != workerID.DID() || len(view.Blocks) != 2 {
		t.Errorf("mandate show = %+v", view)
	}
	star := func(node int, key, mandate string, more ...string) (a2a.Report, result) {
		return c.exec(node, append([]string{"--lang", "starlark", "-c", "result = 1", "--agent-key", key, "--mandate", mandate}, more...)...)
	}

	rep, r := star(0, worker, handed, "--on", string(c.Nodes[1].ID))
	if rep.Status != a2a.Succeeded || rep.Intent == nil {
		t.Fatalf("under a mandate: exit %d, %+v\n%s", r.code, rep.Error, c.logs())
	}
	var page struct {
		Entries []audit.Indexed `json:"entries"`
	}
	c.json(&page, "audit", "list", "--task", rep.Task, "--kind", "intent")
	if len(page.Entries) != 1 {
		t.Fatalf("%d intents", len(page.Entries))
	}
	entry := page.Entries[0].Entry
	var body audit.IntentBody
	if err := json.Unmarshal(entry.Body, &body); err != nil {
		t.Fatal(err)
	}
	if entry.Actor != "agent:"+workerID.DID() || entry.OnBehalf != "agent:"+ownerID.DID() || len(body.Mandate) != 2 || body.Mandate[1].Runs != 3 || body.Limits["memory_bytes"] > 64<<20 {
		t.Errorf("the intent says %+v, %+v", entry, body)
	}

	for name, refused := range map[string]struct {
		key, mandate, code string
		more               []string
	}{
		"more memory":       {worker, handed, "mandate_exceeded", []string{"--memory", "65MiB"}},
		"another language":  {worker, handed, "mandate_exceeded", []string{"--lang", "python"}},
		"not the holder":    {planner, handed, "invalid_request", nil},
		"holder may not":    {runner, c.mandate("m3", "grant", "--agent-key", owner, "--to", string(runnerID), "--tenant", tenant, "--lang", "starlark"), "role_missing", nil},
		"root has no right": {planner, c.mandate("m4", "grant", "--agent-key", c.viewer(), "--to", string(plannerID), "--tenant", tenant, "--lang", "starlark"), "role_missing", nil},
	} {
		rep, r := star(0, refused.key, refused.mandate, refused.more...)
		if r.code == exitOK || !strings.Contains(r.stdout, refused.code) {
			t.Errorf("%s: exit %d, %+v, want %s\n%s", name, r.code, rep.Error, refused.code, r.stdout)
		}
	}

	// Three runs through any doors, then the worker's part is spent; one is left
	// of the planner's.
	for node := 1; node <= 2; node++ {
		if rep, r := star(node, worker, handed); rep.Status != a2a.Succeeded {
			t.Errorf("run at node %d: exit %d, %+v", node+1, r.code, rep.Error)
		}
	}
	if rep, r := star(2, worker, handed); rep.Status != a2a.Denied || rep.Error.Code != "mandate_spent" || r.code != exitDenied {
		t.Errorf("beyond the budget: exit %d, %+v", r.code, rep.Error)
	}
	if rep, r := star(0, planner, given); rep.Status != a2a.Succeeded {
		t.Errorf("the planner's last run: exit %d, %+v", r.code, rep.Error)
	}
	if rep, _ := star(1, planner, given); rep.Status != a2a.Denied {
		t.Errorf("the shared budget was not counted: %+v", rep)
	}

	if r := c.run("agent", "revoke", string(ownerID)); r.code != exitOK {
		t.Fatalf("revoke: %s", r.stderr)
	}
	fresh := c.mandate("m5", "grant", "--agent-key", owner, "--to", string(plannerID), "--tenant", tenant, "--lang", "starlark")
	c.await("the revoked root to be refused", func() bool {
		_, r := star(2, planner, fresh)
		return strings.Contains(r.stdout, "unauthenticated")
	})
}

func (c *testCluster) viewer() string {
	c.t.Helper()
	file, _ := c.newAgent("viewer", "viewer")
	return file
}

func agentOfFile(t testing.TB, file string) string {
	t.Helper()
	key, err := identity.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return key.ID().DID()
}
