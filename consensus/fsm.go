package consensus

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// fsm drives the state machine for raft, which calls its methods from one
// goroutine.
type fsm struct {
	machine StateMachine
	store   *store
	members *membership
	ctx     context.Context // ends a restore when the group closes
	fail    func(error)
	met     *metrics

	applied uint64 // the last index given to the machine, durable or not
	broken  error  // set once; from then on nothing is applied

	since atomic.Pointer[time.Time] // when the machine began to apply; nil: it does not
}

// busy is how long the machine has been applying by now.
func (f *fsm) busy() time.Duration {
	if since := f.since.Load(); since != nil {
		return time.Since(*since) // whatever the clock on the wall does meanwhile
	}
	return 0
}

var _ raft.BatchingFSM = (*fsm)(nil)

// Apply is never called, since raft prefers ApplyBatch.
func (f *fsm) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch answers each entry with its commands' results ([][]byte) or an
// error.
func (f *fsm) ApplyBatch(entries []*raft.Log) []any {
	answers := make([]any, len(entries))
	results, counts, err := f.apply(entries)
	if err != nil && f.broken == nil {
		f.broken = err
		if f.ctx.Err() == nil { // else the machine was released, for the group closes
			f.fail(err)
		}
	}
	for i, count := range counts {
		if count == 0 {
			continue
		}
		if f.broken != nil {
			answers[i] = f.broken
			continue
		}
		answers[i], results = results[:count:count], results[count:]
	}
	return answers
}

// apply gives the machine the commands of all entries at once, so that they
// cost one transaction. counts says how many commands each entry had.
func (f *fsm) apply(entries []*raft.Log) (results [][]byte, counts []int, err error) {
	counts = make([]int, len(entries))
	var cmds [][]byte
	var last *raft.Log
	for i, entry := range entries {
		if entry.Type == raft.LogConfiguration {
			// It is on disk before anything behind it is applied, so that a
			// snapshot never names members older than its state.
			if err := f.members.keep(entry.Index, raft.DecodeConfiguration(entry.Data)); err != nil {
				return nil, counts, err
			}
		}
		// raft replays what the machine has applied already if a crash came
		// between the machine's commit and raft's own note of it.
		if entry.Type != raft.LogCommand || entry.Index <= f.applied {
			continue
		}
		more, err := unpackEntry(entry.Data)
		if err != nil {
			return nil, counts, fmt.Errorf("apply entry %d: %w", entry.Index, err)
		}
		counts[i] = len(more)
		cmds = append(cmds, more...)
		last = entry
	}
	if last == nil || f.broken != nil {
		return nil, counts, nil
	}
	// Nothing is applied, and so answered, that this keeper could lose.
	if err := f.onDisk(last.Index); err != nil {
		return nil, counts, fmt.Errorf("apply up to entry %d: %w", last.Index, err)
	}
	begun := time.Now()
	f.since.Store(&begun)
	results, err = f.machine.Apply(last.Index, last.Term, cmds)
	f.since.Store(nil)
	if err == nil && len(results) != len(cmds) {
		err = fmt.Errorf("internal error: %d results for %d commands", len(results), len(cmds))
	}
	if err != nil {
		return nil, counts, fmt.Errorf("apply up to entry %d: %w", last.Index, err)
	}
	f.applied = last.Index
	f.met.applied.Add(float64(len(cmds)))
	return results, counts, nil
}

// onDisk waits until the entry is on this keeper's disk. Once the group closes it
// waits for one more write at most.
func (f *fsm) onDisk(index uint64) error {
	if f.store.upTo() >= index {
		return nil
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	unhook := context.AfterFunc(f.ctx, func() {
		select {
		case <-time.After(f.store.cfg.Timeout):
			cancel(errCut)
		case <-ctx.Done():
		}
	})
	defer unhook()
	return f.store.durable(ctx, index)
}

// Snapshot captures nothing: the machine is durable by itself, and raft only
// wants to know that it may truncate its log.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, f.broken }

type nothing struct{}

func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }
func (nothing) Release()                             {}

// Restore brings the machine up to what another keeper described.
func (f *fsm) Restore(from io.ReadCloser) error {
	if f.broken != nil {
		return f.broken
	}
	text, err := io.ReadAll(io.LimitReader(from, snapshotHead+maxSnapshot+1))
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	index, term, meta, err := unpackSnapshot(text)
	if err != nil {
		return err
	}
	if durable, _ := f.machine.Applied(); index <= durable || index <= f.applied {
		return nil // INVARIANT: I7 a restore never shrinks the log
	}
	// If we were to crash while the machine restores, the raft log would end
	// below the machine's index; the mark says that this is no loss.
	if err := f.store.restoring(index); err != nil {
		return err
	}
	if err := f.machine.Restore(f.ctx, index, term, meta); err != nil {
		return fmt.Errorf("restore up to entry %d: %w", index, err)
	}
	durable, _ := f.machine.Applied()
	if durable < index {
		return fmt.Errorf("restore up to entry %d: the state machine stands at %d", index, durable)
	}
	if durable > index {
		if err := f.store.restoring(durable); err != nil {
			return err
		}
	}
	f.applied = durable
	f.met.restores.Inc()
	return nil
}
