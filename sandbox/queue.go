package sandbox

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"
)

// Bounds of the retry hint, and its start value before any run has ended.
const (
	minRetryAfter  = 250 * time.Millisecond
	maxRetryAfter  = time.Minute
	firstRunLength = time.Second
)

// mostOwed is how long those to whom a lent slot is owed may have to wait for one,
// by the length of recent runs: beyond it, who would lend his slot keeps it.
const mostOwed = 250 * time.Millisecond

// queue hands out slots. Those who wait stand in one lane per owner, and free
// slots go round the lanes, so that an owner with a hundred runs waiting delays
// another owner's first by one run only.
//
// Who holds a slot and does not need it for a while may lend it: he stands in
// front of his own lane when he wants one again.
type queue struct {
	slots, limit int

	// mu guards everything below; it is never held over a wait.
	mu      sync.Mutex
	busy    int
	waiting int                      // without those to whom a slot is owed
	lent    int                      // slots that were lent and are owed
	ring    *list.List               // of *lane, the next to be served in front
	lanes   map[string]*list.Element // by owner; none is empty
	length  time.Duration            // moving average of how long a slot is held
}

type lane struct {
	owner   string
	owed    []*waiter // served first, and never displaced
	waiters []*waiter
}

func (l *lane) empty() bool { return len(l.owed)+len(l.waiters) == 0 }

type waiter struct {
	done chan struct{} // closed once granted or refused
	err  error         // written before done is closed
}

func newQueue(slots, limit int) *queue {
	return &queue{slots: slots, limit: limit, ring: list.New(), lanes: make(map[string]*list.Element), length: firstRunLength}
}

// acquire takes a slot, waiting for it at most wait. It returns nil, ctx's
// error, or a *BusyError.
func (q *queue) acquire(ctx context.Context, owner string, wait time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := q.join(owner)
	if w == nil {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = &BusyError{RetryAfter: q.retryAfter()}
	}
	if q.withdraw(owner, w) {
		return err
	}
	// The answer came at the same moment; a slot already granted goes on.
	<-w.done
	if w.err == nil {
		q.release(0)
	}
	return err
}

// join takes a free slot (nil, nil), enters the queue, or refuses. When the
// queue is full, the newest waiter of the owner with the most of them gives way
// to an owner who has fewer: a flood by one owner never locks out another.
func (q *queue) join(owner string) (*waiter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy < q.slots {
		q.busy++
		return nil, nil
	}
	if q.waiting >= q.limit && !q.displace(owner) {
		return nil, &BusyError{RetryAfter: q.estimate()}
	}
	w := &waiter{done: make(chan struct{})}
	l := q.lane(owner)
	l.waiters = append(l.waiters, w)
	q.waiting++
	return w, nil
}

// lane is the owner's lane, a new one behind all others if he has none. It is
// called with mu held.
func (q *queue) lane(owner string) *lane {
	e := q.lanes[owner]
	if e == nil {
		e = q.ring.PushBack(&lane{owner: owner})
		q.lanes[owner] = e
	}
	return e.Value.(*lane)
}

// lend gives a slot to whoever waits until its holder reclaims one. It reports
// whether it did: the slot stays his where so many are owed already that he might
// wait long.
func (q *queue) lend() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lent >= q.limit || time.Duration(q.lent/q.slots+1)*q.length > mostOwed {
		return false
	}
	q.lent++
	q.pass()
	return true
}

// forgo says that a slot that was lent is wanted no more.
func (q *queue) forgo() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lent--
}

// reclaim takes a slot back that was lent. It waits until there is one, or returns
// ctx's error: then there is none to release.
func (q *queue) reclaim(ctx context.Context, owner string) error {
	q.mu.Lock()
	if q.busy < q.slots {
		q.busy++
		q.lent--
		q.mu.Unlock()
		return nil
	}
	w := &waiter{done: make(chan struct{})}
	l := q.lane(owner)
	l.owed = append(l.owed, w)
	q.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	if q.withdraw(owner, w) {
		return ctx.Err()
	}
	return nil // it came at the same moment
}

// displace refuses the newest waiter of the longest lane if owner, with one
// more waiter, would still have a shorter one. It is called with mu held.
func (q *queue) displace(owner string) bool {
	var longest *lane
	for e := q.ring.Front(); e != nil; e = e.Next() {
		if l := e.Value.(*lane); longest == nil || len(l.waiters) > len(longest.waiters) {
			longest = l
		}
	}
	own := 0
	if e := q.lanes[owner]; e != nil {
		own = len(e.Value.(*lane).waiters)
	}
	if longest == nil || own+1 >= len(longest.waiters) {
		return false
	}
	newest := len(longest.waiters) - 1
	w := longest.waiters[newest]
	longest.waiters = longest.waiters[:newest]
	q.waiting--
	w.err = &BusyError{RetryAfter: q.estimate()}
	close(w.done)
	return true
}

// withdraw takes w out of the queue; false means that it was answered already.
func (q *queue) withdraw(owner string, w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.lanes[owner]
	if e == nil {
		return false
	}
	l := e.Value.(*lane)
	if i := slices.Index(l.waiters, w); i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
		q.waiting--
	} else if i := slices.Index(l.owed, w); i >= 0 {
		l.owed = slices.Delete(l.owed, i, i+1)
		q.lent--
	} else {
		return false
	}
	if l.empty() {
		q.ring.Remove(e)
		delete(q.lanes, owner)
	}
	return true
}

// release gives a slot back after it was held for the given time (0: it was
// never used), handing it to whoever is next.
func (q *queue) release(held time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if held > 0 {
		q.length += (held - q.length) / 8
	}
	q.pass()
}

// pass hands a slot to whoever is next. It is called with mu held.
func (q *queue) pass() {
	e := q.ring.Front()
	if e == nil {
		q.busy--
		return
	}
	l := e.Value.(*lane)
	var w *waiter
	if len(l.owed) > 0 {
		w, l.owed = l.owed[0], l.owed[1:]
		q.lent--
	} else {
		w, l.waiters = l.waiters[0], l.waiters[1:]
		q.waiting--
	}
	if l.empty() {
		q.ring.Remove(e)
		delete(q.lanes, l.owner)
	} else {
		q.ring.MoveToBack(e)
	}
	close(w.done)
}

func (q *queue) retryAfter() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.estimate()
}

// estimate says when someone who comes now could get a slot. It is called with
// mu held.
func (q *queue) estimate() time.Duration {
	rounds := time.Duration(q.waiting/q.slots + 1)
	return min(max(q.length*rounds, minRetryAfter), maxRetryAfter).Round(time.Millisecond)
}

func (q *queue) load() Load {
	q.mu.Lock()
	defer q.mu.Unlock()
	// Who lent his slot is still here: a node full of them has no room for more.
	here := q.busy + q.lent
	return Load{Slots: q.slots, Busy: min(here, q.slots), Queued: q.waiting + max(0, here-q.slots)}
}
