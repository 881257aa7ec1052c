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

// throttle counts failures in a fixed number of token buckets. Which bucket a
// source and key fall into is keyed by a secret, so nobody can aim at another's;
// and a bucket that happens to be shared only delays answers that are "no"
// anyway.
type throttle struct {
	seed maphash.Seed

	mu sync.Mutex
	// full is when each bucket is full again: a bucket at burst holds the past.
	full [throttleSlots]time.Time
}

func (t *throttle) init() { t.seed = maphash.MakeSeed() }

// take spends one failure and returns how long to wait; zero if not yet too many.
func (t *throttle) take(source, id string, now time.Time) time.Duration {
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.WriteString(source) // never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(id)
	slot := h.Sum64() % throttleSlots

	t.mu.Lock()
	defer t.mu.Unlock()
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
