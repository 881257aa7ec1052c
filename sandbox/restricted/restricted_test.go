package restricted_test

import (
	"testing"

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
