package process_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/runtime"
)

// languages is a backend with a JavaScript and a shell runtime.
func languages(tb testing.TB, cfg process.Config) *process.Backend {
	tb.Helper()
	store, err := runtime.Open(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	_, nodeErr := store.AddNode(tb.Context(), runtime.AddConfig{})
	_, shErr := store.AddShell(tb.Context(), runtime.AddConfig{})
	if err := errors.Join(nodeErr, shErr); errors.Is(err, sandbox.ErrUnavailable) && os.Getenv("CI") == "" {
		tb.Skipf("this machine lacks an interpreter: %v", err)
	} else if err != nil {
		tb.Fatal(err)
	}
	cfg.Spawner, cfg.Runtimes = jailtest.Start(tb), store
	b, err := process.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return b
}

func TestLanguages(t *testing.T) {
	b := languages(t, process.Config{})
	type want struct {
		status sandbox.Status
		exit   int
		code   string
		value  string
		stdout string
		stderr string // part of it
	}
	const big = 130_000
	for name, tt := range map[string]struct {
		language, code string
		args           []string
		want           want
	}{
		"js value":             {"javascript", "function f(a, b) { return a + b }\nconst result = f(10, 20)", nil, want{value: "30"}},
		"js let":               {"javascript", "let result = {a: [1, null, 'ü']}", nil, want{value: `{"a":[1,null,"ü"]}`}},
		"js undeclared":        {"javascript", "result = 0.5", nil, want{value: "0.5"}},
		"js none":              {"javascript", "const x = 1", nil, want{}},
		"js never reached":     {"javascript", "process.exit(0)\nlet result = 1", nil, want{}},
		"js set, then exit":    {"javascript", "var result = 1; process.exit(3)", nil, want{status: sandbox.Error, exit: 3, value: "1"}},
		"js promise":           {"javascript", "const result = new Promise(r => setTimeout(() => r(7), 10))", nil, want{value: "7"}},
		"js dead promise":      {"javascript", "const result = new Promise(() => {})", nil, want{status: sandbox.Error, exit: 1, code: "result_not_json"}},
		"js rejected promise":  {"javascript", "const result = Promise.reject(new Error('no'))", nil, want{status: sandbox.Error, exit: 1, code: "language_error", stderr: "Error: no"}},
		"js await":             {"javascript", "const { setTimeout: s } = require('timers/promises')\nawait s(5)\nconst result = 8", nil, want{value: "8"}},
		"js import":            {"javascript", "const fs = await import('fs')\nresult = typeof fs.readFileSync", nil, want{value: `"function"`}},
		"js later":             {"javascript", "var result = 1; setTimeout(() => { result = 2; console.log('late') }, 20)", nil, want{value: "2", stdout: "late\n"}},
		"js arguments":         {"javascript", "result = process.argv.slice(2)", []string{"a b", "'"}, want{value: `["a b","'"]`}},
		"js syntax":            {"javascript", "let x = ;\n", nil, want{status: sandbox.Error, exit: 1, code: "language_error", stderr: "main.js:1"}},
		"js throws":            {"javascript", "\nfunction f() { throw new Error('oh') }\nf()", nil, want{status: sandbox.Error, exit: 1, code: "language_error", stderr: "main.js:2"}},
		"js throws later":      {"javascript", "setTimeout(() => { throw new TypeError('oh') }, 1)", nil, want{status: sandbox.Error, exit: 1, code: "language_error", stderr: "TypeError: oh"}},
		"js throws a string":   {"javascript", "throw 'words'", nil, want{status: sandbox.Error, exit: 1, code: "language_error", stderr: "words"}},
		"js catches itself":    {"javascript", "process.on('uncaughtException', () => { result = 'caught' }); setTimeout(() => { throw 1 }, 1)", nil, want{value: `"caught"`}},
		"js NaN":               {"javascript", "result = {a: NaN}", nil, want{status: sandbox.Error, exit: 1, code: "result_not_json"}},
		"js BigInt":            {"javascript", "result = 1n", nil, want{status: sandbox.Error, exit: 1, code: "result_not_json"}},
		"js Map":               {"javascript", "result = new Map()", nil, want{status: sandbox.Error, exit: 1, code: "result_not_json"}},
		"js function":          {"javascript", "function result() {}", nil, want{status: sandbox.Error, exit: 1, code: "result_not_json"}},
		"js circular":          {"javascript", "result = {}; result.x = result", nil, want{status: sandbox.Error, exit: 1, code: "result_not_json"}},
		"js too large":         {"javascript", "result = 'x'.repeat(100000)", nil, want{status: sandbox.Error, exit: 1, code: "result_too_large"}},
		"js patched JSON":      {"javascript", "JSON.stringify = () => '\"forged\"'; Number.isFinite = () => { throw 1 }; result = 1", nil, want{value: "1"}},
		"js recursion":         {"javascript", "function f() { return f() + 1 }\nf()", nil, want{status: sandbox.Error, exit: 1, code: "language_error", stderr: "call stack"}},
		"js memory":            {"javascript", "const a = []; while (true) a.push('x'.repeat(1000) + a.length)", nil, want{status: sandbox.OutOfMemory, exit: 137}},
		"js memory at once":    {"javascript", "const a = []; for (;;) a.push(new Uint8Array(8 << 20).fill(1))", nil, want{status: sandbox.OutOfMemory, exit: 137}},
		"js memory beyond all": {"javascript", "new ArrayBuffer(2 ** 45)", nil, want{status: sandbox.OutOfMemory, exit: 137}},
		"js spins":             {"javascript", "for (;;);", nil, want{status: sandbox.Timeout, exit: 124}},
		"js waits":             {"javascript", "setInterval(() => {}, 1000)", nil, want{status: sandbox.Timeout, exit: 124}},
		"js children":          {"javascript", "const r = require('child_process').spawnSync(process.execPath, ['-e', '0'], {timeout: 3000}); result = r.status", nil, want{value: "0"}},
		"js dies":              {"javascript", "process.kill(process.pid, 'SIGKILL')", nil, want{status: sandbox.Killed, exit: 137}},
		"js files":             {"javascript", "const fs = require('fs'); result = fs.readdirSync('/').filter(n => !['dev','proc','tmp','work','usr','lib','lib64','bin'].includes(n))", nil, want{value: "[]"}},
		"js network":           {"javascript", "result = null; require('net').connect(80, '127.0.0.1').on('error', e => { result = e.code !== undefined })", nil, want{value: "true"}},

		"sh echo":            {"sh", "echo hello; printf 'ü\\n'", nil, want{stdout: "hello\nü\n"}},
		"sh value":           {"sh", "expr 10 + 20 > result.json", nil, want{value: "30"}},
		"sh value not JSON":  {"sh", "echo x > result.json", nil, want{status: sandbox.Error, exit: 1, code: "result_not_json"}},
		"sh value too large": {"sh", "printf '\"' > result.json; head -c 100000 /dev/zero | tr '\\0' x >> result.json; printf '\"' >> result.json", nil, want{status: sandbox.Error, exit: 1, code: "result_too_large"}},
		"sh value is a link": {"sh", "ln -s /proc/self/environ result.json", nil, want{}},
		"sh exit":            {"sh", "exit 7", nil, want{status: sandbox.Error, exit: 7}},
		"sh last status":     {"sh", "true; false", nil, want{status: sandbox.Error, exit: 1}},
		"sh not found":       {"sh", "echo a\nno-such-command", nil, want{status: sandbox.Error, exit: 127, stdout: "a\n", stderr: "2"}},
		"sh syntax":          {"sh", "if then", nil, want{status: sandbox.Error, exit: 2, stderr: "yntax error"}},
		"sh shebang":         {"sh", "#!/bin/sh\n# words\necho yes", nil, want{stdout: "yes\n"}},
		"sh arguments":       {"sh", `printf '<%s>' "$0" "$#" "$@"`, []string{"a b", "it's", "$(id)", ""}, want{stdout: "<main.sh><4><a b><it's><$(id)><>"}},
		"sh pipeline":        {"sh", "seq 5 | awk '{ s += $1 } END { print s }' | tee result.json", nil, want{stdout: "15\n", value: "15"}},
		"sh long":            {"sh", "# " + strings.Repeat("x", big) + "\necho long", nil, want{stdout: "long\n"}},
		"sh quotes":          {"sh", "x='a\"b'; echo \"$x\" `echo c` \\\\", nil, want{stdout: "a\"b c \\\n"}},
		"sh spins":           {"sh", "while :; do :; done", nil, want{status: sandbox.Timeout, exit: 124}},
		"sh fork bomb":       {"sh", "f() { f | f & }; (f 2>/dev/null) & while :; do :; done", nil, want{status: sandbox.Timeout, exit: 124}},
		"sh daemon":          {"sh", "(sleep 1000 &) ; echo done", nil, want{stdout: "done\n"}},
		"sh kills all":       {"sh", "trap '' TERM; kill -TERM -1; echo alive", nil, want{stdout: "alive\n"}},
		"sh control is shut": {"sh", "echo x >&3", nil, want{status: sandbox.Error, exit: 2, stderr: "3"}},
		"sh network":         {"sh", "cat < /dev/tcp/127.0.0.1/80", nil, want{status: sandbox.Error, exit: 2}},
		"sh memory":          {"sh", "x=x; while :; do x=$x$x; done", nil, want{status: sandbox.OutOfMemory, exit: 137}},
		"sh secrets":         {"sh", "env | cut -d= -f1 | sort | tr '\\n' ' '", nil, want{stdout: "HOME LANG PATH PWD TMPDIR "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec(tt.code)
			s.Language, s.Args = tt.language, tt.args
			s.Limits.Memory, s.Limits.Wall, s.Limits.Result = 128<<20, time.Minute, 64<<10 // the machine may be busy
			if tt.want.status == sandbox.Timeout {
				s.Limits.Wall = 700 * time.Millisecond
			}
			if tt.want.status == "" {
				tt.want.status = sandbox.OK
			}
			r, err := b.Run(t.Context(), s, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status != tt.want.status || r.ExitCode != tt.want.exit || tt.want.code != "" && r.ErrorCode != tt.want.code || string(r.Value) != tt.want.value {
				t.Errorf("ended as %s, exit code %d, %q, value %.200s; want %+v\nmessage: %s\nstderr: %.1000s", r.Status, r.ExitCode, r.ErrorCode, r.Value, tt.want, r.Message, r.Stderr)
			}
			if string(r.Stdout) != tt.want.stdout || !strings.Contains(string(r.Stderr), tt.want.stderr) {
				t.Errorf("stdout %.300q, stderr %.500q", r.Stdout, r.Stderr)
			}
			if slices.ContainsFunc(r.Files, func(f sandbox.File) bool { return f.Path == "result.json" }) && r.Status == sandbox.OK {
				t.Error("the result is among the files")
			}
		})
	}
}
