package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// needPython ends a test that runs Python on a machine that has none. In CI
// that is a failure.
func needPython(t *testing.T) {
	t.Helper()
	for _, name := range candidates {
		if _, err := os.Stat(name); err == nil {
			return
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("CI needs python3")
	}
	t.Skip("no python3 on this machine (apt-get install python3)")
}

var candidates = []string{"/usr/bin/python3", "/usr/local/bin/python3"}

// Issue 2: the five commands that dev prints work when pasted.
func TestDevPrintsCommandsThatWork(t *testing.T) {
	needPython(t)
	c := startCluster(t, 3)
	c.await("dev to have printed all", func() bool { return strings.Contains(c.out.String(), "Interrupt") })
	lines := regexp.MustCompile(`(?m)^[A-Z][a-z ]+: +(\S+/agenticraft .*)$`).FindAllStringSubmatch(c.out.String(), -1)
	if len(lines) != 5 {
		t.Fatalf("dev printed %d commands, want 5:\n%s", len(lines), c.out)
	}
	for _, line := range lines {
		want := exitOK
		if strings.Contains(line[1], "--network allow=") {
			want = exitDenied
		}
		r := c.runShell(line[1])
		if r.code != want {
			t.Errorf("%s\nexited with %d, want %d:\n%s%s", line[1], r.code, want, r.stdout, r.stderr)
		}
	}
}

// Issue 2: the original's example program, in both languages, here and on a
// peer, by API key and by agent key.
func TestCalculate(t *testing.T) {
	needPython(t)
	c := startCluster(t, 3)
	const program = "def calculate(x, y):\n    return x + y\n\nresult = calculate(10, 20)\n"
	for _, lang := range []string{"python", "starlark"} {
		for _, on := range []string{"local", string(c.Nodes[1].ID), string(c.Nodes[2].ID)} {
			for _, by := range [][]string{nil, {"--agent-key", filepath.Join(c.data, agentKeyFile)}} {
				rep, r := c.exec(0, append([]string{"--lang", lang, "--on", on, "-c", program}, by...)...)
				if r.code != exitOK || rep.Status != a2a.Succeeded || string(rep.Result) != "30" {
					t.Errorf("%s on %s by %v: exit %d, report %+v", lang, on, by, r.code, rep)
				}
				want := on
				if on == "local" {
					want = string(c.Nodes[0].ID)
				}
				if string(rep.Node) != want {
					t.Errorf("%s on %s ran on %s", lang, on, rep.Node)
				}
				for _, limit := range []string{"memory", "cpu_percent", "wall", "output", "file_size", "processes", "network"} {
					if rep.Enforced[limit] == "" {
						t.Errorf("%s: nothing says what enforced %s: %v", lang, limit, rep.Enforced)
					}
				}
			}
		}
	}
}

// Issue 2, bad input: each program's end, exit code and audit entries, and the
// node is as it was.
func TestHostilePrograms(t *testing.T) {
	needPython(t)
	c := startCluster(t, 1)
	// What is no text reaches the terminal as it was written, and once; what was not
	// kept is said.
	r := c.run("exec", "-c", `import os; os.write(1, b'\x00\x01\xff\x1b\xfe\n'); open('a\nb', 'w').write('x')`)
	if want := "\x00\x01\xff\x1b\xfe\n"; r.code != exitOK || r.stdout != want || !strings.Contains(r.stderr, "not all of it was kept: files") {
		t.Errorf("exec printed %q, want %q; exit %d, %s", r.stdout, want, r.code, r.stderr)
	}
	cases := map[string]struct {
		code   string
		args   []string
		status a2a.Status
		exit   int
		err    string
	}{
		"loops":            {code: "while True: pass", args: []string{"--timeout", "1s"}, status: a2a.TimedOut, exit: 124, err: "timed_out"},
		"sleeps":           {code: "import time; time.sleep(60)", args: []string{"--timeout", "1s"}, status: a2a.TimedOut, exit: 124, err: "timed_out"},
		"eats memory":      {code: "x = []\nwhile True: x.append(bytearray(1 << 20))", args: []string{"--memory", "64MiB"}, status: a2a.Failed, exit: 137, err: "out_of_memory"},
		"forks":            {code: "import os\nwhile True: os.fork()", args: []string{"--timeout", "3s"}},
		"floods stdout":    {code: "while True: print('x' * 65536)", args: []string{"--timeout", "20s"}, status: a2a.Failed, exit: 1, err: "output_limit"},
		"reads passwd":     {code: "result = open('/etc/shadow').read()", status: a2a.Failed, exit: 1},
		"opens a socket":   {code: "import socket; socket.create_connection(('127.0.0.1', 80), 1)", status: a2a.Failed, exit: 1},
		"exits early":      {code: "import sys; sys.exit(7)\nresult = 1", status: a2a.Failed, exit: 7},
		"exits with 3":     {code: "raise SystemExit(3)", status: a2a.Failed, exit: 3},
		"returns NaN":      {code: "result = float('nan')", status: a2a.Failed, exit: 1, err: "result_not_json"},
		"returns a circle": {code: "result = []; result.append(result)", status: a2a.Failed, exit: 1, err: "result_not_json"},
		"returns a set":    {code: "result = {1}", status: a2a.Failed, exit: 1, err: "result_not_json"},
		"syntax error":     {code: "def", status: a2a.Failed, exit: 1},
		"raises":           {code: "1 / 0", status: a2a.Failed, exit: 1},
		"sets nothing":     {code: "pass", status: a2a.Succeeded, exit: 0},
	}
	if rep, r := c.exec(0, "-c", "result = 1"); r.code != exitOK {
		t.Fatalf("a benign run: %+v", rep)
	}
	// Another jail is made in place of the one just used: count when it waits.
	jails := 0
	c.await("a jail to wait", func() bool {
		before := jails
		jails = len(jailProcesses(t, c.Nodes[0].PID))
		time.Sleep(500 * time.Millisecond)
		return jails > 1 && jails == before
	})
	memory := rss(t, c.Nodes[0].PID)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			rep, r := c.exec(0, append([]string{"-c", tc.code}, tc.args...)...)
			if tc.status != "" && (rep.Status != tc.status || r.code != tc.exit) {
				t.Errorf("status %s exit %d, want %s %d (%+v)", rep.Status, r.code, tc.status, tc.exit, rep.Error)
			}
			if tc.err != "" && (rep.Error == nil || rep.Error.Code != tc.err) {
				t.Errorf("error %+v, want %s", rep.Error, tc.err)
			}
			if string(rep.Result) != "null" {
				t.Errorf("result is %s, want null", rep.Result)
			}
			c.wantRecord(t, rep)
		})
	}
	// The node still works, and is as it was: what is left of jails are those
	// that wait for the next request, as before.
	if rep, r := c.exec(0, "-c", "result = 1"); r.code != exitOK {
		t.Errorf("a benign run after all that: %+v", rep)
	}
	c.await("the jails to be gone", func() bool { return len(jailProcesses(t, c.Nodes[0].PID)) <= jails })
	if now := rss(t, c.Nodes[0].PID); now > memory+96<<20 {
		t.Errorf("the node grew from %d to %d MiB", memory>>20, now>>20)
	}
}

// jailProcesses are the descendants of a node, its spawner included.
func jailProcesses(t *testing.T, node int) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has just ended
		}
		var pid, parent int
		var state string
		_, rest, _ := strings.Cut(string(text), ") ")
		if _, err := fmt.Sscan(string(text), &pid); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
			t.Fatal(err)
		}
		children[parent] = append(children[parent], pid)
	}
	var all []int
	for queue := []int{node}; len(queue) > 0; queue = queue[1:] {
		all = append(all, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}
	return all
}

// wantRecord checks that the task has exactly one intent and one outcome, and
// that the outcome says what the report says.
func (c *testCluster) wantRecord(t *testing.T, rep a2a.Report) {
	t.Helper()
	var page logPage
	c.json(&page, "audit", "list", "--task", rep.Task, "--order", "oldest")
	if len(page.Entries) != 2 {
		t.Errorf("task %s has %d entries, want intent and outcome", rep.Task, len(page.Entries))
		return
	}
	first := decodeEntry(t, page.Entries[0])
	if first.Kind != audit.KindIntent || rep.Intent == nil || *rep.Intent != page.Entries[0].Index {
		t.Errorf("first entry is %+v, report says intent %v", first, rep.Intent)
	}
	out, err := decodeEntry(t, page.Entries[1]).Outcome()
	if err != nil || out.Status != string(rep.Status) || out.ExitCode != rep.ExitCode {
		t.Errorf("outcome is %+v (%v), report says %s %d", out, err, rep.Status, rep.ExitCode)
	}
}

// decodeEntry reads an entry as the command line prints it: indented, where the
// log has it in canonical form.
func decodeEntry(t *testing.T, e httpdoor.LogEntry) audit.Entry {
	t.Helper()
	var leaf bytes.Buffer
	if err := json.Compact(&leaf, e.Entry); err != nil {
		t.Fatal(err)
	}
	entry, err := audit.DecodeEntry(leaf.Bytes())
	if err != nil {
		t.Fatalf("entry %d: %v\n%s", e.Index, err, leaf.Bytes())
	}
	return entry
}

// Issue 2: usage, denial, credentials, unavailability and verification each
// have their exit code, error document and hint.
func TestExitCodes(t *testing.T) {
	c := startCluster(t, 1)
	bad := filepath.Join(c.dir, "bad.key")
	if err := os.WriteFile(bad, []byte("ac_aaaaaaaaaa_nope"), 0o600); err != nil {
		t.Fatal(err)
	}
	stranger := filepath.Join(c.dir, "stranger.key")
	if r := c.run("agent", "keygen", stranger); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	large := func(name string, size int) string {
		file := filepath.Join(c.dir, name)
		if err := os.WriteFile(file, bytes.Repeat([]byte("#"), size), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, tc := range map[string]struct {
		args []string
		exit int
		code string
	}{
		"too much code":       {[]string{"exec", large("large.py", a2a.MaxCodeBytes+1)}, exitUsage, "too_large"},
		"a folder as a file":  {[]string{"exec", "-c", "x = 1", "--file", t.TempDir()}, exitUsage, "usage"},
		"a folder as code":    {[]string{"exec", "--lang", "python", t.TempDir()}, exitUsage, "usage"},
		"too large a file":    {[]string{"exec", "-c", "x = 1", "--file", large("larger.bin", maxCodeFile+1)}, exitUsage, "too_large"},
		"too large a module":  {[]string{"exec", large("large.wasm", a2a.MaxFilesBytes+1)}, exitUsage, "too_large"},
		"unknown command":     {[]string{"frobnicate"}, exitUsage, "usage"},
		"unknown subcommand":  {[]string{"task", "frobnicate"}, exitUsage, "usage"},
		"unknown shell":       {[]string{"completion", "frobnicate"}, exitUsage, "usage"},
		"serve without data":  {[]string{"serve"}, exitUsage, "usage"},
		"unknown flag":        {[]string{"exec", "--frob"}, exitUsage, "usage"},
		"no program":          {[]string{"exec"}, exitUsage, "usage"},
		"two programs":        {[]string{"exec", "-c", "1", "x.py"}, exitUsage, "usage"},
		"unknown language":    {[]string{"exec", "--lang", "cobol", "-c", "1"}, exitUsage, "usage"},
		"missing file":        {[]string{"exec", "no-such-file.py"}, exitUsage, "usage"},
		"negative timeout":    {[]string{"exec", "--timeout", "-1s", "-c", "1"}, exitUsage, "usage"},
		"no time":             {[]string{"exec", "--timeout", "0", "-c", "1"}, exitUsage, "usage"},
		"no CPU":              {[]string{"exec", "--cpu", "0", "-c", "1"}, exitUsage, "usage"},
		"program of no end":   {[]string{"exec", "/dev/zero"}, exitUsage, "too_large"},
		"receipt of no end":   {[]string{"verify", "/dev/zero", "--trust", "/dev/zero"}, exitUsage, "too_large"},
		"bad memory":          {[]string{"exec", "--memory", "lots", "-c", "1"}, exitUsage, "usage"},
		"network denied":      {[]string{"exec", "--lang", "starlark", "--network", "allow=example.org:443", "-c", "x = 1"}, exitDenied, "network_not_allowed"},
		"too much memory":     {[]string{"exec", "--lang", "starlark", "--memory", "1000GiB", "-c", "x = 1"}, exitDenied, "limit_memory"},
		"wrong API key":       {[]string{"status", "--api-key-file", bad}, exitDenied, "unauthenticated"},
		"unregistered agent":  {[]string{"exec", "--lang", "starlark", "--agent-key", stranger, "-c", "x = 1"}, exitDenied, "unauthenticated"},
		"stranger reads":      {[]string{"status", "--agent-key", stranger}, exitDenied, "unauthenticated"},
		"nobody there":        {[]string{"status", "--server", "http://127.0.0.1:1"}, exitUnavailable, "unavailable"},
		"exec nobody there":   {[]string{"exec", "--server", "http://127.0.0.1:1", "-c", "1"}, exitUnavailable, "unavailable"},
		"no such task":        {[]string{"task", "show", strings.Repeat("0", 32)}, exitFailed, "not_found"},
		"no such entry":       {[]string{"audit", "show", "999999"}, exitFailed, "not_found"},
		"no such node":        {[]string{"exec", "--lang", "starlark", "--on", "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "-c", "x = 1"}, exitUsage, "invalid_request"},
		"no such module":      {[]string{"exec", "--lang", "wasm", "-c", "x"}, exitUsage, "invalid_request"},
		"no trust":            {[]string{"verify", "receipt.json"}, exitUsage, "usage"},
		"verify a non-folder": {[]string{"audit", "verify", "/no/such/folder"}, exitFailed, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.run(append(tc.args, "--json")...)
			var doc struct {
				Error *struct{ Code, Message, Hint string } `json:"error"`
			}
			if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil || doc.Error == nil {
				t.Fatalf("exit %d, printed no error document: %v\n%s%s", r.code, err, r.stdout, r.stderr)
			}
			if r.code != tc.exit || doc.Error.Code != tc.code || doc.Error.Message == "" {
				t.Errorf("exit %d error %+v, want %d %s", r.code, *doc.Error, tc.exit, tc.code)
			}
			if name == "too large a module" && !strings.Contains(doc.Error.Hint, "runtime add") {
				t.Errorf("what can be done about it is not said: %+v", *doc.Error)
			}
			if human := c.run(tc.args...); human.code != tc.exit || !strings.Contains(human.stderr, "agenticraft: ") {
				t.Errorf("without --json: exit %d, stderr %q", human.code, human.stderr)
			}
		})
	}
}

// Issue 2: with two of three keepers down, exec says unavailable within 5 s
// and nothing runs.
//
// INVARIANT: I1, nothing runs before its intent is durable on a quorum.
func TestNothingRunsWithoutAQuorum(t *testing.T) {
	c := startCluster(t, 3)
	c.kill(1)
	c.kill(2)
	for range 2 {
		rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1")
		if r.code != exitUnavailable || rep.ExitCode != exitUnavailable || rep.Error == nil || rep.Error.Code != a2a.CodeUnavailable || rep.Intent != nil || string(rep.Result) != "null" {
			t.Errorf("exit %d, report %+v", r.code, rep)
		}
		if most := slowness * 5 * time.Second; r.took > most {
			t.Errorf("it took %v, want at most %v", r.took, most)
		}
	}
	if r := c.run("key", "create", "--name", "x", "--role", "viewer"); r.code != exitUnavailable {
		t.Errorf("key create exited with %d: %s", r.code, r.stderr)
	}
	// A node that comes back makes a quorum again, and the log is whole.
	c.restart(1)
	c.await("a quorum", func() bool {
		rep, _ := c.exec(0, "--lang", "starlark", "-c", "result = 2")
		return rep.Status == a2a.Succeeded
	})
	// An intent that was on its way when the quorum was lost may be in the log
	// now. It never ran, and ends as lost.
	ends := map[string]string{}
	c.await("an outcome for each intent", func() bool {
		var intents, outcomes logPage
		c.json(&intents, "audit", "list", "--kind", "intent")
		c.json(&outcomes, "audit", "list", "--kind", "outcome")
		for _, e := range outcomes.Entries {
			entry := decodeEntry(t, e)
			out, err := entry.Outcome()
			if err != nil {
				t.Fatal(err)
			}
			ends[entry.Task] = out.Status
		}
		return len(intents.Entries) == len(outcomes.Entries)
	})
	succeeded := 0
	for _, status := range ends {
		switch status {
		case audit.StatusSucceeded:
			succeeded++
		case audit.StatusLost:
		default:
			t.Errorf("a task ended as %s", status)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d tasks succeeded, want only the last", succeeded)
	}
}

// Issue 2: a task that ran when its node died ends as lost, never stuck, and a
// task that ended survives a restart.
//
// INVARIANT: I2, every intent gets exactly one outcome.
func TestTasksOfADeadNodeEnd(t *testing.T) {
	needPython(t)
	for _, tc := range []struct {
		name     string
		victim   int // node that is killed
		executor int
		restart  bool
	}{
		{"executor dies and stays away", 2, 2, false},
		{"executor comes back", 1, 1, true},
		{"door dies and comes back, executor lives", 0, 1, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := startCluster(t, 3)
			before, _ := c.exec(0, "--lang", "starlark", "-c", "result = 'kept'")
			r := c.run("exec", "--detach", "--json", "--on", string(c.Nodes[tc.executor].ID), "--timeout", "4s", "-c", "import time; time.sleep(3); result = 'slept'")
			var rep a2a.Report
			if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
				t.Fatalf("%v\n%s%s", err, r.stdout, r.stderr)
			}
			watch := (tc.victim + 1) % 3
			c.await("the intent", func() bool {
				var page logPage
				c.json(&page, "audit", "list", "--kind", "intent", "--task", rep.Task, "--server", c.Nodes[watch].HTTP)
				return len(page.Entries) == 1
			})
			c.kill(tc.victim)
			if tc.restart {
				c.restart(tc.victim)
			}
			var got a2a.Report
			c.await("the task's end", func() bool {
				r := c.run("task", "show", rep.Task, "--json", "--server", c.Nodes[watch].HTTP)
				return json.Unmarshal([]byte(r.stdout), &got) == nil && got.Status.Terminal()
			})
			want := a2a.Lost
			if tc.victim != tc.executor {
				want = a2a.Succeeded
			}
			if got.Status != want {
				t.Errorf("task ended as %s, want %s", got.Status, want)
			}
			c.await("its one outcome", func() bool {
				var page logPage
				c.json(&page, "audit", "list", "--kind", "outcome", "--task", rep.Task, "--server", c.Nodes[watch].HTTP)
				if len(page.Entries) > 1 {
					t.Fatalf("the task has %d outcomes, want 1", len(page.Entries))
				}
				return len(page.Entries) == 1
			})
			if !tc.restart {
				return
			}
			// The door itself knows the end, too, and has what ended before.
			c.await("the door's task to end", func() bool {
				r := c.run("task", "show", rep.Task, "--json")
				return json.Unmarshal([]byte(r.stdout), &got) == nil && got.Status == want
			})
			var kept a2a.Report
			c.json(&kept, "task", "show", before.Task)
			if kept.Status != a2a.Succeeded || string(kept.Result) != `"kept"` {
				t.Errorf("a task from before the restart is %+v", kept)
			}
		})
	}
}

// Issue 2: SIGKILL of dev itself leaves no process within 5 s.
func TestNothingSurvivesDev(t *testing.T) {
	c := startCluster(t, 3)
	if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
		t.Fatalf("%+v", rep)
	}
	if err := c.dev.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = c.dev.Wait() // it was killed
	c.dev = nil
	const most = slowness * 5 * time.Second
	deadline := time.Now().Add(most)
	for left := []string{"unknown"}; len(left) > 0; {
		if left = c.leftovers(t); time.Now().After(deadline) && len(left) > 0 {
			t.Fatalf("%v after dev was killed there are still: %v", most, left)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// leftovers are processes, control groups and mounts of the cluster's nodes.
func (c *testCluster) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, n := range c.Nodes {
		if alive(n.PID) {
			left = append(left, "node process")
		}
		name := jailName(n.ID)
		procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range procs {
			if text, err := os.ReadFile(p); err == nil && strings.Contains(string(text), name) {
				left = append(left, strings.ReplaceAll(string(text), "\x00", " "))
			}
		}
		for _, pattern := range []string{"/sys/fs/cgroup/*/*" + name + "*", "/sys/fs/cgroup/*" + name + "*", "/sys/fs/cgroup/*/*/*" + name + "*"} {
			groups, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, groups...)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), c.data) {
		left = append(left, "a mount below the data folder")
	}
	return left
}
