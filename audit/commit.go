package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/internal/durable"
)

// What Apply writes stays in one open transaction for a moment, so that many
// entries share one flush of the disk. raft's log is the write-ahead log: an
// entry is on the disks of a quorum before it is applied, it leaves raft's log
// only below the durable index, and after a crash raft applies again whatever
// lies above that index, which is in the same transaction as the entries.
const (
	defaultLinger = time.Second // where no checkpoint has it committed before
	maxOpenCmds   = 4096        // commands after which Apply commits by itself
	maxOpenBytes  = 8 << 20     // of commands, likewise
	stallRetry    = 250 * time.Millisecond
)

// openTx is the transaction that Apply writes into.
type openTx struct {
	tx      *bbolt.Tx
	applier *applier
	begun   time.Time
	note    uint64 // size of the checkpoint that is in it, too; 0: none
}

// undone is one call of Apply that is not durable yet, kept to be done again
// if its transaction fails.
type undone struct {
	index, term uint64
	cmds        [][]byte
}

// errStalled: the disk is full.
var errStalled = fmt.Errorf("%w: the audit store cannot be written: the disk is full", ErrUnavailable)

// begin opens the transaction if there is none. The caller holds s.applying.
func (s *Store) begin(size uint64) error {
	if s.open != nil {
		return nil
	}
	return guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		a, err := newApplier(tx, s.admit, s.attested, size)
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
		s.open = &openTx{tx: tx, applier: a, begun: time.Now()}
		return nil
	})
}

// commands applies commands in the open transaction.
func (o *openTx) commands(to undone) (answers [][]byte, at applied, err error) {
	err = guard(func() error {
		for _, cmd := range to.cmds {
			answer, err := o.applier.command(cmd)
			if err != nil {
				return err
			}
			answers = append(answers, answer)
		}
		at = applied{index: to.index, term: to.term, size: o.applier.size}
		return o.tx.Bucket(bucketMeta).Put(keyApplied, at.encode())
	})
	return answers, at, err
}

// commit makes what is applied durable. If the disk is full it keeps the
// commands and the store stalls; any other error breaks it. The caller holds
// s.applying.
func (s *Store) commit() error {
	if s.open == nil {
		return nil
	}
	o := s.open
	s.open = nil
	s.mu.Lock()
	at, before := s.applied, s.durable
	s.mu.Unlock()
	started := time.Now()
	err := s.failpoint("before commit")
	if err == nil {
		err = guard(o.tx.Commit)
	} else {
		err = errors.Join(err, o.tx.Rollback())
	}
	if err == nil {
		// If we were to crash here, the transaction is durable but nobody knows:
		// raft applies the same entries again after the restart, and the durable
		// index lets Apply skip them.
		err = s.failpoint("after commit")
	}
	switch {
	case err == nil:
	case durable.NoSpace(err):
		_ = guard(o.tx.Rollback) // bbolt may have done it
		s.stall(err)
		return errStalled
	default:
		_ = guard(o.tx.Rollback) // likewise
		return s.fail(fmt.Errorf("commit audit entries up to raft index %d: %w", at.index, err))
	}
	s.undone, s.undoneCmds, s.undoneBytes = nil, 0, 0
	s.index.offer(o.applier.added)
	s.settle(at, o.note)
	s.metrics.commits.Observe(time.Since(started).Seconds())
	s.metrics.applied(at.size, at.size-before.size, 0)
	return nil
}

// settle publishes what is durable.
func (s *Store) settle(to applied, note uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	grew := to.size > s.durable.size
	s.durable, s.saved = to, max(s.saved, note)
	if grew && !s.closed {
		close(s.settled)
		s.settled = make(chan struct{})
	}
}

// flush makes durable whatever is applied by now.
func (s *Store) flush() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if err := s.commit(); err != nil {
		return err
	}
	return s.stalled()
}

// Settle makes durable whatever is applied by now.
func (s *Store) Settle() error {
	if err := s.flush(); err != nil {
		return fmt.Errorf("settle audit store: %w", err)
	}
	return nil
}

// commitSoon has the open transaction committed after the linger.
func (s *Store) commitSoon() {
	select {
	case s.kick <- struct{}{}:
	default: // it is under way
	}
}

// commits is the goroutine that commits, and tries again while the disk is full.
func (s *Store) commits(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for rest := time.Duration(0); ; {
		if rest > 0 {
			timer.Reset(rest)
		} else {
			select {
			case <-ctx.Done():
				return
			case <-s.kick:
				timer.Reset(s.linger)
			case <-s.again:
				timer.Reset(stallRetry)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.again:
			timer.Reset(stallRetry)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		case <-timer.C:
		}
		s.applying.Lock()
		rest = s.mayLinger()
		if s.stalled() != nil {
			s.redo()
		} else if rest > 0 {
			s.applying.Unlock()
			continue
		} else if err := s.commit(); err != nil {
			s.log.ErrorContext(ctx, "audit entries not committed", "err", err)
		}
		s.applying.Unlock()
	}
}

// mayLinger is how long the open transaction may still wait: a flush may have
// ended the one that the wait began with. The caller holds s.applying.
func (s *Store) mayLinger() time.Duration {
	if s.open == nil {
		return 0
	}
	return s.linger - time.Since(s.open.begun)
}

// tryAgain has the failed transaction tried again after a while.
func (s *Store) tryAgain() {
	select {
	case s.again <- struct{}{}:
	default: // it is under way
	}
}

// stall stops the store until there is space again.
func (s *Store) stall(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full == nil {
		s.log.Error("audit store stands still until the disk has space", "err", err)
	}
	s.full = err
	s.metrics.stalled.Set(1)
	s.tryAgain()
}

func (s *Store) stalled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full != nil {
		return errStalled
	}
	return nil
}

// Stalled says why the store cannot take entries now, although it will later
// without being opened again: its disk is full. Nil: it can.
func (s *Store) Stalled() error { return s.stalled() }

// redo applies the commands of a transaction that failed again. Pure as they
// are, they have the same answers, which were given long ago.
func (s *Store) redo() {
	err := s.failpoint("before redo")
	var at applied
	var added []*indexable
	if err == nil {
		err = guard(func() error {
			return s.db.Update(func(tx *bbolt.Tx) error {
				// A commit that failed late may have taken place.
				var err error
				if at, err = decodeApplied(tx.Bucket(bucketMeta).Get(keyApplied)); err != nil {
					return err
				}
				a, err := newApplier(tx, s.admit, s.attested, at.size)
				if err != nil {
					return err
				}
				o := &openTx{tx: tx, applier: a}
				for _, one := range s.undone {
					if one.index <= at.index {
						continue
					}
					if _, at, err = o.commands(one); err != nil {
						return err
					}
				}
				added = o.applier.added
				return nil
			})
		})
	}
	switch {
	case err == nil:
	case durable.NoSpace(err):
		s.tryAgain()
		return
	default:
		_ = s.fail(fmt.Errorf("commit audit entries again: %w", err)) // the next Apply returns it
		s.recovered.Broadcast()
		return
	}
	s.undone, s.undoneCmds, s.undoneBytes = nil, 0, 0
	s.index.offer(added)
	s.mu.Lock()
	s.full = nil
	s.mu.Unlock()
	s.settle(at, 0)
	s.metrics.stalled.Set(0)
	s.log.Info("audit store goes on, the disk has space again", "size", at.size)
	s.recovered.Broadcast()
}

// Release makes an Apply that waits for space return with an error, now and
// from now on: whoever drives the store wants to close it.
func (s *Store) Release() {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.released = true
	s.recovered.Broadcast()
}

// durableSize is how many entries are durable.
func (s *Store) durableSize() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable.size
}

// reach waits until the log has size entries, and makes them durable now.
func (s *Store) reach(ctx context.Context, size uint64) error {
	if err := s.Changed(ctx, size-1); err != nil {
		return err
	}
	return s.ready(size)
}

// ready makes the first size entries durable if they are applied.
func (s *Store) ready(size uint64) error {
	if size <= s.durableSize() {
		return nil
	}
	if size > s.Size() {
		return fmt.Errorf("%w: the log has no %d entries here", ErrNotFound, size)
	}
	return s.flush()
}
