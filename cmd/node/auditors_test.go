package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/threat"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// What an auditor gets can be checked without the cluster, and what he does is
// in the log.
func TestAuditorsTools(t *testing.T) {
	c := startCluster(t, 3)
	rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1")
	if r.code != exitOK {
		t.Fatalf("%+v %s", rep, r.stderr)
	}
	denied := c.run("exec", "--lang", "starlark", "--network", "allow=example.org:443", "-c", "x = 1")
	if denied.code != exitDenied {
		t.Fatalf("exit %d", denied.code)
	}
	trust, proof, out := filepath.Join(c.dir, "trust.json"), filepath.Join(c.dir, "proof"), filepath.Join(c.dir, "out.csv")
	if err := os.WriteFile(trust, []byte(c.run("trust", "export").stdout), 0o600); err != nil {
		t.Fatal(err)
	}

	t.Run("export", func(t *testing.T) {
		for _, format := range []string{"jsonl", "csv", "ocsf", "cef"} {
			plain := c.run("audit", "export", "--format", format, "--task", rep.Task)
			proved := c.run("audit", "export", "--format", format, "--task", rep.Task, "--proof", proof)
			if plain.code != exitOK || proved.code != exitOK || plain.stdout != proved.stdout || plain.stdout == "" {
				t.Fatalf("%s: %d %d\n%s%s%s%s", format, plain.code, proved.code, plain.stdout, proved.stdout, plain.stderr, proved.stderr)
			}
			if err := os.WriteFile(out, []byte(proved.stdout), 0o600); err != nil {
				t.Fatal(err)
			}
			if v := c.run("verify", proof, "--trust", trust, "--export", out); v.code != exitOK || !strings.Contains(v.stdout, "verified") {
				t.Errorf("%s: exit %d\n%s%s", format, v.code, v.stdout, v.stderr)
			}
			for name, forged := range map[string]string{
				"a byte changed": strings.Replace(proved.stdout, "succeeded", "succeedex", 1),
				"cut":            proved.stdout[:len(proved.stdout)-1], "more": proved.stdout + "\n",
			} {
				if err := os.WriteFile(out, []byte(forged), 0o600); err != nil {
					t.Fatal(err)
				}
				if v := c.run("verify", proof, "--trust", trust, "--export", out); v.code != exitUnverified {
					t.Errorf("%s, %s: exit %d\n%s", format, name, v.code, v.stdout)
				}
			}
		}
		text, err := os.ReadFile(proof)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(proof, bytes.Replace(text, []byte("succeeded"), []byte("timed_out"), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if v := c.run("verify", proof, "--trust", trust); v.code != exitUnverified || !strings.Contains(v.stdout, "BAD  inclusion") {
			t.Errorf("exit %d\n%s", v.code, v.stdout)
		}
		whole := c.run("audit", "export", "--proof", proof)
		if v := c.run("verify", proof, "--trust", trust); whole.code != exitOK || v.code != exitOK || !strings.Contains(v.stdout, "ok   complete") {
			t.Errorf("whole: exit %d %d\n%s%s", whole.code, v.code, whole.stderr, v.stdout)
		}
		var document struct{ Entries []httpdoor.LogEntry }
		c.json(&document, "audit", "export", "--limit", "2")
		if len(document.Entries) != 2 || document.Entries[1].Index != 1 {
			t.Errorf("two entries as one document: %+v", document)
		}
		for _, args := range [][]string{{"--format", "xml"}, {"--limit", "-1"}, {"--limit", "1", "--proof", proof}, {"--kind", "poem"}} {
			if r := c.run(append([]string{"audit", "export"}, args...)...); r.code != exitUsage {
				t.Errorf("%v: exit %d %s", args, r.code, r.stderr)
			}
		}
	})

	t.Run("show", func(t *testing.T) {
		tree := c.run("audit", "show", rep.Task)
		for _, want := range []string{"task " + rep.Task, "starlark, network none", "allowed", "succeeded, exit 0", "receipt: to be had"} {
			if !strings.Contains(tree.stdout, want) {
				t.Errorf("no %q in\n%s%s", want, tree.stdout, tree.stderr)
			}
		}
		var story audit.Story
		c.json(&story, "audit", "show", rep.Task)
		if len(story.Attempts) != 1 || story.Attempts[0].Intent != *rep.Intent || story.Attempts[0].Outcome == nil || !story.Receipt.Available || len(story.Entries) != 2 {
			t.Errorf("%+v", story)
		}
		if r := c.run("audit", "show", strings.Repeat("0", 32)); r.code != exitFailed {
			t.Errorf("no such task: exit %d", r.code)
		}
	})

	t.Run("evidence", func(t *testing.T) {
		// Through another door than the executor's.
		far, r := c.exec(0, "--lang", "starlark", "--on", string(c.Nodes[1].ID), "-c", "print(7)\nresult = 42")
		if r.code != exitOK {
			t.Fatal(r.stderr)
		}
		var view agent.EvidenceView
		c.json(&view, "audit", "evidence", "show", far.Task)
		digest := ""
		for _, p := range view.Parts {
			if p.Name == "code" {
				digest = p.SHA256
			}
		}
		if view.Node != c.Nodes[1].ID || digest == "" {
			t.Fatalf("%+v", view)
		}
		for part, want := range map[string]string{"stdout": "7\n", "result": "42", digest: "print(7)\nresult = 42"} {
			if r := c.run("audit", "evidence", "get", far.Task, part); r.code != exitOK || r.stdout != want {
				t.Errorf("%s: exit %d %q %s", part, r.code, r.stdout, r.stderr)
			}
		}
		// By the digest alone, whoever keeps it.
		if r := c.run("audit", "evidence", "get", "sha256:"+digest); r.code != exitOK || r.stdout != "print(7)\nresult = 42" {
			t.Errorf("by its digest: exit %d %q %s", r.code, r.stdout, r.stderr)
		}
		var search agent.EvidenceSearch
		c.json(&search, "audit", "evidence", "find", "sha256:"+digest, "--server", c.Nodes[2].HTTP)
		if len(search.Found) != 1 || search.Found[0] != (agent.FoundEvidence{Task: far.Task, Node: c.Nodes[1].ID, Part: "code", Bytes: 20}) || len(search.Unasked) != 0 {
			t.Errorf("%+v", search)
		}
		for text, code := range map[string]int{"sha256:" + strings.Repeat("0", 64): exitFailed, "sha256:12": exitUsage, digest: exitUsage, "sha256:": exitUsage} {
			if r := c.run("audit", "evidence", "find", text); r.code != code {
				t.Errorf("find %s: exit %d, want %d: %s", text, r.code, code, r.stderr)
			}
		}
		if r := c.run("audit", "evidence", "get", "poem"); r.code != exitUsage {
			t.Errorf("neither a digest nor a part: exit %d", r.code)
		}
		if r := c.run("audit", "evidence", "get", far.Task, "poem"); r.code != exitFailed {
			t.Errorf("no such part: exit %d", r.code)
		}
		inspector := filepath.Join(c.dir, "evidence.key")
		if err := os.WriteFile(inspector, []byte(c.run("key", "create", "--name", "curious", "--role", "auditor").stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		runner := filepath.Join(c.dir, "runner.key")
		if err := os.WriteFile(runner, []byte(c.run("key", "create", "--name", "runs", "--role", "runner").stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := c.run("audit", "evidence", "find", "sha256:"+digest, "--api-key-file", runner); r.code != exitDenied {
			t.Errorf("a runner looks for what others ran: exit %d %s", r.code, r.stdout)
		}
		if r := c.run("audit", "evidence", "get", "sha256:"+digest, "--api-key-file", inspector); r.code != exitOK {
			t.Errorf("an auditor: exit %d %s", r.code, r.stderr)
		}
		if r := c.run("audit", "evidence", "erase", far.Task, "--api-key-file", inspector); r.code != exitDenied {
			t.Errorf("an auditor erases: exit %d %s", r.code, r.stderr)
		}
		if r := c.run("audit", "evidence", "erase", far.Task); r.code != exitOK || !strings.Contains(r.stdout, "erased, as entry") {
			t.Errorf("exit %d %s%s", r.code, r.stdout, r.stderr)
		}
		if r := c.run("audit", "evidence", "get", "sha256:"+digest); r.code != exitFailed || r.stdout != "" {
			t.Errorf("erased, by its digest: exit %d %s", r.code, r.stdout)
		}
		if r := c.run("audit", "evidence", "show", far.Task); r.code != exitFailed {
			t.Errorf("erased evidence: exit %d %s", r.code, r.stdout)
		}
		if r := c.run("audit", "show", far.Task); !strings.Contains(r.stdout, "receipt: none: its evidence was erased") {
			t.Errorf("%s%s", r.stdout, r.stderr)
		}
		if r := c.run("tenant", "set", "default", "--keep-evidence", "720h"); r.code != exitOK || !strings.Contains(r.stdout, `"evidence_hours": 720`) {
			t.Errorf("exit %d %s%s", r.code, r.stdout, r.stderr)
		}
		if r := c.run("tenant", "set", "default", "--keep-evidence", "soon"); r.code != exitUsage {
			t.Errorf("exit %d", r.code)
		}
	})

	t.Run("state", func(t *testing.T) {
		before := time.Now()
		if r := c.run("key", "create", "--name", "inspector", "--role", "auditor"); r.code != exitOK {
			t.Fatal(r.stderr)
		}
		var then, now, first stateView
		c.json(&then, "audit", "state", "--at", before.UTC().Format(time.RFC3339Nano))
		c.json(&now, "audit", "state")
		c.json(&first, "audit", "state", "--at", "0")
		if first.At != 0 || len(then.Keys)+1 != len(now.Keys) || len(first.Keys) != 1 || len(now.Members) != 3 {
			t.Errorf("keys: %d at first, %d then, %d now", len(first.Keys), len(then.Keys), len(now.Keys))
		}
		if r := c.run("audit", "state"); !strings.Contains(r.stdout, "inspector, tenant") {
			t.Error(r.stdout)
		}
		if r := c.run("audit", "state", "--at", "99999999"); r.code != exitFailed {
			t.Errorf("an entry that is not there: exit %d", r.code)
		}
		if r := c.run("audit", "state", "--at", "yesterday"); r.code != exitUsage {
			t.Errorf("no time: exit %d", r.code)
		}
	})

	t.Run("threats", func(t *testing.T) {
		const denied = 10
		before := c.count(0, "denial")
		for range denied {
			c.run("exec", "--lang", "starlark", "--network", "allow=example.org:443", "-c", "x = 1")
		}
		// No request waits for its denial to be written; the one that is let in must
		// come behind them.
		c.await("the denials to be on record", func() bool { return c.count(0, "denial") >= before+denied })
		if _, r := c.exec(1, "--lang", "starlark", "-c", "x = 1"); r.code != exitOK {
			t.Fatal(r.stderr)
		}
		c.await("the alerts, once each", func() bool {
			var out struct{ Alerts []alertView }
			c.json(&out, "audit", "threats")
			seen := map[string]int{}
			for _, a := range out.Alerts {
				seen[a.Rule]++
			}
			if seen[threat.RuleProbing] > 1 || seen[threat.RuleBreakIn] > 1 {
				t.Fatalf("%+v", out.Alerts)
			}
			return seen[threat.RuleProbing] == 1 && seen[threat.RuleBreakIn] == 1
		})
		if r := c.run("audit", "threats", "--rule", threat.RuleBreakIn); r.code != exitOK || !strings.Contains(r.stdout, "high   denied_then_allowed") {
			t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	})

	t.Run("reads are logged", func(t *testing.T) {
		reads := func() map[string]audit.ReadBody {
			var page logPage
			c.json(&page, "audit", "list", "--kind", "read", "--limit", "1000")
			out := map[string]audit.ReadBody{}
			for _, e := range page.Entries {
				body, err := decodeEntry(t, e).Read()
				if err != nil {
					t.Fatal(err)
				}
				out[body.Action] = body
			}
			return out
		}
		if r := c.run("audit", "follow", "--limit", "1"); r.code != exitOK {
			t.Fatal(r.stderr)
		}
		c.await("the exports, and following's start and end", func() bool {
			got := reads()
			return got[audit.ReadExport].Format != "" && got[audit.ReadFollowStart].Count > 0 && got[audit.ReadFollowEnd].Entries > 0
		})
	})
}

// Following survives the death of the node that it follows, and neither loses
// nor repeats an entry.
func TestFollowSurvivesItsNode(t *testing.T) {
	c := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), commandWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, testBinary, "audit", "follow", "--kind", "intent,outcome", "--server", c.Nodes[2].HTTP)
	cmd.Env = c.env()
	printed, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	run := func() {
		if rep, r := c.exec(0, "--lang", "starlark", "--on", string(c.Nodes[0].ID), "-c", "result = 1"); r.code != exitOK {
			t.Fatalf("%+v", rep)
		}
	}
	run()
	c.kill(2)
	run()
	c.restart(2)
	run()
	var page logPage
	c.json(&page, "audit", "list", "--kind", "intent,outcome", "--limit", "1000", "--order", "oldest")
	last := page.Entries[len(page.Entries)-1].Index
	from := exec.CommandContext(ctx, testBinary, "audit", "follow", "--from", strconv.FormatUint(last, 10), "--limit", "1")
	from.Env = c.env()
	text, err := from.Output()
	if one, bad := audit.ParseEntryLine(bytes.TrimSpace(text)); err != nil || bad != nil || one.Index != last {
		t.Errorf("from %d: %s %v %v", last, text, err, bad)
	}
	var got []uint64
	for lines := bufio.NewScanner(printed); len(got) < len(page.Entries) && lines.Scan(); {
		var e httpdoor.LogEntry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Index)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted, follow ends with %v", err)
	}
	if len(got) != len(page.Entries) {
		t.Fatalf("%v, want %d entries", got, len(page.Entries))
	}
	for i, e := range page.Entries {
		if got[i] != e.Index {
			t.Errorf("%d, want %d", got[i], e.Index)
		}
	}
}
