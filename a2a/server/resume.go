package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/taskstore"
)

// lastEventID is the header of a reader who comes back.
const lastEventID = "Last-Event-ID"

// maxLog is how many bytes of a task's log are kept when it has ended; of a
// longer log a reader who comes back gets the ended task instead.
const maxLog = 1 << 20

// numbers hands the numbers of events from the handler to the writer of the
// stream, past the codec between them, which keeps the order.
type numbers struct {
	mu   sync.Mutex
	next []uint64
}

func (n *numbers) push(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next = append(n.next, number)
}

func (n *numbers) pop() (uint64, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.next) == 0 {
		return 0, false
	}
	first := n.next[0]
	n.next = n.next[1:]
	return first, true
}

// number tells the writer of the stream the number of the event that comes.
func number(ctx context.Context, n uint64) {
	if to, ok := ctx.Value(numbersKey).(*numbers); ok {
		to.push(n)
	}
}

// withResume notes where the reader left off.
func withResume(ctx context.Context, r *http.Request, to *numbers) (context.Context, *rpcError) {
	ctx = context.WithValue(ctx, numbersKey, to)
	text := oneHeader(r, lastEventID)
	if text == "" {
		return ctx, nil
	}
	after, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return nil, &rpcError{0, a2a.Errorf(a2a.CodeInvalidRequest, "%s is not one that this node gave", lastEventID)}
	}
	return context.WithValue(ctx, resumeKey, after), nil
}

func resumeAfter(ctx context.Context) (uint64, bool) {
	after, ok := ctx.Value(resumeKey).(uint64)
	return after, ok
}

// reader begins where the request says: after an event that its sender saw, or
// with the task and its output so far.
func (r *run) reader(ctx context.Context) *reader {
	if after, ok := resumeAfter(ctx); ok {
		return r.after(after)
	}
	return r.snapshot()
}

// after is a reader that goes on after a number. A task at work is its first
// event all the same, without the output, which follows. A number that is not
// of the log gives the whole task.
func (r *run) after(number uint64) *reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	const report, end = 1, 1
	if number > r.length()+report+end {
		return &reader{run: r, first: r.task, begun: make(map[string]bool), next: len(r.chunks), at: r.length()}
	}
	f := &reader{run: r, begun: make(map[string]bool), at: number}
	if !r.task.Status.State.Terminal() {
		f.first = r.task
	}
	left := number
	for ; f.next < len(r.chunks); f.next++ {
		c := r.chunks[f.next]
		f.begun[c.stream] = f.begun[c.stream] || left > 0
		if f.taken = int(min(left, uint64(c.size()))); f.taken < c.size() || f.next == len(r.chunks)-1 {
			break
		}
		left -= uint64(f.taken)
	}
	return f
}

// length is the number of the log's last event. The caller holds mu.
func (r *run) length() uint64 {
	n := uint64(0)
	for _, c := range r.chunks {
		n += uint64(c.size())
	}
	return n
}

// replay is a reader of a task that ended, for one who comes back; none for
// others.
func (h *Handler) replay(ctx context.Context, task *sdk.Task) (*reader, error) {
	after, ok := resumeAfter(ctx)
	if !ok {
		return nil, nil
	}
	r, err := h.storedRun(task)
	if err != nil {
		return nil, err
	}
	return r.after(after), nil
}

// entry is a chunk as the store keeps it.
type entry struct {
	Stream string          `json:"stream,omitempty"`
	Offset int64           `json:"offset,omitempty"`
	Data   []byte          `json:"data,omitempty"`
	Event  json.RawMessage `json:"event,omitempty"`
	// Progress: the event is a line of progress, not one of a talk.
	Progress bool `json:"progress,omitempty"`
}

// log is the run's log for the store, and what comes next if something does;
// nothing if it is too long.
func (r *run) log(next []sdk.Event) ([]taskstore.Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []taskstore.Event
	at, size := uint64(0), 0
	chunks := slices.Clip(r.chunks)
	for _, e := range next {
		chunks = append(chunks, chunk{event: e})
	}
	for _, c := range chunks {
		e := entry{Stream: c.stream, Offset: c.offset, Data: c.data, Progress: c.progress}
		if c.event != nil {
			var err error
			if e.Event, err = json.Marshal(sdk.StreamResponse{Event: c.event}); err != nil {
				return nil, err
			}
		}
		raw, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		if size += len(raw); size > maxLog {
			return nil, nil
		}
		at += uint64(c.size())
		out = append(out, taskstore.Event{Number: at, Data: raw})
	}
	return out, nil
}

// storedRun is the run of a task that ended, as a reader who comes back sees it.
func (h *Handler) storedRun(task *sdk.Task) (*run, error) {
	events, err := h.store.Events(task.ID)
	if err != nil {
		return nil, err
	}
	r := newRun(task, a2a.OwnerOf(task))
	for _, stored := range events {
		var e entry
		if err := json.Unmarshal(stored.Data, &e); err != nil {
			return nil, err
		}
		c := chunk{stream: e.Stream, offset: e.Offset, data: e.Data}
		if len(e.Event) > 0 {
			var response sdk.StreamResponse
			if err := json.Unmarshal(e.Event, &response); err != nil {
				return nil, err
			}
			if response.Event == nil {
				return nil, errors.New("log of task " + string(task.ID) + " holds an empty event")
			}
			c.event, c.progress = response.Event, e.Progress
			r.talks = r.talks || !e.Progress
		}
		r.chunks = append(r.chunks, c)
	}
	return r, nil
}
