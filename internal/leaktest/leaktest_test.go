package leaktest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const leakEnv = "LEAKTEST_LEAK"

func TestMain(m *testing.M) { os.Exit(run(m, time.Second, []string{"leaktest.TestA"})) }

func TestAGoroutineIsLeftBehind(t *testing.T) {
	if os.Getenv(leakEnv) != "" {
		go func() { select {} }()
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestAGoroutineIsLeftBehind$")
	cmd.Env = append(os.Environ(), leakEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "1 goroutines were left behind") || !strings.Contains(string(out), "leaktest.TestA") {
		t.Errorf("a leak ended with %v:\n%s", err, out)
	}
}
