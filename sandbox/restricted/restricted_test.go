package restricted_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/restricted"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

func open(t testing.TB, cfg restricted.Config) *restricted.Backend {
	t.Helper()
	cfg.Spawner = jailtest.Start(t)
	b, err := restricted.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	if d := b.Describe(); !d.Available {
		t.Fatalf("unavailable: %s", d.Reason)
	}
	return b
}

func TestConformance(t *testing.T) {
	b := open(t, restricted.Config{MaxIdle: 2})
	// Workers wait for their owners: two idle and two spare ones, each with its
	// jail's init.
	sandboxtest.Test(t, b, sandboxtest.Options{Residents: 8})
}

func run(t testing.TB, b *restricted.Backend, owner, code string) sandbox.Result {
	t.Helper()
	r, err := b.Run(t.Context(), sandbox.Spec{ID: "r", Owner: owner, Language: restricted.Language, Code: []byte(code)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The clauses of the memory and time promise that only a real worker can show.
func TestLimitsOfOneBuiltinCall(t *testing.T) {
	b := open(t, restricted.Config{})
	for _, tt := range []struct {
		code   string
		status sandbox.Status
		exit   int
	}{
		{"x = 'a' * (1 << 29)", sandbox.OutOfMemory, 137},
		{"x = [0] * (1 << 26)", sandbox.OutOfMemory, 137},
		{"x = 3\nfor i in range(60):\n  x = x * x", sandbox.Timeout, 124},
		{"x = 3\nfor i in range(24):\n  x = x * x\ny = str(x)", sandbox.Timeout, 124},
		{"x = pow(3, pow(10, 9))", sandbox.Timeout, 124},
		{"x = 'ab' * (1 << 20)\nfor i in range(12):\n  x = x.replace('a', 'aaaaaaaa')", sandbox.OutOfMemory, 137},
		{"x = list(range(1 << 40))", sandbox.OutOfMemory, 137},
		{"x = '%s' % ('a' * 1000)\nwhile True:\n  x = x + x", sandbox.OutOfMemory, 137},
		{"print('x' * (1 << 29))", sandbox.OutOfMemory, 137},
	} {
		const limit = 300 * time.Millisecond
		start := time.Now()
		r, err := b.Run(t.Context(), sandbox.Spec{
			ID: "r", Owner: "a", Language: restricted.Language, Code: []byte(tt.code),
			Limits: sandbox.Limits{Memory: 128 << 20, Wall: limit},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		// A slow machine may reach the time limit first.
		if r.Status != tt.status && r.Status != sandbox.Timeout {
			t.Errorf("%q ended as %s, exit code %d, want %s; %s", tt.code, r.Status, r.ExitCode, tt.status, r.Message)
		}
		if took := time.Since(start); took > limit+time.Minute { // its own end is further away
			t.Errorf("%q took %v", tt.code, took)
		}
		t.Logf("%-40.40q %s %v", tt.code, r.Status, r.Usage)
	}
	if r := run(t, b, "a", "result = 1"); r.Status != sandbox.OK {
		t.Errorf("afterwards a run ended as %s: %s", r.Status, r.Message)
	}
}

// The smallest memory limit must still run a program.
func TestLeastMemory(t *testing.T) {
	b := open(t, restricted.Config{})
	for range 20 {
		r, err := b.Run(t.Context(), sandbox.Spec{
			ID: "r", Owner: "a", Language: restricted.Language, Code: []byte("x = [str(i) for i in range(10000)]\nresult = len(x)"),
			Limits: sandbox.Limits{Memory: sandbox.MinMemory},
		}, nil)
		if err != nil || r.Status != sandbox.OK || string(r.Value) != "10000" {
			t.Fatalf("Run = %s, %s, %v: %s", r.Status, r.Value, err, r.Message)
		}
	}
}

// What a worker holds after many runs must not grow: garbage of one run is not
// the next one's problem.
func TestReuseDoesNotAddUpMemory(t *testing.T) {
	b := open(t, restricted.Config{})
	for i := range 12 {
		r, err := b.Run(t.Context(), sandbox.Spec{
			ID: "r", Owner: "a", Language: restricted.Language, Code: []byte("x = 'a' * (40 << 20)\nresult = len(x)"),
			Limits: sandbox.Limits{Memory: 96 << 20},
		}, nil)
		if err != nil || r.Status != sandbox.OK {
			t.Fatalf("run %d = %s, %v: %s", i, r.Status, err, r.Message)
		}
	}
}

const calculate = "def calculate(a, b):\n    return a + b\nresult = calculate(10, 20)"

// BenchmarkRun measures what a caller of the backend waits for.
func BenchmarkRun(b *testing.B) {
	for name, owner := range map[string]func(int) string{
		"same_owner":  func(int) string { return "a" },
		"fresh_owner": func(i int) string { return fmt.Sprint(i) },
	} {
		b.Run(name, func(b *testing.B) {
			backend := open(b, restricted.Config{})
			run(b, backend, owner(0), calculate)
			b.ReportAllocs()
			var times []time.Duration
			for i := 1; b.Loop(); i++ {
				start := time.Now()
				if r := run(b, backend, owner(i), calculate); string(r.Value) != "30" {
					b.Fatalf("result is %s", r.Value)
				}
				times = append(times, time.Since(start))
				if name == "fresh_owner" {
					b.StopTimer()
					time.Sleep(50 * time.Millisecond) // the next fresh worker is started in the background
					b.StartTimer()
				}
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
		})
	}
}
