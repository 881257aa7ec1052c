package consensus

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/agenticraft/node/internal/durable"
)

// A keeper that leads sends entries to the others while its own disk still
// writes them, one that follows answers when they are written: see
// [durableTransport] for what keeps this safe.

// maxUnwritten is how many bytes of entries raft may count as stored while the
// disk still writes them.
const maxUnwritten = 4 << 20

// storeWrite is what one StoreLogs hands to the disk.
type storeWrite struct {
	records []record
	size    int64 // bytes in the file
	begun   time.Time
	done    chan error // has room for one; nil: nobody waits
}

func (w *storeWrite) from() uint64 { return w.records[0].index }
func (w *storeWrite) to() uint64   { return w.records[len(w.records)-1].index }

// unwritten are the writes that the disk has not finished, in order. The
// store's mutex guards it.
type unwritten struct {
	writes   []*storeWrite
	size     int64         // bytes of those that nobody waits for
	awaited  int           // how many somebody waits for
	accepted uint64        // how many nobody waited for, ever
	finished uint64        // how many of these are done
	wake     chan struct{} // has room for one
	changed  chan struct{} // closed and replaced when one is done
	lost     error         // why one was not written although raft counts on it
}

func newUnwritten() unwritten {
	return unwritten{wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

func (u *unwritten) add(w *storeWrite) {
	u.writes = append(u.writes, w)
	if w.done == nil {
		u.size += w.size
		u.accepted++
	} else {
		u.awaited++
	}
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// next are the writes at the front that make one append.
func (u *unwritten) next() []*storeWrite {
	n := 0
	for n < len(u.writes) && u.writes[n].done == nil {
		n++
	}
	return u.writes[:max(n, min(1, len(u.writes)))]
}

// remove takes the first n out.
func (u *unwritten) remove(n int) {
	for _, w := range u.writes[:n] {
		if w.done == nil {
			u.size -= w.size
			u.finished++
		} else {
			u.awaited--
		}
	}
	u.writes = u.writes[n:]
	close(u.changed)
	u.changed = make(chan struct{})
}

// body is that of an entry that raft counts as stored.
func (u *unwritten) body(index uint64) []byte {
	for _, w := range u.writes {
		if w.done == nil && index >= w.from() && index <= w.to() {
			return w.records[index-w.from()].body
		}
	}
	return nil
}

// age is how long the oldest write has been waiting for the disk.
func (u *unwritten) age() time.Duration {
	if len(u.writes) == 0 {
		return 0
	}
	return time.Since(u.writes[0].begun)
}

func (s *store) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs takes entries. Commands that simply follow the last entry are in
// the log when it returns nil, and durable some time later, see durable and
// settled; anything else is durable by then, in one flush.
//
// If the disk has not finished after the time-out it returns an error, upon
// which a leader steps down; the write may still land. Entries that lie behind
// the written ones are removed: only such a late write can have left them.
func (s *store) StoreLogs(entries []*raft.Log) error {
	w := &storeWrite{begun: time.Now()}
	commands := true
	for i, entry := range entries {
		if i > 0 && entry.Index != entries[i-1].Index+1 {
			return fmt.Errorf("internal error: entry %d follows %d", entry.Index, entries[i-1].Index)
		}
		body := encodeEntry(entry)
		w.records = append(w.records, record{index: entry.Index, body: body})
		w.size += int64(recordSize(len(body)))
		commands = commands && entry.Type == raft.LogCommand
	}
	if len(w.records) == 0 {
		return nil
	}
	if taken, err := s.take(w, commands); taken || err != nil {
		return err
	}
	timer := time.NewTimer(s.cfg.Timeout)
	defer timer.Stop()
	select {
	case err := <-w.done:
		return err
	case <-timer.C:
		s.cfg.Metrics.stalls.Inc()
		return fmt.Errorf("%w: %d entries from %d, %v", errStalled, len(entries), w.from(), s.cfg.Timeout)
	case <-s.stopped:
		return raft.ErrRaftShutdown
	}
}

// take queues a write. It reports whether the entries are in the log by that;
// if they are not, they are when the write is done.
//
// A change of the members is always waited for: raft allows the next one once it
// counts this one as committed, and a keeper that lost it in a crash would then
// count by the members before the last two, which need not share a quorum with
// those of now. What does not fit into the last file is waited for because a
// full disk must be told to raft, which counts on what was taken.
func (s *store) take(w *storeWrite, commands bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := &s.unwritten
	select {
	case <-s.stopped:
		return false, raft.ErrRaftShutdown
	default:
	}
	switch {
	case u.lost != nil:
		return false, u.lost
	case u.age() > s.cfg.Timeout:
		s.cfg.Metrics.stalls.Inc()
		return false, fmt.Errorf("%w: an earlier one is under way", errStalled)
	}
	early := commands && u.awaited == 0 && s.last > 0 && w.from() == s.last+1 &&
		u.size+w.size <= min(maxUnwritten, s.log.room())
	if early {
		s.last = w.to()
	} else {
		w.done = make(chan error, 1)
	}
	u.add(w)
	return early, nil
}

// write is the goroutine that waits for the disk, so that raft need not. It
// ends once the store is stopped and nothing is left to write.
func (s *store) write() {
	for {
		s.mu.Lock()
		writes := s.unwritten.next()
		s.mu.Unlock()
		if len(writes) == 0 {
			select {
			case <-s.unwritten.wake:
				continue
			case <-s.stopped:
			}
			if s.idle() {
				return
			}
			continue
		}
		var records []record
		for _, w := range writes {
			records = append(records, w.records...)
		}
		s.finish(writes, s.put(records, writes[0].done != nil))
	}
}

func (s *store) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unwritten.writes) == 0
}

// finish tells of writes that are done.
func (s *store) finish(writes []*storeWrite, err error) {
	waiting := writes[0].done
	s.mu.Lock()
	if err != nil && waiting == nil && s.unwritten.lost == nil {
		s.unwritten.lost = err
	}
	s.unwritten.remove(len(writes))
	s.mu.Unlock()
	switch {
	case err == nil:
		s.cfg.Metrics.write.Observe(time.Since(writes[0].begun).Seconds())
	case waiting == nil:
		// INVARIANT: I7 raft counts these entries as stored: this keeper must not
		// go on from what it remembers.
		s.cfg.Fail(err)
	}
	if waiting != nil {
		waiting <- err
	}
}

// put writes records with one flush. told says that raft hears of the result;
// else it counts on them already.
func (s *store) put(records []record, told bool) error {
	s.disk.Lock() // over the write: it is what it guards
	defer s.disk.Unlock()
	from, to := records[0].index, records[len(records)-1].index
	s.mu.Lock()
	first, last, restored, lost := s.first, s.flushed, s.restored, s.unwritten.lost
	s.mu.Unlock()
	if lost != nil {
		return lost
	}
	gap := last > 0 && from > last+1
	if gap && from != restored+1 {
		return fmt.Errorf("internal error: entry %d follows %d", from, last)
	}
	var err error
	switch {
	case gap, last == 0, from < first: // all that is there lies below the restored state
		err = s.log.clear()
		first = 0
	case from <= last:
		err = s.cut(from)
	}
	if err == nil {
		err = s.log.append(records)
	}
	if err != nil {
		s.settle()
		err = fmt.Errorf("write raft log: %w", err)
		if durable.NoSpace(err) {
			s.full.Store(&err)
		}
		return err
	}
	s.full.Store(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first = first; first == 0 {
		s.first = from
	}
	if s.flushed = to; told {
		s.last = to
	}
	return nil
}

// fullRetry is how often a full disk is asked for space.
const fullRetry = time.Second

// unwritable says why the log takes nothing until the disk has space; nil: it
// does, as far as was tried. While it takes nothing no proposal comes that would
// try, so it tries by itself.
func (s *store) unwritable() error {
	full := s.full.Load()
	if full == nil {
		return nil
	}
	if s.trying.CompareAndSwap(false, true) {
		s.work.Go(func() {
			defer s.trying.Store(false)
			select {
			case <-time.After(fullRetry):
			case <-s.stopped:
				return
			}
			s.disk.Lock()
			defer s.disk.Unlock()
			if s.log.reserve() == nil {
				s.full.Store(nil)
			}
		})
	}
	return *full
}

// settle takes over what is in the log after a change that failed half-way.
func (s *store) settle() {
	first, last := s.log.span()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first, s.last = max(s.first, first), last; last < s.first {
		s.first, s.last = first, last
	}
	s.flushed = s.last
}

// upTo is the last entry that is on this keeper's disk.
func (s *store) upTo() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushed
}

// durable waits until the entry is on this keeper's disk.
func (s *store) durable(ctx context.Context, index uint64) error {
	return s.await(ctx, func() bool { return s.flushed >= index })
}

// settled waits until everything that raft counts as stored now is on the disk.
func (s *store) settled(ctx context.Context) error {
	s.mu.Lock()
	accepted := s.unwritten.accepted
	s.mu.Unlock()
	return s.await(ctx, func() bool { return s.unwritten.finished >= accepted })
}

func (s *store) await(ctx context.Context, reached func() bool) error {
	for {
		s.mu.Lock()
		ok, lost, changed := reached(), s.unwritten.lost, s.unwritten.changed
		s.mu.Unlock()
		switch {
		case lost != nil:
			return lost
		case ok:
			return nil
		}
		select {
		case <-changed:
		case <-s.stopped:
			return raft.ErrRaftShutdown
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stalled says that the disk has not finished a write in time; nil: it has.
func (s *store) stalled() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := s.unwritten.age()
	if age <= s.cfg.Timeout {
		return age, nil
	}
	return age, fmt.Errorf("raft's log: %w", errStalled)
}
