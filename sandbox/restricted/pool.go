package restricted

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/sandbox"
)

// spareClasses is for how many of the classes asked for last a fresh worker is
// kept ready.
const spareClasses = 2

// pool keeps workers between runs: for each owner those that ran its programs
// before, and a few fresh ones that belong to nobody yet.
type pool struct {
	cfg    Config
	launch starter
	claims *prometheus.CounterVec
	serial atomic.Uint64 // of worker ids

	stop   context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // refills and burials; grows only while not closed

	// mu guards the rest and is never held over a start or a wait.
	mu        sync.Mutex
	closed    bool
	idle      []*worker // claimed before, the longest unused first
	spare     map[class]*worker
	recent    []class // classes asked for, the last one first
	refilling bool
}

func newPool(cfg Config, launch starter) *pool {
	p := &pool{
		cfg: cfg, launch: launch, spare: make(map[class]*worker),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_restricted_claims_total",
			Help: "Starlark workers taken for a run, by where they came from: the owner's last run, a fresh one ready, or one started for it.",
		}, []string{"source"}),
	}
	p.stop, p.cancel = context.WithCancel(context.Background())
	return p
}

// start makes a fresh worker.
func (p *pool) start(ctx context.Context, c class) (*worker, error) {
	process, err := p.launch(ctx, fmt.Sprintf("starlark-%d", p.serial.Add(1)), c)
	if err != nil {
		return nil, fmt.Errorf("start starlark worker: %w", err)
	}
	return greet(process, c)
}

// adopt makes a fresh worker a spare.
func (p *pool) adopt(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent = []class{w.class}
	p.spare[w.class] = w
}

// claim returns a worker for owner: one that has only ever run that owner's
// programs, or a fresh one. It goes back by put, or is destroyed.
func (p *pool) claim(ctx context.Context, owner string, c class) (*worker, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, sandbox.ErrClosed
	}
	p.note(c)
	source := "started"
	w := p.takeIdle(owner, c)
	if w != nil {
		source = "reused"
	} else if w = p.spare[c]; w != nil {
		source = "fresh"
		delete(p.spare, c)
		if !w.alive() {
			p.bury(w)
			w = nil
			source = "started"
		}
	}
	p.refill()
	p.mu.Unlock()
	p.claims.WithLabelValues(source).Inc()
	if w == nil {
		var err error
		if w, err = p.start(ctx, c); err != nil {
			return nil, err
		}
	}
	w.owner = owner
	return w, nil
}

// put takes a worker back that is fit for another program.
func (p *pool) put(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || w.runs >= p.cfg.MaxRuns || !w.alive():
		p.bury(w)
	case !w.ran && p.spare[w.class] == nil:
		// No code entered it: it is as fresh as before.
		w.owner = ""
		p.spare[w.class] = w
	case !w.ran:
		p.bury(w)
	default:
		w.expiry = time.AfterFunc(p.cfg.Idle, func() { p.expire(w) })
		p.idle = append(p.idle, w)
		if len(p.idle) > p.cfg.MaxIdle {
			p.drop(p.idle[0])
		}
	}
}

// takeIdle returns the owner's worker that was used last, if it still lives.
// It is called with mu held.
func (p *pool) takeIdle(owner string, c class) *worker {
	for i, w := range slices.Backward(p.idle) {
		// INVARIANT: a worker that ran one owner's program is never given to
		// another.
		if w.owner != owner || w.class != c {
			continue
		}
		p.idle = slices.Delete(p.idle, i, i+1)
		w.expiry.Stop()
		if w.alive() {
			return w
		}
		p.bury(w)
	}
	return nil
}

func (p *pool) expire(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(w)
}

// drop removes an idle worker; one that has been taken meanwhile stays. It is
// called with mu held.
func (p *pool) drop(w *worker) {
	if i := slices.Index(p.idle, w); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
		w.expiry.Stop()
		p.bury(w)
	}
}

// bury destroys a worker off the caller's path. It is called with mu held.
func (p *pool) bury(w *worker) {
	p.tasks.Go(func() { w.destroy() })
}

// note remembers that a class was asked for, and lets go of the spares of
// classes that were not for long. It is called with mu held.
func (p *pool) note(c class) {
	if len(p.recent) > 0 && p.recent[0] == c {
		return
	}
	p.recent = slices.DeleteFunc(p.recent, func(r class) bool { return r == c })
	p.recent = slices.Insert(p.recent, 0, c)
	p.recent = p.recent[:min(len(p.recent), spareClasses)]
	for old, w := range p.spare {
		if !slices.Contains(p.recent, old) {
			delete(p.spare, old)
			p.bury(w)
		}
	}
}

// refill starts the missing spares in the background, one at a time. It is
// called with mu held.
func (p *pool) refill() {
	if p.refilling || p.closed || !p.wanting() {
		return
	}
	p.refilling = true
	p.tasks.Go(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		defer func() { p.refilling = false }()
		for !p.closed && p.wanting() {
			c := p.missing()
			p.mu.Unlock()
			ctx, cancel := context.WithTimeout(p.stop, helloTimeout)
			w, err := p.start(ctx, c)
			cancel()
			p.mu.Lock()
			if err != nil {
				// The next claim tries again, and tells its caller.
				if p.stop.Err() == nil {
					p.cfg.Log.Warn("no spare starlark worker", "err", err)
				}
				return
			}
			if p.closed || p.spare[c] != nil || !slices.Contains(p.recent, c) {
				p.tasks.Go(func() { w.destroy() })
				continue
			}
			p.spare[c] = w
		}
	})
}

// wanting and missing tell for which class a spare is missing. They are called
// with mu held.
func (p *pool) wanting() bool {
	return slices.ContainsFunc(p.recent, func(c class) bool { return p.spare[c] == nil })
}

func (p *pool) missing() class {
	i := slices.IndexFunc(p.recent, func(c class) bool { return p.spare[c] == nil })
	return p.recent[i]
}

// close destroys every worker that waits and waits for all that is under way.
// Every claimed worker must have come back.
func (p *pool) close() {
	p.cancel()
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		for len(p.idle) > 0 {
			p.drop(p.idle[0])
		}
		for c, w := range p.spare {
			delete(p.spare, c)
			p.bury(w)
		}
	}
	p.mu.Unlock()
	p.tasks.Wait()
}
