package main

import (
	"strings"
	"testing"

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
	figures, err := measure(t.Context(), jailtest.Start(t), t.TempDir(), 2)
	if err != nil {
		if strings.Contains(err.Error(), sandbox.ErrUnavailable.Error()) {
			t.Skipf("no python3 on this machine: %v", err)
		}
		t.Fatal(err)
	}
	if len(figures) < 4 {
		t.Errorf("only %d figures", len(figures))
	}
	for _, f := range figures {
		if f.Runs != 2 || f.Min <= 0 || f.Min > f.P50 || f.P50 > f.P95 {
			t.Errorf("%+v", f)
		}
	}
}
