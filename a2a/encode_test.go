package a2a

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// sameTask holds what MarshalTask makes to what encoding/json makes.
func sameTask(t *testing.T, task *sdk.Task) {
	t.Helper()
	if task.Status.State == "" { // else it would be written the long way
		with := *task
		with.Status.State = sdk.TaskStateWorking
		sameTask(t, &with)
	}
	want, wantErr := json.Marshal(task)
	got, err := MarshalTask(task)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("MarshalTask(%+v): %v, want %v", task, err, wantErr)
	}
	if err != nil {
		return
	}
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("MarshalTask gave %q: %v", got, err)
	}
	if err := json.Unmarshal(want, &b); err != nil {
		t.Fatal(err)
	}
	aText, _ := json.Marshal(a) // tells the zeros apart
	bText, _ := json.Marshal(b)
	if !reflect.DeepEqual(a, b) || string(aText) != string(bText) {
		t.Errorf("MarshalTask gave\n%s\nwant\n%s", got, want)
	}
}

func TestMarshalTask(t *testing.T) {
	at := time.Date(2026, 11, 28, 4, 5, 6, 7_000_000, time.UTC)
	never := time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	message := &sdk.Message{
		ID: "m", ContextID: "c", TaskID: "t", Role: sdk.MessageRoleUser, Extensions: []string{"e"}, ReferenceTasks: []sdk.TaskID{"r"}, Metadata: map[string]any{"<&>\u2028": []any{1.5, "é\n\x7f", nil, true}},
		Parts: sdk.ContentParts{sdk.NewTextPart("a"), sdk.NewRawPart([]byte{0xff}), sdk.NewDataPart(map[string]any{"n": 1e21}), sdk.NewFileURLPart("u", "m")},
	}
	artifact := &sdk.Artifact{ID: "a", Name: "n", Description: "d", Extensions: []string{"e"}, Metadata: map[string]any{"k": "v"}, Parts: sdk.ContentParts{sdk.NewDataPart(map[string]any{"n": -1.0})}}
	status := sdk.TaskStatus{State: sdk.TaskStateCompleted, Timestamp: &at, Message: message}
	for _, task := range []*sdk.Task{
		{},
		{ID: "t", ContextID: "c", Status: status},
		{ID: "t", ContextID: "c", Status: status, Artifacts: []*sdk.Artifact{artifact, artifact}, History: []*sdk.Message{message, message}, Metadata: map[string]any{"k": map[string]any{}}},
		{ID: "\"", Metadata: map[string]any{}, Artifacts: []*sdk.Artifact{}, History: []*sdk.Message{}},
		{Artifacts: []*sdk.Artifact{nil}},
		{Artifacts: []*sdk.Artifact{{}}},
		{History: []*sdk.Message{nil}},
		{History: []*sdk.Message{{}}},
		{Status: sdk.TaskStatus{State: "odd", Timestamp: &never}},
		{Status: sdk.TaskStatus{Timestamp: new(time.Time)}},
		{ID: "\xff"},
		{Metadata: map[string]any{"n": math.NaN()}},
		{Metadata: map[string]any{"n": 1e300}},
		{Status: sdk.TaskStatus{State: sdk.TaskStateWorking}, Metadata: map[string]any{"n": math.Copysign(0, -1)}},
		{Metadata: map[string]any{"n": math.MaxInt64}},
		{Artifacts: []*sdk.Artifact{{Parts: sdk.ContentParts{sdk.NewDataPart([]any{1.0})}}}},
		{Artifacts: []*sdk.Artifact{{Parts: sdk.ContentParts{{}}}}},
	} {
		sameTask(t, task)
	}
}

func FuzzMarshalTask(f *testing.F) {
	f.Add([]byte(`{"id":"t","contextId":"c","status":{"state":"TASK_STATE_COMPLETED","timestamp":"2026-11-28T04:05:06.007Z","message":` + plainMessage + `},"artifacts":[{"artifactId":"a","name":"n","parts":[{"data":{"a":1e21}}],"metadata":{"":null}}],"history":[` + plainMessage + `],"metadata":{"a":[]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var task sdk.Task
		if json.Unmarshal(raw, &task) == nil {
			sameTask(t, &task)
		}
	})
}
