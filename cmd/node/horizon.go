package main

import (
	"context"
	"iter"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/audit"
)

// horizon is the newest entry that this node told somebody about. A keeper's
// own copy may trail the quorum by a moment; whoever asks this node about the
// log sees at least what this node has said before.
type horizon struct {
	store  *audit.Store
	newest atomic.Uint64 // index + 1; 0: none
}

// horizonWait bounds how long a reader waits for this node to catch up.
const horizonWait = 2 * time.Second

// note remembers that the entry at index was reported.
func (h *horizon) note(index uint64) {
	for {
		old := h.newest.Load()
		if old > index || h.newest.CompareAndSwap(old, index+1) {
			return
		}
	}
}

// reach waits until the local copy holds all that was reported.
func (h *horizon) reach(ctx context.Context) {
	want := h.newest.Load()
	if want == 0 || h.store.Size() >= want {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, horizonWait)
	defer cancel()
	_ = h.store.Changed(ctx, want-1) // if it does not catch up, the reader sees what there is
}

// record is the recorder's, remembering what was acknowledged.
type notedRecorder struct {
	*audit.Recorder
	horizon *horizon
}

func (r notedRecorder) Record(ctx context.Context, e audit.Entry) (audit.Ack, error) {
	ack, err := r.Recorder.Record(ctx, e)
	if err == nil {
		r.horizon.note(ack.Index)
	}
	return ack, err
}

// currentLog is the store for readers who rely on what they were told.
type currentLog struct {
	*audit.Store
	horizon *horizon
}

func (l currentLog) Query(ctx context.Context, f audit.Filter) (audit.Page, error) {
	l.horizon.reach(ctx)
	return l.Store.Query(ctx, f)
}

func (l currentLog) Export(ctx context.Context, f audit.Filter, size uint64) iter.Seq2[audit.Indexed, error] {
	l.horizon.reach(ctx)
	return l.Store.Export(ctx, f, size)
}

func (l currentLog) Entry(index uint64) (audit.Entry, []byte, error) {
	l.horizon.reach(context.Background())
	return l.Store.Entry(index)
}

func (l currentLog) Story(ctx context.Context, task string) (audit.Story, error) {
	l.horizon.reach(ctx)
	return l.Store.Story(ctx, task)
}
