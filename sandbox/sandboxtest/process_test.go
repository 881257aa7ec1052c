package sandboxtest_test

import (
	"errors"
	"testing"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// The other backends call the suite from their own tests; this one needs a
// runtime as well, which its package does not know.
func TestProcess(t *testing.T) {
	store, err := runtime.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.AddPython(t.Context(), runtime.AddConfig{}); errors.Is(err, sandbox.ErrUnavailable) {
		t.Skipf("no python3 on this machine: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	b, err := process.New(process.Config{Spawner: jailtest.Start(t), Runtimes: store})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	sandboxtest.Test(t, b, sandboxtest.Options{})
}
