package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// wire is an agent that speaks A2A to node 1 of a cluster.
type wire struct {
	t        *testing.T
	c        *testCluster
	key      *identity.Key
	audience string
	client   *client.Client
}

func newWire(t *testing.T, c *testCluster) *wire {
	t.Helper()
	key, err := identity.Load(filepath.Join(c.data, agentKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	door := &api{base: c.Nodes[0].HTTP, agent: key, http: http.DefaultClient}
	audience, err := door.audience(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Config{URL: c.Nodes[0].HTTP + a2aPath})
	if err != nil {
		t.Fatal(err)
	}
	return &wire{t: t, c: c, key: key, audience: audience, client: cl}
}

func (w *wire) request(code string) *sdk.SendMessageRequest {
	w.t.Helper()
	req, err := a2a.NewRequest(a2a.Execution{Language: "starlark", Code: code})
	if err != nil {
		w.t.Fatal(err)
	}
	return req
}

func (w *wire) sign(req *sdk.SendMessageRequest, change func(*a2a.SignOptions)) *sdk.SendMessageRequest {
	w.t.Helper()
	o := a2a.SignOptions{Audience: w.audience}
	if change != nil {
		change(&o)
	}
	signed, err := a2a.Sign(w.key, req, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

// immediately is the configuration of a request that does not wait.
func immediately() *sdk.SendMessageConfig {
	return &sdk.SendMessageConfig{ReturnImmediately: true}
}

// intents counts the intents in the log.
func (w *wire) intents() int {
	w.t.Helper()
	var page logPage
	w.c.json(&page, "audit", "list", "--kind", "intent", "--limit", "1000")
	return len(page.Entries)
}

// Issue 2, bad input: each gets the exact reason if the sender can check it
// himself, one generic error otherwise, and nothing runs.
//
// INVARIANT: I3, a signature covers what was received.
func TestBadRequests(t *testing.T) {
	c := startCluster(t, 1)
	w := newWire(t, c)
	tampered := w.sign(w.request("result = 1"), nil)
	tampered.Message.Parts[0] = w.request("result = 2").Message.Parts[0]
	stranger, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := a2a.Sign(stranger, w.request("result = 1"), a2a.SignOptions{Audience: w.audience})
	if err != nil {
		t.Fatal(err)
	}
	oldest, newest := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for name, tc := range map[string]struct {
		req  *sdk.SendMessageRequest
		code string
	}{
		"unsigned":        {w.request("result = 1"), a2a.CodeSignatureMissing},
		"wrongly signed":  {tampered, a2a.CodeSignatureInvalid},
		"expired":         {w.sign(w.request("result = 1"), func(o *a2a.SignOptions) { o.Now = oldest }), a2a.CodeExpired},
		"from the future": {w.sign(w.request("result = 1"), func(o *a2a.SignOptions) { o.Now = newest }), a2a.CodeNotYetValid},
		"wrong audience":  {w.sign(w.request("result = 1"), func(o *a2a.SignOptions) { o.Audience = "agenticraft:other" }), a2a.CodeWrongAudience},
		"unknown agent":   {unknown, a2a.CodeUnauthenticated},
		"forged mandate": {w.sign(w.request("result = 1"), func(o *a2a.SignOptions) {
			o.Mandate = []a2a.MandateBlock{{Subject: "service:admin", Tenant: defaultTenant, Via: w.key.ID().DID()}}
		}), a2a.CodeUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.client.Send(t.Context(), tc.req, nil)
			known := new(a2a.Error)
			if !errors.As(err, &known) || known.Code != tc.code {
				t.Errorf("answer is %v, want code %s", err, tc.code)
			}
		})
	}
	if n := w.intents(); n != 0 {
		t.Errorf("the log has %d intents, want none", n)
	}
	// Who proved nothing is in the log as a count only.
	c.await("the counted refusals", func() bool {
		var page logPage
		c.json(&page, "audit", "list", "--kind", string(audit.KindGap))
		codes := map[string]bool{}
		for _, e := range page.Entries {
			var gap audit.GapBody
			if err := json.Unmarshal(decodeEntry(t, e).Body, &gap); err != nil {
				t.Fatal(err)
			}
			codes[gap.Code] = true
		}
		return codes[a2a.CodeSignatureInvalid] && codes[a2a.CodeExpired] && codes[a2a.CodeUnauthenticated]
	})
}

// Issue 2: the same request again is the same task, run once; another request
// under its jti is a conflict. Through any node.
//
// INVARIANT: I8, at most one run per (issuer, jti, attempt).
func TestReplayedRequests(t *testing.T) {
	c := startCluster(t, 3)
	w := newWire(t, c)
	jti := a2a.NewJTI()
	same := func(o *a2a.SignOptions) { o.JTI = jti }
	first := w.sign(w.request("result = 'once'"), same)
	task, err := w.client.Send(t.Context(), first, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range c.Nodes {
		other, err := client.New(client.Config{URL: n.HTTP + a2aPath})
		if err != nil {
			t.Fatal(err)
		}
		again, err := other.Send(t.Context(), first, nil)
		if err != nil {
			t.Errorf("again through node %d: %v", i+1, err)
			continue
		}
		rep, err := a2a.ReportOf(again)
		if again.ID != task.ID || err != nil || string(rep.Result) != `"once"` {
			t.Errorf("again through node %d: task %s (want %s), %+v, %v", i+1, again.ID, task.ID, rep, err)
		}
		_, err = other.Send(t.Context(), w.sign(w.request("result = 'twice'"), same), nil)
		known := new(a2a.Error)
		if !errors.As(err, &known) || known.Code != a2a.CodeConflict {
			t.Errorf("another request through node %d: %v, want a conflict", i+1, err)
		}
	}
	if n := w.intents(); n != 1 {
		t.Errorf("the log has %d intents, want 1", n)
	}
}

// The same signed request through all doors at once still runs once.
//
// INVARIANT: I8, at most one run per (issuer, jti, attempt).
func TestOneRequestThroughManyDoorsAtOnce(t *testing.T) {
	c := startCluster(t, 3)
	w := newWire(t, c)
	req := w.sign(w.request("result = 'once'"), nil)
	type outcome struct {
		task *sdk.Task
		err  error
	}
	results := make(chan outcome)
	const each = 4
	for _, n := range c.Nodes {
		cl, err := client.New(client.Config{URL: n.HTTP + a2aPath})
		if err != nil {
			t.Fatal(err)
		}
		for range each {
			go func() {
				task, err := cl.Send(t.Context(), req, nil)
				results <- outcome{task, err}
			}()
		}
	}
	for range each * len(c.Nodes) {
		r := <-results
		if r.err != nil {
			t.Errorf("answer: %v", r.err)
			continue
		}
		if rep, err := a2a.ReportOf(r.task); err != nil || rep.Status != a2a.Succeeded {
			t.Errorf("task is %+v, %v", rep, err)
		}
	}
	if n := w.intents(); n != 1 {
		t.Errorf("the log has %d intents, want 1", n)
	}
}

// Issue 2: huge and garbage bodies are refused cheaply, and the node stays.
func TestGarbageBodies(t *testing.T) {
	c := startCluster(t, 1)
	before := rss(t, c.Nodes[0].PID)
	for name, tc := range map[string]struct {
		body io.Reader
		want string
	}{
		"64 MiB":        {io.LimitReader(endless{}, 64<<20), "too_large"},
		"garbage":       {strings.NewReader("\x00\xff{{{"), "-32700"},
		"empty":         {strings.NewReader(""), "-32700"},
		"deep":          {strings.NewReader(strings.Repeat("[", 100_000)), "-32"},
		"not a request": {strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"NoSuchMethod"}`), "-32601"},
		"no message":    {strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{}}`), "-32602"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Nodes[0].HTTP+a2aPath, tc.body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("A2A-Version", a2a.Version)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				if name == "64 MiB" {
					return // the node hung up instead of reading it all
				}
				t.Fatal(err)
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			if err != nil || !strings.Contains(string(text), tc.want) {
				t.Errorf("answer %s %s (%v), want %s in it", res.Status, text, err, tc.want)
			}
		})
	}
	if after := rss(t, c.Nodes[0].PID); after > before+64<<20 {
		t.Errorf("the node grew from %d to %d MiB", before>>20, after>>20)
	}
	if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
		t.Errorf("a run after all that: %+v", rep)
	}
}

// The /v1 interface: credentials, policy and bad input.
//
// INVARIANT: I5, a door decides nothing: what policy refuses is refused here.
func TestHTTPInterface(t *testing.T) {
	c := startCluster(t, 1)
	var viewer struct{ Key string }
	c.json(&viewer, "key", "create", "--name", "looker", "--role", "viewer")
	for name, tc := range map[string]struct {
		method, path, key, body string
		status                  int
		code                    string
	}{
		"no credential":     {"GET", "/v1/status", "", "", 401, "unauthenticated"},
		"wrong credential":  {"GET", "/v1/status", "ac_x", "", 401, "unauthenticated"},
		"viewer may look":   {"GET", "/v1/status", viewer.Key, "", 200, ""},
		"viewer no keys":    {"POST", "/v1/keys", viewer.Key, `{"name":"x","role":"admin"}`, 403, "denied"},
		"viewer no log":     {"GET", "/log/checkpoint", viewer.Key, "", 403, "denied"},
		"viewer no run":     {"POST", "/v1/runs", viewer.Key, `{"language":"starlark","code":"result = 1"}`, 403, "role_missing"},
		"log needs a key":   {"GET", "/log/checkpoint", "", "", 401, "unauthenticated"},
		"log with key":      {"GET", "/log/checkpoint", c.APIKey, "", 200, ""},
		"run":               {"POST", "/v1/runs", c.APIKey, `{"language":"starlark","code":"result = 1"}`, 200, ""},
		"unknown member":    {"POST", "/v1/runs", c.APIKey, `{"language":"starlark","code":"x = 1","timeout":1}`, 400, "invalid_request"},
		"two documents":     {"POST", "/v1/runs", c.APIKey, `{} {}`, 400, "invalid_request"},
		"unknown role":      {"POST", "/v1/keys", c.APIKey, `{"name":"x","role":"emperor"}`, 400, "invalid_request"},
		"bad kind":          {"GET", "/v1/audit/entries?kind=nonsense", c.APIKey, "", 400, "invalid_request"},
		"bad limit":         {"GET", "/v1/audit/entries?limit=0", c.APIKey, "", 400, "invalid_request"},
		"bad cursor":        {"GET", "/v1/audit/entries?cursor=!", c.APIKey, "", 400, "invalid_request"},
		"bad index":         {"GET", "/v1/audit/entries/x", c.APIKey, "", 400, "invalid_request"},
		"no such path":      {"GET", "/v2/status", c.APIKey, "", 404, "not_found"},
		"health needs none": {"GET", "/healthz", "", "", 200, ""},
		"ready needs none":  {"GET", "/readyz", "", "", 200, ""},
		"card needs none":   {"GET", "/.well-known/agent-card.json", "", "", 200, ""},
		"metrics need one":  {"GET", "/metrics", "", "", 401, "unauthenticated"},
		"metrics with key":  {"GET", "/metrics", c.APIKey, "", 200, ""},
		"oversized request": {"POST", "/v1/keys", c.APIKey, `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, c.Nodes[0].HTTP+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if tc.key != "" {
				req.Header.Set("Authorization", "Bearer "+tc.key)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tc.status {
				t.Errorf("status %d, want %d: %s", res.StatusCode, tc.status, text)
			}
			var p struct{ Code, Detail string }
			if tc.code != "" && (json.Unmarshal(text, &p) != nil || p.Code != tc.code || p.Detail == "") {
				t.Errorf("problem %s, want code %s", text, tc.code)
			}
			if bytes.Contains(text, []byte(c.APIKey)) {
				t.Error("the answer holds the API key") // I10
			}
		})
	}
}

// A revoked key or agent is refused at once, on every node.
func TestRevocation(t *testing.T) {
	c := startCluster(t, 3)
	var key struct{ ID, Key string }
	c.json(&key, "key", "create", "--name", "short-lived", "--role", "runner")
	file := filepath.Join(c.dir, "short.key")
	if err := os.WriteFile(file, []byte(key.Key), 0o600); err != nil {
		t.Fatal(err)
	}
	works := func(i int) int {
		return c.run("status", "--api-key-file", file, "--server", c.Nodes[i].HTTP).code
	}
	for i := range c.Nodes {
		c.await("the key to work", func() bool { return works(i) == exitOK })
	}
	if r := c.run("key", "revoke", "short-lived"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	for i := range c.Nodes {
		c.await("the key to be refused", func() bool { return works(i) == exitDenied })
	}
	agent := filepath.Join(c.data, agentKeyFile)
	if rep, r := c.exec(0, "--lang", "starlark", "--agent-key", agent, "-c", "result = 1"); r.code != exitOK {
		t.Fatalf("%+v", rep)
	}
	if r := c.run("agent", "revoke", "first-agent"); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	for i := range c.Nodes {
		c.await("the agent to be refused", func() bool {
			return c.run("exec", "--lang", "starlark", "--agent-key", agent, "-c", "result = 1", "--server", c.Nodes[i].HTTP).code == exitDenied
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// rss is the resident memory of a process in bytes.
func rss(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// A receipt is what it was when it was made, whatever characters the program
// holds.
func TestReceiptsSurviveEveryDoor(t *testing.T) {
	c := startCluster(t, 3)
	for i, on := range []string{"local", string(c.Nodes[1].ID)} {
		file := filepath.Join(c.dir, "receipt"+strconv.Itoa(i)+".json")
		rep, r := c.exec(0, "--lang", "starlark", "--on", on, "--receipt", file, "-c", "# <b>&amp;\u2028 é \\u003c\nresult = \"a<b>&c\"")
		if r.code != exitOK || string(rep.Result) != `"a<b>&c"` {
			t.Fatalf("exit %d, %+v", r.code, rep)
		}
		if r := c.run("verify", file, "--trust", c.Trust); r.code != exitOK {
			t.Errorf("on %s: exit %d:\n%s%s", on, r.code, r.stdout, r.stderr)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text[len(text)/2] ^= 1
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := c.run("verify", file, "--trust", c.Trust); r.code != exitUnverified {
			t.Errorf("a changed receipt: exit %d:\n%s", r.code, r.stdout)
		}
	}
}

// An interrupt stops the cluster soon, whatever still runs.
func TestInterruptWithARunningTask(t *testing.T) {
	needPython(t)
	c := startCluster(t, 3)
	for _, n := range c.Nodes {
		if r := c.run("exec", "--detach", "--on", string(n.ID), "-c", "import time; time.sleep(60)"); r.code != exitOK {
			t.Fatal(r.stderr)
		}
	}
	// And one whose caller waits for it, at the door.
	attached := exec.CommandContext(t.Context(), testBinary, "exec", "-c", "import time; time.sleep(60)")
	attached.Env = c.env()
	if err := attached.Start(); err != nil {
		t.Fatal(err)
	}
	c.await("the last intent", func() bool { return c.count(0, "intent") == len(c.Nodes)+1 })
	began := time.Now()
	c.stop() // fails the test if dev did not end well
	if took := time.Since(began); took > slowness*10*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := attached.Wait(); err == nil {
		t.Error("the caller was told that all went well")
	}
}
