//go:build linux

package docker_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// socketEnv names the engine's socket, if it is not the default.
const socketEnv = "AGENTICRAFT_TEST_DOCKER"

// addRuntimes makes a store of the host's interpreters, as far as it has them.
var addRuntimes = sync.OnceValues(func() (*runtime.Store, error) {
	store, err := runtime.Open(filepath.Join(scratch, "runtimes"))
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	_, python := store.AddPython(ctx, runtime.AddConfig{})
	_, node := store.AddNode(ctx, runtime.AddConfig{})
	_, shell := store.AddShell(ctx, runtime.AddConfig{})
	for _, err := range []error{python, node, shell} {
		if err != nil && (!errors.Is(err, sandbox.ErrUnavailable) || os.Getenv("CI") != "") {
			return nil, err
		}
	}
	return store, nil
})

var scratch string // a folder for the whole run

func TestMain(m *testing.M) {
	if text := os.Getenv(victimEnv); text != "" {
		panic(die(text))
	}
	var err error
	if scratch, err = os.MkdirTemp("", "docker-test"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch) // in the temporary folder anyway
	os.Exit(code)
}

// runtimes is a store that holds the host's Python, and what else it has.
func runtimes(t *testing.T) *runtime.Store {
	t.Helper()
	store, err := addRuntimes()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := store.Lookup("python"); err != nil {
		t.Skipf("no python3 on this machine: %v", err)
	}
	return store
}

func open(t *testing.T, cfg docker.Config) *docker.Backend {
	t.Helper()
	cfg.Helper = jailtest.Helper(t)
	cfg.Node, cfg.Dir = "test-"+filepath.Base(t.TempDir())+"-"+time.Now().Format("150405.000000"), t.TempDir()
	b, err := docker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// engine is a backend on a real engine. In CI there must be one.
func engine(t *testing.T, g *egress.Gateway) *docker.Backend {
	t.Helper()
	socket := os.Getenv(socketEnv)
	if socket == "" {
		socket = docker.DefaultSocket
	}
	if _, err := os.Stat(socket); err != nil && os.Getenv("CI") == "" {
		t.Skipf("no Docker engine on this machine: %v", err)
	}
	b := open(t, docker.Config{Socket: socket, Runtimes: runtimes(t), Egress: g})
	if d := b.Describe(); !d.Available {
		t.Fatalf("the engine cannot be used: %s", d.Reason)
	}
	return b
}

func TestDocker(t *testing.T) {
	// A list of mounts, which a shell's program takes for its result, is no JSON.
	ends := map[string]map[string][]sandboxtest.End{"sh": {"B22 mounts of a shell": {{Status: sandbox.Error, ExitCode: 1, ErrorCode: "result_not_json"}}}}
	for _, language := range []string{"python", "javascript", "sh"} {
		t.Run(language, func(t *testing.T) {
			b := engine(t, nil)
			if d := b.Describe(); !slices.Contains(d.Languages, language) {
				t.Skipf("no interpreter of %s on this machine, or, for sh, not root", language)
			}
			// The first run makes the image and opens connections to the engine, which
			// are kept.
			if r, err := b.Run(t.Context(), sandbox.Spec{ID: "first", Owner: "tester", Language: language}, nil); err != nil || r.Status != sandbox.OK {
				t.Fatalf("Run = %+v, %v", r, err)
			}
			sandboxtest.Test(t, b, sandboxtest.Options{Language: language, Residents: 4, Brief: true, Differs: map[string]string{
				"host files": `["/sys"]`, "A1 files of the host": `["/sys"]`, // it exists, empty
				// The engine mounts a whole /proc, with what it masks of it.
				"B22 the kernel's settings": "*",
				// An engine whose library does not know a call answers ENOSYS instead.
				"A7 mounting": "*", "E54 the machine": "*", "E62 memory of others": "*", "E rules of one's own": "*",
				// The engine's mounts are in the container's own namespace, and named there.
				"B22 mounts": "*", "B22 mounts of a shell": "*",
				// Without Landlock a process may write to its own memory and settings.
				"A12 memory as a file": "*",
				// An engine that is protected from the killer lets its children be so.
				"D47 who is killed first": "*",
			}, Ends: ends[language]})
		})
	}
}

// A program gets as many processes as its limit says, neither fewer for those of
// process 1 nor more, and so in a container that waited.
func TestProcessesAreCountedExactly(t *testing.T) {
	engine(t, nil) // or the test is skipped
	b := open(t, docker.Config{Socket: socketOf(t), Runtimes: runtimes(t), Warm: 1})
	for _, most := range []int{20, 10} {
		spec := python1("count", `
import os, time
n = 1
while n < 100:
  try: pid = os.fork()
  except OSError: break
  if pid == 0: time.sleep(1000)
  n += 1
result = n`)
		spec.Limits.Processes = most
		r, err := b.Run(t.Context(), spec, nil)
		if err != nil || string(r.Value) != strconv.Itoa(most) {
			t.Errorf("of %d processes a program got %s, %v; stderr %s", most, r.Value, err, r.Stderr)
		}
		if err := b.AwaitWarm(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContainersAreClosed(t *testing.T) {
	b := engine(t, nil)
	spec := sandbox.Spec{ID: "closed", Owner: "tester", Language: "python", Code: []byte(`
import os
status = dict(l.split(":\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\t" in l)
def refused(f, *a):
    try:
        f(*a)
        return False
    except OSError:
        return True
import socket
result = {
    "uid": os.getuid(), "caps": int(status["CapEff"], 16) | int(status["CapBnd"], 16), "nnp": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "root": refused(open, "/x", "w"), "socket": refused(socket.socket), "vsock": refused(socket.socket, 40, 1),
    "hardware": os.listdir("/sys"), "chroot": refused(os.chroot, "/work"),
}`)}
	r, err := b.Run(t.Context(), spec, nil)
	want := `{"uid":65534,"caps":0,"nnp":"1","seccomp":"2","root":true,"socket":true,"vsock":true,"hardware":[],"chroot":true}`
	if err != nil || string(r.Value) != want {
		t.Errorf("Run = %s, %v, want %s; stderr %s", r.Value, err, want, r.Stderr)
	}
}

func TestFilesGoInAndOut(t *testing.T) {
	b := engine(t, nil)
	spec := sandbox.Spec{
		ID: "files", Owner: "tester", Language: "python", Stdin: []byte("typed"),
		Files: []sandbox.File{{Path: "in/deep/a.txt", Content: []byte("given")}},
		Code:  []byte("import sys\nresult = open('in/deep/a.txt').read() + sys.stdin.read()\nopen('out.txt', 'w').write('made')"),
	}
	r, err := b.Run(t.Context(), spec, nil)
	if err != nil || string(r.Value) != `"giventyped"` {
		t.Fatalf("Run = %+v, %v", r, err)
	}
	if len(r.Files) != 1 || r.Files[0].Path != "out.txt" || string(r.Files[0].Content) != "made" {
		t.Errorf("files are %v", r.Files)
	}
}

func TestNoEngineIsAReasonNotAnError(t *testing.T) {
	b := open(t, docker.Config{Socket: filepath.Join(t.TempDir(), "none.sock"), Runtimes: &runtime.Store{}})
	d := b.Describe()
	if d.Available || !strings.Contains(d.Reason, "none.sock") || d.Hint == "" {
		t.Errorf("Describe = %+v", d)
	}
	if _, err := b.Run(t.Context(), sandbox.Spec{ID: "x", Language: "python"}, nil); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("Run = %v, want ErrUnavailable", err)
	}
}

func TestHungEngineIsUnavailableSoon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "hung.sock")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", socket) // accepts in the kernel, and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	b := open(t, docker.Config{Socket: socket, Runtimes: &runtime.Store{}})
	if d := b.Describe(); d.Available || !strings.Contains(d.Reason, "no answer") {
		t.Errorf("Describe = %+v", d)
	}
	// It gives up by itself.
	if _, err := b.Run(t.Context(), sandbox.Spec{ID: "x", Language: "python"}, nil); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("Run = %v, want ErrUnavailable", err)
	}
}
