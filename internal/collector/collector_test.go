package collector

import (
	"context"
	"runtime/debug"
	"testing"
)

func TestPace(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct {
		name        string
		now, quiet  int
		collections uint64
		live        uint64
		want        int
	}{
		{"idle", 100, 0, 0, 20 * mib, 100},
		{"now and then", 100, 0, 1, 20 * mib, 100},
		{"busy", 100, 9, 2, 20 * mib, 400},
		{"still busy, at the new pace", 400, 0, 1, 20 * mib, 400},
		{"a pause", 400, 3, 0, 20 * mib, 400},
		{"done", 400, 4, 0, 20 * mib, 100},
		{"busy with a larger heap", 100, 0, 30, 64 * mib, 200},
		{"grown since", 400, 0, 1, 64 * mib, 200},
		{"busy with a large heap", 100, 0, 30, 1024 * mib, 100},
		{"nothing is alive", 100, 0, 2, 0, 400},
	} {
		p := pace{percent: test.now, quiet: test.quiet}
		if p.next(test.collections, test.live); p.percent != test.want {
			t.Errorf("%s: %d percent, want %d", test.name, p.percent, test.want)
		}
	}
}

// TestRunLeavesThePaceAsItWas: who embeds it finds its own setting again.
func TestRunLeavesThePaceAsItWas(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(77))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := debug.SetGCPercent(77); got != 77 {
		t.Errorf("%d percent afterwards", got)
	}
}
