//go:build long

package main

import (
	"cmp"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestTCK runs the A2A project's own compatibility kit, which is in Python and is
// not part of this repository. TCK_DIR is a checkout of a2aproject/a2a-tck, branch
// 1.0-dev; TCK_PYTEST is how to run pytest there, "python3 -m pytest" if it is not
// set. testdata/tck-deviations.yaml names the kit's tests that contradict the
// specification.
func TestTCK(t *testing.T) {
	dir := os.Getenv("TCK_DIR")
	if dir == "" {
		t.Skip("TCK_DIR names no checkout of a2aproject/a2a-tck, branch 1.0-dev")
	}
	raw, err := os.ReadFile("testdata/tck-deviations.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var listed []deviation
	if err := yaml.Unmarshal(raw, &listed); err != nil {
		t.Fatal(err)
	}
	for _, d := range listed {
		if d.Reason == "" || d.Spec == "" {
			t.Errorf("%s is listed without a reason or the sentence that decides", d.ID)
		}
	}
	t.Run("all that the agent can", func(t *testing.T) { runTCK(t, dir, listed, true) })
	t.Run("without push notifications", func(t *testing.T) { runTCK(t, dir, listed, false) })
}

// runTCK runs the kit against an agent with or without push notifications, of which
// the kit asks other questions.
func runTCK(t *testing.T, dir string, listed []deviation, pushes bool) {
	expected := map[string]bool{}
	for _, d := range listed {
		if d.Without == "" || d.Without == "push" && !pushes {
			expected[d.ID] = true
		}
	}
	deviations := len(expected)
	s := newStand(t, pushes)
	results := filepath.Join(t.TempDir(), "results.xml")
	pytest := strings.Fields(cmp.Or(os.Getenv("TCK_PYTEST"), "python3 -m pytest"))
	args := slices.Concat(pytest[1:], []string{"tests/compatibility", "-q", "--tb=short", "--sut-host=" + s.url, "--junitxml=" + results})
	cmd := exec.CommandContext(t.Context(), pytest[0], args...)
	cmd.Dir = dir
	said, failed := cmd.CombinedOutput() // the results say what failed
	var report struct {
		Cases []struct {
			Class   string     `xml:"classname,attr"`
			Name    string     `xml:"name,attr"`
			Failure *struct{}  `xml:"failure"`
			Error   *struct{}  `xml:"error"`
			Skipped []struct{} `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	raw, err := os.ReadFile(results)
	if err != nil {
		t.Fatalf("%v: %v\n%s", err, failed, said)
	}
	if err := xml.Unmarshal(raw, &report); err != nil {
		t.Fatal(err)
	}
	passed, skipped := 0, 0
	for _, c := range report.Cases {
		id := strings.TrimPrefix(c.Class, "tests.compatibility.") + "." + c.Name
		switch fails := c.Failure != nil || c.Error != nil; {
		case fails && !expected[id]:
			t.Errorf("%s failed", id)
		case fails:
			delete(expected, id)
		case len(c.Skipped) > 0:
			skipped++
		default:
			passed++
		}
	}
	for id := range expected {
		t.Errorf("%s is listed as a deviation and did not fail", id)
	}
	t.Logf("%d passed, %d skipped, %d deviations", passed, skipped, deviations-len(expected))
	if passed == 0 {
		t.Error("no test of the kit passed")
	}
	if t.Failed() {
		t.Logf("%s", said)
	}
}
