package process_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// INVARIANT: I1, nothing runs before its intent is durable.
func TestReadyComesBeforeTheProgram(t *testing.T) {
	b := open(t)
	var mu sync.Mutex
	var order []string
	note := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, s)
	}
	s := spec("print('ran')")
	s.Output = func(stream string, off int64, data []byte) { note("output") }
	r, err := b.Run(t.Context(), s, func(context.Context) error {
		time.Sleep(100 * time.Millisecond) // long enough for a program that did not wait
		note("ready")
		return nil
	})
	if err != nil || r.Status != sandbox.OK {
		t.Fatalf("Run = %+v, %v", r, err)
	}
	if got := strings.Join(order, " "); got != "ready output" {
		t.Errorf("order is %q", got)
	}
}

func TestReadyRefusesTheRun(t *testing.T) {
	b := open(t)
	no := errors.New("no quorum")
	ran := false
	s := spec("print('ran')")
	s.Output = func(string, int64, []byte) { ran = true }
	if _, err := b.Run(t.Context(), s, func(context.Context) error { return no }); !errors.Is(err, no) {
		t.Errorf("Run = %v, want %v", err, no)
	}
	if ran {
		t.Error("the program ran")
	}
}

func TestCancelKillsTheRun(t *testing.T) {
	b := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := spec("print('up', flush=True)\nwhile True: pass")
	s.Output = func(string, int64, []byte) { cancel() }
	r, err := b.Run(ctx, s, nil)
	if err != nil || r.Status != sandbox.Cancelled || r.ExitCode != 130 {
		t.Errorf("Run = %s, exit %d, %v, want cancelled, 130", r.Status, r.ExitCode, err)
	}
	if string(r.Stdout) != "up\n" {
		t.Errorf("stdout %q is lost", r.Stdout)
	}
}

func TestCancelBeforeTheStart(t *testing.T) {
	b := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := b.Run(ctx, spec("result = 1"), nil)
	if err != nil || r.Status != sandbox.Cancelled {
		t.Errorf("Run = %s, %v, want cancelled", r.Status, err)
	}
}

// INVARIANT: I6, a limit that cannot be enforced refuses the run.
func TestRequiredLimitThatCannotBeEnforcedRefusesTheRun(t *testing.T) {
	b := open(t)
	s := spec("result = 1")
	s.Required = []string{"memory", "gpu"}
	asked := false
	_, err := b.Run(t.Context(), s, func(context.Context) error { asked = true; return nil })
	if !errors.Is(err, sandbox.ErrUnenforceable) || !strings.Contains(err.Error(), "gpu") {
		t.Errorf("Run = %v, want %v naming gpu", err, sandbox.ErrUnenforceable)
	}
	if asked {
		t.Error("an intent was asked for")
	}
}

func TestFilesGoInAndComeOut(t *testing.T) {
	b := open(t)
	s := spec("import helper, sys\nresult = [helper.f(), open('dir/data').read(), sys.stdin.read()]\nopen('dir/out', 'w').write('new')\nopen('dir/data', 'a').write('!')")
	s.Files = []sandbox.File{{Path: "helper.py", Content: []byte("def f(): return 5")}, {Path: "dir/data", Content: []byte("given")}}
	s.Stdin = []byte("typed")
	r := b.run(t, s)
	if string(r.Value) != `[5,"given","typed"]` {
		t.Errorf("result %s (%s), stderr %s", r.Value, r.Message, r.Stderr)
	}
	var got []string
	for _, f := range r.Files {
		got = append(got, f.Path+"="+string(f.Content))
	}
	if strings.Join(got, " ") != "dir/data=given! dir/out=new" {
		t.Errorf("files out: %q", got)
	}
	for _, path := range []string{"../x", "/etc/x", "a/../../x", "", ".", "a//b", "a\x00b"} {
		bad := spec("result = 1")
		bad.Files = []sandbox.File{{Path: path}}
		if _, err := b.Run(t.Context(), bad, nil); !errors.Is(err, sandbox.ErrSpec) {
			t.Errorf("Run with file %q = %v, want %v", path, err, sandbox.ErrSpec)
		}
	}
}

func TestOutputIsCappedAndStreamed(t *testing.T) {
	b := open(t)
	s := spec("import sys\nfor i in range(3000): print('%04d' % i)\nprint('e', file=sys.stderr)")
	s.Limits.Output = 10_000
	var streamed []byte
	s.Output = func(stream string, off int64, data []byte) {
		if stream != "stdout" {
			return
		}
		if off != int64(len(streamed)) {
			t.Errorf("offset %d after %d bytes", off, len(streamed))
		}
		streamed = append(streamed, data...)
	}
	r := b.run(t, s)
	if r.Status != sandbox.OK || len(r.Stdout) != 10_000 || !r.StdoutTruncated || r.StderrTruncated || string(r.Stderr) != "e\n" {
		t.Errorf("%s, %d bytes of stdout, truncated %v, stderr %q", r.Status, len(r.Stdout), r.StdoutTruncated, r.Stderr)
	}
	if string(streamed) != string(r.Stdout) {
		t.Errorf("streamed %d bytes, kept %d", len(streamed), len(r.Stdout))
	}
}

func TestRunsAtOnceDoNotMeet(t *testing.T) {
	b := open(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s := spec("import os, random, time\nopen('/tmp/x', 'x').close()\nopen('mine', 'x').close()\ntime.sleep(.1)\nresult = [len(os.listdir('/tmp')), [p for p in os.listdir('/proc') if p.isdigit()] == [str(os.getpid())]]")
			r, err := b.Run(t.Context(), s, nil)
			if err != nil || string(r.Value) != "[1,true]" {
				t.Errorf("Run = %s %s %s, %v", r.Status, r.Value, r.Stderr, err)
			}
		})
	}
	wg.Wait()
}

func TestCloseEndsRuns(t *testing.T) {
	b := open(t)
	s := spec("print('up', flush=True)\nwhile True: pass")
	up := make(chan struct{})
	var once sync.Once
	s.Output = func(string, int64, []byte) { once.Do(func() { close(up) }) }
	done := make(chan sandbox.Result, 1)
	go func() {
		r, _ := b.Run(context.WithoutCancel(t.Context()), s, nil)
		done <- r
	}()
	<-up
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.Status != sandbox.Cancelled {
		t.Errorf("status %s after Close", r.Status)
	}
	if _, err := b.Run(t.Context(), s, nil); !errors.Is(err, sandbox.ErrClosed) {
		t.Errorf("Run after Close = %v", err)
	}
}

func TestDescribeNamesWhatThereIs(t *testing.T) {
	b := open(t)
	d := b.Describe()
	if !d.Available || len(d.Languages) != 1 || d.Runtimes["python"] == "" || d.Tier == "" || d.Enforces["memory"] == "" {
		t.Errorf("Describe = %+v", d)
	}
}
