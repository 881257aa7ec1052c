package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// What an auditor may type by mistake is answered by what is wrong, and an exit
// code that says whose fault it is; what breaks off can be gone on with; and a
// node finds, while it runs, what its disk did to it.
func TestOddQuestionsToTheLog(t *testing.T) {
	c := startCluster(t, 3)
	rep, r := c.exec(0, "--lang", "starlark", "--on", string(c.Nodes[0].ID), "-c", "result = 1")
	if r.code != exitOK {
		t.Fatalf("%+v %s", rep, r.stderr)
	}
	c.exec(0, "--lang", "starlark", "--on", string(c.Nodes[0].ID), "-c", "result = 2")
	denied := c.run("exec", "--lang", "starlark", "--network", "allow=example.org:443", "-c", "x = 1")
	if denied.code != exitDenied {
		t.Fatalf("exit %d", denied.code)
	}
	// No request waits for its denial to be written.
	c.await("the denial to be on record", func() bool { return c.count(0, "denial") == 1 })
	// Who signed is told once there is a checkpoint that a quorum signed.
	c.await("the first checkpoint", func() bool {
		r := c.run("audit", "check", "--json")
		return r.code == exitOK && strings.Contains(r.stdout, `"signed_by"`)
	})
	for _, one := range []struct {
		want int
		says string
		args string
	}{
		{exitOK, "deny denied network_not_allowed", "list --kind denial"},
		{exitUsage, "not from 1 to 1000", "list --limit 1000000"},
		{exitUsage, "out of range", "list --limit 99999999999999999999"},
		{exitUsage, "is not of this query", "list --cursor o0"},
		{exitUsage, "is not of this query", "list --cursor=-5"},
		{exitUsage, "beyond the", "list --cursor n99999999"},
		{exitUsage, "is of another log", "list --cursor n1-00000000"},
		{exitUsage, "is of another log", "export --cursor o1-00000000"},
		{exitUsage, "is of another log", "follow --cursor o1-00000000"},
		{exitUsage, "beyond the", "follow --cursor o99999999"},
		{exitUsage, "neither an RFC 3339 time nor a duration", "list --since yesterday"},
		{exitUsage, "still to come", "list --since=-5h"},
		{exitUsage, "still to come", "state --at 2999-01-01T00:00:00Z"},
		{exitUsage, "still to come", "state --at=-1h"},
		{exitFailed, "the log began after that time", "state --at 0001-01-01T00:00:00Z"},
		{exitFailed, "no such entry", "state --at 99999999"},
		{exitUsage, "actor is not a name", "list --actor " + strings.Repeat("a", 5000)},
		{exitUsage, `kind "poem" is not known`, "list --kind poem"},
		{exitUsage, "neither the index of an entry nor the id of a task", "show -- -1"},
		{exitFailed, "no such entry", "show 99999999"},
		{exitFailed, "no such entry", "show 9223372036854775807"},
		{exitFailed, "no such entry", "show 18446744073709551616"},
		{exitFailed, "no such entry", "prove 18446744073709551616"},
		{exitFailed, "no such entry", "state --at 18446744073709551616"},
		{exitOK, "genesis", "list --until 9999-12-31T23:59:59-01:00"},
		{exitOK, "genesis", "list --since 0000-01-01t00:00:00+01:00"},
		{exitUsage, "kinds are [genesis", "list --kind intent,"},
		{exitFailed, "is not a regular file", "export --proof " + c.dir},
		{exitFailed, "no entries of task", "show " + strings.Repeat("0", 32)},
		{exitUsage, "is not the index of an entry", "prove -- -1"},
		{exitUsage, "takes no argument", "evidence get a b c"},
		{exitUsage, "needs TASK", "evidence get"},
		{exitUsage, "is no digest", "evidence get a"},
		{exitFailed, "no such entry", "prove 99999999"},
		{exitUsage, "leave limit and cursor out", "export --limit 1 --proof " + filepath.Join(c.dir, "p")},
		{exitFailed, "holds no log", "verify " + c.dir},
		{exitFailed, "agenticraft audit check", "verify " + c.Nodes[0].Data},
		{exitOK, "ok:", "check"},
	} {
		c.try(one.want, one.says, append([]string{"audit"}, strings.Fields(one.args)...)...)
	}
	if r := c.try(exitOK, "", "audit", "list", "--until", "0001-01-01T00:00:00Z"); r.stdout != "" {
		t.Errorf("before the first year there was: %s", r.stdout)
	}

	t.Run("an export that its reader left", func(t *testing.T) {
		const kinds = "intent,outcome"
		whole := c.run("audit", "export", "--kind", kinds)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Nodes[0].HTTP+"/v1/audit/export?kind="+kinds, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.APIKey)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		var first httpdoor.LogEntry
		if err != nil || json.Unmarshal([]byte(line), &first) != nil {
			t.Fatalf("%q: %v", line, err)
		}
		rest := c.run("audit", "export", "--kind", kinds, "--cursor", fmt.Sprintf("o%d", first.Index+1))
		if whole.code != exitOK || rest.code != exitOK || line+rest.stdout != whole.stdout {
			t.Errorf("exit %d and %d: what came before and after is not the whole:\n%s%s\n%s", whole.code, rest.code, line, rest.stdout, whole.stdout)
		}
	})

	t.Run("an answer for a full disk", func(t *testing.T) {
		for _, args := range []string{"audit follow", "audit list", "audit export --json"} {
			var said bytes.Buffer
			if code := run(t.Context(), append(strings.Fields(args), "--server", c.Nodes[0].HTTP, "--api-key-file", filepath.Join(c.data, apiKeyFile)), nil, full{}, &said); code != exitFailed || !strings.Contains(said.String(), "no space left") {
				t.Errorf("%s: exit %d, %s", args, code, said.String())
			}
		}
	})

	t.Run("parameters that would be passed over", func(t *testing.T) {
		for _, path := range []string{
			"follow?limit=1", "follow?cursor=o1", "follow?order=newest", "export?order=newest", "export?cursor=n1", "export?proof=yes",
		} {
			res, text := c.get(http.MethodGet, "/v1/audit/"+path, http.Header{"Authorization": {"Bearer " + c.APIKey}})
			if res.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: %s, %s", path, res.Status, text)
			}
		}
	})

	t.Run("a bit that flips", func(t *testing.T) {
		// A node that dev does not look after: it will stop.
		c.kill(2)
		c.restart(2)
		pid := c.Nodes[2].PID
		at := c.Nodes[2].HTTP
		c.await("the log to be whole again", func() bool { return c.run("audit", "show", rep.Task, "--server", at).code == exitOK })
		c.try(exitOK, "ok:", "audit", "check", "--server", at)
		flipLeaf(t, filepath.Join(c.Nodes[2].Data, "audit.db"), rep.Task)
		if r := c.run("audit", "check", "--server", at, "--json"); r.code != exitUnverified || !strings.Contains(r.stdout, `"bad"`) {
			t.Errorf("exit %d, %s%s", r.code, r.stdout, r.stderr)
		}
		c.await("the node to stop", func() bool { return !alive(pid) })
		c.try(exitOK, "ok:", "audit", "check")
		if r := c.run("audit", "verify", c.Nodes[2].Data); r.code != exitUnverified {
			t.Errorf("audit verify of its folder: exit %d, %s%s", r.code, r.stdout, r.stderr)
		}
	})
}

// flipLeaf flips a bit in the leaf of a task's outcome, wherever a file holds it.
func flipLeaf(t *testing.T, name, task string) {
	t.Helper()
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := []byte(`"` + string(audit.KindOutcome) + `","ref":`)
	flipped := 0
	for at := bytes.Index(whole, text); at >= 0 && at < len(whole); {
		if end := min(at+512, len(whole)); bytes.Contains(whole[at:end], []byte(task)) {
			if _, err := f.WriteAt([]byte{whole[at+1] ^ 1}, int64(at+1)); err != nil {
				t.Fatal(err)
			}
			flipped++
		}
		next := bytes.Index(whole[at+1:], text)
		if next < 0 {
			break
		}
		at += 1 + next
	}
	if flipped == 0 {
		t.Fatal("the leaf is not in the file")
	}
}
