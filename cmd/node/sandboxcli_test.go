package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
)

func TestProbeSaysWhatEachMissingFeatureCosts(t *testing.T) {
	view := probed(jail.Probe{Tier: jail.Tier2, CgroupVersion: "hybrid", Features: map[string]string{
		"cgroup_memory": "mkdir /sys/fs/cgroup/memory/x: permission denied", "landlock": "ok (abi 7)", "user_ids": "one, the node's own", "jail": "ok",
	}})
	if len(view.Features) != 4 {
		t.Fatalf("features are %+v", view.Features)
	}
	for _, f := range view.Features {
		missing := f.Name == "cgroup_memory" || f.Name == "user_ids"
		if f.OK == missing || (f.Cost != "") != missing {
			t.Errorf("%+v", f)
		}
		if f.Name == "cgroup_memory" && !strings.Contains(f.Answer, "permission denied") {
			t.Errorf("the kernel's answer is lost: %+v", f)
		}
	}
}

func TestBenchMeasuresEachContender(t *testing.T) {
	view, err := measure(t.Context(), jailtest.Start(t), benchConfig{dir: t.TempDir(), socket: dockerOff, runs: 2, sustain: 100 * time.Millisecond})
	if err != nil {
		if strings.Contains(err.Error(), sandbox.ErrUnavailable.Error()) {
			t.Skipf("no python3 on this machine: %v", err)
		}
		t.Fatal(err)
	}
	if len(view.Figures) < 8 || len(view.Goals) < 4 {
		t.Errorf("only %d figures and %d goals", len(view.Figures), len(view.Goals))
	}
	for _, f := range view.Figures {
		if f.PerSecond == 0 && (f.Runs != 2 || f.Min <= 0 || f.Min > f.P50 || f.P50 > f.P95) {
			t.Errorf("%+v", f)
		}
	}
	if len(view.Missing) == 0 || !strings.Contains(view.Missing[0], "docker") {
		t.Errorf("that there is no engine is not said: %q", view.Missing)
	}
}

func TestGoalsCompareWithPeers(t *testing.T) {
	got := goals([]figureView{
		{Name: pythonCold, P50: 30},
		{Name: bubblewrap, P50: 20},
		{Name: wasmWorker, P50: 0.9},
		{Name: dockerCold, P50: 9},
		{Name: pythonRate, PerSecond: 80},
		{Name: bareRate, PerSecond: 100},
	})
	want := []goalView{
		{Name: "python cold, p50, over bubblewrap's", Unit: "x", Most: 1.4, Got: 1.5},
		{Name: "small WebAssembly, p50", Unit: "ms", Most: 1, Got: 0.9, Met: true},
		{Name: "python runs per second, over the bare interpreter's", Unit: "x", Least: 0.7, Got: 0.8, Met: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("goals = %+v, want %+v", got, want)
	}
}
