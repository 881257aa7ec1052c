package sandboxtest

import (
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// processes are attempts to outlive a run, to hide, or to hurt others.
var processes = []testCase{
	{
		name: "D37 killing everybody", proves: "a signal reaches one's own jail only", status: sandbox.OK, value: "1",
		code: map[string]string{
			"javascript": "for (const [pid, sig] of [[1, 'SIGKILL'], [-1, 0], [process.ppid, 'SIGTERM']]) { try { process.kill(pid, sig) } catch {} }\nconst result = 1",
			"sh":         "trap '' TERM; kill -TERM -1 2>/dev/null; kill -KILL 1 2>/dev/null; echo 1 > result.json",
		},
	},
	{name: "D38 dying of a signal", proves: "it is called by its name", status: sandbox.Killed, exit: 137, code: map[string]string{"javascript": "process.kill(process.pid, 'SIGKILL')", "sh": "kill -KILL $$"}},
	{name: "D38 stopping oneself", proves: "who does not go on is ended", prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124, code: map[string]string{"python": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "sh": "kill -STOP $$"}},
	{name: "D40 daemons", proves: "what leaves the session dies with the jail", status: sandbox.OK, value: "1", code: map[string]string{"sh": "(sleep 1000 & sleep 1000 &); echo 1 > result.json", "javascript": "require('child_process').spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], {detached: true, stdio: 'ignore'}).unref(); var result = 1"}},
	{
		name: "D41 stubborn orphans", proves: "no state of a process saves it", status: sandbox.OK, value: "1",
		code: python("import os, signal, time\nfor stop in (False, True):\n  if os.fork() == 0:\n    for s in range(1, 65):\n      try: signal.signal(s, signal.SIG_IGN)\n      except (OSError, ValueError, RuntimeError): pass\n    os.setsid()\n    if stop: os.kill(os.getpid(), signal.SIGSTOP)\n    while True: time.sleep(1)\nresult = 1"),
	},
	{
		name: "D42 a swarm that outlives its maker", proves: "all of them go", status: sandbox.OK, value: "1",
		code: python("import os, time\nfor _ in range(8):\n  try:\n    if os.fork() == 0: time.sleep(1000)\n  except OSError: break\nresult = 1"),
	},
	{name: "D44 nobody's rights", proves: "no capability, and none to gain", status: sandbox.OK, value: `["0000000000000000"]`, code: python("result = sorted({line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')})")},
	{name: "D44 no new privileges", proves: "no program gives any", status: sandbox.OK, value: `["1","2"]`, code: python("status = dict(line.split(':', 1) for line in open('/proc/self/status'))\nresult = [status['NoNewPrivs'].strip(), status['Seccomp'].strip()]")},
	{name: "D47 raising limits", proves: "limits go down only", status: sandbox.OK, value: "[]", code: python("import resource\nresult = []\nfor r in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK):\n  soft, hard = resource.getrlimit(r)\n  try:\n    resource.setrlimit(r, (hard + 1, hard + 1))\n    result.append(r)\n  except (OSError, ValueError): pass")},
	{name: "D47 who is killed first", proves: "nobody hides from the killer of the memory limit", status: sandbox.OK, value: "false", code: python("try:\n  open('/proc/self/oom_score_adj', 'w').write('-1000')\n  result = True\nexcept OSError:\n  result = False")},
	{name: "D fork bomb of a shell", proves: "as many processes as allowed", prepare: wall(time.Second), status: sandbox.Timeout, exit: 124, code: map[string]string{"sh": "f() { f | f & }; sleep 100 & s=$!; (f 2>/dev/null) & wait $s"}},
	{name: "D65 thread bomb", proves: "threads are counted as processes", status: sandbox.OK, value: "true", code: python("import threading, time\nn = 0\ntry:\n  while n < 500:\n    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n    n += 1\nexcept RuntimeError: pass\nresult = n < 20\nimport os, sys\nsys.stdout.flush()")},
	{name: "D children of JavaScript", proves: "children live in the same jail", status: sandbox.OK, value: `"0"`, code: map[string]string{"javascript": "const r = require('child_process').spawnSync(process.execPath, ['-e', 'console.log(process.getuid() === 0 ? 1 : 0)'], {timeout: 8000}); const result = String(r.stdout).trim()"}},
	{name: "D a pipe without a reader", proves: "a program that is not listened to ends by itself", status: sandbox.OK, value: "1", code: map[string]string{"sh": "yes | head -n 1 > /dev/null; echo 1 > result.json"}},
}

// resources are attempts to take more than one's share.
var resources = []testCase{
	{name: "F66 memory in JavaScript", proves: "the heap's limit is the memory limit", prepare: memory(96 << 20), status: sandbox.OutOfMemory, exit: 137, stdout: anything, code: map[string]string{"javascript": "const a = []; for (;;) a.push('x'.repeat(1000) + a.length)"}},
	{name: "F66 memory off the heap", proves: "what is not on the heap is counted too", prepare: memory(96 << 20), status: sandbox.OutOfMemory, exit: 137, code: map[string]string{"javascript": "const a = []; for (;;) a.push(new Uint8Array(8 << 20).fill(1))"}},
	{name: "F66 memory of a shell", proves: "and of any program", prepare: tight, status: sandbox.OutOfMemory, exit: 137, code: map[string]string{"sh": "x=x; while :; do x=$x$x; done"}},
	{name: "F66 memory of a module", proves: "linear memory is bounded", prepare: memory(128 << 20), status: sandbox.OutOfMemory, exit: 137, stdout: anything, code: map[string]string{"wasm": "guest eat"}},
	{name: "F66 one huge buffer", proves: "however the limit answers, it is out of memory", status: sandbox.OutOfMemory, exit: 137, code: map[string]string{"javascript": "new ArrayBuffer(2 ** 45)"}},
	{name: "F67 memory of many", proves: "the limit is the jail's, not a process's", prepare: memory(64 << 20), status: sandbox.OK, value: "true", code: python("import os, time\nfor _ in range(6):\n  if os.fork() == 0:\n    x = b'x' * (30 << 20)\n    time.sleep(0.5)\n    os._exit(0)\ndead = 0\nwhile True:\n  try: pid, status = os.wait()\n  except ChildProcessError: break\n  dead += os.WIFSIGNALED(status)\nresult = dead > 0")},
	{name: "F68 memory in files", proves: "files in memory are memory", prepare: func(s *sandbox.Spec) { s.Limits.Memory, s.Limits.FileSize = 64<<20, 200<<20 }, status: sandbox.OK, value: "true", check: func(*testing.T, sandbox.Result) {}, code: python("n = 0\ntry:\n  with open('/tmp/big', 'wb') as f:\n    while n < 200:\n      f.write(b'x' * (1 << 20)); f.flush(); n += 1\nexcept OSError: pass\nresult = n <= 40")},
	{name: "F71 files that are too large", proves: "a file ends at its limit", status: sandbox.OK, value: "true", check: func(*testing.T, sandbox.Result) {}, code: map[string]string{"wasm": "guest large-file 2000000", "sh": "head -c 2000000 /dev/zero > f 2>/dev/null && echo false > result.json || echo true > result.json; rm -f f", "javascript": "const fs = require('fs'); let result = false; try { fs.writeFileSync('f', Buffer.alloc(2 << 20)) } catch { result = true } fs.rmSync('f', {force: true})"}},
	{name: "F71 sparse files", proves: "size is what a file claims", status: sandbox.OK, value: "[27,27]", code: python("import os\nresult = []\nfd = os.open('f', os.O_RDWR | os.O_CREAT)\nimport signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nfor do in (lambda: os.ftruncate(fd, 1 << 40), lambda: os.posix_fallocate(fd, 0, 1 << 30)):\n  try:\n    do()\n    result.append(0)\n  except OSError as e: result.append(e.errno)\nos.remove('f')")},
	{name: "F72 many files", proves: "files and folders are counted", status: sandbox.OK, value: "true", check: func(*testing.T, sandbox.Result) {}, code: map[string]string{"wasm": "guest many-files", "sh": "n=0; while [ $n -lt 500 ]; do (: > /tmp/f$n) 2>/dev/null || break; n=$((n+1)); done; [ $n -le 80 ] && echo true > /work/result.json; rm -f /tmp/f*; [ -s /work/result.json ] || echo true > /work/result.json"}},
	{name: "F74 descriptors", proves: "descriptors are counted", status: sandbox.OK, value: "true", code: python("import os\nn = 0\ntry:\n  while n < 5000:\n    os.dup(1); n += 1\nexcept OSError: pass\nresult = n < 260")},
	{name: "F74 polls, timers and events", proves: "and so are those that are no files", status: sandbox.OK, value: "[true,true]", code: python("import select, ctypes\nlibc = ctypes.CDLL(None)\nresult = []\nfor make in (lambda: select.epoll(), lambda: libc.eventfd(0, 0)):\n  n, kept = 0, []\n  try:\n    while n < 3000:\n      got = make()\n      if got == -1: break\n      kept.append(got); n += 1\n  except OSError: pass\n  result.append(n < 260)\n  for k in kept:\n    if isinstance(k, int): libc.close(k)\n    else: k.close()")},
	{name: "F75 endless loops", proves: "time ends them", prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124, code: map[string]string{"javascript": "for (;;);", "sh": "while :; do :; done", "wasm": "guest loop"}},
	{name: "F75 endless promises", proves: "time ends them", prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124, code: map[string]string{"javascript": "const f = () => Promise.resolve().then(f); f()"}},
	{name: "F77 waiting for ever", proves: "time ends what does nothing", prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124, code: map[string]string{"javascript": "setInterval(() => {}, 1000)", "sh": "sleep 1000", "wasm": "guest sleep"}},
	{name: "F77 waiting for input", proves: "standard input ends", status: sandbox.OK, value: `""`, code: map[string]string{"python": "import sys\nresult = sys.stdin.read()", "javascript": "const result = require('fs').readFileSync(0, 'utf8')", "sh": "x=$(cat); echo \"\\\"$x\\\"\" > result.json"}},
	{name: "F78 a bomb that unpacks", proves: "what unpacks is bounded like all else", prepare: tight, status: sandbox.OutOfMemory, exit: 137, code: python("import zlib\nx = zlib.compress(b'x' * (1 << 20)) \nfor _ in range(3): pass\nparts = []\nwhile True: parts.append(zlib.decompress(x) + bytes([len(parts) % 256]))")},
	{name: "F78 deep JSON", proves: "a parser's depth is the program's own trouble", status: sandbox.Error, exit: 1, errorCode: "language_error", code: python("import json\njson.loads('[' * 100000)")},
	{name: "F recursion", proves: "deep recursion is a language error", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"javascript": "function f() { return f() + 1 }\nf()"}},
	{name: "F CPU", proves: "a share of the processor is held", prepare: func(s *sandbox.Spec) { s.Limits.CPUPercent = 20 }, status: sandbox.OK, value: "true", code: python("import time\nwall, cpu = time.monotonic(), time.process_time()\nwhile time.monotonic() - wall < 1.2: pass\nresult = (time.process_time() - cpu) / (time.monotonic() - wall) < 0.45")},
	{name: "F random numbers", proves: "randomness does not run out", status: sandbox.OK, value: "1048576", code: map[string]string{"python": "import os\nresult = len(os.urandom(1 << 20))", "javascript": "const result = require('crypto').randomBytes(1 << 20).length"}},
}

// memory sets the memory limit.
func memory(n int64) func(*sandbox.Spec) { return func(s *sandbox.Spec) { s.Limits.Memory = n } }

// answers are attacks on those who read what a program says.
var answers = []testCase{
	{name: "G83 output without end", proves: "a flood is ended, the node holds the first part", prepare: wall(8 * time.Second), status: sandbox.OutputLimit, exit: 1, errorCode: "output_limit", stdout: anything, code: map[string]string{"javascript": "const s = 'x'.repeat(1000) + '\\n'; for (;;) require('fs').writeSync(1, s)", "sh": "yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "wasm": "guest flood"}},
	{name: "G83 errors without end", proves: "both streams are bounded", prepare: wall(8 * time.Second), status: sandbox.OutputLimit, exit: 1, errorCode: "output_limit", code: map[string]string{"python": "import sys\nwhile True: sys.stderr.write('x' * 1000)", "sh": "yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2"}},
	{name: "G84 bytes that are no text", proves: "output is kept as bytes", status: sandbox.OK, stdout: "\xff\x00\x1b[31m\r\n", code: map[string]string{"python": "import sys\nsys.stdout.buffer.write(b'\\xff\\x00\\x1b[31m\\r\\n')", "javascript": "require('fs').writeSync(1, Buffer.from([255, 0, 27, 91, 51, 49, 109, 13, 10]))", "sh": "printf '\\377\\000\\033[31m\\r\\n'"}},
	{name: "G85 a forged reply", proves: "the first frame counts and is checked", status: sandbox.Error, exit: 1, errorCode: "bad_reply", code: python("import os\nos.write(3, b'\\x00\\x00\\x00\\x05Rnope')\nresult = 1")},
	{name: "G85 a forged result", proves: "a program may answer itself, once", status: sandbox.OK, value: "7", code: python("import os\nos.write(3, b'\\x00\\x00\\x00\\x02R7')\nresult = 1")},
	{name: "G85 a reply of 4 GiB", proves: "a length is not believed", status: sandbox.Error, exit: 1, errorCode: "bad_reply", code: python("import os\nos.write(3, b'\\xff\\xff\\xff\\xffX')\nos._exit(1)")},
	{name: "G85 half a reply", proves: "a reply that ends early is none", status: sandbox.OK, code: python("import os\nos.write(3, b'\\x00\\x00\\x00\\x09R1')\nos._exit(0)")},
	{name: "G85 success forged by leaving", proves: "an exit code is not a result", status: sandbox.OK, code: map[string]string{"python": "import os\nos._exit(0)", "javascript": "process.reallyExit(0)", "sh": "exit 0\necho 1 > result.json", "wasm": "guest exit 0 value 1"}},
	{name: "G86 the shell's channel", proves: "a shell program cannot answer in its node's name", status: sandbox.Error, exit: 2, code: map[string]string{"sh": "printf '\\000\\000\\000\\002R7' >&3"}},
	{name: "G87 results that are not JSON", proves: "what JSON would lose is an error", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{"python": "result = {1, 2}", "javascript": "const result = {a: 1n}", "sh": "echo '{' > result.json", "wasm": "guest value nope"}},
	{name: "G87 bytes as result", proves: "the type is named", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{"python": "result = b'x'", "javascript": "const result = new Map()"}},
	{name: "G87 an int of 5000 digits", proves: "the interpreter's own limit is an answer", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: python("result = 10 ** 5000")},
	{name: "G87 circular in JavaScript", proves: "a result that contains itself is named", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{"javascript": "const result = {}; result.self = result"}},
	{name: "G88 half of a surrogate pair", proves: "nobody reads another result than was given", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{"python": "result = '\\ud800'", "javascript": "const result = '\\ud800'", "sh": "printf '\"\\\\ud800\"' > result.json"}},
	{name: "G88 depth", proves: "depth is bounded", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{"javascript": "let result = []; for (let i = 0; i < 500; i++) result = [result]", "wasm": "guest deep-value 100"}},
	{name: "G88 size", proves: "size is bounded", status: sandbox.Error, exit: 1, errorCode: "result_too_large", code: map[string]string{"javascript": "const result = 'x'.repeat(100000)", "sh": "(printf '\"'; head -c 100000 /dev/zero | tr '\\0' x; printf '\"') > result.json", "wasm": "guest long-value 100000"}},
	{name: "G92 patched libraries", proves: "who patches his own interpreter hurts himself at worst", status: sandbox.OK, value: "1", code: map[string]string{"python": "import json, builtins\njson.dumps = lambda *a, **k: '\"forged\"'\nbuiltins.len = lambda x: 0\nresult = 1", "javascript": "JSON.stringify = () => '\"forged\"'; Number.isFinite = () => { throw 1 }; const result = 1"}},
	{name: "G92 a hostile repr", proves: "no method of a result is called", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: python("class X:\n  def __repr__(self): raise SystemExit(0)\n  def __str__(self): raise SystemExit(0)\nresult = X()")},
	{name: "G92 a property as result", proves: "a getter that throws is the program's own trouble", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"javascript": "Object.defineProperty(globalThis, 'result', {get() { throw new Error('no') }})"}},
	{name: "G93 a huge traceback", proves: "errors are cut", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"python": "raise ValueError('x' * 200000)", "javascript": "throw new Error('x'.repeat(200000))"}, check: func(t *testing.T, r sandbox.Result) {
		if len(r.Stderr) > 64<<10 || len(r.Message) > 4<<10 {
			t.Errorf("stderr of %d bytes, message of %d", len(r.Stderr), len(r.Message))
		}
	}},
	{name: "G94 escapes in an error", proves: "what is shown cannot act on a terminal", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"python": "raise ValueError('\\x1b[2J\\r\\x00')", "javascript": "throw new Error('\\x1b[2J\\r\\x00')"}, check: func(t *testing.T, r sandbox.Result) {
		if strings.ContainsAny(r.Message, "\x1b\r\x00") {
			t.Errorf("message is %q", r.Message)
		}
	}},
}

// others are what the languages beside Python are for, and their own faults.
var others = []testCase{
	{name: "the original's example", proves: "a value comes back", status: sandbox.OK, value: "30", code: map[string]string{"javascript": "function calculate(a, b) { return a + b }\nconst result = calculate(10, 20)", "sh": "expr 10 + 20 > result.json", "wasm": "guest value 30"}},
	{name: "echo", proves: "output comes back", status: sandbox.OK, stdout: "hello 1\nü\n", code: map[string]string{"javascript": "console.log('hello', 1)\nconsole.log('ü')", "sh": "echo hello 1; echo ü"}},
	{name: "exit code", proves: "an exit code is the program's own", status: sandbox.Error, exit: 3, code: map[string]string{"javascript": "process.exit(3)", "sh": "exit 3", "wasm": "guest exit 3"}},
	{name: "no result", proves: "no result is no error", status: sandbox.OK, code: map[string]string{"javascript": "const x = 1", "sh": ":", "wasm": "guest exit 0"}},
	{name: "empty program", proves: "an empty program is a program", status: sandbox.OK, code: map[string]string{"javascript": "", "sh": ""}},
	{name: "stdin", proves: "input comes in", status: sandbox.OK, value: "[1,2,3]", prepare: func(s *sandbox.Spec) { s.Stdin = []byte("1 2\n3") }, code: map[string]string{"javascript": "const result = require('fs').readFileSync(0, 'utf8').split(/\\s+/).map(Number)", "sh": "tr '\\n' ' ' | sed 's/ /,/g; s/^/[/; s/$/]/' > result.json", "wasm": "guest numbers"}},
	{name: "files in", proves: "files come in", status: sandbox.OK, value: "[3,2]", prepare: func(s *sandbox.Spec) {
		s.Files = append(s.Files, sandbox.File{Path: "a/b.txt", Content: []byte("hey")}, sandbox.File{Path: "bin", Content: []byte{0xff, 0}})
	}, code: map[string]string{"javascript": "const fs = require('fs'); const result = ['a/b.txt', 'bin'].map(f => fs.readFileSync(f).length)", "sh": "echo \"[$(cat a/b.txt | wc -c),$(cat bin | wc -c)]\" > result.json", "wasm": "guest sizes a/b.txt,bin"}},
	{name: "arguments", proves: "arguments come in as they are", status: sandbox.OK, value: `["a b","$(id)","'"]`, prepare: func(s *sandbox.Spec) { s.Args = []string{"a b", "$(id)", "'"} }, code: map[string]string{"python": "import sys\nresult = sys.argv[1:]", "javascript": "const result = process.argv.slice(2)", "sh": `printf '["%s","%s","%s"]' "$1" "$2" "$3" > result.json`}},
	{name: "syntax error", proves: "a language's error is called one", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"javascript": "let x = 1\nx = ("}, check: stderrHas("main.js:2")},
	{name: "syntax error of a shell", proves: "a shell's error is its exit code", status: sandbox.Error, exit: 2, code: map[string]string{"sh": "echo a\nif then"}, check: stderrHas("yntax error"), stdout: "a\n"},
	{name: "runtime error", proves: "an error names its place", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"javascript": "function f() {\n  null.x\n}\nf()"}, check: stderrHas("TypeError", "main.js:2")},
	{name: "command not found", proves: "and of commands", status: sandbox.Error, exit: 127, code: map[string]string{"sh": "no-such-command"}, check: stderrHas("not found")},
	{name: "panic of a module", proves: "a module's own end is its exit code", status: sandbox.Error, exit: 2, code: map[string]string{"wasm": "guest panic oh"}, check: stderrHas("panic: oh")},
	{name: "module: trap", proves: "a trap is a language error", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": string(Module{Body: "\x00"}.Bytes())}, check: stderrHas("unreachable")},
	{name: "module: not one", proves: "what is no module is refused", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": "#!/bin/sh"}},
	{name: "module: cut short", proves: "a broken module is refused", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": string(Module{Memory: 1}.Bytes()[:20])}},
	{name: "module: unknown import", proves: "nothing but WASI is given", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"wasm": string(Module{Imports: []Import{{Module: "env", Name: "system", Params: 1}}}.Bytes())}, check: stderrHas("env.system")},
	{name: "module: memory.grow bomb", proves: "memory ends at the limit", status: sandbox.OutOfMemory, exit: 137, code: map[string]string{"wasm": string(Module{Memory: 1, Body: "\x03\x40\x41\x10\x40\x00\x41\x7f\x47\x0d\x00\x0b\x00"}.Bytes())}},
	{name: "module: 4 GiB at the start", proves: "a module that asks for more than there is does not begin", status: sandbox.OutOfMemory, exit: 137, code: map[string]string{"wasm": string(Module{Memory: 65536}.Bytes())}},
	{name: "module: giant table", proves: "tables are memory", status: sandbox.OutOfMemory, exit: 137, code: map[string]string{"wasm": string(Module{Table: 1 << 27, Body: "\x41\x00\xd0\x70\x41\x80\x80\x80\xc0\x00\xfc\x11\x00"}.Bytes())}},
	{name: "module: recursion without end", proves: "a stack without end ends", prepare: memory(64 << 20), status: sandbox.OutOfMemory, exit: 137, code: map[string]string{"wasm": string(Module{Body: "\x10\x00"}.Bytes())}},
	{name: "module: endless loop", proves: "a loop without a call is ended too", prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124, code: map[string]string{"wasm": string(Module{Body: "\x03\x40\x0c\x00\x0b"}.Bytes())}},
}
