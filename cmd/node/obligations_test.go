package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/sandbox"
)

// obliging is the default policy, but for this: it does not deny who asks for
// more than the obligations, it binds him to them.
func (c *testCluster) obliging(name string, obligations map[string]any) (dir string) {
	c.t.Helper()
	dir = filepath.Join(c.dir, name)
	c.try(exitOK, "", "policy", "show", "--out", dir)
	edit := func(name string, to func(string) string) {
		file := filepath.Join(dir, name)
		text, err := os.ReadFile(file)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(to(string(text))), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	edit("execution.rego", func(text string) string {
		kept := slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(line string) bool {
			return strings.Contains(line, "<= ceiling.") || strings.Contains(line, "ceiling := ")
		})
		return strings.Join(kept, "")
	})
	edit("ceilings.json", func(text string) string {
		var classes map[string]map[string]map[string]any
		if err := json.Unmarshal([]byte(text), &classes); err != nil {
			c.t.Fatal(err)
		}
		held := classes["standard"]["ordinary"]["obligations"].(map[string]any)
		maps.Copy(held, obligations)
		out, err := json.Marshal(classes)
		if err != nil {
			c.t.Fatal(err)
		}
		return string(out)
	})
	return dir
}

// intentOf reads the intent of the task that a report is about, and the decision in it.
func (c *testCluster) intentOf(rep a2a.Report) (audit.IntentBody, audit.Decision) {
	c.t.Helper()
	var page logPage
	c.json(&page, "audit", "list", "--task", rep.Task, "--kind", "intent")
	if len(page.Entries) != 1 {
		c.t.Fatalf("task %s has %d intents", rep.Task, len(page.Entries))
	}
	var entry audit.Entry
	if err := json.Unmarshal(page.Entries[0].Entry, &entry); err != nil {
		c.t.Fatal(err)
	}
	body, err := entry.Intent()
	if err != nil {
		c.t.Fatal(err)
	}
	if entry.Decision == nil {
		c.t.Fatalf("the intent of task %s has no decision", rep.Task)
	}
	return body, *entry.Decision
}

// Issue 6: obligations are honoured literally, here and on a peer, in real jails:
// programs that ask for more than policy lets them have, and take it, get what
// policy says, in the sandbox that it forces, and without a network.
//
// INVARIANT: I6, a limit that cannot be enforced refuses the run.
func TestObligationsAreHonouredLiterally(t *testing.T) {
	needPython(t)
	c := startCluster(t, 2)
	w := newWire(t, c)
	c.try(exitOK, "", "tenant", "set", defaultTenant, "--network", "*:*")
	// ask may be called on any goroutine.
	ask := func(node int, code string, change func(*a2a.Execution)) (a2a.Report, error) {
		asked := a2a.Execution{
			Language: "python", Code: code, On: string(c.Nodes[node].ID), Sandbox: "restricted", Network: "allow=example.org:443",
			Limits: a2a.Limits{MemoryBytes: 1 << 30, TimeoutMS: 120_000, OutputBytes: 4 << 20},
		}
		if change != nil {
			change(&asked)
		}
		req, err := a2a.NewRequest(asked)
		if err != nil {
			return a2a.Report{}, err
		}
		signed, err := a2a.Sign(w.key, req, a2a.SignOptions{Audience: w.audience})
		if err != nil {
			return a2a.Report{}, err
		}
		task, err := w.client.Send(t.Context(), signed, nil)
		if err != nil {
			return a2a.Report{Error: &a2a.ReportError{Code: a2a.FromWire(err).Code}}, nil
		}
		return a2a.ReportOf(task)
	}
	send := func(node int, code string, change func(*a2a.Execution)) a2a.Report {
		t.Helper()
		rep, err := ask(node, code, change)
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	const (
		eats   = "x = bytearray(300 << 20)\nresult = len(x)"
		floods = "import sys\nsys.stdout.write('x' * (2 << 20))\nresult = 'written'"
		proxy  = "import os\nresult = os.environ.get('HTTP_PROXY', '')"
		sleeps = "import time\ntime.sleep(100)\nresult = 'slept'"
	)

	// Unbound, each gets what it asks for.
	own := func(e *a2a.Execution) { e.Sandbox = "process" }
	for name, code := range map[string]string{"memory": eats, "output": floods, "network": proxy} {
		rep := send(0, code, own)
		if rep.Status != a2a.Succeeded || string(rep.Result) == `""` {
			t.Fatalf("%s, unbound: %+v", name, rep)
		}
		body, _ := c.intentOf(rep)
		if body.Network != "allow=example.org:443" || !strings.Contains(rep.Enforced[sandbox.LimitNetwork], "proxy") {
			t.Errorf("%s, unbound: network %q, enforced by %v", name, body.Network, rep.Enforced)
		}
	}
	if rep := send(0, proxy, nil); rep.Error == nil || rep.Intent != nil {
		t.Fatalf("python in the sandbox restricted: %+v", rep)
	}

	c.try(exitOK, "in force", "policy", "apply", c.obliging("bound", map[string]any{
		"memory_bytes": 64 << 20, "timeout_ms": 5000, "cpu_percent": 50, "output_bytes": 64 << 10, "file_size_bytes": 1 << 20,
		"processes": 8, "sandbox": "process", "tier": send(0, proxy, own).Tier, "network": map[string]bool{},
	}))
	want := map[string]int64{
		"memory_bytes": 64 << 20, "wall_ms": 5000, "cpu_percent": 50, "output_bytes": 64 << 10, "file_size_bytes": 1 << 20, "processes": 8,
	}
	cases := map[string]struct {
		code   string
		status a2a.Status
		exit   int
		err    string
	}{
		"memory":  {eats, a2a.Failed, 137, "out_of_memory"},
		"time":    {sleeps, a2a.TimedOut, 124, "timed_out"},
		"output":  {floods, a2a.Failed, 1, "output_limit"},
		"network": {proxy, a2a.Succeeded, 0, ""},
	}
	// All at once: one of them only waits.
	type answer struct {
		rep a2a.Report
		err error
	}
	var results [2]map[string]chan answer
	for node := range 2 {
		c.await("the policy to bind", func() bool { return send(node, proxy, nil).Status == a2a.Succeeded })
		results[node] = map[string]chan answer{}
		for name, tc := range cases {
			done := make(chan answer, 1)
			results[node][name] = done
			go func() {
				rep, err := ask(node, tc.code, nil)
				done <- answer{rep, err}
			}()
		}
	}
	for node := range 2 {
		for name, tc := range cases {
			got := <-results[node][name]
			if got.err != nil {
				t.Fatal(got.err)
			}
			rep := got.rep
			code := ""
			if rep.Error != nil {
				code = rep.Error.Code
			}
			if rep.Status != tc.status || rep.ExitCode != tc.exit || code != tc.err || rep.Sandbox != "process" || rep.Node != c.Nodes[node].ID {
				t.Errorf("node %d, %s: %s, exit %d, error %q in sandbox %q, want %+v", node+1, name, rep.Status, rep.ExitCode, code, rep.Sandbox, tc)
			}
			if len(rep.Stdout) > 64<<10 {
				t.Errorf("node %d, %s: %d bytes of output", node+1, name, len(rep.Stdout))
			}
			if name == "network" && string(rep.Result) != `""` {
				t.Errorf("node %d: the program is given a way out: %s", node+1, rep.Result)
			}
			for _, limit := range []string{sandbox.LimitMemory, sandbox.LimitWall, sandbox.LimitCPUPercent, sandbox.LimitOutput, sandbox.LimitNetwork} {
				if how := rep.Enforced[limit]; how == "" || strings.Contains(how, "proxy") {
					t.Errorf("node %d, %s: %s is enforced by %q", node+1, name, limit, how)
				}
			}
			body, decision := c.intentOf(rep)
			if !maps.Equal(body.Limits, want) || body.Network != "none" || body.Sandbox != "process" || body.Executor != c.Nodes[node].ID {
				t.Errorf("node %d, %s: the intent says %+v", node+1, name, body)
			}
			if o := decision.Obligations; o == nil || o.Sandbox != "process" || o.Limits["memory_bytes"] != want["memory_bytes"] || o.Limits["wall_ms"] != want["wall_ms"] {
				t.Errorf("node %d, %s: the decision says %+v", node+1, name, o)
			}
			if asked := body.Asked; asked == nil || asked.Sandbox != "restricted" || asked.Limits["memory_bytes"] != 1<<30 {
				t.Errorf("node %d, %s: asked is %+v", node+1, name, asked)
			}
			c.wantRecord(t, rep)
		}
	}

	// What is forced and cannot be had is not replaced by what can.
	c.try(exitOK, "in force", "policy", "apply", c.obliging("forced", map[string]any{"sandbox": "wasm"}))
	for node := range 2 {
		c.await("the other policy to bind", func() bool { return send(node, proxy, own).Status != a2a.Succeeded })
		if rep := send(node, proxy, own); rep.Error == nil || rep.Error.Code != a2a.CodeUnavailable || rep.Intent != nil {
			t.Errorf("node %d runs python although policy forces the sandbox wasm: %+v", node+1, rep)
		}
	}
}
