package threat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"iter"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

const (
	lookBack    = 20_000           // newest entries that a starting watch learns from
	keptPending = 2 * time.Minute  // how long an alert waits for a leader who writes it
	maxPending  = 256              // alerts that wait
	writeTick   = time.Second      // how often waiting alerts are looked at
	writeWait   = 10 * time.Second // for a quorum, per alert
	perMinute   = 30               // alerts that are written; what is more is only counted
)

// WatchConfig says what a watch reads and how it writes. All but Log and
// Thresholds are needed.
type WatchConfig struct {
	Thresholds Config
	// Entries yields the log from an index on, those that come included.
	Entries func(ctx context.Context, from uint64) iter.Seq2[audit.Indexed, error]
	Size    func() uint64
	Record  func(ctx context.Context, e audit.Entry) (audit.Ack, error)
	Lead    func() bool // this node leads the keepers, so it writes
	// Away are the members that are out of this node's reach now.
	Away func() []identity.ID
	Log  *slog.Logger // nil: none
}

// Watch runs a detector over the log of a keeper. Every keeper watches, the
// leader writes; an alert bears an at-most-once key, so that it is in the log
// once though the leader may change while it is written.
type Watch struct {
	cfg     WatchConfig
	metrics *metrics

	away map[identity.ID]absence // of the writing goroutine alone

	mu      sync.Mutex // guards the fields below
	pending []waiting
	written []time.Time // of the last minute
}

// absence is since when a node has been out of reach, and whether that was
// told.
type absence struct {
	since time.Time
	told  bool
}

// waiting is an alert that is not in the log yet.
type waiting struct {
	alert Alert
	key   string // at most once in the cluster
	since time.Time
}

// NewWatch makes a watch; Run does the work.
func NewWatch(cfg WatchConfig) *Watch {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Thresholds = cfg.Thresholds.filled()
	return &Watch{cfg: cfg, metrics: newMetrics(), away: map[identity.ID]absence{}}
}

// Metrics are to be registered once.
func (w *Watch) Metrics() []prometheus.Collector { return w.metrics.all() }

// Run watches until ctx is done.
func (w *Watch) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work.Go(func() { w.write(ctx) })
	detector := New(w.cfg.Thresholds)
	size := w.cfg.Size()
	from := size - min(size, lookBack)
	for one, err := range w.cfg.Entries(ctx, from) {
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if one.Entry.Kind == audit.KindAlert {
			w.seen(one.Entry)
			continue
		}
		for _, alert := range detector.Observe(one.Index, one.Entry) {
			if one.Index >= size { // what is older was told of by who led then
				w.add(alert, strconv.FormatUint(one.Index, 10))
			}
		}
	}
	return nil
}

// Diverged notes that a node's log differs from ours.
func (w *Watch) Diverged(node identity.ID) {
	now := time.Now()
	w.add(Alert{Rule: RuleDivergence, Severity: audit.SeverityHigh, Node: node, Count: 1, From: now, Until: now}, hour(now))
}

// RolledBack notes that a keeper started with less than it had before.
func (w *Watch) RolledBack(node identity.ID) {
	now := time.Now()
	w.add(Alert{Rule: RuleRollback, Severity: audit.SeverityHigh, Node: node, Count: 1, From: now, Until: now}, hour(now))
}

// hour names the hour of a time: what a keeper sees by itself is told once in it.
func hour(t time.Time) string { return t.UTC().Format("2006-01-02T15") }

// add lets an alert wait for being written, and counts it here.
func (w *Watch) add(a Alert, when string) {
	sum := sha256.Sum256([]byte("agenticraft alert v1\x00" + a.Rule + "\x00" + a.Actor + "\x00" + string(a.Node) + "\x00" + when))
	one := waiting{a, hex.EncodeToString(sum[:]), time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.pending {
		if other.key == one.key {
			return
		}
	}
	w.metrics.seen.WithLabelValues(a.Rule).Inc()
	if len(w.pending) >= maxPending {
		w.metrics.dropped.Inc()
		return
	}
	w.pending = append(w.pending, one)
}

// seen drops an alert that is in the log now.
func (w *Watch) seen(e audit.Entry) {
	if e.Once == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, one := range w.pending {
		if one.key == e.Once.Key {
			w.pending = append(w.pending[:i:i], w.pending[i+1:]...)
			return
		}
	}
}

// write writes what waits while this node leads, and looks for silent nodes.
func (w *Watch) write(ctx context.Context) {
	tick := time.NewTicker(writeTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.expire(time.Now())
		if !w.cfg.Lead() {
			clear(w.away) // seen anew by who leads
			continue
		}
		w.silent(time.Now())
		for {
			one, ok := w.next(time.Now())
			if !ok {
				break
			}
			if err := w.record(ctx, one); err != nil {
				w.cfg.Log.WarnContext(ctx, "alert not written yet", "rule", one.alert.Rule, "err", err)
				break
			}
		}
	}
}

// expire drops what nobody wrote: no leader was found for so long that the
// alert says nothing any more.
func (w *Watch) expire(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.pending[:0]
	for _, one := range w.pending {
		if now.Sub(one.since) < keptPending {
			kept = append(kept, one)
		} else {
			w.metrics.dropped.Inc()
		}
	}
	w.pending = kept
}

// silent looks for members that nobody has heard of for long.
func (w *Watch) silent(now time.Time) {
	away := map[identity.ID]absence{}
	for _, node := range w.cfg.Away() {
		a, known := w.away[node]
		if !known {
			a.since = now
		}
		if !a.told && now.Sub(a.since) >= w.cfg.Thresholds.Silence {
			w.add(Alert{Rule: RuleSilent, Severity: audit.SeverityMedium, Node: node, Count: 1, From: a.since, Until: now}, hour(a.since))
			a.told = true
		}
		away[node] = a
	}
	w.away = away
}

// next is an alert to write, unless the log has had enough of them.
func (w *Watch) next(now time.Time) (waiting, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.written) > 0 && now.Sub(w.written[0]) > time.Minute {
		w.written = w.written[1:]
	}
	if len(w.pending) == 0 || len(w.written) >= perMinute {
		return waiting{}, false
	}
	return w.pending[0], true
}

// record writes an alert. It is done when it is in the log, whoever wrote it.
func (w *Watch) record(ctx context.Context, one waiting) error {
	a := one.alert
	body, err := audit.MarshalBody(audit.AlertBody{
		Count: a.Count, Entries: a.Entries, From: audit.FormatTime(a.From), Node: a.Node, Rule: a.Rule, Severity: a.Severity, Until: audit.FormatTime(a.Until),
	})
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	_, err = w.cfg.Record(wait, audit.Entry{
		Kind: audit.KindAlert, Actor: a.Actor, Tenant: a.Tenant, Body: body, Once: &audit.Once{Key: one.key, Digest: one.key},
	})
	refusal := new(audit.Refusal)
	if err != nil && !errors.As(err, &refusal) && !errors.Is(err, audit.ErrConflict) && !errors.Is(err, audit.ErrInvalid) {
		return err
	}
	if err != nil {
		w.cfg.Log.ErrorContext(ctx, "alert not written", "rule", a.Rule, "err", err)
	} else {
		w.cfg.Log.WarnContext(ctx, "alert", "rule", a.Rule, "severity", a.Severity, "actor", a.Actor, "peer", a.Node, "count", a.Count)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written = append(w.written, time.Now())
	for i, other := range w.pending {
		if other.key == one.key {
			w.pending = append(w.pending[:i:i], w.pending[i+1:]...)
			break
		}
	}
	return nil
}
