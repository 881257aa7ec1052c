package a2a_test

import (
	"encoding/json"
	"strings"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/a2a"
)

// overTheWire is what a client makes of the artifact.
func overTheWire(t testing.TB, artifact *sdk.Artifact) *sdk.Task {
	t.Helper()
	raw, err := json.Marshal(&sdk.Task{ID: "t", ContextID: "c", Artifacts: []*sdk.Artifact{artifact}})
	if err != nil {
		t.Fatal(err)
	}
	var task sdk.Task
	if err := json.Unmarshal(raw, &task); err != nil {
		t.Fatal(err)
	}
	return &task
}

func TestReportRoundTrip(t *testing.T) {
	intent := uint64(1) << 52
	for _, result := range []string{
		"null", "42", `{"a":[1,2.5,"x"],"b":null}`, "1267650600228229401496703205376",
		"1" + strings.Repeat("0", 400), "[1e400,-9007199254740993]", `"\u2028"`,
	} {
		want := a2a.Report{
			Task: "t", Node: "n", Status: a2a.Succeeded, Result: json.RawMessage(result), Stdout: "out\u2028", Files: []a2a.OutFile{{Path: "a", Content: []byte{0}}},
			Enforced: map[string]string{"memory": "cgroup1"}, Intent: &intent, Duration: 1.5, Usage: a2a.Usage{PeakMemoryBytes: 1 << 40},
		}
		artifact, err := want.Artifact()
		if err != nil {
			t.Fatal(err)
		}
		got, err := a2a.ReportOf(overTheWire(t, artifact))
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if strings.Contains(result, "\\") { // the same string written otherwise
			json.Unmarshal(got.Result, &a)
			json.Unmarshal(want.Result, &b)
			got.Result, want.Result = nil, nil
		}
		if !cmp.Equal(got, want) || a != b {
			t.Errorf("result %.40s: %s", result, cmp.Diff(want, got))
		}
	}
}

func TestReportFitsWhatClientsRead(t *testing.T) {
	big := func(n int) string { return strings.Repeat("\x01", n) }
	for _, c := range []struct {
		name   string
		report a2a.Report
		want   []string
	}{
		{"files", a2a.Report{Stdout: "x", Files: []a2a.OutFile{{Path: "a", Content: make([]byte, 8<<20)}}}, []string{"files"}},
		{"output", a2a.Report{Stdout: big(1 << 20), Stderr: big(1 << 20), Truncated: []string{"stderr"}}, []string{"stderr", "stdout"}},
		{"result", a2a.Report{Result: json.RawMessage(`"` + strings.Repeat("x", 9<<20) + `"`)}, []string{"result"}},
		{"all", a2a.Report{Stdout: big(2 << 20), Files: []a2a.OutFile{{Path: "a", Content: make([]byte, 8<<20)}}, Result: json.RawMessage(`"` + strings.Repeat("x", 9<<20) + `"`)}, []string{"files", "result", "stdout"}},
	} {
		artifact, err := c.report.Artifact()
		if err != nil {
			t.Fatal(err)
		}
		if raw := mustJSON(t, artifact); len(raw) > 9<<20 {
			t.Errorf("%s: %d bytes", c.name, len(raw))
		}
		got, err := a2a.ReportOf(&sdk.Task{Artifacts: []*sdk.Artifact{artifact}})
		if err != nil || !cmp.Equal(got.Truncated, c.want) {
			t.Errorf("%s: truncated %v, want %v; %v", c.name, got.Truncated, c.want, err)
		}
	}
}

func TestReportOfRefuses(t *testing.T) {
	for name, task := range map[string]*sdk.Task{
		"nothing":     nil,
		"no artifact": {},
		"text":        {Artifacts: []*sdk.Artifact{nil, {ID: a2a.ReportArtifact, Parts: sdk.ContentParts{sdk.NewTextPart("x")}}}},
		"no part":     {Artifacts: []*sdk.Artifact{{ID: a2a.ReportArtifact}}},
		"nil part":    {Artifacts: []*sdk.Artifact{{ID: a2a.ReportArtifact, Parts: sdk.ContentParts{nil}}}},
		"other shape": {Artifacts: []*sdk.Artifact{{ID: a2a.ReportArtifact, Parts: sdk.ContentParts{sdk.NewDataPart([]any{1})}}}},
	} {
		if r, err := a2a.ReportOf(task); err == nil {
			t.Errorf("%s: ReportOf = %+v", name, r)
		}
	}
}

func TestStatusesHaveTaskStates(t *testing.T) {
	for status, want := range map[a2a.Status]sdk.TaskState{
		a2a.Running: sdk.TaskStateWorking, a2a.Succeeded: sdk.TaskStateCompleted, a2a.Failed: sdk.TaskStateFailed, a2a.TimedOut: sdk.TaskStateFailed,
		a2a.Lost: sdk.TaskStateFailed, a2a.Cancelled: sdk.TaskStateCanceled, a2a.Denied: sdk.TaskStateRejected,
	} {
		if got := status.TaskState(); got != want || got.Terminal() != status.Terminal() {
			t.Errorf("%s: state %s, want %s", status, got, want)
		}
	}
}
