package a2a

import (
	"encoding/json"

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
			Result: json.RawMessage("null"), Files: []File{}, Enforced: map[string]string{},
		}, nil
	}
	return ReportOf(task)
}
