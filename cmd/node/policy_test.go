package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/authz"
)

// Issue 6: a policy is shown, changed, tested, replayed, applied on every node
// within a second, survives restarts, and is rolled back by one command.
func TestPolicyAsAProduct(t *testing.T) {
	c := startCluster(t, 3)
	dir := filepath.Join(c.dir, "candidate")
	if r := c.run("policy", "show", "--out", dir); r.code != exitOK {
		t.Fatalf("policy show --out: %s", r.stderr)
	}
	original := filepath.Join(c.dir, "original")
	if r := c.run("policy", "show", "--out", original); r.code != exitOK {
		t.Fatalf("policy show --out: %s", r.stderr)
	}
	edit := func(name, from, to string) {
		t.Helper()
		file := filepath.Join(dir, name)
		text, err := os.ReadFile(file)
		if err != nil || from != "" && !strings.Contains(string(text), from) {
			if from != "" {
				t.Fatalf("%s holds no %q: %v", name, from, err)
			}
		}
		out := to
		if from != "" {
			out = strings.Replace(string(text), from, to, 1)
		}
		if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit("ceilings.json", `"starlark": true`, `"starlark": false`)
	edit("candidate_test.rego", "", "package agenticraft.candidate_test\n\nimport rego.v1\n\nimport data.agenticraft.authz\n\ntest_nobody if {\n\tnot authz.decision.allow with input as {}\n}\n")
	edit("golden.json", "", `[{"case": "python", "roles": ["runner"], "allow": true}, {"case": "no starlark", "roles": ["runner"], "language": "starlark", "reasons": ["language_not_allowed"]}]`)
	var report authz.TestReport
	c.json(&report, "policy", "test", dir)
	if report.Rego != 1 || report.Golden != 2 || len(report.Failures) != 0 {
		t.Errorf("policy test = %+v", report)
	}

	star := func(node int) (a2a.Report, result) { return c.exec(node, "--lang", "starlark", "-c", "result = 1") }
	if rep, _ := star(0); rep.Status != a2a.Succeeded {
		t.Fatalf("before: %+v", rep)
	}
	var replayed replayView
	c.json(&replayed, "policy", "replay", dir, "--last", "10")
	if len(replayed.Differences) != 1 || replayed.Differences[0].Now || replayed.Differences[0].Reasons[0] != "language_not_allowed" {
		t.Errorf("policy replay = %+v", replayed)
	}

	var change policyChange
	c.json(&change, "policy", "apply", dir)
	began := time.Now()
	if change.Digest != report.Digest || !change.Active {
		t.Errorf("policy apply = %+v", change)
	}
	active := func(node int, digest string) bool {
		var s statusView
		c.json(&s, "status", "--server", c.Nodes[node].HTTP)
		return s.Policy == digest && s.PolicyError == ""
	}
	for node := range 3 {
		c.await("the policy to be active", func() bool { return active(node, change.Digest) })
	}
	if took := time.Since(began); took > slowness*2*time.Second {
		t.Errorf("the policy was active on all nodes after %v", took)
	}
	for node := range 3 {
		if rep, r := star(node); r.code != exitDenied || rep.Error.Code != "language_not_allowed" {
			t.Errorf("node %d: exit %d, %+v", node+1, r.code, rep.Error)
		}
	}
	// What was denied is decided again, too; what the caller worded is not in the log.
	c.exec(0, "--lang", "starlark", "--network", "allow=example.org:443", "-c", "result = 1")
	c.await("the denials to be replayed", func() bool {
		c.json(&replayed, "policy", "replay", original, "--last", "20")
		allowed := 0
		for _, d := range replayed.Differences {
			if !d.Logged && d.Now {
				allowed++
			}
		}
		return allowed == 3 && replayed.NotDecided["a denial whose network the log does not hold"] == 1
	})
	var e authz.Explanation
	c.json(&e, "policy", "explain", "--role", "viewer", "--lang", "starlark")
	if e.Allow || len(e.WouldAllow) == 0 || len(e.WouldAllow[0]) != 2 || e.Policy != change.Digest {
		t.Errorf("policy explain = %+v", e)
	}

	// Nor is one taken under which nobody could put it right again.
	shut := filepath.Join(c.dir, "shut")
	if err := os.CopyFS(shut, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shut, "decision.rego"), []byte("package agenticraft.authz\n\nimport rego.v1\n\ndecision := {\"allow\": false}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(shut, "golden.json")); err != nil {
		t.Fatal(err)
	}
	c.try(exitOK, "", "policy", "test", shut)
	c.try(exitUsage, "could not do policy.apply", "policy", "apply", shut)
	c.try(exitUsage, "--last 0", "policy", "replay", dir, "--last", "0")

	// What is no policy, or fails its own tests, changes nothing.
	for name, bad := range map[string][2]string{
		"syntax":          {"decision.rego", "package agenticraft.authz\n\nimport rego.v1\n\ndecision := {"},
		"network":         {"more.rego", "package agenticraft.more\n\nimport rego.v1\n\nx := http.send({})"},
		"recursion":       {"more.rego", "package agenticraft.more\n\nimport rego.v1\n\na if b\n\nb if a"},
		"lets nobody in":  {"decision.rego", "package agenticraft.authz\n\nimport rego.v1\n\ndecision := {\"allow\": true}"},
		"fails its tests": {"golden.json", `[{"case": "viewer runs", "roles": ["viewer"], "allow": true}]`},
		"ten megabytes":   {"big.json", `"` + strings.Repeat("x", 10<<20) + `"`},
	} {
		worse := filepath.Join(c.dir, "worse")
		if err := os.RemoveAll(worse); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(worse, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(worse, bad[0]), []byte(bad[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := c.run("policy", "apply", worse); r.code == exitOK {
			t.Errorf("%s: exit %d", name, r.code)
		}
		want := exitFailed
		if name == "ten megabytes" {
			want = exitUsage
		}
		if r := c.run("policy", "test", worse); r.code != want {
			t.Errorf("%s: policy test exits with %d", name, r.code)
		}
	}
	if !active(0, change.Digest) {
		t.Error("a bad policy took the good one's place")
	}

	c.kill(2)
	c.restart(2)
	c.await("the policy to be active after a restart", func() bool { return active(2, change.Digest) })

	c.json(&change, "policy", "apply", "--rollback")
	for node := range 3 {
		c.await("the policy before to be active", func() bool { return active(node, change.Digest) })
		if rep, _ := star(node); rep.Status != a2a.Succeeded {
			t.Errorf("node %d after the rollback: %+v", node+1, rep.Error)
		}
	}
}
