package sandbox

import (
	"context"
	"time"
)

// slot is a place among the programs that run at once, held by one run. It is
// used by one goroutine at a time.
type slot struct {
	queue *queue
	owner string
	since time.Time     // when it was last taken
	held  time.Duration // before that
	gone  bool          // it was lent and not had back
}

// lentWhile is ready with the slot lent to others meanwhile: what it waits for, a
// quorum of the log, takes much longer than a short program does, and those that
// wait for it at the same time share its cost.
func (s *slot) lentWhile(ready func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if !s.queue.lend() {
			return ready(ctx)
		}
		s.held += time.Since(s.since)
		if err := ready(ctx); err != nil {
			s.queue.forgo()
			s.gone = true
			return err
		}
		if s.queue.reclaim(ctx, s.owner) != nil {
			s.gone = true // ctx has ended, which the backend sees
		}
		s.since = time.Now()
		return nil
	}
}

// release gives the slot back and says how long it was held.
func (s *slot) release() time.Duration {
	if s.gone {
		return s.held
	}
	s.held += time.Since(s.since)
	s.queue.release(s.held)
	return s.held
}
