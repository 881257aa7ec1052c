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
	sandboxtest.Test(t, open(t, process.Config{}), sandboxtest.Options{})
}

// The same cases in jails that waited. Those that need what such a jail cannot
// give run cold here, too.
func TestProcessWarm(t *testing.T) {
	b := open(t, process.Config{Warm: 1, WarmLimits: sandboxtest.Limits()})
	if err := b.AwaitWarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A jail that waits has two processes, and so has one that is being made.
	sandboxtest.Test(t, b, sandboxtest.Options{Residents: 4})
}

func open(t *testing.T, cfg process.Config) *process.Backend {
	t.Helper()
	store, err := runtime.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.AddPython(t.Context(), runtime.AddConfig{}); errors.Is(err, sandbox.ErrUnavailable) {
		t.Skipf("no python3 on this machine: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	cfg.Spawner, cfg.Runtimes = jailtest.Start(t), store
	b, err := process.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}
