package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// try runs a command as somebody and compares how it ends.
func (c *testCluster) try(want int, says string, args ...string) result {
	c.t.Helper()
	r := c.run(args...)
	if r.code != want || !strings.Contains(r.stderr+r.stdout, says) {
		c.t.Errorf("%v: exit %d, want %d and %q: %s%s", args, r.code, want, says, r.stdout, r.stderr)
	}
	return r
}

// keyFile makes an API key and returns the file that holds it.
func (c *testCluster) keyFile(name string, args ...string) string {
	c.t.Helper()
	var made struct{ Key string }
	c.json(&made, append([]string{"key", "create", "--name", name}, args...)...)
	file := filepath.Join(c.dir, name+".apikey")
	if err := os.WriteFile(file, []byte(made.Key), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return file
}

// Issue 6: an admin with a key signs what he changes; a node cannot speak for him.
func TestAdminsSignTheirChanges(t *testing.T) {
	c := startCluster(t, 3)
	boss, id := c.newAgent("boss", "admin")
	_, other := c.newAgent("other", "runner")
	bare := filepath.Join(c.dir, "bare.key")
	var made struct{ ID string }
	c.json(&made, "agent", "keygen", bare)

	c.try(exitOK, "", "tenant", "create", "signed", "--agent-key", boss)
	c.try(exitOK, "", "agent", "add", "--name", "late", "--role", "viewer", "--agent-key", boss, made.ID)
	c.try(exitOK, "", "key", "create", "--name", "k", "--role", "viewer", "--agent-key", boss)
	c.try(exitOK, "", "role", "grant", "late", "runner", "--agent-key", boss)
	var page struct {
		Entries []struct{ Entry audit.Entry }
	}
	c.json(&page, "audit", "list", "--actor", "agent:"+id.DID())
	// At night the keepers find it odd that he changes privileges, and say so.
	page.Entries = slices.DeleteFunc(page.Entries, func(e struct{ Entry audit.Entry }) bool { return e.Entry.Kind == audit.KindAlert })
	if len(page.Entries) != 4 {
		t.Errorf("%d entries in the admin's name, want 4", len(page.Entries))
	}
	for _, e := range page.Entries {
		var body struct{ Signed *registry.Signed }
		if err := json.Unmarshal(e.Entry.Body, &body); err != nil || body.Signed == nil || e.Entry.Once == nil {
			t.Errorf("%s entry of an admin who has a key: %s", e.Entry.Kind, e.Entry.Body)
		}
	}

	// A request whose channel is proved, but whose change is not signed.
	key, err := identity.Load(boss)
	if err != nil {
		t.Fatal(err)
	}
	token, err := a2a.SignToken(key, a2a.SignOptions{Audience: a2a.Audience(c.clusterName())})
	if err != nil {
		t.Fatal(err)
	}
	post := func(path, text string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Nodes[0].HTTP+path, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var out bytes.Buffer
		if _, err := out.ReadFrom(res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, out.String()
	}
	if code, text := post("/v1/tenants", `{"name":"unsigned"}`); code != http.StatusForbidden || !strings.Contains(text, "signs its changes itself") {
		t.Errorf("an unsigned change in an agent's name: %d %s", code, text)
	}
	change := func(cluster string, b registry.RoleBody) string {
		b, err := registry.Sign(key, cluster, b)
		if err != nil {
			t.Fatal(err)
		}
		text, err := audit.MarshalBody(b)
		if err != nil {
			t.Fatal(err)
		}
		return `{"kind":"role","body":` + string(text) + `}`
	}
	grant := registry.RoleBody{Action: registry.Grant, Principal: "agent:" + other.DID(), Role: "viewer", Tenant: "default"}
	if code, text := post("/v1/changes", change("another", grant)); code != http.StatusForbidden {
		t.Errorf("signed for another cluster: %d %s", code, text)
	}
	good := change(c.clusterName(), grant)
	if code, text := post("/v1/changes", strings.Replace(good, `"role":"viewer"`, `"role":"admin"`, 1)); code != http.StatusForbidden {
		t.Errorf("altered after it was signed: %d %s", code, text)
	}
	if code, text := post("/v1/changes", good); code != http.StatusOK {
		t.Errorf("the change itself: %d %s", code, text)
	}
	c.try(exitOK, "", "role", "revoke", other.DID(), "viewer")
	if code, _ := post("/v1/changes", good); code != http.StatusOK { // the same change, and so not another
		t.Errorf("the change once more: %d", code)
	}
	var roles struct{ Roles []roleView }
	c.json(&roles, "role", "list")
	for _, r := range roles.Roles {
		if r.Principal == "agent:"+other.DID() && strings.Join(r.Roles, " ") != "runner" {
			t.Errorf("a replayed change took effect: %v", r.Roles)
		}
	}
}

func (c *testCluster) clusterName() string {
	c.t.Helper()
	var s statusView
	c.json(&s, "status")
	return s.Cluster
}

// Issue 6: ceilings that an admin sets bound every policy, and every node.
func TestTenantCeilings(t *testing.T) {
	c := startCluster(t, 3)
	ann, _ := c.newAgent("ann", "runner")
	star := func(node int, more ...string) (a2a.Report, result) {
		return c.exec(node, append([]string{"--lang", "starlark", "--agent-key", ann, "-c", "result = 1"}, more...)...)
	}
	if rep, r := star(0, "--network", "allow=example.org:443"); r.code != exitDenied || rep.Error.Code != "network_not_allowed" {
		t.Errorf("network by default: exit %d, %+v", r.code, rep.Error)
	}
	if _, r := star(0, "--network", "allow=example.org"); r.code != exitUsage && r.code != exitFailed {
		t.Errorf("a destination without port: exit %d %s", r.code, r.stdout)
	}
	var row registry.Tenant
	c.json(&row, "tenant", "set", "default", "--memory", "64MiB", "--network", "*.Example.org:443", "--data-classes", "unclassified,public")
	if row.Ceiling == nil || row.Ceiling.MemoryBytes != 64<<20 || strings.Join(row.Ceiling.Network, " ") != "*.example.org:443" {
		t.Fatalf("tenant set = %+v", row)
	}
	c.json(&row, "tenant", "set", "default", "--timeout", "5s")
	if row.Ceiling.MemoryBytes != 64<<20 || row.Ceiling.TimeoutMS != 5000 {
		t.Errorf("another ceiling took the first away: %+v", row.Ceiling)
	}
	for node := range 3 {
		c.await("the ceiling to hold on every node", func() bool {
			rep, r := star(node, "--memory", "65MiB")
			return r.code == exitDenied && rep.Error.Code == "limit_memory"
		})
		if rep, r := star(node, "--data-class", "internal"); r.code != exitDenied || rep.Error.Code != "data_class_not_allowed" {
			t.Errorf("node %d: data class: exit %d, %+v", node+1, r.code, rep.Error)
		}
		if rep, r := star(node, "--network", "allow=example.com:443"); r.code != exitDenied || rep.Error.Code != "network_not_allowed" {
			t.Errorf("node %d: network: exit %d, %+v", node+1, r.code, rep.Error)
		}
	}
	if rep, _ := star(1); rep.Status != a2a.Succeeded {
		t.Errorf("a modest run: %+v", rep)
	}
	// A policy that forgets all bounds does not lift them.
	dir := filepath.Join(c.dir, "wide")
	c.try(exitOK, "", "policy", "show", "--out", dir)
	text, err := os.ReadFile(filepath.Join(dir, "ceilings.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ceilings.json"), []byte(strings.ReplaceAll(string(text), "2147483648", "9147483648")), 0o600); err != nil {
		t.Fatal(err)
	}
	c.try(exitOK, "in force", "policy", "apply", dir)
	if rep, r := star(0, "--memory", "1GiB"); r.code != exitDenied || rep.Error.Code != "limit_memory" {
		t.Errorf("beyond the ceiling under a wide policy: exit %d, %+v", r.code, rep.Error)
	}

	// What was refused is on record, with the reasons' codes for auditors.
	c.try(exitDenied, "needs one of the roles", "tenant", "create", "mine", "--agent-key", ann)
	c.await("the refusal to be on record", func() bool {
		var page struct{ Entries []struct{ Entry audit.Entry } }
		c.json(&page, "audit", "list", "--kind", "denial", "--limit", "50")
		for _, e := range page.Entries {
			if strings.Contains(string(e.Entry.Body), `"tenant.create"`) {
				d := e.Entry.Decision
				return d != nil && strings.Join(d.Reasons, " ") == "role_missing" && len(d.Policy) == 64 && len(d.Input) == 64
			}
		}
		return false
	})

	// Nor do the operators' additions, which can open what the base closes.
	op := c.keyFile("op", "--role", "operator")
	narrow := filepath.Join(c.dir, "narrow")
	c.try(exitOK, "", "policy", "show", "--out", narrow)
	if err := os.WriteFile(filepath.Join(narrow, "ceilings.json"), []byte(strings.ReplaceAll(string(text), `"starlark": true`, `"starlark": false`)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.try(exitOK, "in force", "policy", "apply", narrow)
	if _, r := star(0); r.code != exitDenied {
		t.Errorf("the base denies starlark: exit %d", r.code)
	}
	c.try(exitDenied, "", "policy", "apply", dir, "--api-key-file", op)
	c.try(exitOK, "in force", "policy", "apply", dir, "--additions", "--api-key-file", op)
	for node := range 3 {
		c.await("the additions to hold on every node", func() bool {
			rep, _ := star(node)
			return rep.Status == a2a.Succeeded
		})
	}
	if _, r := star(0, "--memory", "65MiB"); r.code != exitDenied {
		t.Errorf("additions beyond the ceiling: exit %d", r.code)
	}
	c.try(exitOK, "in force", "policy", "apply", "--rollback", "--additions", "--api-key-file", op)
	c.await("the additions to be gone", func() bool { _, r := star(0); return r.code == exitDenied })
	c.try(exitDenied, "", "tenant", "set", "default", "--no-ceiling", "--api-key-file", op)
}

// Issue 6: agents are suspended and get other keys, API keys have scopes and
// rotate with overlap, mandates end by their id.
func TestKeysOfAgentsAndServices(t *testing.T) {
	c := startCluster(t, 3)
	ann, annID := c.newAgent("ann", "runner")
	run := func(node int, key string, more ...string) int {
		_, r := c.exec(node, append([]string{"--lang", "starlark", "--agent-key", key, "-c", "result = 1"}, more...)...)
		return r.code
	}
	c.try(exitOK, "suspended: ann", "agent", "suspend", "ann")
	for node := range 3 {
		c.await("the suspension to hold", func() bool { return run(node, ann) == exitDenied })
	}
	c.try(exitOK, "resumed: ann", "agent", "resume", "ann")
	c.await("ann to work again", func() bool { return run(2, ann) == exitOK })

	fresh := filepath.Join(c.dir, "fresh.key")
	var made struct{ ID string }
	c.json(&made, "agent", "keygen", fresh)
	c.try(exitOK, "rotated: ann is "+made.ID, "agent", "rotate", "ann", made.ID, "--overlap", "1h")
	for _, key := range []string{ann, fresh} {
		c.await("both keys to work", func() bool { return run(1, key) == exitOK })
	}
	c.try(exitOK, "revoked: ann", "agent", "revoke", string(annID))
	c.await("the old key to end", func() bool { return run(1, ann) == exitDenied })
	if code := run(1, fresh); code != exitOK {
		t.Errorf("the new key after the old one's end: exit %d", code)
	}

	ci := c.keyFile("ci", "--role", "runner", "--scope", "exec.run,task.*")
	c.try(exitOK, "", "exec", "--api-key-file", ci, "--lang", "starlark", "-c", "result = 1")
	c.try(exitOK, "", "task", "list", "--api-key-file", ci)
	c.try(exitDenied, "is for exec.run, task.* only", "nodes", "--api-key-file", ci)
	limited := c.keyFile("limited", "--role", "admin", "--scope", "key.create,role.grant,key.list,agent.list,agent.add")
	c.try(exitDenied, "wider scope", "key", "create", "--name", "x", "--role", "admin", "--api-key-file", limited)
	c.try(exitDenied, "hands out no roles", "role", "grant", "ann", "admin", "--api-key-file", limited)
	c.try(exitOK, "", "key", "create", "--name", "y", "--role", "admin", "--scope", "key.list", "--api-key-file", limited)

	var turned struct{ Key string }
	c.json(&turned, "key", "rotate", "ci", "--overlap", "1h")
	after := filepath.Join(c.dir, "ci2.apikey")
	if err := os.WriteFile(after, []byte(turned.Key), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{ci, after} {
		c.try(exitOK, "", "task", "list", "--api-key-file", file)
	}
	c.json(&turned, "key", "rotate", "ci")
	c.try(exitDenied, "", "task", "list", "--api-key-file", ci)
	c.try(exitDenied, "", "task", "list", "--api-key-file", after)
	var keys struct{ Keys []keyView }
	c.json(&keys, "key", "list")
	for _, k := range keys.Keys {
		if at, err := audit.ParseTime(k.Used); k.Name == "ci" && (err != nil || time.Since(at) > time.Minute || len(k.Scopes) != 2) {
			t.Errorf("key list: %+v", k)
		}
	}

	_, holderID := c.newAgent("holder", "delegator")
	holder := filepath.Join(c.dir, "holder.key")
	given := c.mandate("m1", "grant", "--agent-key", fresh, "--to", string(holderID), "--tenant", "default", "--lang", "starlark")
	c.try(exitOK, "", "exec", "--agent-key", holder, "--mandate", given, "--lang", "starlark", "-c", "result = 1")
	c.try(exitFailed, "signed no block", "mandate", "revoke", given, "--agent-key", holder)
	c.try(exitOK, "revoked: ", "mandate", "revoke", given, "--agent-key", fresh)
	for node := range 3 {
		c.await("the mandate to end", func() bool { return run(node, holder, "--mandate", given) == exitDenied })
	}
}
