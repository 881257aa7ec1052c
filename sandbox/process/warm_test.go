package process_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/process"
)

// warmLimits are the class of the waiting jails, and what spec asks for.
func warmLimits() sandbox.Limits { return spec("").Limits }

// warmBench is a backend with waiting jails.
type warmBench struct {
	bench
	metrics *prometheus.Registry
}

func openWarm(tb testing.TB, n int, adapt func(*process.Config)) warmBench {
	tb.Helper()
	cfg := process.Config{Spawner: jailtest.Start(tb), Runtimes: python(tb), Warm: n, WarmLimits: warmLimits()}
	if adapt != nil {
		adapt(&cfg)
	}
	b, err := process.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	reg := prometheus.NewRegistry()
	for _, c := range b.Metrics() {
		reg.MustRegister(c)
	}
	return warmBench{bench{b, cfg.Spawner}, reg}
}

// value reads one number of the metrics; label is that of its only label.
func (b warmBench) value(tb testing.TB, name, label string) float64 {
	tb.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label != "" && m.GetLabel()[0].GetValue() != label {
				continue
			}
			if m.GetGauge() != nil {
				return m.GetGauge().GetValue()
			}
			return m.GetCounter().GetValue()
		}
	}
	return 0
}

// await waits until n jails are ready.
func (b warmBench) await(tb testing.TB, n float64) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for b.value(tb, "agenticraft_sandbox_warm_jails", "") != n {
		if time.Now().After(deadline) {
			tb.Fatalf("%v jails are warm, want %v", b.value(tb, "agenticraft_sandbox_warm_jails", ""), n)
		}
		time.Sleep(time.Millisecond) // the pool tells nobody
	}
}

func (b warmBench) claims(tb testing.TB, result string) float64 {
	tb.Helper()
	return b.value(tb, "agenticraft_sandbox_warm_claims_total", result)
}

// inside tells which control groups, processes and limits a program finds.
const inside = `
import os, resource
try:
    from signal import SIGKILL
except ImportError:
    pass
open('/tmp/trace', 'x').close()
open('/work/trace', 'x').close()
result = {'fsize': str(resource.getrlimit(resource.RLIMIT_FSIZE)[1]), 'boot': open('/proc/self/stat').read().split()[21]}
`

func TestEachWarmJailIsUsedOnce(t *testing.T) {
	b := openWarm(t, 2, nil)
	boots := map[string]bool{}
	for range 6 {
		b.await(t, 2)
		r := b.run(t, spec(inside))
		if r.Status != sandbox.OK {
			t.Fatalf("%+v, stderr %s", r, r.Stderr)
		}
		boots[asMap(t, r.Value)["boot"]] = true
	}
	if hits := b.claims(t, "hit"); hits != 6 {
		t.Errorf("%v hits, want 6", hits)
	}
	if len(boots) < 4 { // the clock has ticks of 10 ms
		t.Errorf("only %d different interpreters", len(boots))
	}
}

func TestI1CodeEntersAWarmJailOnlyAfterReady(t *testing.T) {
	b := openWarm(t, 1, nil)
	b.await(t, 1)
	s := spec("print('ran')")
	s.Output = func(string, int64, []byte) { t.Error("the code ran") }
	want := errors.New("no quorum")
	if _, err := b.Run(t.Context(), s, func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("Run = %v, want the error of ready", err)
	}
	if b.claims(t, "hit") != 1 {
		t.Error("the jail was not a warm one")
	}
	b.await(t, 1)
	ready := false
	s = spec("result = 1")
	s.Output = nil
	r, err := b.Run(t.Context(), s, func(context.Context) error { ready = true; return nil })
	if err != nil || !ready || string(r.Value) != "1" {
		t.Errorf("Run = %+v, %v, ready %v", r, err, ready)
	}
}

func TestI6WarmJailsHoldTheLimitsOfTheRun(t *testing.T) {
	b := openWarm(t, 1, nil)
	if b.spawner.Probe().Features["cgroup_memory"] != "ok" {
		t.Skip("no control group for memory on this machine: warm jails take no other memory limit")
	}
	for _, c := range []struct {
		name   string
		lower  func(*sandbox.Limits)
		code   string
		status sandbox.Status
		value  string
	}{
		{"memory", func(l *sandbox.Limits) { l.Memory = 32 << 20 }, "x = b'x' * (64 << 20)", sandbox.OutOfMemory, ""},
		{"file size", func(l *sandbox.Limits) { l.FileSize = 1000 }, "try:\n    open('f', 'wb', 0).write(b'x' * 1001)\n    open('f', 'ab', 0).write(b'x')\nexcept OSError as e:\n    result = e.errno", sandbox.OK, "27"},
		{"processes", func(l *sandbox.Limits) { l.Processes = 3 }, "import os, time\nn = 0\ntry:\n    while n < 10:\n        if os.fork() == 0:\n            time.sleep(5)\n        n += 1\nexcept OSError:\n    pass\nresult = n", sandbox.OK, "2"},
		{"cpu", func(l *sandbox.Limits) { l.CPUPercent = 10 }, "import time\nt = time.monotonic()\nwhile time.process_time() < .1: pass\nresult = time.monotonic() - t > .4", sandbox.OK, "true"},
		{"wall", func(l *sandbox.Limits) { l.Wall = 300 * time.Millisecond }, "while True: pass", sandbox.Timeout, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.await(t, 1)
			hits := b.claims(t, "hit")
			s := spec(c.code)
			c.lower(&s.Limits)
			for limit := range b.Describe().Enforces {
				s.Required = append(s.Required, limit)
			}
			r := b.run(t, s)
			if r.Status != c.status || string(r.Value) != c.value {
				t.Errorf("ended as %s with %s (%s), want %s with %s; stderr %s", r.Status, r.Value, r.Message, c.status, c.value, r.Stderr)
			}
			for limit := range b.Describe().Enforces {
				if r.Enforced[limit] == "" {
					t.Errorf("nothing held the limit %s", limit)
				}
			}
			if b.claims(t, "hit") != hits+1 {
				t.Error("the jail was not a warm one")
			}
		})
	}
}

func TestWhatAWarmJailCannotGiveRunsCold(t *testing.T) {
	b := openWarm(t, 1, nil)
	for name, ask := range map[string]func(*sandbox.Spec){
		"more memory": func(s *sandbox.Spec) { s.Limits.Memory *= 2 },
		"more CPU":    func(s *sandbox.Spec) { s.Limits.CPUPercent = 200 },
		"more files":  func(s *sandbox.Spec) { s.Limits.Files = 5000 },
		"a file":      func(s *sandbox.Spec) { s.Files = []sandbox.File{{Path: "in", Content: []byte("x")}} },
	} {
		t.Run(name, func(t *testing.T) {
			b.await(t, 1)
			unfit := b.claims(t, "unfit")
			s := spec("import os\nresult = os.listdir('/work')")
			ask(&s)
			if r := b.run(t, s); r.Status != sandbox.OK {
				t.Errorf("%+v", r)
			}
			if b.claims(t, "unfit") != unfit+1 {
				t.Error("a warm jail was used")
			}
		})
	}
}

func TestWarmJailsThatDiedAreNotUsed(t *testing.T) {
	b := openWarm(t, 2, nil)
	b.await(t, 2)
	// The spawner's death takes every jail with it; another one is started.
	killHelper(t)
	deadline := time.Now().Add(time.Minute)
	for {
		r, err := b.Run(t.Context(), spec("result = 1"), nil)
		if err == nil && string(r.Value) == "1" {
			break
		}
		if err != nil && !errors.Is(err, sandbox.ErrUnavailable) {
			t.Fatal(err)
		}
		if err == nil && r.Status != sandbox.Internal {
			t.Fatalf("%+v", r)
		}
		if time.Now().After(deadline) {
			t.Fatal("no run works after the spawner died")
		}
	}
	b.await(t, 2)
}

// killHelper kills the spawner that this process started.
func killHelper(t *testing.T) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for pid := range strings.FieldsSeq(string(b)) {
			cmd, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err != nil || !strings.Contains(string(cmd), "\x00spawner\x00") {
				continue
			}
			var n int
			if _, err := fmt.Sscan(pid, &n); err != nil {
				t.Fatal(err)
			}
			p, err := os.FindProcess(n)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no spawner found")
}

func TestWarmJailsAreGivenUpWithAgeAndWithoutWork(t *testing.T) {
	b := openWarm(t, 1, func(c *process.Config) { c.WarmAge, c.WarmIdle = 100*time.Millisecond, 3*time.Second })
	b.await(t, 1)
	b.await(t, 0)
	deadline := time.Now().Add(time.Minute)
	for b.value(t, "agenticraft_sandbox_warm_refills_total", "discarded") == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) // the pool tells nobody
	}
	if n := b.value(t, "agenticraft_sandbox_warm_refills_total", "discarded"); n < 1 {
		t.Errorf("%v were discarded", n)
	}
	if r := b.run(t, spec("result = 1")); string(r.Value) != "1" {
		t.Errorf("%+v", r)
	}
	b.await(t, 1)
}

func TestWarmConfigIsChecked(t *testing.T) {
	for _, n := range []int{-1, process.MaxWarm + 1} {
		if _, err := process.New(process.Config{Spawner: &jail.Spawner{}, Runtimes: python(t), Warm: n}); err == nil {
			t.Errorf("Warm %d is accepted", n)
		}
	}
}
