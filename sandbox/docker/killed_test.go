//go:build linux

package docker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/runtime"
)

// victim is a process that runs a program in a container until it is killed.
type victim struct{ Node, Dir, Socket, Runtimes, Helper string }

const victimEnv = "AGENTICRAFT_TEST_DOCKER_VICTIM" // a victim as JSON

// running is what a victim says once its program runs.
const running = "the program runs"

// die runs what text describes, and returns only if that fails.
func die(text string) error {
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return err
	}
	helper, err := os.ReadFile(v.Helper)
	if err != nil {
		return err
	}
	store, err := runtime.Open(v.Runtimes)
	if err != nil {
		return err
	}
	b, err := docker.New(docker.Config{Node: v.Node, Dir: v.Dir, Socket: v.Socket, Runtimes: store, Helper: helper})
	if err != nil {
		return err
	}
	// It is deaf, leaves its session, and holds whatever it finds open.
	spec := python1("victim", `
import os, signal
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
for name in os.listdir("/run/agenticraft"):
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY):
        try: os.open("/run/agenticraft/" + name, flags | os.O_NONBLOCK)
        except OSError: pass
if os.fork() == 0: os.setsid()
print("on", flush=True)
while True: pass`)
	spec.Limits.Wall = time.Hour
	spec.Output = func(string, int64, []byte) { _, _ = os.Stdout.WriteString(running + "\n") }
	r, err := b.Run(context.Background(), spec, nil)
	return fmt.Errorf("Run = %+v, %w; it was to be killed", r, err)
}

// When a node is killed its containers end, whatever the programs in them do to
// live on, and the next node removes them.
func TestAKilledNodeEndsItsContainers(t *testing.T) {
	engine(t, nil) // or the test is skipped
	killedNode(t, socketOf(t))
}

func killedNode(t *testing.T, socket string) {
	t.Helper()
	v := victim{Node: "killed-" + time.Now().Format("150405.000000"), Dir: filepath.Join(t.TempDir(), "docker"), Socket: socket, Runtimes: runtimes(t).Dir(), Helper: filepath.Join(t.TempDir(), "helper")}
	if err := os.WriteFile(v.Helper, jailtest.Helper(t), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	var all []string
	for said.Scan() && said.Text() != running {
		all = append(all, said.Text())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	if said.Text() != running {
		t.Fatalf("the program never ran: %s", strings.Join(all, "\n"))
	}

	api, err := client.NewClientWithOpts(client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	// Those of the node in the given state, until there are as many as wanted.
	await := func(want int, more ...filters.KeyValuePair) {
		t.Helper()
		of := filters.NewArgs(append(more, filters.Arg("label", "dev.agenticraft.node="+v.Node))...)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			list, err := api.ContainerList(t.Context(), container.ListOptions{All: true, Filters: of})
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d containers, want %d: %+v", len(list), want, list)
			}
		}
	}
	await(1, filters.Arg("status", "exited"))

	next, err := docker.New(docker.Config{Node: v.Node, Dir: v.Dir, Socket: socket, Runtimes: runtimes(t), Helper: jailtest.Helper(t)})
	if err != nil {
		t.Fatal(err)
	}
	await(0)
	if r, err := next.Run(t.Context(), python1("next", "result = 1"), nil); err != nil || r.Status != sandbox.OK {
		t.Errorf("the next node's Run = %+v, %v", r, err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), v.Dir) {
		t.Errorf("a mount below %s is left:\n%s", v.Dir, mounts)
	}
}
