package process_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/runtime"
)

var scratchDir string

func TestMain(m *testing.M) {
	if os.Getenv(holderEnv) != "" {
		os.Exit(hold())
	}
	var err error
	scratchDir, err = os.MkdirTemp("", "process-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Open to the unprivileged user that some tests become.
	if err := os.Chmod(scratchDir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(scratchDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var addPython = sync.OnceValues(func() (*runtime.Store, error) {
	if dir := os.Getenv(runtimesEnv); dir != "" {
		return runtime.Open(dir)
	}
	s, err := runtime.Open(filepath.Join(scratchDir, "runtimes"))
	if err != nil {
		return nil, err
	}
	_, err = s.AddPython(context.Background(), runtime.AddConfig{})
	return s, err
})

// python is a store with the host's Python, made once.
func python(tb testing.TB) *runtime.Store {
	tb.Helper()
	s, err := addPython()
	if err != nil {
		tb.Fatalf("add python: %v", err)
	}
	return s
}

// bench is a backend and its spawner for one test.
type bench struct {
	*process.Backend
	spawner *jail.Spawner
}

func open(tb testing.TB) bench {
	tb.Helper()
	s := jailtest.Start(tb)
	b, err := process.New(process.Config{Spawner: s, Runtimes: python(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return bench{b, s}
}

func asMap(tb testing.TB, value []byte) map[string]string {
	tb.Helper()
	var m map[string]string
	if err := json.Unmarshal(value, &m); err != nil {
		tb.Fatalf("result %.200s: %v", value, err)
	}
	return m
}

var runs atomic.Int64

func spec(code string) sandbox.Spec {
	return sandbox.Spec{
		ID: fmt.Sprintf("t%d", runs.Add(1)), Owner: "tester", Language: "python", Code: []byte(code),
		Limits: sandbox.Limits{Memory: 128 << 20, Wall: 10 * time.Second, Processes: 16, CPUPercent: 100},
	}
}

func (b bench) run(tb testing.TB, s sandbox.Spec) sandbox.Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res, err := b.Run(ctx, s, nil)
	if err != nil {
		tb.Fatalf("Run: %v", err)
	}
	return res
}

func TestProgramsEndAsTheyWouldAsScripts(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		name, code string
		status     sandbox.Status
		exit       int
		value      string
		errorCode  string
		stdout     string
		stderr     string // contained
	}{
		{name: "result", code: "result = 6 * 7", status: "ok", value: "42"},
		{name: "no result", code: "x = 1", status: "ok"},
		{name: "None", code: "result = None", status: "ok", value: "null"},
		{name: "print", code: "print('hi')", status: "ok", stdout: "hi\n"},
		{name: "main guard", code: "if __name__ == '__main__':\n    import sys\n    print(sys.argv)", status: "ok", stdout: "['main.py']\n"},
		{name: "exit code", code: "import sys\nsys.exit(7)", status: "error", exit: 7},
		{name: "exit text", code: "import sys\nsys.exit('sorry')", status: "error", exit: 1, stderr: "sorry"},
		{name: "exit zero after result", code: "result = 'a'\nraise SystemExit", status: "ok", value: `"a"`},
		{name: "os._exit", code: "import os\nresult = 1\nos._exit(3)", status: "error", exit: 3},
		{
			name: "exception", code: "def f():\n    return 1/0\nresult = f()", status: "error", exit: 1, errorCode: "language_error",
			stderr: "Traceback (most recent call last):\n  File \"main.py\", line 3, in <module>\n    result = f()\n",
		},
		{name: "syntax", code: "x = (", status: "error", exit: 1, errorCode: "language_error", stderr: `File "main.py", line 1`},
		{name: "NUL", code: "x = 1\x00", status: "error", exit: 1, errorCode: "language_error", stderr: "null bytes"},
		{name: "NaN", code: "result = float('nan')", status: "error", exit: 1, errorCode: "result_not_json"},
		{name: "set", code: "result = {1}", status: "error", exit: 1, errorCode: "result_not_json"},
		{name: "bytes", code: "result = b'x'", status: "error", exit: 1, errorCode: "result_not_json"},
		{name: "object", code: "class Thing: pass\nresult = Thing()", status: "error", exit: 1, errorCode: "result_not_json"},
		{name: "circular", code: "result = []\nresult.append(result)", status: "error", exit: 1, errorCode: "result_not_json"},
		{name: "digits", code: "result = 10 ** 5000", status: "error", exit: 1, errorCode: "result_not_json"},
		{name: "deep", code: "result = []\nfor _ in range(100): result = [result]", status: "error", exit: 1, errorCode: "result_not_json"},
		{name: "very deep", code: "result = []\nfor _ in range(100000): result = [result]", status: "error", exit: 1, errorCode: "result_not_json"},
		{name: "large", code: "result = 'x' * 2000000", status: "error", exit: 1, errorCode: "result_too_large"},
		{name: "threads are joined", code: "import threading, time\nresult = []\nthreading.Thread(target=lambda: (time.sleep(.05), result.append(1))).start()", status: "ok", value: "[1]"},
		{name: "fork", code: "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nresult = pid != 0", status: "ok", value: "true"},
		{name: "subprocess", code: "import subprocess, sys\nresult = subprocess.run([sys.executable, '-c', 'print(5)'], capture_output=True, text=True).stdout", status: "ok", value: `"5\n"`},
		{name: "asyncio", code: "import asyncio\nasync def f():\n    await asyncio.sleep(.01)\n    return 3\nresult = asyncio.run(f())", status: "ok", value: "3"},
		{name: "multiprocessing", code: "import multiprocessing as m\nq = m.Queue()\np = m.Process(target=q.put, args=(4,))\np.start()\nresult = q.get()\np.join()", status: "ok", value: "4"},
		{name: "atexit", code: "import atexit\natexit.register(lambda: print('bye'))", status: "ok", stdout: "bye\n"},
		{name: "memory error", code: "x = bytearray(10 ** 15)", status: "oom", exit: 137, stderr: "MemoryError"},
		{name: "hostile repr", code: "class E(Exception):\n    def __str__(self): raise self\nraise E", status: "error", exit: 1, errorCode: "language_error"},
		{name: "recursion", code: "def f(): f()\nf()", status: "error", exit: 1, errorCode: "language_error", stderr: "RecursionError"},
		{name: "killed by itself", code: "import os\nos.kill(os.getpid(), 9)", status: "killed", exit: 137},
		{name: "segfault", code: "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", status: "killed", exit: 139},
		{name: "aborted", code: "import os\nos.abort()", status: "killed", exit: 134},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := b.run(t, spec(c.code))
			if r.Status != c.status || r.ExitCode != c.exit || string(r.Value) != c.value || r.ErrorCode != c.errorCode {
				t.Errorf("got %s, exit %d, result %.80s, error %q (%s), want %s, %d, %s, %q\nstderr: %s",
					r.Status, r.ExitCode, r.Value, r.ErrorCode, r.Message, c.status, c.exit, c.value, c.errorCode, r.Stderr)
			}
			if string(r.Stdout) != c.stdout {
				t.Errorf("stdout %q, want %q", r.Stdout, c.stdout)
			}
			if !strings.Contains(string(r.Stderr), c.stderr) {
				t.Errorf("stderr %q lacks %q", r.Stderr, c.stderr)
			}
			if strings.Contains(string(r.Stderr), "<string>") {
				t.Errorf("stderr shows the bootstrap: %s", r.Stderr)
			}
		})
	}
}
