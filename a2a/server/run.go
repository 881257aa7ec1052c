package server

import (
	"context"
	"slices"
	"sync"
	"unicode/utf8"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
)

// Caps of what one run keeps for its readers, so that a slow reader costs
// nothing but his own patience: he reads from here at his own pace.
const (
	maxLiveBytes  = 8 << 20
	maxLiveChunks = 16 << 10
	maxChunkBytes = 32 << 10 // of one artifact update
	maxProgress   = 1 << 10  // bytes of one line of progress
)

// run is a task in progress. Readers follow it by their own [reader].
type run struct {
	owner string

	// word is held by who says something in a talk, over the write to the store:
	// what readers see is durable, and one word follows the other.
	word sync.Mutex

	mu      sync.Mutex
	task    *sdk.Task          // as it stands, without output; never changed, only replaced
	talks   bool               // its chunks are events, the last one too
	hush    context.CancelFunc // ends the turn of a talk; nil if there was none since a restart
	kept    bool               // the end could be made anew, see [Updates]
	stored  chan struct{}      // closed when the end, which is told already, is stored; else nil
	refused error              // why the run was not to be, see [Handler.withdraw]; else nil
	chunks  []chunk
	size    int
	changed chan struct{} // closed and replaced whenever something above changes
}

// chunk is a piece of one stream of output, an event of a talk, or a line of
// progress.
type chunk struct {
	event    sdk.Event
	progress bool // event is one, and so says nothing of a talk
	stream   string
	offset   int64
	data     []byte // grows at its end only
}

func newRun(task *sdk.Task, owner string) *run {
	return &run{owner: owner, task: task, changed: make(chan struct{})}
}

// Output implements [Updates]. Output beyond the caps is not kept: the report
// holds it, up to caps of its own.
func (r *run) Output(stream string, offset int64, data []byte) {
	if (stream != "stdout" && stream != "stderr") || len(data) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.task.Status.State.Terminal() || r.size+len(data) > maxLiveBytes {
		return
	}
	last := len(r.chunks) - 1
	switch {
	case last >= 0 && r.chunks[last].takes(stream, offset, len(data)):
		r.chunks[last].data = append(r.chunks[last].data, data...)
	case len(r.chunks) < maxLiveChunks:
		r.chunks = append(r.chunks, chunk{stream: stream, offset: offset, data: slices.Clone(data)})
	default:
		return
	}
	r.size += len(data)
	r.wake()
}

// Progress tells readers what takes long before the program starts, as the
// message of a task that works.
func (r *run) Progress(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.task.Status.State.Terminal() || len(r.chunks) >= maxLiveChunks || line == "" || len(line) > maxProgress {
		return
	}
	message := sdk.NewMessageForTask(sdk.MessageRoleAgent, r.task, sdk.NewTextPart(line))
	r.chunks = append(r.chunks, chunk{event: sdk.NewStatusUpdateEvent(r.task, sdk.TaskStateWorking, message), progress: true})
	r.wake()
}

// Kept implements [Updates].
func (r *run) Kept() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = true
}

// endEarly makes task the last word, if it could be made anew, and reports whether
// it did. landed says that it is stored.
func (r *run) endEarly(task *sdk.Task) (landed func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.kept {
		return nil, false
	}
	r.task, r.stored = task, make(chan struct{})
	r.wake()
	return func() { close(r.stored) }, true
}

// landing is closed when the end of the run, which is told already, is stored;
// nil: nothing is told that is not stored.
func (r *run) landing() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stored
}

func (c chunk) takes(stream string, offset int64, n int) bool {
	return c.event == nil && c.stream == stream && c.offset+int64(len(c.data)) == offset && len(c.data)+n <= maxChunkBytes
}

// size is how much there is to take of it.
func (c chunk) size() int {
	if c.event != nil {
		return 1
	}
	return len(c.data)
}

// end makes task the last word.
func (r *run) end(task *sdk.Task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.task = task
	r.wake()
}

// refuse ends a run that was not to be.
func (r *run) refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = err
	r.wake()
}

func (r *run) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// snapshot is a reader that begins with the task and its output so far, and
// goes on from there.
func (r *run) snapshot() *reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	task := *r.task
	follow := &reader{run: r, first: &task, begun: make(map[string]bool), next: len(r.chunks), at: r.length()}
	if task.Status.State.Terminal() {
		return follow
	}
	task.Artifacts = slices.Clone(task.Artifacts)
	for _, stream := range []string{"stdout", "stderr"} {
		if data := r.output(stream); len(data) > 0 {
			task.Artifacts = append(task.Artifacts, outputArtifact(stream, data))
			follow.begun[stream] = true
		}
	}
	if follow.next > 0 {
		follow.next--
		follow.taken = r.chunks[follow.next].size()
	}
	return follow
}

func (r *run) output(stream string) []byte {
	var out []byte
	for _, c := range r.chunks {
		if c.stream == stream {
			out = append(out, c.data...)
		}
	}
	return out
}

// binaryOutput are the artifacts for streams that a report, which is text,
// cannot hold.
func (r *run) binaryOutput() []*sdk.Artifact {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*sdk.Artifact
	for _, stream := range []string{"stdout", "stderr"} {
		if data := r.output(stream); !utf8.Valid(data) {
			out = append(out, outputArtifact(stream, data))
		}
	}
	return out
}

// reader follows a run from a place in its output.
type reader struct {
	run   *run
	first *sdk.Task       // what it begins with
	begun map[string]bool // streams whose artifact the reader has seen
	next  int             // chunk to read
	taken int             // bytes of it that were read
	// oneTurn ends the reading where the task waits for input. One that waits for
	// authorization goes on by itself.
	oneTurn bool
	at      uint64 // number of what was read last, see [Numbered]
}

// read gives what is new, the task as it stands, and what to wait on for more; an
// error if the run was not to be.
func (f *reader) read() ([]Numbered, *sdk.Task, <-chan struct{}, error) {
	r := f.run
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []Numbered
	for ; f.next < len(r.chunks); f.next, f.taken = f.next+1, 0 {
		c := r.chunks[f.next]
		if n := c.size() - f.taken; n > 0 {
			f.at += uint64(n)
			e := c.event
			if e == nil {
				e = f.update(r.task, c, slices.Clone(c.data[f.taken:]))
			}
			events, f.taken = append(events, Numbered{f.at, e}), c.size()
		}
		if f.next == len(r.chunks)-1 {
			break // it may still grow
		}
	}
	return events, r.task, r.changed, r.refused
}

func (f *reader) update(task *sdk.Task, c chunk, data []byte) sdk.Event {
	e := &sdk.TaskArtifactUpdateEvent{
		TaskID:    task.ID,
		ContextID: task.ContextID,
		Append:    f.begun[c.stream],
		Artifact:  outputArtifact(c.stream, data),
		Metadata:  map[string]any{"offset": c.offset + int64(f.taken)},
	}
	f.begun[c.stream] = true
	return e
}

// outputArtifact holds bytes that a program wrote: as text where they are text,
// else raw.
func outputArtifact(stream string, data []byte) *sdk.Artifact {
	part := sdk.NewRawPart(data)
	part.MediaType = "application/octet-stream"
	if utf8.Valid(data) {
		part = sdk.NewTextPart(string(data))
		part.MediaType = "text/plain; charset=utf-8"
	}
	return &sdk.Artifact{ID: sdk.ArtifactID(stream), Name: stream, Parts: sdk.ContentParts{part}}
}

// ended is task with the report as its end.
func ended(task *sdk.Task, report a2a.Report, extra []*sdk.Artifact) (*sdk.Task, error) {
	artifact, err := report.Artifact()
	if err != nil {
		return nil, err
	}
	out := *task
	at := now()
	out.Status = sdk.TaskStatus{State: report.Status.TaskState(), Timestamp: &at}
	if report.Error != nil {
		out.Status.Message = sdk.NewMessageForTask(sdk.MessageRoleAgent, &out, sdk.NewTextPart(report.Error.Message))
	}
	a2a.SetStatus(&out, report.Status)
	out.Artifacts = append(slices.Clip(extra), artifact)
	return &out, nil
}
