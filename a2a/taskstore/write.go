package taskstore

import (
	"errors"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// maxBatch bounds how many writes share one commit, and so how long a reader's
// page may have to wait for it.
const maxBatch = 256

// defaultPace is the least time between the beginnings of two commits of writes that
// can wait. A store that is not busy does not let them wait at all.
const defaultPace = 10 * time.Millisecond

// job is one write that waits for its commit.
type job struct {
	do   func(tx *bbolt.Tx) error
	done chan error
}

// write commits what do changes, and returns when it is on disk.
func (s *Store) write(do func(tx *bbolt.Tx) error) error { return s.enqueue(true, do) }

// Hurry has everything that waits for its commit written now.
func (s *Store) Hurry() {
	s.mu.Lock()
	s.hurry()
	s.mu.Unlock()
}

// hurry is called with mu held.
func (s *Store) hurry() {
	s.urgent = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// enqueue commits what do changes, and returns when it is on disk. Writes that
// come while a commit is under way share the next one: a flush of the disk
// costs the same for one as for all. It begins at once if somebody waits for one of
// them, else a pace after the one before. do may be called twice; it checks before
// it changes anything.
func (s *Store) enqueue(now bool, do func(tx *bbolt.Tx) error) error {
	j := job{do, make(chan error, 1)}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return bolterrors.ErrDatabaseNotOpen
	}
	s.waiting = append(s.waiting, j)
	if now {
		s.hurry()
	}
	if !s.committing {
		s.committing = true
		s.commits.Go(s.commit)
	}
	s.mu.Unlock()
	return <-j.done
}

// commit writes until nothing waits.
func (s *Store) commit() {
	for {
		s.mu.Lock()
		if len(s.waiting) == 0 {
			s.waiting, s.committing = nil, false
			s.mu.Unlock()
			return
		}
		if rest := time.Until(s.began.Add(s.pace)); rest > 0 && !s.urgent && !s.closed && len(s.waiting) < maxBatch {
			s.mu.Unlock()
			s.pause(rest)
			continue
		}
		batch := s.waiting
		if len(batch) > maxBatch {
			batch = batch[:maxBatch:maxBatch]
		}
		s.waiting = s.waiting[len(batch):]
		s.urgent = s.urgent && len(s.waiting) > 0
		s.began = time.Now()
		s.mu.Unlock()
		s.commitBatch(batch)
	}
}

// pause waits for so long, or until there is a hurry.
func (s *Store) pause(most time.Duration) {
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.wake:
	}
}

func (s *Store) commitBatch(batch []job) {
	refused := make([]error, len(batch))
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for i, j := range batch {
			if refused[i] = j.do(tx); refused[i] != nil && !refusal(refused[i]) {
				return refused[i] // it may have changed something
			}
		}
		return nil
	})
	for i, j := range batch {
		switch {
		case err == nil:
			j.done <- refused[i]
		case len(batch) == 1:
			j.done <- err
		default: // one of them spoilt it for all
			j.done <- s.db.Update(j.do)
		}
	}
}

// refusal reports whether a write ended before it changed anything.
func refusal(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) || errors.Is(err, ErrTooMany)
}
