//go:build linux

package docker_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// socketEnv names the engine's socket, if it is not the default.
const socketEnv = "AGENTICRAFT_TEST_DOCKER"

var addPython = sync.OnceValues(func() (*runtime.Store, error) {
	store, err := runtime.Open(filepath.Join(scratch, "runtimes"))
	if err != nil {
		return nil, err
	}
	_, err = store.AddPython(context.Background(), runtime.AddConfig{})
	return store, err
})

var scratch string // a folder for the whole run

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "docker-test"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch) // in the temporary folder anyway
	os.Exit(code)
}

// python is a store with the host's Python, made once.
func python(t *testing.T) *runtime.Store {
	t.Helper()
	store, err := addPython()
	if errors.Is(err, sandbox.ErrUnavailable) {
		t.Skipf("no python3 on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func open(t *testing.T, cfg docker.Config) *docker.Backend {
	t.Helper()
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
	b := open(t, docker.Config{Socket: socket, Runtimes: python(t), Egress: g})
	if d := b.Describe(); !d.Available {
		t.Fatalf("the engine cannot be used: %s", d.Reason)
	}
	return b
}

func TestDocker(t *testing.T) {
	b := engine(t, nil)
	// The first run makes the image and opens connections to the engine.
	spec := sandbox.Spec{ID: "first", Owner: "tester", Language: "python", Code: []byte("result = 1")}
	if r, err := b.Run(t.Context(), spec, nil); err != nil || string(r.Value) != "1" {
		t.Fatalf("Run = %+v, %v", r, err)
	}
	// Connections to the engine are kept.
	sandboxtest.Test(t, b, sandboxtest.Options{Residents: 4, Brief: true, Differs: map[string]string{
		"host files": `["/sys"]`, // it exists, empty
		// Process 1 is the program's own parent there, of the same user.
		"B16 the environment of process 1": "*",
		// The engine mounts a whole /proc, with what it masks of it.
		"B22 the kernel's settings": "*",
		// An engine whose library does not know a call answers ENOSYS instead.
		"A7 mounting": "*", "E54 the machine": "*", "E62 memory of others": "*", "E rules of one's own": "*",
		// The engine's mounts are in the container's own namespace, and named there.
		"B22 mounts": "*",
		// Without Landlock a process may write to its own memory and settings.
		"A12 memory as a file": "*",
		// An engine that is protected from the killer lets its children be so.
		"D47 who is killed first": "*",
	}})
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
	began := time.Now()
	b := open(t, docker.Config{Socket: socket, Runtimes: &runtime.Store{}})
	if d := b.Describe(); d.Available || !strings.Contains(d.Reason, "no answer") {
		t.Errorf("Describe = %+v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := b.Run(ctx, sandbox.Spec{ID: "x", Language: "python"}, nil); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("Run = %v, want ErrUnavailable", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}
}
