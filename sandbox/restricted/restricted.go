// Package restricted runs Starlark programs in jailed, killable workers.
//
// Starlark has no way to reach files, the network, time or other processes,
// but its interpreter cannot bound the memory or time of one built-in call, so
// it never runs in the node's process. A worker is the jail helper's own
// interpreter in the tightest jail there is. One owner's runs may follow each
// other on one worker, which saves its start; a worker never changes owner, and
// one that hit a limit, was killed or broke the protocol is destroyed.
package restricted

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/worker"
)

// Language is the one language of this backend.
const Language = "starlark"

const (
	helloTimeout = 5 * time.Second        // of a worker, from its start to its greeting
	wallGrace    = 250 * time.Millisecond // past the wall limit, for the worker to stop by itself and say where
	cores        = 1                      // of a worker's runtime: the interpreter lets its watch in at any step
	// spareClasses is for how many of the limits asked for last a fresh worker is
	// kept ready.
	spareClasses = 2
)

// Config configures a [Backend].
type Config struct {
	// Spawner makes the jails. It stays the caller's, who closes it after the
	// backend.
	Spawner *jail.Spawner
	// MaxRuns is how many programs of one owner a worker runs; default 1000.
	MaxRuns int
	// Idle is how long a worker waits for its owner's next program; default 10 s.
	Idle time.Duration
	// MaxIdle is how many workers wait at most, for all owners; default 8.
	MaxIdle int
	// Steps bounds the interpreter's steps in one run; default 0, no bound: wall
	// time and CPU are bounded anyhow.
	Steps uint64
	// Log receives what operators should see; default: nothing.
	Log *slog.Logger
}

// Backend is a [sandbox.Backend] for Starlark.
type Backend struct {
	cfg         Config
	pool        *worker.Pool
	description sandbox.Description

	stop    context.Context // done when Close begins
	closing context.CancelFunc

	mu      sync.Mutex // guards closed, and so the growth of running
	closed  bool
	running sync.WaitGroup
}

var _ sandbox.Backend = (*Backend)(nil)

// New makes the backend and starts a first worker. That this machine cannot
// run workers is no error: Describe then says why.
func New(cfg Config) (*Backend, error) {
	if cfg.Spawner == nil {
		return nil, errors.New("restricted sandbox: Spawner is missing")
	}
	probe := cfg.Spawner.Probe()
	return newBackend(cfg, probe, func(ctx context.Context, id string, c worker.Class) (worker.Process, error) {
		return worker.Jail(ctx, cfg.Spawner, id, "", c, cores, Language)
	})
}

func newBackend(cfg Config, probe jail.Probe, launch func(context.Context, string, worker.Class) (worker.Process, error)) (*Backend, error) {
	if cfg.MaxRuns < 0 || cfg.Idle < 0 || cfg.MaxIdle < 0 {
		return nil, errors.New("restricted sandbox: MaxRuns, Idle and MaxIdle must not be negative")
	}
	cfg.MaxRuns = cmp.Or(cfg.MaxRuns, 1000)
	cfg.Idle = cmp.Or(cfg.Idle, 10*time.Second)
	cfg.MaxIdle = cmp.Or(cfg.MaxIdle, 8)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{cfg: cfg}
	b.stop, b.closing = context.WithCancel(context.Background())
	b.pool = worker.NewPool(worker.Config{
		Name: "restricted", Launch: launch, Enforced: enforces, Grace: wallGrace, Hello: helloTimeout,
		MaxRuns: cfg.MaxRuns, Idle: cfg.Idle, MaxIdle: cfg.MaxIdle, Spares: spareClasses, Log: cfg.Log,
	})
	b.description = sandbox.Description{Name: "restricted", Tier: probe.Tier, Languages: []string{Language}, Enforces: enforces(probe.Enforces), Bare: true}
	if probe.Reason != "" {
		b.description.Reason, b.description.Hint = probe.Reason, probe.Hint
		return b, nil
	}
	ctx, cancel := context.WithTimeout(b.stop, helloTimeout)
	defer cancel()
	first, err := b.pool.Start(ctx, classOf(sandbox.DefaultLimits()))
	if err != nil {
		b.description.Reason = err.Error()
		cfg.Log.Warn("restricted sandbox is unavailable", "err", err)
		return b, nil
	}
	b.description.Available = true
	b.description.Enforces = maps.Clone(first.Enforced) // what holds a worker, not any program
	b.description.Runtimes = map[string]string{Language: first.Version}
	b.pool.Adopt(first)
	return b, nil
}

// Run implements [sandbox.Backend]. Limits at zero mean the default ones. The
// worker may live on for its owner's next program; no part of this one does.
func (b *Backend) Run(ctx context.Context, spec sandbox.Spec, ready func(context.Context) error) (sandbox.Result, error) {
	if err := b.enter(); err != nil {
		return sandbox.Result{}, err
	}
	defer b.running.Done()
	if spec.Language != Language {
		return sandbox.Result{}, fmt.Errorf("%w: the restricted sandbox runs %s, not %.40q", sandbox.ErrUnavailable, Language, spec.Language)
	}
	checked := spec
	checked.Required = nil // an unknown limit is one that cannot be enforced
	if err := checked.Validate(); err != nil {
		return sandbox.Result{}, err
	}
	if !b.description.Available {
		return sandbox.Result{}, fmt.Errorf("%w: %s", sandbox.ErrUnavailable, b.description.Reason)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.stop, cancel)()

	spec.Limits = spec.Limits.Or(sandbox.DefaultLimits())
	if ctx.Err() != nil {
		return cancelled(), nil
	}
	class := classOf(spec.Limits)
	if err := b.pool.Prove(ctx, spec.Owner, class); err != nil {
		if ctx.Err() != nil {
			return cancelled(), nil
		}
		return sandbox.Result{}, err
	}
	// INVARIANT: I6, a limit that cannot be enforced refuses the run, never
	// weakens it silently. Every worker here is held by the same means as the first.
	if err := b.holds(spec.Required, b.description.Enforces); err != nil {
		return sandbox.Result{}, err
	}
	if ready != nil {
		if err := ready(ctx); err != nil {
			return sandbox.Result{}, err
		}
	}
	if ctx.Err() != nil {
		return cancelled(), nil
	}
	// A worker is taken when there is something for it to do: a few serve many who
	// wait for their intents to be durable.
	w, err := b.pool.Claim(ctx, spec.Owner, class)
	if err != nil {
		if ctx.Err() != nil {
			return cancelled(), nil
		}
		return sandbox.Result{}, err
	}
	if err := b.holds(spec.Required, w.Enforced); err != nil {
		b.pool.Put(w)
		return sandbox.Result{}, err
	}
	result, reusable := w.Run(ctx, spec, b.cfg.Steps)
	if reusable {
		b.pool.Put(w)
	}
	result.Enforced = maps.Clone(w.Enforced)
	result.Tier = b.description.Tier
	result.Runtime = w.Version
	if result.Status == sandbox.Internal {
		b.cfg.Log.ErrorContext(ctx, "starlark worker failed", "run", spec.ID, "message", result.Message)
	}
	return result, nil
}

// Describe implements [sandbox.Backend].
func (b *Backend) Describe() sandbox.Description {
	d := b.description
	d.Languages = slices.Clone(d.Languages)
	d.Enforces, d.Runtimes = maps.Clone(d.Enforces), maps.Clone(d.Runtimes)
	return d
}

// Metrics returns the collectors of the backend, to be registered once.
func (b *Backend) Metrics() []prometheus.Collector {
	return b.pool.Metrics()
}

// Close implements [sandbox.Backend].
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.closing()
	b.running.Wait()
	b.pool.Close()
	return nil
}

// holds refuses a run whose required limits are not all enforced.
func (b *Backend) holds(required []string, enforced map[string]string) error {
	for _, limit := range required {
		if enforced[limit] == "" {
			return fmt.Errorf("%w: %s", sandbox.ErrUnenforceable, limit)
		}
	}
	return nil
}

func (b *Backend) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return sandbox.ErrClosed
	}
	b.running.Add(1)
	return nil
}

func cancelled() sandbox.Result {
	return sandbox.Result{Status: sandbox.Cancelled, ExitCode: 130, Message: "cancelled before the program started"}
}

func classOf(l sandbox.Limits) worker.Class { return worker.Class{Memory: l.Memory, CPU: l.CPUPercent} }

// enforces adds to what the jail holds what the language and this backend do.
func enforces(jailed map[string]string) map[string]string {
	m := maps.Clone(jailed)
	if m == nil {
		m = make(map[string]string)
	}
	m[sandbox.LimitWall] = "monitor"
	m[sandbox.LimitOutput] = "monitor"
	// A program has no word for a file, a process or a connection.
	for _, limit := range []string{sandbox.LimitFileSize, sandbox.LimitFiles, sandbox.LimitProcesses, sandbox.LimitNetwork} {
		if m[limit] == "" {
			m[limit] = "language"
		} else {
			m[limit] = "language+" + m[limit]
		}
	}
	return m
}
