package process_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkProcessPythonCold is one run from nothing: jail, interpreter,
// program, clean-up. Compare BenchmarkPlainPython, the same interpreter with
// no jail at all, and BenchmarkBubblewrap.
func BenchmarkProcessPythonCold(b *testing.B) {
	back := open(b)
	b.ReportAllocs()
	for b.Loop() {
		if r := back.run(b, spec("result = 1")); string(r.Value) != "1" {
			b.Fatalf("%+v", r)
		}
	}
}

func interpreter(b *testing.B) (dir string, argv []string) {
	b.Helper()
	dir, _, argv, err := python(b).Select("python", "")
	if err != nil {
		b.Fatal(err)
	}
	return dir, argv
}

func BenchmarkPlainPython(b *testing.B) {
	py, err := exec.LookPath("/usr/bin/python3")
	if err != nil {
		b.Skip("no /usr/bin/python3 on this machine")
	}
	for b.Loop() {
		if err := exec.Command(py, "-I", "-S", "-c", "import json; json.dumps(1)").Run(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBubblewrap(b *testing.B) {
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		b.Skip("bubblewrap is not installed on this machine")
	}
	dir, argv := interpreter(b)
	args := []string{"--unshare-all", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"}
	entries, err := filepath.Glob(dir + "/*")
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range entries {
		args = append(args, "--ro-bind", e, "/"+filepath.Base(e))
	}
	args = append(append(args, argv...), "-I", "-S", "-c", "import json; json.dumps(1)")
	for b.Loop() {
		if out, err := exec.Command(bwrap, args...).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

// BenchmarkProcessPythonWarm is one run in a jail that waits for it, from the
// call to the end of the jail.
func BenchmarkProcessPythonWarm(b *testing.B) {
	back := openWarm(b, 1, nil)
	var took []time.Duration
	for range b.N {
		b.StopTimer()
		back.await(b, 1)
		b.StartTimer()
		began := time.Now()
		if r := back.run(b, spec("result = 1")); string(r.Value) != "1" {
			b.Fatalf("%+v", r)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
}
