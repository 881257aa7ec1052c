package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/sandbox"
)

// Class is what a worker is made with; all else belongs to one run of it.
type Class struct {
	Memory  int64  // bytes
	CPU     int    // percent of a core
	Program string // what the worker holds beside its interpreter, such as a module's digest; "" for nothing
}

// maxProven bounds the classes that a pool remembers to have started.
const maxProven = 256

// Config of a [Pool].
type Config struct {
	// Name of the workers, in their ids, in messages and in the metric.
	Name string
	// Launch makes the jail of one worker.
	Launch func(ctx context.Context, id string, c Class) (Process, error)
	// Enforced completes what a jail holds by what the worker does; nil adds
	// nothing.
	Enforced func(jailed map[string]string) map[string]string
	// Limit, beyond the wall limit of a run, after which a worker that did not
	// stop by itself is killed.
	Grace time.Duration
	// Hello is how long a worker may take from its start to its greeting.
	Hello time.Duration
	// MaxRuns is how many programs of one owner a worker runs.
	MaxRuns int
	// Idle is how long a worker waits for its owner's next program.
	Idle time.Duration
	// MaxIdle is how many workers wait at most, for all owners.
	MaxIdle int
	// Spares is for how many of the classes asked for last a fresh worker is
	// kept ready.
	Spares int
	Log    *slog.Logger
}

// Pool keeps workers between runs: for each owner those that ran its programs
// before, and a few fresh ones that belong to nobody yet. Its methods may be
// called concurrently.
type Pool struct {
	cfg    Config
	claims *prometheus.CounterVec
	serial atomic.Uint64 // of worker ids

	stop   context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // refills and burials; grows only while not closed

	// mu guards the rest and is never held over a start or a wait.
	mu        sync.Mutex
	closed    bool
	idle      []*Worker // claimed before, the longest unused first
	spare     map[Class]*Worker
	proven    map[Class]bool // classes of which a worker has started; at most maxProven
	recent    []Class        // classes asked for, the last one first
	refilling bool
}

// NewPool returns a pool; every field of cfg but Enforced and Spares must be set.
func NewPool(cfg Config) *Pool {
	p := &Pool{
		cfg: cfg, spare: make(map[Class]*Worker), proven: make(map[Class]bool),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_" + cfg.Name + "_claims_total",
			Help: "Workers of this sandbox taken for a run, by where they came from: the owner's last run, a fresh one ready, or one started for it.",
		}, []string{"source"}),
	}
	p.stop, p.cancel = context.WithCancel(context.Background())
	return p
}

// Metrics returns the collectors of the pool, to be registered once.
func (p *Pool) Metrics() []prometheus.Collector { return []prometheus.Collector{p.claims} }

// Start makes a fresh worker that is not the pool's until [Pool.Adopt] or
// [Pool.Put].
func (p *Pool) Start(ctx context.Context, c Class) (*Worker, error) {
	process, err := p.cfg.Launch(ctx, fmt.Sprintf("%s-%d", p.cfg.Name, p.serial.Add(1)), c)
	if err != nil {
		return nil, fmt.Errorf("start %s worker: %w", p.cfg.Name, err)
	}
	return greet(process, c, &p.cfg)
}

// Prove starts a worker for owner unless one of this class has started before, so
// that a class of which there can be none is found out before anything depends on
// it. [Pool.Claim] finds the worker.
func (p *Pool) Prove(ctx context.Context, owner string, c Class) error {
	p.mu.Lock()
	proven := p.proven[c]
	p.mu.Unlock()
	if proven {
		return nil
	}
	w, err := p.Claim(ctx, owner, c)
	if err != nil {
		return err
	}
	p.Put(w)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.proven) >= maxProven {
		clear(p.proven)
	}
	p.proven[c] = true
	return nil
}

// Adopt makes a fresh worker a spare.
func (p *Pool) Adopt(w *Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proven[w.class] = true
	p.recent = []Class{w.class}
	p.spare[w.class] = w
}

// Waiting returns a worker that waits for owner's next program of this class,
// or nil. It goes back by [Pool.Put], or is destroyed by its run.
func (p *Pool) Waiting(owner string, c Class) *Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	w := p.takeIdle(owner, c)
	if w != nil {
		p.claims.WithLabelValues("reused").Inc()
	}
	return w
}

// Claim returns a worker for owner: one that has only ever run that owner's
// programs, or a fresh one. It goes back by [Pool.Put], or is destroyed by its
// run.
func (p *Pool) Claim(ctx context.Context, owner string, c Class) (*Worker, error) {
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
		if w, err = p.Start(ctx, c); err != nil {
			return nil, err
		}
	}
	w.owner = owner
	return w, nil
}

// Put takes a worker back that is fit for another program.
func (p *Pool) Put(w *Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || w.runs >= p.cfg.MaxRuns || !w.alive():
		p.bury(w)
	case !w.ran && p.cfg.Spares > 0 && p.spare[w.class] == nil:
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
func (p *Pool) takeIdle(owner string, c Class) *Worker {
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

func (p *Pool) expire(w *Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(w)
}

// drop removes an idle worker; one that has been taken meanwhile stays. It is
// called with mu held.
func (p *Pool) drop(w *Worker) {
	if i := slices.Index(p.idle, w); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
		w.expiry.Stop()
		p.bury(w)
	}
}

// bury destroys a worker off the caller's path. It is called with mu held.
func (p *Pool) bury(w *Worker) {
	p.tasks.Go(func() { w.destroy() })
}

// note remembers that a class was asked for, and lets go of the spares of
// classes that were not for long. It is called with mu held.
func (p *Pool) note(c Class) {
	if len(p.recent) > 0 && p.recent[0] == c {
		return
	}
	p.recent = slices.DeleteFunc(p.recent, func(r Class) bool { return r == c })
	p.recent = slices.Insert(p.recent, 0, c)
	p.recent = p.recent[:min(len(p.recent), p.cfg.Spares)]
	for old, w := range p.spare {
		if !slices.Contains(p.recent, old) {
			delete(p.spare, old)
			p.bury(w)
		}
	}
}

// refill starts the missing spares in the background, one at a time. It is
// called with mu held.
func (p *Pool) refill() {
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
			ctx, cancel := context.WithTimeout(p.stop, p.cfg.Hello)
			w, err := p.Start(ctx, c)
			cancel()
			p.mu.Lock()
			if err != nil {
				// The next claim tries again, and tells its caller.
				if p.stop.Err() == nil {
					p.cfg.Log.Warn("no spare worker", "workers", p.cfg.Name, "err", err)
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
func (p *Pool) wanting() bool {
	return slices.ContainsFunc(p.recent, func(c Class) bool { return p.spare[c] == nil })
}

func (p *Pool) missing() Class {
	i := slices.IndexFunc(p.recent, func(c Class) bool { return p.spare[c] == nil })
	return p.recent[i]
}

// Forget destroys the workers of a class that wait.
func (p *Pool) Forget(program string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range slices.Clone(p.idle) {
		if w.class.Program == program {
			p.drop(w)
		}
	}
}

// Close destroys every worker that waits and waits for all that is under way.
// Every claimed worker must have come back.
func (p *Pool) Close() {
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
