package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestExport(t *testing.T) {
	c := startCluster(t, 1)
	const runs = 5
	for range runs {
		if rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1"); r.code != exitOK {
			t.Fatalf("%+v", rep)
		}
	}
	const want = 2 * runs // intent and outcome of each
	args := []string{"audit", "export", "--kind", "intent,outcome"}
	for _, format := range []string{"jsonl", "ocsf", "cef"} {
		r := c.run(append(args, "--format", format)...)
		lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
		if r.code != exitOK || len(lines) != want {
			t.Fatalf("%s: exit %d, %d lines, want %d:\n%s%s", format, r.code, len(lines), want, r.stdout, r.stderr)
		}
		for _, line := range lines {
			if format == "cef" {
				if !strings.HasPrefix(line, "CEF:0|AgentiCraft|node|1|") || strings.Count(line, "|") != 7 {
					t.Errorf("cef: %s", line)
				}
				continue
			}
			if !json.Valid([]byte(line)) {
				t.Errorf("%s: %s", format, line)
			}
		}
	}
	r := c.run(append(args, "--format", "csv")...)
	rows, err := csv.NewReader(strings.NewReader(r.stdout)).ReadAll()
	if err != nil || len(rows) != want+1 || rows[1][2] != "intent" || rows[2][10] != "succeeded" {
		t.Errorf("csv: %v\n%s", err, r.stdout)
	}
	if r := c.run(append(args, "--format", "xml")...); r.code != exitUsage {
		t.Errorf("an unknown format exits with %d", r.code)
	}
}

// Following loses nothing and repeats nothing.
func TestFollow(t *testing.T) {
	c := startCluster(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), commandWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, testBinary, "audit", "follow", "--kind", "intent,outcome")
	cmd.Env = c.env()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var last uint64
	for range 3 {
		rep, r := c.exec(0, "--lang", "starlark", "-c", "result = 1")
		if r.code != exitOK {
			t.Fatalf("%+v", rep)
		}
		for _, want := range []uint64{*rep.Intent, *rep.Outcome} {
			if !lines.Scan() {
				t.Fatalf("follow ended: %v", lines.Err())
			}
			var e struct{ Index uint64 }
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Index != want || e.Index <= last {
				t.Errorf("follow printed %s (%v), want entry %d", lines.Bytes(), err, want)
			}
			last = e.Index
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted, follow ends with %v", err)
	}
}

// awaitHealthy waits until the doctor finds nothing wrong, as of a cluster that has
// just begun before its first checkpoint, and returns what it says.
func (c *testCluster) awaitHealthy() (said string) {
	c.t.Helper()
	c.await("the doctor to find nothing wrong", func() bool {
		r := c.run("doctor")
		said = r.stdout
		return r.code == exitOK
	})
	return said
}

func TestFindAndDoctor(t *testing.T) {
	c := startCluster(t, 3)
	c.await("all nodes to be found", func() bool {
		var found struct{ Nodes []nodeView }
		c.json(&found, "find", "--lang", "starlark")
		return len(found.Nodes) == 3
	})
	var none struct{ Nodes []nodeView }
	if c.json(&none, "find", "--lang", "cobol"); len(none.Nodes) != 0 {
		t.Errorf("who speaks cobol: %+v", none)
	}
	c.awaitHealthy()
	c.kill(2)
	c.await("the doctor to see the dead node", func() bool {
		r := c.run("doctor")
		return r.code == exitFailed && strings.Contains(r.stdout, "BAD  peer")
	})
	if r := c.run("doctor", "--server", "http://127.0.0.1:1"); r.code != exitFailed || !strings.Contains(r.stdout, "BAD  reachable") {
		t.Errorf("doctor of nothing exits with %d:\n%s", r.code, r.stdout)
	}
}
