package sandboxtest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// testCase is one program, in each language that can express it, and how it
// must end.
type testCase struct {
	name      string
	proves    string            // what holding it shows, for the report
	code      map[string]string // by language
	prepare   func(*sandbox.Spec)
	status    sandbox.Status
	exit      int
	errorCode string
	value     string
	stdout    string
	stderr    string // "" is not compared
	check     func(*testing.T, sandbox.Result)
}

// anything stands for output that is not compared.
const anything = "*"

// both is code that is good in both languages.
func both(code string) map[string]string { return map[string]string{"python": code, "starlark": code} }

func python(code string) map[string]string { return map[string]string{"python": code} }

// started prints a line at once and then runs for ever.
var started = map[string]string{
	"python":     "print('started', flush=True)\nwhile True: pass",
	"starlark":   "print('started')\nwhile True: pass",
	"javascript": "console.log('started'); while (true);",
	"sh":         "echo started; while :; do :; done",
	"wasm":       "guest say started loop",
}

func stderrHas(texts ...string) func(*testing.T, sandbox.Result) {
	return func(t *testing.T, r sandbox.Result) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(string(r.Stderr), text) {
				t.Errorf("stderr %.500q does not contain %q", r.Stderr, text)
			}
		}
	}
}

func wall(d time.Duration) func(*sandbox.Spec) {
	return func(s *sandbox.Spec) { s.Limits.Wall = d }
}

// tight is for abuse: little memory and time.
func tight(s *sandbox.Spec) {
	s.Limits.Memory, s.Limits.Wall = 64<<20, 4*time.Second
}

// Cases are all cases of the suite, in the order of their groups.
func Cases() []testCase {
	return slices.Concat(ordinary, files, secrets, procfs, sockets, kernel, processes, resources, bombs, answers, frames, others, modules)
}

// ordinary are what programs are for, their own faults, and the plainest abuse.
var ordinary = []testCase{
	// What programs are for.
	{name: "the original's example", code: both("def calculate(a, b):\n    return a + b\nresult = calculate(10, 20)"), status: sandbox.OK, value: "30"},
	{name: "echo", code: both("print('hello', 1)\nprint('ü')"), status: sandbox.OK, stdout: "hello 1\nü\n"},
	{
		name: "kinds of values", code: both(`result = {"n": None, "t": True, "f": False, "i": -3, "r": 0.5, "w": 30.0, "s": "a\"b", "l": [1, [2]], "t2": (1, 2), "d": {"x": {}}, "e": []}`), status: sandbox.OK,
		value: `{"n":null,"t":true,"f":false,"i":-3,"r":0.5,"w":30.0,"s":"a\"b","l":[1,[2]],"t2":[1,2],"d":{"x":{}},"e":[]}`,
	},
	{name: "large integers are exact", code: both("result = [9007199254740993, pow(2, 200), -pow(10, 30)]"), status: sandbox.OK, value: "[9007199254740993,1606938044258990275541962092341162602522202993782792835301376,-1000000000000000000000000000000]"},
	{name: "integer keys become text", code: both("result = {1: 'a', None: 'b'}"), status: sandbox.OK, value: `{"1":"a","null":"b"}`},
	{name: "exit", code: python("exit(3)"), status: sandbox.Error, exit: 3},
	{name: "quit after a result", code: python("result = 1\nquit()"), status: sandbox.OK, value: "1"},
	{name: "no result", code: both("x = 1"), status: sandbox.OK},
	{name: "empty program", code: both(""), status: sandbox.OK},
	{name: "result None", code: both("result = None"), status: sandbox.OK, value: "null"},
	{
		name: "stdin", code: map[string]string{"python": "import sys\nresult = [int(x) for x in sys.stdin.read().split()]", "starlark": "result = [int(x) for x in stdin.split()]"},
		prepare: func(s *sandbox.Spec) { s.Stdin = []byte("1 2\n3") }, status: sandbox.OK, value: "[1,2,3]",
	},
	{
		name: "files in", code: map[string]string{"python": "result = [open('a/b.txt').read(), len(open('bin', 'rb').read())]", "starlark": "result = [files['a/b.txt'], len(files['bin'])]"},
		prepare: func(s *sandbox.Spec) {
			s.Files = []sandbox.File{{Path: "a/b.txt", Content: []byte("hey")}, {Path: "bin", Content: []byte{0xff, 0}}}
		}, status: sandbox.OK, value: `["hey",2]`,
	},
	{name: "files out", code: python("import os\nos.mkdir('d')\nopen('d/out.txt', 'w').write('hey')\nos.symlink('/etc/passwd', 'link')"), status: sandbox.OK, check: func(t *testing.T, r sandbox.Result) {
		if len(r.Files) != 1 || r.Files[0].Path != "d/out.txt" || string(r.Files[0].Content) != "hey" {
			t.Errorf("files are %+v", r.Files)
		}
	}},
	{name: "exit code", code: map[string]string{"python": "import sys\nsys.exit(3)", "starlark": "exit(3)"}, status: sandbox.Error, exit: 3},
	{name: "exits before result", code: map[string]string{"python": "import os\nos._exit(0)\nresult = 1", "starlark": "exit(0)\nresult = 1"}, status: sandbox.OK},
	{name: "standard library", code: map[string]string{"python": "import json, math, re, datetime, hashlib, decimal, threading\nresult = math.isqrt(17)", "starlark": "result = math.floor(math.sqrt(17)) if json.decode('true') else 0"}, status: sandbox.OK, value: "4"},

	// Programs with faults.
	{name: "syntax error", code: both("x = 1\nx = ("), status: sandbox.Error, exit: 1, errorCode: "language_error", check: stderrHas("2")},
	{name: "runtime error", code: both("def f():\n    return 1 // 0\nf()"), status: sandbox.Error, exit: 1, errorCode: "language_error", check: stderrHas("Traceback", "2", "by zero")},
	{name: "NaN", code: both("result = float('nan')"), status: sandbox.Error, exit: 1, errorCode: "result_not_json"},
	{name: "circular", code: both("result = []\nresult.append(result)"), status: sandbox.Error, exit: 1, errorCode: "result_not_json"},
	{name: "nested too deep", code: both("result = []\nfor i in range(500):\n    result = [result]"), status: sandbox.Error, exit: 1, errorCode: "result_not_json"},
	{name: "function as result", code: both("def result(): pass"), status: sandbox.Error, exit: 1, errorCode: "result_not_json"},
	{name: "result too large", code: both("result = 'x' * 100000"), status: sandbox.Error, exit: 1, errorCode: "result_too_large"},
	{name: "deep recursion", code: map[string]string{"python": "def f(n): return f(n + 1)\nf(0)", "starlark": "def f(n): return f(n + 1)\nf(0)"}, status: sandbox.Error, exit: 1, errorCode: "language_error"},

	// Abuse.
	{name: "spin", code: both("while True: pass"), prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124},
	{name: "spin after output", code: started, prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124, stdout: "started\n"},
	{name: "one endless built-in", code: map[string]string{"python": "x = 3\nfor i in range(60): x = x * x", "starlark": "x = 3\nfor i in range(60): x = x * x"}, prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124},
	{name: "sleep for ever", code: python("import time\ntime.sleep(1000)"), prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124},
	{name: "ignores signals", code: python("import signal\nfor s in range(1, 32):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile True: pass"), prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124},
	{name: "memory in one string", code: map[string]string{"python": "x = bytearray(1 << 29)\nx[::4096] = b'x' * len(x[::4096])", "starlark": "x = 'a' * (1 << 29)"}, prepare: tight, status: sandbox.OutOfMemory, exit: 137},
	{name: "memory in one list", code: both("x = [0] * (1 << 26)"), prepare: tight, status: sandbox.OutOfMemory, exit: 137},
	{name: "memory bit by bit", code: both("x = []\nwhile True: x.append('a' * 10000 + str(len(x)))"), prepare: tight, status: sandbox.OutOfMemory, exit: 137},
	{name: "output flood", code: both("while True: print('x' * 1000)"), prepare: tight, status: sandbox.OutputLimit, exit: 1, errorCode: "output_limit", stdout: anything, check: func(t *testing.T, r sandbox.Result) {
		if len(r.Stdout) != 64<<10 || !r.StdoutTruncated {
			t.Errorf("stdout has %d bytes, truncated %v", len(r.Stdout), r.StdoutTruncated)
		}
	}},
	{name: "output flood that ends", code: both("print('x' * 2000000)\nresult = 1"), status: sandbox.OutputLimit, exit: 1, errorCode: "output_limit", stdout: strings.Repeat("x", 64<<10), check: func(*testing.T, sandbox.Result) {}},
	{name: "output a little too long", code: both("print('x' * 70000)\nresult = 1"), status: sandbox.OK, value: "1", stdout: strings.Repeat("x", 64<<10), check: func(t *testing.T, r sandbox.Result) {
		if !r.StdoutTruncated {
			t.Error("it is not said that stdout was cut")
		}
	}},
	{name: "fork bomb", code: python("import os, time\nn = 0\nwhile n < 500:\n  try: pid = os.fork()\n  except OSError: break\n  if pid == 0: time.sleep(1000)\n  n += 1\nresult = n < 20"), status: sandbox.OK, value: "true"},
	{name: "orphans", code: python("import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(1000)\n  os._exit(0)\nos.wait()\nresult = 1"), status: sandbox.OK, value: "1"},
	{name: "host files", code: python("import os\nresult = [p for p in ('/etc/passwd', '/etc/shadow', '/root', '/home', '/sys', '/bin/sh', '/var', '/jail') if os.path.exists(p)]"), status: sandbox.OK, value: "[]"},
	{name: "writes outside", code: python("result = []\nfor p in ('/x', '/usr/x', '/usr/lib/x', '/proc/x', '/dev/x'):\n  try:\n    open(p, 'w')\n    result.append(p)\n  except OSError: pass"), status: sandbox.OK, value: "[]"},
	{name: "sockets", code: python("import socket\nresult = []\nfor family, kind, to in ((socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', 22)), (socket.AF_INET, socket.SOCK_STREAM, ('1.1.1.1', 443)), (socket.AF_INET, socket.SOCK_DGRAM, ('169.254.169.254', 53)), (socket.AF_INET6, socket.SOCK_STREAM, ('::1', 22)), (40, socket.SOCK_STREAM, (2, 22))):\n  try:\n    s = socket.socket(family, kind)\n    s.connect(to)\n    result.append(str(to))\n  except OSError: pass"), status: sandbox.OK, value: "[]"},
	{name: "names", code: python("import socket\ntry:\n  result = socket.getaddrinfo('example.com', 443)\nexcept OSError:\n  result = 'none'"), status: sandbox.OK, value: `"none"`},
	{name: "environment", code: python("import os\nresult = sorted(set(os.environ) - {'HOME', 'LANG', 'LC_CTYPE', 'PATH', 'TMPDIR'})"), status: sandbox.OK, value: "[]"},
	{name: "descriptors", code: python("import os\nresult = []\nfor fd in range(4, 1024):\n  try:\n    os.fstat(fd)\n    result.append(fd)\n  except OSError: pass"), status: sandbox.OK, value: "[]"},
	{name: "identity", code: python("import os\ntry: os.setuid(0)\nexcept OSError: pass\nresult = [os.geteuid() != 0, os.getppid() <= 1]"), status: sandbox.OK, value: "[true,true]"},
	{name: "kills its own kind only", code: python("import os, signal\ntry: os.kill(-1, signal.SIGTERM)\nexcept OSError: pass\ntry: os.kill(1, signal.SIGKILL)\nexcept OSError: pass\nresult = 1"), status: sandbox.OK, value: "1"},
	{name: "dies of a signal", code: python("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"), status: sandbox.Killed, exit: 137},
	{name: "large file", code: python("try:\n  with open('f', 'wb') as f: f.write(b'x' * (2 << 20))\n  result = 'written'\nexcept OSError as e:\n  result = e.errno\nimport os\nos.remove('f')"), status: sandbox.OK, value: "27"},
	{name: "many files", code: python("n = 0\ntry:\n  while n < 5000:\n    open('f%d' % n, 'w').close()\n    n += 1\nexcept OSError: pass\nresult = n <= 64 + 16"), status: sandbox.OK, value: "true"},
	{name: "namespaces and mounts", code: python("import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nresult = [libc.unshare(0x10000000), libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), libc.ptrace(0, 0, 0, 0), libc.setns(0, 0), libc.chroot(b'/work')]"), status: sandbox.OK, value: "[-1,-1,-1,-1,-1]"},
	{name: "dangerous system calls", code: python("import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nimport platform\nnumbers = {'x86_64': [321, 298, 323, 425, 246, 175, 248, 250, 135, 447], 'aarch64': [280, 241, 282, 425, 104, 105, 217, 219, 92, 447]}.get(platform.machine(), [])\nresult = [n for n in numbers if libc.syscall(n, 0, 0, 0, 0, 0) != -1]"), status: sandbox.OK, value: "[]"},
}

// step is one program of a sequence.
type step struct {
	code   string
	status sandbox.Status
	value  string
}

// sequences by language and name.
var sequences = map[string]map[string][]step{
	"python": {
		"files of an earlier run": {
			{"open('/tmp/t', 'w').write('x')\nopen('w', 'w').write('x')\nresult = 1", sandbox.OK, "1"},
			{"import os\nresult = os.listdir('/tmp') + os.listdir('/work')", sandbox.OK, "[]"},
		},
		"variables of an earlier run": {
			{"import builtins\nbuiltins.secret = 1\nresult = 1", sandbox.OK, "1"},
			{"try: result = secret\nexcept NameError: result = 'none'", sandbox.OK, `"none"`},
		},
	},
	"starlark": {
		"variables of an earlier run": {
			{"secret = 1\nresult = secret", sandbox.OK, "1"},
			{"result = secret", sandbox.Error, ""},
			{"result = 'fresh'", sandbox.OK, `"fresh"`},
		},
		"after a killed run": {
			{"x = 'a' * (1 << 29)", sandbox.OutOfMemory, ""},
			{"result = 1", sandbox.OK, "1"},
		},
	},
}
