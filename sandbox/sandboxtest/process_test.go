package sandboxtest_test

import (
	"errors"
	"os"
	"testing"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// The other backends call the suite from their own tests; this one needs
// runtimes as well, which its package does not know.
func TestProcess(t *testing.T) {
	store := runtimes(t)
	for _, language := range []string{process.Python, process.JavaScript, process.Shell} {
		t.Run(language, func(t *testing.T) {
			b := open(t, process.Config{Runtimes: store})
			o := sandboxtest.Options{Language: language}
			if b.Describe().Tier == jail.Tier2 {
				o.Differs, o.Ends = differsInTier2, endsInTier2
			}
			sandboxtest.Test(t, b, o)
		})
	}
}

// What rightly differs where there is one user id and no control group.
var (
	differsInTier2 = map[string]string{
		// A user without rights can map his own id only, and init needs it to be 0.
		"identity": "[false,true]", "D children of JavaScript": `"1"`,
	}
	oom         = sandboxtest.End{Status: sandbox.OutOfMemory, ExitCode: 137}
	endsInTier2 = map[string][]sandboxtest.End{
		// The watchdog, which looks at the memory of all processes together from time to
		// time, ends all of them, unless they have ended before it looks.
		"F67 memory of many":        {oom, {Status: sandbox.OK, Value: "true"}, {Status: sandbox.OK, Value: "false"}},
		"D65 threads of JavaScript": {oom, {Status: sandbox.OK, Value: "true"}},
		// dash itself falls over where an allocation is refused (RLIMIT_AS): it reads
		// what it did not get, or says so and gives up.
		"F66 memory of a shell": {oom, {Status: sandbox.Killed, ExitCode: 139}, {Status: sandbox.Killed, ExitCode: 134}},
	}
)

// The same cases in jails that waited. Those that need what such a jail cannot
// give run cold here, too.
func TestProcessWarm(t *testing.T) {
	b := open(t, process.Config{Warm: 1, WarmLimits: sandboxtest.Limits()})
	if err := b.AwaitWarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A jail that waits has two processes, and so has one that is being made.
	sandboxtest.Test(t, b, sandboxtest.Options{Language: process.Python, Residents: 4, Brief: true})
}

// runtimesEnv names a store to use instead of making one.
const runtimesEnv = "AGENTICRAFT_TEST_RUNTIMES"

// runtimes are those of the machine's interpreters. In continuous integration
// none may be missing.
func runtimes(t *testing.T) *runtime.Store {
	t.Helper()
	if dir := os.Getenv(runtimesEnv); dir != "" {
		store, err := runtime.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	return runtimesIn(t, t.TempDir())
}

func runtimesIn(t *testing.T, dir string) *runtime.Store {
	t.Helper()
	store, err := runtime.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, python := store.AddPython(t.Context(), runtime.AddConfig{})
	_, node := store.AddNode(t.Context(), runtime.AddConfig{})
	_, shell := store.AddShell(t.Context(), runtime.AddConfig{})
	err = errors.Join(python, node, shell)
	if errors.Is(err, sandbox.ErrUnavailable) && os.Getenv("CI") == "" {
		t.Skipf("not every interpreter is on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func open(t *testing.T, cfg process.Config) *process.Backend {
	t.Helper()
	if cfg.Runtimes == nil {
		cfg.Runtimes = runtimes(t)
	}
	cfg.Spawner = jailtest.Start(t)
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
