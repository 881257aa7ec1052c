package sandboxtest_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// Nothing gathers, however often programs run: every seventh is a bad one.
func TestRunsInARow(t *testing.T) {
	const (
		runs   = 500
		growth = 64 << 20 // bytes that this process may grow by, garbage included
	)
	b := open(t, process.Config{Runtimes: runtimes(t)})
	run := func(i int) {
		t.Helper()
		code, want := fmt.Sprintf("print('x' * 100)\nresult = %d", i), sandbox.OK
		switch i % 7 {
		case 3:
			code, want = "raise SystemExit(3)", sandbox.Error
		case 5:
			code, want = "import os\nif os.fork() == 0:\n  import time; time.sleep(100)\nos.kill(os.getpid(), 9)", sandbox.Killed
		}
		r, err := b.Run(t.Context(), sandbox.Spec{ID: fmt.Sprintf("row-%d", i), Owner: "tester", Language: process.Python, Code: []byte(code), Limits: sandboxtest.Limits()}, nil)
		if err != nil || r.Status != want || want == sandbox.OK && string(r.Value) != strconv.Itoa(i) {
			t.Fatalf("run %d ended as %s, %s, %v: %s %s", i, r.Status, r.Value, err, r.Message, r.Stderr)
		}
	}
	for i := range 20 { // connections, caches and pools fill
		run(i)
	}
	before := resident(t)
	for i := range runs {
		run(i)
	}
	if grown := resident(t) - before; grown > growth {
		t.Errorf("after %d runs this process has grown by %d bytes", runs, grown)
	}
	sandboxtest.NothingLeft(t)
}

// resident is how much memory this process holds, in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
