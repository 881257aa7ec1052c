package process

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
)

// MaxWarm bounds Config.Warm. A waiting jail holds about 8 MiB.
const MaxWarm = 16

const (
	// refillDelay keeps a refill from taking the CPU of the run that made it
	// necessary, if that is short.
	refillDelay = 25 * time.Millisecond
	// refillPause follows a refill that failed.
	refillPause  = 5 * time.Second
	lowerTimeout = 2 * time.Second
)

// key is all that a waiting jail has in common with the run it is given to.
// Owners are not in it: nobody's code was in the jail before, and none of
// another's will be after.
type key struct {
	language, digest string
	tier             string
	network          string
	limits           sandbox.Limits // those of the class, as far as a jail holds them
}

// networkNone: the jail has a network of its own, with nothing in it.
const networkNone = "none"

// held are the limits that a jail holds; the others are kept by [run].
func held(l sandbox.Limits) sandbox.Limits {
	l.Output, l.Result = 0, 0
	return l
}

// warm is a complete jail with an interpreter that asked for its program and
// was given none.
type warm struct {
	jail *jail.Jail
	key  key
	born time.Time
}

func (w *warm) alive() bool {
	select {
	case <-w.jail.Done():
		return false
	default:
		return true
	}
}

// destroy kills the jail and waits for its end.
func (w *warm) destroy(log *slog.Logger) {
	w.jail.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), abandonAfter)
	defer cancel()
	if _, err := w.jail.Wait(ctx); err != nil {
		log.Warn("waiting jail ended badly", "err", err)
	}
	w.jail.Release()
}

// pool keeps warm jails. Each is used once.
type pool struct {
	size         int
	maxAge, idle time.Duration
	log          *slog.Logger
	// start makes a warm jail of the class in force.
	start func(ctx context.Context) (*warm, error)

	*poolMetrics

	kicks chan struct{}  // wakes tend
	wg    sync.WaitGroup // jails given up by claim

	mu     sync.Mutex // guards the rest
	ready  []*warm    // the oldest first
	wanted time.Time  // when a jail was last asked for
}

// poolMetrics count for all pools of one backend.
type poolMetrics struct {
	claims  *prometheus.CounterVec
	refills *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newPoolMetrics() *poolMetrics {
	return &poolMetrics{
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_warm_claims_total",
			Help: "Runs of the process sandbox by whether a warm jail was there (hit), none was ready (miss), or none could have their limits or files (unfit).",
		}, []string{"result"}),
		refills: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_warm_refills_total",
			Help: "Warm jails made, or not, and those given up unused.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "agenticraft_sandbox_warm_claim_seconds",
			Help:    "Time to claim a warm jail and lower its limits.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 8), // 10 us to 160 ms
		}),
	}
}

func (m *poolMetrics) collectors(pools map[string]*pool) []prometheus.Collector {
	ready := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "agenticraft_sandbox_warm_jails", Help: "Warm jails that wait for a run.",
	}, func() float64 {
		n := 0
		for _, p := range pools {
			p.mu.Lock()
			n += len(p.ready)
			p.mu.Unlock()
		}
		return float64(n)
	})
	return []prometheus.Collector{m.claims, m.refills, m.seconds, ready}
}

// newPool makes the pool of a language.
func (b *Backend) newPool(language string, size int) *pool {
	return &pool{
		poolMetrics: b.counts, size: size, maxAge: b.cfg.WarmAge, idle: b.cfg.WarmIdle, log: b.cfg.Log,
		start: func(ctx context.Context) (*warm, error) { return b.makeWarm(ctx, language) },
		kicks: make(chan struct{}, 1),
	}
}

// claim takes a jail for one run of k with limits l, or returns nil. The jail
// is the caller's, who uses it once or destroys it.
func (p *pool) claim(ctx context.Context, k key, spec sandbox.Spec) *warm {
	if p == nil || p.size == 0 {
		return nil
	}
	began := time.Now()
	if !fits(spec, k.limits) {
		p.claims.WithLabelValues("unfit").Inc()
		return nil
	}
	p.mu.Lock()
	p.wanted = began
	i := slices.IndexFunc(p.ready, func(w *warm) bool { return w.key == k && w.alive() })
	var w *warm
	if i >= 0 {
		w = p.ready[i]
		p.ready = slices.Delete(p.ready, i, i+1)
	}
	p.mu.Unlock()
	time.AfterFunc(refillDelay, p.kick)
	if w == nil {
		p.claims.WithLabelValues("miss").Inc()
		return nil
	}
	// INVARIANT: I6, a limit that cannot be enforced refuses the run, never
	// weakens it silently. What refuses is the cold path, which knows the reason.
	enforced := w.jail.Enforced()
	lacking := slices.ContainsFunc(spec.Required, func(limit string) bool { return enforced[limit] == "" })
	if l := held(spec.Limits); !lacking && l != k.limits {
		short, cancel := context.WithTimeout(ctx, lowerTimeout)
		defer cancel()
		if err := w.jail.Lower(short, l); err != nil {
			p.log.DebugContext(ctx, "warm jail does not take its limits", "run", spec.ID, "err", err)
			lacking = true
		}
	}
	if lacking {
		p.wg.Go(func() { w.destroy(p.log) })
		p.claims.WithLabelValues("unfit").Inc()
		return nil
	}
	p.claims.WithLabelValues("hit").Inc()
	p.seconds.Observe(time.Since(began).Seconds())
	return w
}

// fits says whether a jail of the class can be made to hold the limits of a
// run: all but the number of files can be lowered. Files are placed only while
// a jail is made, and so is the way to a network.
func fits(spec sandbox.Spec, class sandbox.Limits) bool {
	l := spec.Limits
	return len(spec.Files) == 0 && len(spec.Network) == 0 && l.Memory <= class.Memory && l.CPUPercent <= class.CPUPercent && l.Wall <= class.Wall &&
		l.FileSize <= class.FileSize && l.Files == class.Files && l.Processes <= class.Processes
}

// kick makes tend look what is to be done.
func (p *pool) kick() {
	select {
	case p.kicks <- struct{}{}:
	default:
	}
}

// tend keeps the pool full until ctx is done, then empties it.
func (p *pool) tend(ctx context.Context) {
	defer p.empty()
	for {
		p.discard()
		pause := p.refill(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-p.kicks:
		}
	}
}

// discard destroys the jails that are too old or dead, and all of them if none
// was wanted for long.
func (p *pool) discard() {
	now := time.Now()
	p.mu.Lock()
	unwanted := now.Sub(p.wanted) > p.idle
	var old []*warm
	p.ready = slices.DeleteFunc(p.ready, func(w *warm) bool {
		if !unwanted && now.Sub(w.born) < p.maxAge && w.alive() {
			return false
		}
		old = append(old, w)
		return true
	})
	p.mu.Unlock()
	for _, w := range old {
		p.refills.WithLabelValues("discarded").Inc()
		w.destroy(p.log)
	}
}

// refill makes what is missing, one after the other, and returns how long to
// wait before the next look.
func (p *pool) refill(ctx context.Context) time.Duration {
	for ctx.Err() == nil {
		p.mu.Lock()
		missing := len(p.ready) < p.size && time.Since(p.wanted) <= p.idle
		p.mu.Unlock()
		if !missing {
			break
		}
		w, err := p.start(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.refills.WithLabelValues("failed").Inc()
				p.log.DebugContext(ctx, "no warm jail", "err", err)
			}
			return refillPause
		}
		p.refills.WithLabelValues("made").Inc()
		p.mu.Lock()
		// A jail of another class, as after a change of the runtime, makes room.
		i := slices.IndexFunc(p.ready, func(old *warm) bool { return old.key != w.key })
		var old *warm
		if i >= 0 {
			old = p.ready[i]
			p.ready = slices.Delete(p.ready, i, i+1)
		}
		p.ready = append(p.ready, w)
		p.mu.Unlock()
		if old != nil {
			old.destroy(p.log)
		}
	}
	return min(p.maxAge, p.idle)/4 + time.Second
}

// empty destroys every jail that waits.
func (p *pool) empty() {
	p.mu.Lock()
	left := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, w := range left {
		w.destroy(p.log)
	}
}

// AwaitWarm waits until as many Python jails are warm as the configuration says. It is
// for those who measure.
func (b *Backend) AwaitWarm(ctx context.Context) error {
	p := b.pools[Python]
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
		case <-time.After(time.Millisecond):
		}
	}
}

// makeWarm makes a jail of the configured class and waits until its
// interpreter asks for a program.
func (b *Backend) makeWarm(ctx context.Context, language string) (*warm, error) {
	dir, digest, argv, err := b.cfg.Runtimes.Select(language, "")
	if err != nil {
		return nil, fmt.Errorf("find runtime: %w", err)
	}
	speaks, _ := dialectOf(language) // pools are of known ones
	k := b.key(language, digest)
	spec := sandbox.Spec{ID: fmt.Sprintf("warm-%d", b.serial.Add(1)), Language: language, Limits: k.limits}
	j, err := b.cfg.Spawner.Start(ctx, speaks.profile(spec, dir, argv))
	if err != nil {
		return nil, err
	}
	w := &warm{jail: j, key: k, born: time.Now()}
	if err := awaitHello(ctx, j.Control()); err != nil {
		w.destroy(b.cfg.Log)
		return nil, err
	}
	return w, nil
}

// key is that of the jails of a language that the backend keeps.
func (b *Backend) key(language, digest string) key {
	return key{
		language: language, digest: digest, tier: b.cfg.Spawner.Probe().Tier, network: networkNone,
		limits: held(jail.Normalize(b.cfg.WarmLimits)),
	}
}
