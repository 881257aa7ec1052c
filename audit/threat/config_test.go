package threat_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/audit/threat"
)

// zones compares time zones by their names.
var zones = cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })

func TestThresholds(t *testing.T) {
	var c threat.Config
	for name, value := range map[string]string{
		"guesses": "1", "replays": "2", "denials": "3", "violations": "4", "probes": "5", "runs": "6",
		"window": "10m", "quiet": "2h", "silence": "30s", "hours": "22-6", "zone": "UTC", "weekend": "off",
	} {
		if err := c.Set(name, value); err != nil {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	want := threat.Config{
		Guesses: 1, Replays: 2, Denials: 3, Violations: 4, Probes: 5, PlaceRuns: 6,
		Window: 10 * time.Minute, Quiet: 2 * time.Hour, Silence: 30 * time.Second,
		HoursFrom: 22, HoursUntil: 6, HoursIn: time.UTC, WeekendIsOff: true,
	}
	if diff := cmp.Diff(want, c, zones); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range [][2]string{
		{"guesses", "0"},
		{"guesses", "-1"},
		{"guesses", "x"},
		{"guesses", "1000001"},
		{"guesses", ""},
		{"window", "0s"},
		{"window", "200h"},
		{"window", "5"},
		{"hours", "7"},
		{"hours", "7-7"},
		{"hours", "7-25"},
		{"hours", "-1-5"},
		{"zone", "Nowhere/Atall"},
		{"zone", ""},
		{"zone", "Local"},
		{"zone", "../../etc/passwd"},
		{"weekend", "yes"},
		{"", "1"},
		{"Guesses", "1"},
	} {
		before := c
		if err := c.Set(bad[0], bad[1]); err == nil {
			t.Errorf("%s=%s was taken", bad[0], bad[1])
		}
		if diff := cmp.Diff(before, c, zones); diff != "" {
			t.Errorf("%s=%s changed something:\n%s", bad[0], bad[1], diff)
		}
	}
}
