//go:build linux && long

package sandboxtest_test

import (
	"os"
	"testing"

	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// Every case in every language once more, as a user without rights: tier 2.
func TestProcessAsNobody(t *testing.T) {
	dir, err := os.MkdirTemp("", "runtimes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // in the temporary folder anyway
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sandboxtest.AsNobody(t, "^TestProcess$", runtimesEnv+"="+runtimesIn(t, dir).Dir())
}
