package jail_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
)

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// quick is a worker that ends at once; waiting is one that waits for its
// control channel, as the Starlark worker does.
var (
	quick   = jail.Profile{ID: "quick", Argv: []string{"/jail", "probe"}, Worker: true, Syscalls: jail.SyscallsWorker}
	waiting = jail.Profile{ID: "waiting", Argv: []string{"/jail", "starlark"}, Worker: true, Syscalls: jail.SyscallsWorker}
)

func TestJailRunsAndEnds(t *testing.T) {
	s := jailtest.Start(t)
	j, err := s.Start(deadline(t), quick)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Release()
	e, err := j.Wait(deadline(t))
	if err != nil || e.Code != 0 || e.Signal != 0 || e.Killed || e.OOM {
		t.Errorf("Wait = %+v, %v", e, err)
	}
	for _, limit := range []string{"memory", "cpu_percent", "processes", "file_size", "network", "filesystem", "syscalls", "wall", "output"} {
		if j.Enforced()[limit] == "" {
			t.Errorf("nothing enforces %s", limit)
		}
	}
	if e.Usage.PeakMemory <= 0 || e.Usage.CPU <= 0 {
		t.Errorf("usage is %+v", e.Usage)
	}
}

func TestKillEndsAWaitingWorker(t *testing.T) {
	s := jailtest.Start(t)
	j, err := s.Start(deadline(t), waiting)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Release()
	j.Kill()
	j.Kill()
	e, err := j.Wait(deadline(t))
	if err != nil || !e.Killed {
		t.Errorf("Wait = %+v, %v, want killed", e, err)
	}
	j.Kill() // of the dead does nothing
}

func TestStartRefusesWrongProfiles(t *testing.T) {
	s := jailtest.Start(t)
	for name, change := range map[string]func(*jail.Profile){
		"no id":         func(p *jail.Profile) { p.ID = "" },
		"odd id":        func(p *jail.Profile) { p.ID = "../x" },
		"no program":    func(p *jail.Profile) { p.Argv = nil },
		"relative":      func(p *jail.Profile) { p.Argv = []string{"jail"} },
		"NUL":           func(p *jail.Profile) { p.Env = []string{"A=\x00"} },
		"long":          func(p *jail.Profile) { p.Env = []string{strings.Repeat("x", 1<<20)} },
		"little memory": func(p *jail.Profile) { p.Limits.Memory = 1000 },
		"calls":         func(p *jail.Profile) { p.Syscalls = "all" },
		"file outside":  func(p *jail.Profile) { p.Files = []sandbox.File{{Path: "../x"}} },
		"file too big": func(p *jail.Profile) {
			p.Limits.FileSize = 1
			p.Files = []sandbox.File{{Path: "x", Content: []byte("xx")}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := quick
			change(&p)
			if _, err := s.Start(deadline(t), p); !errors.Is(err, sandbox.ErrSpec) {
				t.Errorf("Start = %v, want %v", err, sandbox.ErrSpec)
			}
		})
	}
}

func TestStartSaysWhichStepFailed(t *testing.T) {
	s := jailtest.Start(t)
	p := quick
	p.Argv = []string{"/nothing"}
	if _, err := s.Start(deadline(t), p); !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "run /nothing: no such file") {
		t.Errorf("Start = %v", err)
	}
	p = quick
	p.Root = "/nowhere/at/all"
	if _, err := s.Start(deadline(t), p); !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "/nowhere/at/all") {
		t.Errorf("Start = %v", err)
	}
}

func TestSlotsAreBounded(t *testing.T) {
	s, err := jail.Start(jail.Config{Node: jailtest.Node(), Dir: t.TempDir(), Helper: jailtest.Helper(t), Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	j, err := s.Start(deadline(t), waiting)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(deadline(t), waiting); !errors.Is(err, sandbox.ErrBusy) {
		t.Errorf("Start of a second jail = %v, want %v", err, sandbox.ErrBusy)
	}
	j.Kill()
	if _, err := j.Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}
	j.Release()
	next, err := s.Start(deadline(t), quick)
	if err != nil {
		t.Fatalf("Start after the slot was given back: %v", err)
	}
	next.Release()
}

// spawnerPid finds the one child of this process that is a spawner of node.
func spawnerPid(t *testing.T, node string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile
		}
		args := strings.Split(string(b), "\x00")
		if len(args) > 2 && args[0] == "agenticraft-jail" && args[1] == "spawner" && args[2] == node {
			var st syscall.Stat_t
			dir := filepath.Dir(f)
			if err := syscall.Stat(dir, &st); err != nil {
				t.Fatal(err)
			}
			pid := 0
			for _, c := range filepath.Base(dir) {
				pid = 10*pid + int(c-'0')
			}
			return pid
		}
	}
	t.Fatal("no spawner")
	return 0
}

func TestSpawnerThatDiesIsReplacedAndSweptUpAfter(t *testing.T) {
	node := jailtest.Node()
	s, err := jail.Start(jail.Config{Node: node, Dir: t.TempDir(), Helper: jailtest.Helper(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	j, err := s.Start(deadline(t), waiting)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Release()
	if err := syscall.Kill(spawnerPid(t, node), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Wait(deadline(t)); !errors.Is(err, jail.ErrLost) {
		t.Errorf("Wait = %v, want %v", err, jail.ErrLost)
	}
	// Its jail died with it, so nobody holds the other end any more.
	if err := j.Stdout().SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(j.Stdout()); err != nil {
		t.Errorf("the worker lives on: %v", err)
	}
	next, err := s.Start(deadline(t), quick)
	if err != nil {
		t.Fatalf("Start on the next spawner: %v", err)
	}
	if _, err := next.Wait(deadline(t)); err != nil {
		t.Error(err)
	}
	next.Release()
	// Those of the jail that just ended go a moment after its end is told.
	for end := time.Now().Add(time.Minute); len(jailtest.Cgroups(t, node)) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // nothing tells when a group is gone
	}
	if left := jailtest.Cgroups(t, node); len(left) > 0 {
		t.Errorf("control groups of the dead spawner are left: %v", left)
	}
}

func TestCloseEndsJails(t *testing.T) {
	node := jailtest.Node()
	s, err := jail.Start(jail.Config{Node: node, Dir: t.TempDir(), Helper: jailtest.Helper(t), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		j, err := s.Start(deadline(t), waiting)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer j.Release()
			_, _ = j.Wait(deadline(t)) // killed or lost, either is an end
		})
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if left := jailtest.Cgroups(t, node); len(left) > 0 {
		t.Errorf("control groups are left: %v", left)
	}
	if _, err := s.Start(deadline(t), quick); !errors.Is(err, sandbox.ErrClosed) {
		t.Errorf("Start after Close = %v, want %v", err, sandbox.ErrClosed)
	}
}

func TestTwoNodesShareAMachine(t *testing.T) {
	a, b := jailtest.Start(t), jailtest.Start(t)
	ja, err := a.Start(deadline(t), waiting)
	if err != nil {
		t.Fatal(err)
	}
	defer ja.Release()
	jb, err := b.Start(deadline(t), waiting)
	if err != nil {
		t.Fatal(err)
	}
	defer jb.Release()
	ja.Kill()
	if _, err := ja.Wait(deadline(t)); err != nil {
		t.Error(err)
	}
	select {
	case <-jb.Done():
		t.Error("the other node's jail ended as well")
	default:
	}
}

func TestStartNamesEveryFault(t *testing.T) {
	_, err := jail.Start(jail.Config{Node: "a.b", Slots: 9999})
	for _, want := range []string{"Node", "Dir", "Slots"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start = %v, does not name %s", err, want)
		}
	}
}

func TestProbeSaysWhatItFound(t *testing.T) {
	p := jailtest.Start(t).Probe()
	t.Logf("%+v", p)
	if p.Features["jail"] != "ok" || p.Features["landlock"] == "" || p.CgroupVersion == "" || len(p.Enforces) == 0 {
		t.Errorf("Probe = %+v", p)
	}
}

func TestBuildWithoutHelperSaysSo(t *testing.T) {
	s, err := jail.Start(jail.Config{Node: jailtest.Node(), Dir: t.TempDir()})
	if err == nil { // this build has one
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	if !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("Start = %v", err)
	}
}

// A spawner that is stopped answers nothing; the run it holds must still end.
func TestSpawnerThatHangsIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for time-outs")
	}
	t.Parallel()
	node := jailtest.Node()
	s, err := jail.Start(jail.Config{Node: node, Dir: t.TempDir(), Helper: jailtest.Helper(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	j, err := s.Start(ctx, waiting)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Release()
	if err := syscall.Kill(spawnerPid(t, node), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	j.Kill()
	if _, err := j.Wait(ctx); !errors.Is(err, jail.ErrLost) {
		t.Errorf("Wait = %v, want %v", err, jail.ErrLost)
	}
	next, err := s.Start(ctx, quick)
	if err != nil {
		t.Fatalf("Start on the next spawner: %v", err)
	}
	next.Release()
}
