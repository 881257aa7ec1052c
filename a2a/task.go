package a2a

import (
	"encoding/json"
	"maps"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// TaskOf is the task that a report describes, for a report that came by
// another way than the task itself.
func TaskOf(r Report) (*sdk.Task, error) {
	task := &sdk.Task{
		ID:        sdk.TaskID(r.Task),
		ContextID: r.Task,
		Status:    sdk.TaskStatus{State: r.Status.TaskState()},
	}
	if !r.Status.Terminal() {
		return task, nil
	}
	artifact, err := r.Artifact()
	if err != nil {
		return nil, err
	}
	task.Artifacts = []*sdk.Artifact{artifact}
	return task, nil
}

// Describe is the report of a task: its own if it has ended, else one that
// says that it is running.
func Describe(task *sdk.Task) (Report, error) {
	if task != nil && !task.Status.State.Terminal() {
		return Report{
			Task: string(task.ID), Status: Running,
			Result: json.RawMessage("null"), Files: []OutFile{}, Enforced: map[string]string{},
		}, nil
	}
	rep, err := ReportOf(task)
	if err != nil && task != nil && task.Status.State == sdk.TaskStateCanceled { // while it waited: nothing ran
		return Report{
			Task: string(task.ID), Status: Cancelled, ExitCode: 130,
			Result: json.RawMessage("null"), Files: []OutFile{}, Enforced: map[string]string{},
			Error: &ReportError{Code: "cancelled", Message: "the task was cancelled before it ran anything"},
		}, nil
	}
	return rep, err
}

// Members of a task's metadata under [ExecutionURI].
const (
	metaOwner  = "owner"     // who may see it
	metaRun    = "execution" // the id under which the log has what the task ran, if not the task's own
	metaStatus = "status"    // how it ended, in the report's words, which lists leave out
)

// OwnerOf is who may see a task, as its metadata says; "" if it does not.
func OwnerOf(task *sdk.Task) string { return note(task, metaOwner) }

// SetOwner notes who may see a task.
func SetOwner(task *sdk.Task, owner string) { setNote(task, metaOwner, owner) }

// ExecutionOf is the id under which the log has what a task runs: that of the
// message that brought the code, which is the task's own unless it was asked for.
func ExecutionOf(task *sdk.Task) string {
	if id := note(task, metaRun); id != "" {
		return id
	}
	return string(task.ID)
}

// SetExecution notes under which id the log has what a task runs.
func SetExecution(task *sdk.Task, id string) { setNote(task, metaRun, id) }

// SetStatus notes how a task ended.
func SetStatus(task *sdk.Task, s Status) { setNote(task, metaStatus, string(s)) }

// StatusOf is how a task stands, in the report's words, which tell more than
// its state: of the failed ones, which were lost or ran out of time.
func StatusOf(task *sdk.Task) Status {
	if rep, err := Describe(task); err == nil {
		return rep.Status
	}
	if s := Status(note(task, metaStatus)); s.Terminal() && s.TaskState() == task.Status.State {
		return s
	}
	for _, s := range []Status{Succeeded, Cancelled, Denied} {
		if s.TaskState() == task.Status.State {
			return s
		}
	}
	return Failed
}

func note(task *sdk.Task, name string) string {
	meta, _ := task.Metadata[ExecutionURI].(map[string]any)
	text, _ := meta[name].(string)
	return text
}

// setNote leaves the metadata that other copies of the task share as it is.
func setNote(task *sdk.Task, name, value string) {
	meta, _ := task.Metadata[ExecutionURI].(map[string]any)
	if meta = maps.Clone(meta); meta == nil {
		meta = map[string]any{}
	}
	meta[name] = value
	if task.Metadata = maps.Clone(task.Metadata); task.Metadata == nil {
		task.Metadata = map[string]any{}
	}
	task.Metadata[ExecutionURI] = meta
}
