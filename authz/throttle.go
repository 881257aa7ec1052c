package authz

import (
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

// ThrottledError says that a source failed too often and when it may try again.
// It wraps the failure itself.
type ThrottledError struct {
	RetryAfter time.Duration
	err        error
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("%v; too many failures, retry after %v", e.err, e.RetryAfter)
}

// Unwrap is the failure.
func (e *ThrottledError) Unwrap() error { return e.err }

const (
	throttleSlots    = 4096
	throttleBurst    = 20
	throttleInterval = time.Second // one more failure is forgiven each
)

// throttle counts failures in a fixed number of token buckets: one for each
// source and one for each key id, so that neither many guesses from one place nor
// guesses at one key from many places go on unhindered. Which bucket a name falls
// into is keyed by a secret, so nobody can aim at another's; and a bucket that
// happens to be shared only delays answers that are "no" anyway.
type throttle struct {
	seed maphash.Seed

	mu sync.Mutex
	// full is when each bucket is full again: a bucket at burst holds the past.
	full [throttleSlots]time.Time
}

func (t *throttle) init() { t.seed = maphash.MakeSeed() }

// take spends one failure of the source and, if the text named one, of the key id,
// and returns how long to wait; zero if neither had too many.
func (t *throttle) take(source, id string, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := t.spend(t.slot('s', source), now)
	if id != "" {
		wait = max(wait, t.spend(t.slot('k', id), now))
	}
	return wait
}

func (t *throttle) slot(kind byte, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	_ = h.WriteByte(kind)      // never fails
	_, _ = h.WriteString(name) // never fails
	return h.Sum64() % throttleSlots
}

// spend is called with mu held.
func (t *throttle) spend(slot uint64, now time.Time) time.Duration {
	full := t.full[slot]
	if full.Before(now) {
		full = now
	}
	full = full.Add(throttleInterval)
	if over := full.Sub(now) - throttleBurst*throttleInterval; over > 0 {
		return over
	}
	t.full[slot] = full
	return 0
}
