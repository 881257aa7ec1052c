//go:build linux

package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/process"
)

// MaxWarm bounds Config.Warm. A waiting container holds about 20 MiB, its shim
// included.
const MaxWarm = 8

const (
	warmAge     = 10 * time.Minute // the longest that a container waits
	warmIdle    = 15 * time.Minute // after which without a run none is kept
	warmPause   = 10 * time.Second // after a container could not be made
	warmTimeout = 30 * time.Second // of making one
)

// warm is a container whose interpreter asked for its program and was given none.
type warm struct {
	*contained
	from source
	born time.Time
}

func (w *warm) alive() bool {
	select {
	case <-w.done:
		return false
	default:
		return time.Since(w.born) < warmAge
	}
}

// pool keeps containers of one language and of the class in force. Each is used once, so owners are
// no part of the class: nobody's code was in it before, and none of another's
// will be after.
type pool struct {
	backend  *Backend
	language string
	size     int // how many wait
	limits   sandbox.Limits
	*poolMetrics

	kicks  chan struct{}
	serial int // of the refilling goroutine alone

	mu     sync.Mutex // guards the rest
	ready  []*warm
	wanted time.Time // when a container was last asked for; zero: never
}

func (b *Backend) newPool(language string, size int) *pool {
	l := jail.Normalize(b.cfg.WarmLimits)
	l.Output, l.Result, l.Wall = 0, 0, 0 // which the node keeps
	return &pool{backend: b, language: language, size: size, limits: l, poolMetrics: b.counts, kicks: make(chan struct{}, 1)}
}

// poolMetrics are those of all pools of a backend.
type poolMetrics struct{ claims, refills *prometheus.CounterVec }

func newPoolMetrics() *poolMetrics {
	return &poolMetrics{
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_docker_warm_claims_total",
			Help: "Runs of the docker sandbox by whether a warm container was there (hit), none was ready (miss), or none could have their limits (unfit).",
		}, []string{"result"}),
		refills: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_docker_warm_refills_total",
			Help: "Warm containers made, or not, and those given up unused.",
		}, []string{"result"}),
	}
}

// Metrics returns the collectors of the backend, to be registered once.
func (b *Backend) Metrics() []prometheus.Collector {
	return []prometheus.Collector{b.counts.claims, b.counts.refills}
}

// fits says whether a waiting container can be made to hold the limits of a run:
// memory, CPU and processes can be lowered.
func (p *pool) fits(spec sandbox.Spec) bool {
	l, c := spec.Limits, p.limits
	return len(spec.Network) == 0 && l.Memory <= c.Memory && l.CPUPercent <= c.CPUPercent && l.Processes <= c.Processes &&
		l.FileSize == c.FileSize && l.Files == c.Files
}

// claim takes a container for one run, or returns nil. There may be no pool.
func (p *pool) claim(ctx context.Context, from source, spec sandbox.Spec) *contained {
	if p == nil || p.size == 0 {
		return nil
	}
	if !p.fits(spec) {
		p.claims.WithLabelValues("unfit").Inc()
		return nil
	}
	p.mu.Lock()
	p.wanted = time.Now()
	i := slices.IndexFunc(p.ready, func(w *warm) bool { return w.from.image == from.image && w.alive() })
	var w *warm
	if i >= 0 {
		w = p.ready[i]
		p.ready = slices.Delete(p.ready, i, i+1)
	}
	p.mu.Unlock()
	if w == nil {
		p.claims.WithLabelValues("miss").Inc()
		return nil
	}
	// INVARIANT: I6, a limit that cannot be enforced refuses the run, never weakens
	// it silently: a container that does not take its limits is not used.
	if err := errors.Join(p.lower(ctx, w.contained, spec.Limits), w.placeAll(spec.Files)); err != nil {
		p.backend.cfg.Log.DebugContext(ctx, "warm container does not take its limits", "run", spec.ID, "err", err)
		p.claims.WithLabelValues("unfit").Inc()
		p.backend.wg.Go(w.Release)
		return nil
	}
	p.claims.WithLabelValues("hit").Inc()
	return w.contained
}

func (p *pool) lower(ctx context.Context, c *contained, l sandbox.Limits) error {
	if l.Memory == p.limits.Memory && l.CPUPercent == p.limits.CPUPercent && l.Processes == p.limits.Processes {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	c.processes = int64(l.Processes)
	pids := p.backend.pids(l)
	_, err := p.backend.api.ContainerUpdate(ctx, c.id, container.UpdateConfig{Resources: container.Resources{
		Memory: l.Memory, MemorySwap: l.Memory, NanoCPUs: int64(l.CPUPercent) * 1e7, PidsLimit: &pids,
	}})
	return err
}

// kick makes the pool look what is missing, once a run is over.
func (p *pool) kick() {
	if p == nil || p.size == 0 {
		return
	}
	select {
	case p.kicks <- struct{}{}:
	default:
	}
}

// tend keeps the pool full until ctx is done.
func (p *pool) tend(ctx context.Context) {
	for {
		pause := p.refill(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-p.kicks:
		}
	}
}

func (p *pool) refill(ctx context.Context) time.Duration {
	for ctx.Err() == nil {
		p.mu.Lock()
		wanted := !p.wanted.IsZero() && time.Since(p.wanted) < warmIdle
		var old []*warm
		p.ready = slices.DeleteFunc(p.ready, func(w *warm) bool {
			if wanted && w.alive() {
				return false
			}
			old = append(old, w)
			return true
		})
		missing := wanted && len(p.ready) < p.size
		p.mu.Unlock()
		for _, w := range old {
			p.refills.WithLabelValues("discarded").Inc()
			w.Release()
		}
		if !missing {
			return time.Minute
		}
		w, err := p.make(ctx)
		if err != nil {
			p.refills.WithLabelValues("failed").Inc()
			p.backend.cfg.Log.DebugContext(ctx, "no warm container", "err", err)
			return warmPause
		}
		p.refills.WithLabelValues("made").Inc()
		p.mu.Lock()
		p.ready = append(p.ready, w)
		p.mu.Unlock()
	}
	return 0
}

// make makes a container and waits until its interpreter asks for a program.
func (p *pool) make(ctx context.Context) (*warm, error) {
	d := p.backend.Describe()
	if !d.Available {
		return nil, errors.New(d.Reason)
	}
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	p.serial++
	spec := sandbox.Spec{ID: fmt.Sprintf("warm-%s-%d", p.language, p.serial), Language: p.language, Limits: p.limits}
	from, err := p.backend.source(ctx, spec)
	if err != nil {
		return nil, err
	}
	c, err := p.backend.start(ctx, spec, from, d.Enforces)
	if err != nil {
		return nil, err
	}
	if err := c.awaitWord(ctx); err != nil {
		c.Release()
		return nil, err
	}
	return &warm{contained: c, from: from, born: time.Now()}, nil
}

// awaitWord waits until the interpreter has said something, and leaves it to be
// read.
func (c *contained) awaitWord(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.outlet.SetReadDeadline(deadline); err != nil {
			return err
		}
	}
	raw, err := c.outlet.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.outlet.SetReadDeadline(time.Unix(1, 0)) })()
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err != nil || n > 0
	})
	return errors.Join(err, c.outlet.SetReadDeadline(time.Time{}))
}

// close gives up every container that waits. Nobody may claim any more.
func (p *pool) close() {
	p.mu.Lock()
	left := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, w := range left {
		w.Release()
	}
}

// AwaitWarm waits until as many containers with Python are warm as the
// configuration says, asking for them. It is for those who measure.
func (b *Backend) AwaitWarm(ctx context.Context) error {
	p := b.pools[process.Python]
	p.mu.Lock()
	p.wanted = time.Now()
	p.mu.Unlock()
	p.kick()
	for {
		p.mu.Lock()
		full := len(p.ready) >= p.size
		p.mu.Unlock()
		if full {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
