// Package jailtest gives tests a spawner whose helper is built from source, so
// that they need no earlier `make build`, and checks that nothing is left.
package jailtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agenticraft/node/sandbox/jail"
)

// HelperEnv names a helper to use instead of building one, for tests that run
// themselves as another user, who may not build.
const HelperEnv = "AGENTICRAFT_TEST_JAIL_HELPER"

var build = sync.OnceValues(func() ([]byte, error) {
	if name := os.Getenv(HelperEnv); name != "" {
		return os.ReadFile(name)
	}
	dir, err := os.MkdirTemp("", "jailtest")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // in the temporary folder anyway
	out := filepath.Join(dir, "jail")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/agenticraft/node/cmd/jail")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build jail helper: %w\n%s", err, text)
	}
	return os.ReadFile(out)
})

// Helper returns the helper's executable, built once per test binary.
func Helper(tb testing.TB) []byte {
	tb.Helper()
	b, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Start starts a spawner for a test and closes it with the test, checking that
// no control group of it is left. The test is skipped, saying why, only where
// the machine can make no jails at all.
func Start(tb testing.TB) *jail.Spawner {
	tb.Helper()
	node := Node()
	s, err := jail.Start(jail.Config{Node: node, Dir: tb.TempDir(), Helper: Helper(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close spawner: %v", err)
		}
		if left := Cgroups(tb, node); len(left) > 0 {
			tb.Errorf("control groups left: %v", left)
		}
	})
	if p := s.Probe(); p.Tier == jail.Tier4 {
		tb.Skipf("no jails on this machine: %s", p.Reason)
	}
	return s
}

var nodes struct {
	sync.Mutex
	n int
}

// Node returns a node id that no other test on this machine uses.
func Node() string {
	nodes.Lock()
	defer nodes.Unlock()
	nodes.n++
	return fmt.Sprintf("test-%d-%d", os.Getpid(), nodes.n)
}

// Cgroups lists the control groups of a node.
func Cgroups(tb testing.TB, node string) []string {
	tb.Helper()
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/*/agenticraft.*", "/sys/fs/cgroup/agenticraft.*"} {
		all, err := filepath.Glob(pattern)
		if err != nil {
			tb.Fatal(err)
		}
		for _, name := range all {
			if strings.HasPrefix(filepath.Base(name), "agenticraft."+node+".") {
				out = append(out, name)
			}
		}
	}
	return out
}
