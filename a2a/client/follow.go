package client

import (
	"iter"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
)

// Watcher is told what happens to a task while [Follow] reads its stream. The
// functions may be nil; they are called in order, by the caller's goroutine.
type Watcher struct {
	Began    func(task string)                              // once, before anything else
	Output   func(stream string, offset int64, data []byte) // "stdout" or "stderr", in order for each
	Progress func(line string)                              // what takes long before the program starts
}

// Follow reads a task's stream to its end and puts the task together again. A
// stream that ends before the task does is an [Interrupted] error: the task
// goes on, and [Client.Subscribe] or [Client.Get] finds it.
func Follow(events iter.Seq2[sdk.Event, error], w Watcher) (*sdk.Task, error) {
	f := follower{watch: w, seen: map[sdk.ArtifactID]int64{}}
	for event, err := range events {
		if err != nil {
			return f.task, err
		}
		switch e := event.(type) {
		case *sdk.Task:
			f.begin(e)
		case *sdk.TaskArtifactUpdateEvent:
			f.artifact(e)
		case *sdk.TaskStatusUpdateEvent:
			if f.task != nil {
				f.task.Status = e.Status
			}
			f.progress(e)
		}
	}
	if f.task == nil || !f.task.Status.State.Terminal() {
		return f.task, &Interrupted{Err: a2a.Errorf(a2a.CodeUnavailable, "%v", errCut), Cause: errCut}
	}
	return f.task, nil
}

type follower struct {
	watch Watcher
	task  *sdk.Task
	seen  map[sdk.ArtifactID]int64 // bytes of each output stream so far
}

// progress hands on the message of a task that works on.
func (f *follower) progress(e *sdk.TaskStatusUpdateEvent) {
	if f.watch.Progress == nil || e.Status.State != sdk.TaskStateWorking || e.Status.Message == nil {
		return
	}
	for _, part := range e.Status.Message.Parts {
		if part == nil { // a server may send null
			continue
		}
		if text, ok := part.Content.(sdk.Text); ok {
			f.watch.Progress(string(text))
		}
	}
}

func (f *follower) begin(task *sdk.Task) {
	if f.task == nil && f.watch.Began != nil {
		f.watch.Began(string(task.ID))
	}
	again := f.task != nil // a stream that was resumed where nothing could be left out
	f.task = task
	for _, a := range task.Artifacts {
		if again {
			a = f.unseen(a)
		}
		f.output(a)
	}
}

// unseen is what is new in an output stream that is shown whole.
func (f *follower) unseen(a *sdk.Artifact) *sdk.Artifact {
	if a == nil {
		return nil
	}
	out, skip := *a, f.seen[a.ID]
	out.Parts = nil
	for _, part := range a.Parts {
		if part == nil {
			continue
		}
		data := outputOf(part)
		if cut := min(skip, int64(len(data))); cut > 0 {
			skip -= cut
			if data = data[cut:]; len(data) == 0 {
				continue
			}
			part = sdk.NewRawPart(data)
		}
		out.Parts = append(out.Parts, part)
	}
	return &out
}

func outputOf(part *sdk.Part) []byte {
	switch c := part.Content.(type) {
	case sdk.Text:
		return []byte(c)
	case sdk.Raw:
		return c
	}
	return nil
}

func (f *follower) artifact(e *sdk.TaskArtifactUpdateEvent) {
	if f.task == nil || e.Artifact == nil || f.output(e.Artifact) {
		return
	}
	for i, a := range f.task.Artifacts {
		if a != nil && a.ID == e.Artifact.ID {
			f.task.Artifacts[i] = e.Artifact
			return
		}
	}
	f.task.Artifacts = append(f.task.Artifacts, e.Artifact)
}

// output hands on a piece of an output stream, and reports whether it was one.
func (f *follower) output(a *sdk.Artifact) bool {
	if a == nil || (a.ID != "stdout" && a.ID != "stderr") {
		return false
	}
	for _, part := range a.Parts {
		if part == nil { // a server may send null
			continue
		}
		data := outputOf(part)
		if f.watch.Output != nil && len(data) > 0 {
			f.watch.Output(string(a.ID), f.seen[a.ID], data)
		}
		f.seen[a.ID] += int64(len(data))
	}
	return true
}
