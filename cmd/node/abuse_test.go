package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
)

// Issue 6, bad input: each is refused clearly, is in the log, as an entry or a
// number, and takes no time.
func TestAbusesOfAuthorityAreRefusedAndLogged(t *testing.T) {
	c := startCluster(t, 1)
	const most = 30 * time.Second // generous: the machine may be busy

	apply := func(name, text, want string) {
		t.Helper()
		body, err := json.Marshal(map[string]any{"modules": map[string]string{name: text}})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Nodes[0].HTTP+"/v1/policy", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.APIKey)
		req.Header.Set("Content-Type", "application/json")
		began := time.Now()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if took := time.Since(began); err != nil || resp.StatusCode/100 != 4 || !strings.Contains(string(answer), want) || took > most {
			t.Errorf("%s: %s after %v, %v: %s; want %q", name, resp.Status, took, err, answer, want)
		}
	}
	module := func(rule string) string { return "package agenticraft.authz\n\nimport rego.v1\n\n" + rule + "\n" }
	apply("big.json", `"`+strings.Repeat("x", 10<<20)+`"`, "bytes")
	apply("call.rego", module(`decision := {"allow": true} if http.send({"method": "get", "url": "http://127.0.0.1"})`), "http.send")
	apply("recursion.rego", module("decision := {\"allow\": true} if again\n\nagain if more\n\nmore if again"), "recursive")
	apply("endless.rego", module("decision := {\"allow\": false} if {\n\tsome a in numbers.range(1, 1000000)\n\tsome b in numbers.range(1, 1000000)\n\ta * b < 0\n}"), "")
	apply("hoard.rego", module("decision := {\"allow\": false} if count([[a, b] | some a in numbers.range(1, 1000000); some b in numbers.range(1, 1000000)]) > 1"), "")

	refused := func(what string, code int, want string, args ...string) {
		t.Helper()
		r := c.run(append([]string{"exec", "--json", "--lang", "starlark", "-c", "result = 1"}, args...)...)
		if r.code != code || !strings.Contains(r.stdout, want) || r.took > most {
			t.Errorf("%s: exit %d after %v, %s; want %d, %q", what, r.code, r.took, r.stdout, code, want)
		}
	}
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	stranger := filepath.Join(c.dir, "stranger.key")
	if r := c.run("agent", "keygen", stranger); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	refused("an unknown agent", exitDenied, "unauthenticated", "--agent-key", stranger)
	guess := file("guess", c.APIKey[:len(c.APIKey)-4]+"AAAA\n")
	refused("a guessed key", exitDenied, "unauthenticated", "--api-key-file", guess)
	holder, id := c.newAgent("holder", "delegator")
	refused("a thousand blocks", exitUsage, "at most 5", "--agent-key", holder, "--mandate", file("long", "acm1"+strings.Repeat(".e30.AA", 1000)))
	given := c.mandate("given", "grant", "--agent-key", c.data+"/"+agentKeyFile, "--to", string(id), "--tenant", "default", "--lang", "starlark", "--depth", "2")
	text, err := os.ReadFile(given)
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.SplitN(strings.TrimSpace(string(text)), ".", 2)[1]
	refused("a chain that begins again", exitUsage, "earlier key", "--agent-key", holder, "--mandate", file("cycle", "acm1."+blocks+"."+blocks))

	if r := c.run("status"); r.code != exitOK {
		t.Errorf("after all of it: exit %d, %s", r.code, r.stderr)
	}
	c.await("all of it to be in the log", func() bool {
		var page struct {
			Entries []audit.Indexed `json:"entries"`
		}
		c.json(&page, "audit", "list", "--limit", "100")
		policies, counted := 0, map[string]int{}
		for _, e := range page.Entries {
			var gap audit.GapBody
			if d, err := e.Entry.Denial(); err == nil && d.Code == "bad_policy" && d.Action == "policy.apply" {
				policies++
			} else if e.Entry.Kind == audit.KindGap && json.Unmarshal(e.Entry.Body, &gap) == nil {
				counted[gap.Code] += gap.Count
			}
		}
		return policies == 5 && counted["unauthenticated"] >= 2 && counted["invalid_request"] >= 2
	})
}
