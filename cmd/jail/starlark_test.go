package main

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// outcome is what the node would see of one run.
type outcome struct {
	report protocol.Report
	stdout string
	stderr string
	value  string
}

// run runs a program through the worker's own loop.
func run(t *testing.T, programs ...protocol.Request) []outcome {
	t.Helper()
	node, worker := net.Pipe()
	served := make(chan error, 1)
	go func() {
		err := serveStarlark(worker)
		worker.Close()
		served <- err
	}()
	node.SetDeadline(time.Now().Add(time.Minute))
	if kind, _, err := protocol.Read(node, protocol.Hello); err != nil || kind != protocol.Hello {
		t.Fatalf("greeting: %v %v", kind, err)
	}
	var all []outcome
	for _, q := range programs {
		q.Order.Output, q.Order.Result = or(q.Order.Output, 1<<16), or(q.Order.Result, 1<<16)
		if err := protocol.WriteRequest(node, q); err != nil {
			t.Fatal(err)
		}
		all = append(all, receive(t, node))
	}
	node.Close()
	if err := <-served; err != nil {
		t.Errorf("the worker ended with %v", err)
	}
	return all
}

func or(v, d int64) int64 {
	if v == 0 {
		return d
	}
	return v
}

func receive(t *testing.T, r io.Reader) outcome {
	t.Helper()
	var o outcome
	for {
		kind, payload, err := protocol.Read(r, protocol.Stdout, protocol.Stderr, protocol.Value, protocol.Done)
		if err != nil {
			t.Fatal(err)
		}
		switch kind {
		case protocol.Stdout:
			o.stdout += string(payload)
		case protocol.Stderr:
			o.stderr += string(payload)
		case protocol.Value:
			o.value = string(payload)
		case protocol.Done:
			if o.report, err = protocol.ParseReport(payload); err != nil {
				t.Fatal(err)
			}
			return o
		}
	}
}

func code(text string) protocol.Request { return protocol.Request{Code: []byte(text)} }

func TestStarlarkRuns(t *testing.T) {
	for name, tt := range map[string]struct {
		code, stdin                   string
		status, errorCode             string
		exit                          int
		value, stdout, stderrContains string
	}{
		"the original's example": {code: "def calculate(a, b):\n    return a + b\nresult = calculate(10, 20)", status: "ok", value: "30"},
		"prints":                 {code: "print('a', 1, sep='-', end='!')\nprint([1, None])", status: "ok", stdout: "a-1![1, None]\n"},
		"top-level control":      {code: "n = 0\nwhile n < 3:\n  n += 1\nif n == 3:\n  for i in range(2):\n    n = n + i\nresult = n", status: "ok", value: "4"},
		"recursion":              {code: "def fib(n):\n  return n if n < 2 else fib(n-1) + fib(n-2)\nresult = fib(15)", status: "ok", value: "610"},
		"stdin":                  {code: "result = [int(x) for x in stdin.split()]", stdin: "1 2\n3", status: "ok", value: "[1,2,3]"},
		"modules":                {code: "result = [json.decode('{\"a\":1}')['a'], math.floor(2.5), sum([1, 2]), pow(2, 10), pow(3, -1, ) , round(2.5), round(2.675, 1)]", status: "ok", value: "[1,2,3,1024,0.3333333333333333,2,2.7]"},
		"kinds":                  {code: "result = {'n': None, 't': True, 'i': pow(2, 100), 'f': 30.0, 'e': 1e300, 's': 'ü\"<', 'l': (1, [2]), 'r': range(2), 1: {}, None: 0}", status: "ok", value: `{"n":null,"t":true,"i":1267650600228229401496703205376,"f":30.0,"e":1e+300,"s":"ü\"<","l":[1,[2]],"r":[0,1],"1":{},"null":0}`},
		"no result":              {code: "x = 1", status: "ok"},
		"exit":                   {code: "result = 7\nexit(3)", status: "error", exit: 3, value: "7"},
		"exit zero":              {code: "exit()\nresult = 1", status: "ok"},
		"exit huge":              {code: "exit(1 << 70)", status: "error", exit: 255},
		"exit far below":         {code: "exit(-pow(2, 70))", status: "error", exit: 255},
		"exit of two bytes":      {code: "exit(256)", status: "ok"},
		"exit text":              {code: "exit('gone')", status: "error", exit: 1, stderrContains: "gone\n"},
		"fail":                   {code: "def f():\n  fail('no', 'good')\nf()", status: "error", errorCode: "language_error", exit: 1, stderrContains: "program:2:7: in f\nError in fail: fail: no good"},
		"runtime error":          {code: "x = 1\ny = 1 // 0", status: "error", errorCode: "language_error", exit: 1, stderrContains: "program:2:7: in <toplevel>\nError: floored division by zero"},
		"syntax error":           {code: "x = (", status: "error", errorCode: "language_error", exit: 1, stderrContains: "program:1:6: syntax error"},
		"undefined":              {code: "x = y\nz = w", status: "error", errorCode: "language_error", exit: 1, stderrContains: "program:2:5: undefined: w"},
		"load":                   {code: "load('x', 'y')", status: "error", errorCode: "language_error", exit: 1, stderrContains: "load not implemented"},
		"NaN":                    {code: "result = float('nan')", status: "error", errorCode: "result_not_json", exit: 1, stderrContains: "nan"},
		"infinity":               {code: "result = [float('-inf')]", status: "error", errorCode: "result_not_json", exit: 1, stderrContains: "-inf"},
		"circular":               {code: "result = []\nresult.append(result)", status: "error", errorCode: "result_not_json", exit: 1, stderrContains: "contains itself"},
		"set":                    {code: "result = set([1])", status: "error", errorCode: "result_not_json", exit: 1, stderrContains: "list("},
		"function":               {code: "def result(): pass", status: "error", errorCode: "result_not_json", exit: 1, stderrContains: "function"},
		"bytes":                  {code: "result = b'x'", status: "error", errorCode: "result_not_json", exit: 1, stderrContains: "bytes"},
		"bad string":             {code: "result = '\\xff'", status: "error", errorCode: "language_error", exit: 1},
		"same key twice":         {code: "result = {1: 0, '1': 0}", status: "error", errorCode: "result_not_json", exit: 1, stderrContains: "two keys"},
		"large":                  {code: "result = 'x' * 70000", status: "error", errorCode: "result_too_large", exit: 1},
		"large int":              {code: "result = pow(2, 400000)", status: "error", errorCode: "result_too_large", exit: 1},
		"stubborn globals":       {code: "def f():\n  return hidden\nhidden = 5\nresult = f()", status: "ok", value: "5"},
		"dir of nothing":         {code: "result = [type(json), dir(math)[0]]", status: "ok", value: `["module","acos"]`},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(t, protocol.Request{Code: []byte(tt.code), Stdin: []byte(tt.stdin)})[0]
			r := got.report
			if r.Status != tt.status || r.ErrorCode != tt.errorCode || r.ExitCode != tt.exit {
				t.Errorf("report is %+v, want %s %s %d; stderr %q", r, tt.status, tt.errorCode, tt.exit, got.stderr)
			}
			if got.value != tt.value || got.stdout != tt.stdout {
				t.Errorf("value %q, stdout %q, want %q, %q", got.value, got.stdout, tt.value, tt.stdout)
			}
			if !strings.Contains(got.stderr, tt.stderrContains) {
				t.Errorf("stderr %q does not contain %q", got.stderr, tt.stderrContains)
			}
			if tt.status == "ok" && got.stderr != "" {
				t.Errorf("stderr %q", got.stderr)
			}
		})
	}
}

func TestStarlarkNamesWhatPythonHasAndItLacks(t *testing.T) {
	for text, want := range map[string]string{
		"class A:\n  pass": "dicts and functions", "import math": "remove the line", "from math import sqrt": "math.sqrt",
		"try:\n  x = 1\nexcept:\n  pass": "check before", "def f():\n  raise E('x')": "fail(", "with open('a') as f:\n  pass": "files",
		"x = 1 is None": "use ==", "x = 1 is not None": "use ==", "x = 2**3": "pow(", "x = 2\nx **= 3": "pow(",
		"x = f'{1}'": "f-strings", "print(f\"{x}\")": "f-strings", "def f():\n  yield 1": "generators", "def f():\n  global x\n  x = 1": "global",
		"def f():\n  nonlocal x": "nonlocal", "d = {}\ndel d['a']": "pop", "x = 1 < 2 < 3": "a < b and b < c", "async def f():\n  pass": "async",
		"x = await f()": "await", "@deco\ndef f():\n  pass": "decorators", "if (n := 10) > 5:\n  pass": "walrus",
		"def f(a: int):\n  return a": "type hints", "def f(a) -> int:\n  return a": "type hints", "x: int = 1": "type hints",
		"assert 1 == 1": "fail(", "assert x": "fail(", "a, *b = [1, 2]": "star-unpacking", "x = [*[1]]": "star-unpacking",
		"x = {1, 2}": "set([", "x = {1}": "set([", "x = {a for a in [1]}": "set([x for", "x = sum(i for i in [1])": "[ ]", "x = (i for i in [1])": "[ ]",
		"x = 1_000": "underscores", "x = 1j": "complex", "x = 'a' 'b'": "put +", "for i in [1]:\n  pass\nelse:\n  pass": "else of a loop",
		"match x:\n  case 1:\n    pass": "if and elif", "print 'a'": "print(x)", "x = !y": "not", "if x = 1:\n  pass": "==",
		"x = a @ b": "loop", "x = u'a'": "prefix",
		"open('f')": "files", "input()": "stdin", "isinstance(1, int)": "type(x)", "ValueError('x')": "fail(", "Exception()": "fail(",
		"random.random()": "deterministic", "sys.exit(1)": "exit(code)", "time.time()": "deterministic", "__import__('os')": "",
	} {
		got := run(t, code(text))[0]
		if got.report.ErrorCode != "language_error" || got.report.ExitCode != 1 || !strings.HasPrefix(got.stderr, "program:") || !strings.Contains(got.stderr, want) {
			t.Errorf("%q: %+v, stderr %q does not advise %q", text, got.report, got.stderr, want)
		}
		if len(got.report.Message) > maxMessage || strings.Contains(got.report.Message, "\n") {
			t.Errorf("%q: message %q", text, got.report.Message)
		}
	}
}

func TestStarlarkRunsShareNothing(t *testing.T) {
	got := run(t,
		code("secret = 'swordfish'\nresult = 1\njson2 = json"),
		code("result = secret"),
		code("x = files\nx['a'] = 1"),
		code("json.encode = 1"),
		code("result = 'result' in dir()"),
		code("result = 2"),
	)
	for i, want := range []string{"ok", "error", "error", "error", "error", "ok"} {
		if got[i].report.Status != want || strings.Contains(got[i].stderr, "swordfish") {
			t.Errorf("run %d: %+v %q, want %s", i, got[i].report, got[i].stderr, want)
		}
	}
	if got[5].value != "2" {
		t.Errorf("the last value is %q", got[5].value)
	}
}

func TestStarlarkFiles(t *testing.T) {
	q := code("result = [files['a/b'], type(files['bin']), len(files)]")
	q.Files = []protocol.Input{{Path: "a/b", Content: []byte("hey")}, {Path: "bin", Content: []byte{0xff}}}
	if got := run(t, q)[0]; got.value != `["hey","bytes",2]` {
		t.Errorf("value is %q, stderr %q", got.value, got.stderr)
	}
}

func TestStarlarkStops(t *testing.T) {
	loop := code("n = 0\nwhile True:\n  n += 1")
	loop.Order.Wall = 50 * time.Millisecond
	steps := code("for i in range(1 << 40):\n  pass")
	steps.Order.Steps = 10_000
	flood := code("while True:\n  print('x' * 1000)")
	flood.Order.Output = 5000
	much := code("print('y' * 6000)\nresult = 1")
	much.Order.Output = 5000
	got := run(t, loop, steps, flood, much)
	for i, want := range []protocol.Report{
		{Status: "timeout", ExitCode: 124},
		{Status: "timeout", ExitCode: 124},
		{Status: "output_limit", ExitCode: 1, Truncated: true},
		{Status: "ok", Truncated: true},
	} {
		r := got[i].report
		if r.Status != want.Status || r.ExitCode != want.ExitCode || r.Truncated != want.Truncated {
			t.Errorf("run %d: %+v, want %+v", i, r, want)
		}
	}
	if !strings.Contains(got[0].stderr, "program:") || !strings.Contains(got[0].stderr, "time limit") {
		t.Errorf("the loop's stderr is %q", got[0].stderr)
	}
	for _, i := range []int{2, 3} {
		if len(got[i].stdout) != 5000 {
			t.Errorf("run %d: stdout has %d bytes, want 5000", i, len(got[i].stdout))
		}
	}
}

func TestStarlarkOutputComesWhileTheProgramRuns(t *testing.T) {
	node, worker := net.Pipe()
	defer node.Close()
	done := make(chan error, 1)
	go func() { done <- serveStarlark(worker) }()
	node.SetDeadline(time.Now().Add(time.Minute))
	if _, _, err := protocol.Read(node, protocol.Hello); err != nil {
		t.Fatal(err)
	}
	q := code("print('first')\nwhile True:\n  pass")
	q.Order = protocol.Order{Output: 100, Result: 100, Wall: 10 * time.Second}
	if err := protocol.WriteRequest(node, q); err != nil {
		t.Fatal(err)
	}
	if kind, payload, err := protocol.Read(node, protocol.Stdout); err != nil || string(payload) != "first\n" {
		t.Errorf("Read = %q %q %v", kind, payload, err)
	}
}

func TestServeStarlarkRefusesGarbage(t *testing.T) {
	var out bytes.Buffer
	err := serveStarlark(struct {
		io.Reader
		io.Writer
	}{strings.NewReader("garbage in, garbage out"), &out})
	if err == nil {
		t.Error("garbage was accepted")
	}
}
