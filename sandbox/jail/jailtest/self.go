package jailtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Self prepares a run of this test binary that uses the same helper, as whoever
// it will run: dir, which everybody must be able to enter, gets a copy of both,
// for the folder that go test runs binaries from is closed to others.
func Self(tb testing.TB, dir string, args ...string) *exec.Cmd {
	tb.Helper()
	helper, exe := filepath.Join(dir, "helper"), filepath.Join(dir, "self.test")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		tb.Fatal(err)
	}
	for name, content := range map[string][]byte{helper: Helper(tb), exe: self} {
		if err := os.WriteFile(name, content, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	cmd := exec.CommandContext(tb.Context(), exe, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp", "CI=" + os.Getenv("CI"), HelperEnv + "=" + helper}
	return cmd
}
