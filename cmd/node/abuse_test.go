package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
)

// Issue 6, bad input: each is refused clearly, is in the log, as an entry or a
// number, and takes no time.
func TestAbusesOfAuthorityAreRefusedAndLogged(t *testing.T) {
	c := startCluster(t, 1)
	const most = 2 * time.Minute // ends a hang

	// send posts what is to be refused. It may be called on any goroutine.
	send := func(what, path, body, want string) {
		began := time.Now()
		code, answer, err := c.post(path, c.APIKey, body)
		if took := time.Since(began); err != nil || code/100 != 4 || !strings.Contains(answer, want) || took > most {
			t.Errorf("%s: %d after %v, %v: %s; want %q", what, code, took, err, answer, want)
		}
	}
	var applying sync.WaitGroup
	apply := func(name, text, want string) {
		t.Helper()
		body, err := json.Marshal(map[string]any{"modules": map[string]string{name: text}})
		if err != nil {
			t.Fatal(err)
		}
		applying.Go(func() { send(name, "/v1/policy", string(body), want) })
	}
	module := func(rule string) string { return "package agenticraft.authz\n\nimport rego.v1\n\n" + rule + "\n" }
	apply("big.json", `"`+strings.Repeat("x", 10<<20)+`"`, "bytes")
	apply("call.rego", module(`decision := {"allow": true} if http.send({"method": "get", "url": "http://127.0.0.1"})`), "http.send")
	apply("recursion.rego", module("decision := {\"allow\": true} if again\n\nagain if more\n\nmore if again"), "recursive")
	apply("endless.rego", module("decision := {\"allow\": false} if {\n\tsome a in numbers.range(1, 1000000)\n\tsome b in numbers.range(1, 1000000)\n\ta * b < 0\n}"), "")
	apply("hoard.rego", module("decision := {\"allow\": false} if count([[a, b] | some a in numbers.range(1, 1000000); some b in numbers.range(1, 1000000)]) > 1"), "")

	send("a change that is too long", "/v1/changes", `{"kind":"policy","body":"`+strings.Repeat("x", 10<<20)+`"}`, "over 1048576 bytes")
	send("a change that is none", "/v1/changes", `{"kind":"agent","body":{"action":"crown"}}`, "no change")
	send("a body of another form", "/v1/keys", `{"name":["k"]}`, `member \"name\"`)
	applying.Wait()

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
	// The right id, another secret: whoever goes on guessing has to wait, and the
	// owner does not, at the very same address.
	secret, _, err := authz.RotateAPIKey(c.APIKey[3:13])
	if err != nil {
		t.Fatal(err)
	}
	throttled := 0
	for range 60 {
		code, _, err := c.post("/v1/keys", secret, "{}")
		if err != nil || code != http.StatusUnauthorized && code != http.StatusTooManyRequests {
			t.Fatalf("a guess: %d, %v", code, err)
		}
		if code == http.StatusTooManyRequests {
			throttled++
		}
	}
	if throttled == 0 {
		t.Error("60 guesses were not throttled")
	}
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
		denied, counted := map[string]int{}, map[string]int{}
		for _, e := range page.Entries {
			var gap audit.GapBody
			if d, err := e.Entry.Denial(); err == nil && d.Action != "" {
				denied[d.Action+" "+d.Code]++
			} else if e.Entry.Kind == audit.KindGap && json.Unmarshal(e.Entry.Body, &gap) == nil {
				counted[gap.Code] += gap.Count
			}
		}
		return maps.Equal(denied, map[string]int{
			"policy.apply bad_policy": 4, "policy.apply too_large": 1, "changes too_large": 1, "changes invalid_request": 1, "key.create invalid_request": 1,
		}) && counted["unauthenticated"] >= 3 && counted["busy"] >= 1 && counted["invalid_request"] >= 2
	})
}

// post sends a body as the holder of a bearer token.
func (c *testCluster) post(path, bearer, body string) (code int, answer string, err error) {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.Nodes[0].HTTP+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(text), err
}
