package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// officialCommand is of the SDK that we use. It has dependencies of its own, so it
// is built in a module of its own, with the versions of ours: what both need is
// compiled already.
const officialCommand = "github.com/a2aproject/a2a-go/v2/cmd/a2a"

// strangersModule makes a folder a module that requires this one, and all that this one
// does in the same versions, which are on this machine.
func strangersModule(t *testing.T, dir string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]string{
		"go.mod": "\nrequire github.com/agenticraft/node v0.0.0\n\nreplace github.com/agenticraft/node => " + root + "\n",
		"go.sum": "",
	} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.Replace(text, []byte("module github.com/agenticraft/node\n"), []byte("module stranger\n"), 1)
		if err := os.WriteFile(filepath.Join(dir, name), append(text, more...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func buildOfficialCommand(ctx context.Context, t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	strangersModule(t, dir)
	file := filepath.Join(dir, "a2a")
	build := exec.CommandContext(ctx, "go", "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", file, officialCommand) // as our own binary
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		skip := t.Skipf
		if os.Getenv("CI") != "" {
			skip = t.Fatalf
		}
		skip("the official command cannot be built: %v\n%s", err, out)
	}
	return file
}

// The official a2a command works with a node at first try, on every binding
// that it has.
func TestOfficialCommand(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	command := buildOfficialCommand(ctx, t)
	c := startCluster(t, 1)
	base := c.Nodes[0].HTTP
	run := func(ok bool, args ...string) string {
		t.Helper()
		args = append(args, "--insecure", "--output", "json")
		out, err := exec.CommandContext(ctx, command, args...).CombinedOutput()
		if (err == nil) != ok {
			t.Errorf("a2a %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := run(true, "discover", base); !strings.Contains(out, a2a.SkillID) {
		t.Errorf("discover: %s", out)
	}
	host := strings.TrimPrefix(base, "http://")
	for name, at := range map[string][]string{
		"as the card says": {base},
		"jsonrpc":          {base + a2aPath, "--transport", "jsonrpc"},
		"rest":             {base + httpdoor.RESTPath, "--transport", "rest"},
		"grpc":             {host, "--transport", "grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			url, flags := at[0], at[1:]
			proved := append([]string{"--auth", "Bearer " + c.APIKey}, flags...)
			out := run(true, append(proved, "send", url, "```starlark\nresult = 6 * 7\n```")...)
			var sent struct {
				ID   string
				Task struct{ ID string }
			}
			if err := json.Unmarshal([]byte(out), &sent); err != nil || !strings.Contains(out, "TASK_STATE_COMPLETED") {
				t.Fatalf("send: %v\n%s", err, out)
			}
			id := sent.ID + sent.Task.ID
			if out := run(true, append(proved, "send", "--stream", url, "```starlark\nprint('streamed')\n```")...); !strings.Contains(out, "TASK_STATE_COMPLETED") {
				t.Errorf("stream: %s", out)
			}
			if out := run(true, append(proved, "get", "task", url, id)...); !strings.Contains(out, id) {
				t.Errorf("get: %s", out)
			}
			if out := run(true, append(proved, "list", "tasks", url)...); !strings.Contains(out, id) {
				t.Errorf("list: %s", out)
			}
			run(false, append(proved, "cancel", url, id)...)
			run(false, append(flags, "send", url, "```starlark\nresult = 1\n```")...)
		})
	}
}
