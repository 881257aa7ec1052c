// Package wasm runs WebAssembly modules that speak WASI preview 1, in jailed,
// killable workers.
//
// Each module is compiled once, by a worker that sees nothing but the module
// and ends thereafter; the machine code is kept by the module's SHA-256. A run
// worker holds one module: it takes the code, which it cannot write, closes
// itself off from every system call but those of a program computing in memory,
// and then runs the module for one owner, each run in a new instance. Files are
// in the worker's memory; there is nothing to reach a network with.
package wasm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/worker"
)

// Language is the language of modules; see [sandbox.Spec] for how a run names
// its module.
const Language = sandbox.WASM

const (
	// wallGrace is how long after its wall limit a worker that did not stop its
	// module is killed.
	wallGrace    = 20 * time.Millisecond
	helloTimeout = 20 * time.Second // of a worker; large modules take a while to load
	// overhead is what of the memory limit is left to the worker itself, in bytes.
	overhead = 32 << 20
	// cores of a worker's runtime: compiled code holds on to one.
	cores = 2
)

// Modules knows the modules that an operator added. package runtime has it.
type Modules interface {
	Modules() ([]runtime.Module, error)
}

// Config configures a [Backend].
type Config struct {
	// Spawner makes the jails. It stays the caller's, who closes it after the
	// backend.
	Spawner *jail.Spawner
	// Dir keeps compiled modules; it is made if missing, and may be lost.
	Dir string
	// Modules that runs may name; nil for none.
	Modules Modules
	// CacheBytes is how much Dir may hold; default 1 GiB.
	CacheBytes int64
	// MaxRuns is how many programs of one owner a worker runs; default 100.
	MaxRuns int
	// Idle is how long a worker waits for its owner's next program; default 10 s.
	Idle time.Duration
	// MaxIdle is how many workers wait at most, for all owners; default 4.
	MaxIdle int
	// Log receives what operators should see; default: nothing.
	Log *slog.Logger
}

// Backend is the [sandbox.Backend] "wasm". Its methods may be called
// concurrently.
type Backend struct {
	cfg         Config
	cache       *cache
	pool        *worker.Pool
	description sandbox.Description

	stop    context.Context // done when Close begins
	closing context.CancelFunc

	mu      sync.Mutex // guards closed, and so the growth of running
	closed  bool
	running sync.WaitGroup
}

var _ sandbox.Backend = (*Backend)(nil)

// New makes the backend and tries it with a module that does nothing. That this
// machine cannot run workers is no error: Describe then says why.
func New(cfg Config) (*Backend, error) {
	if cfg.Spawner == nil || cfg.Dir == "" {
		return nil, errors.New("wasm sandbox: Spawner or Dir is missing")
	}
	if cfg.CacheBytes < 0 || cfg.MaxRuns < 0 || cfg.Idle < 0 || cfg.MaxIdle < 0 {
		return nil, errors.New("wasm sandbox: CacheBytes, MaxRuns, Idle and MaxIdle must not be negative")
	}
	cfg.CacheBytes = cmp.Or(cfg.CacheBytes, 1<<30)
	cfg.MaxRuns = cmp.Or(cfg.MaxRuns, 100)
	cfg.Idle = cmp.Or(cfg.Idle, 10*time.Second)
	cfg.MaxIdle = cmp.Or(cfg.MaxIdle, 4)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{cfg: cfg}
	b.stop, b.closing = context.WithCancel(context.Background())
	probe := cfg.Spawner.Probe()
	b.description = sandbox.Description{Name: "wasm", Tier: probe.Tier, Languages: []string{Language}, Enforces: enforces(probe.Enforces)}
	var err error
	if b.cache, err = openCache(cfg); err != nil {
		return nil, err
	}
	b.pool = worker.NewPool(worker.Config{
		Name: "wasm", Launch: b.launch, Enforced: enforces, Grace: wallGrace, Hello: helloTimeout,
		MaxRuns: cfg.MaxRuns, Idle: cfg.Idle, MaxIdle: cfg.MaxIdle, Log: cfg.Log,
	})
	if probe.Reason != "" {
		b.description.Reason, b.description.Hint = probe.Reason, probe.Hint
		return b, nil
	}
	if err := b.try(); err != nil {
		b.description.Reason = err.Error()
		cfg.Log.Warn("wasm sandbox is unavailable", "err", err)
	}
	return b, nil
}

// try compiles and starts a module that does nothing.
func (b *Backend) try() error {
	ctx, cancel := context.WithTimeout(b.stop, helloTimeout)
	defer cancel()
	m := module{content: []byte(nothing)}
	m.digest = digestOf(m.content)
	if _, err := b.cache.ensure(ctx, m); err != nil {
		return err
	}
	w, err := b.pool.Start(ctx, classOf(sandbox.DefaultLimits(), m.digest))
	if err != nil {
		return err
	}
	b.description.Available = true
	b.description.Enforces = maps.Clone(w.Enforced)
	b.description.Runtimes = map[string]string{Language: w.Version}
	b.pool.Put(w)
	return nil
}

// launch makes the jail of a worker for one module.
func (b *Backend) launch(ctx context.Context, id string, c worker.Class) (worker.Process, error) {
	budget := max(c.Memory/2, c.Memory-overhead)
	return worker.Jail(ctx, b.cfg.Spawner, id, b.cache.root(c.Program), c, cores, "wasm", c.Program, strconv.FormatInt(budget, 10))
}

// Run implements [sandbox.Backend]. Limits at zero mean the default ones.
func (b *Backend) Run(ctx context.Context, spec sandbox.Spec, ready func(context.Context) error) (sandbox.Result, error) {
	if err := b.enter(); err != nil {
		return sandbox.Result{}, err
	}
	defer b.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.stop, cancel)()

	if !b.description.Available {
		return sandbox.Result{}, fmt.Errorf("%w: %s", sandbox.ErrUnavailable, b.description.Reason)
	}
	// INVARIANT: I6, a limit that cannot be enforced refuses the run, never
	// weakens it silently. Every worker holds what the first one held.
	for _, limit := range spec.Required {
		if b.description.Enforces[limit] == "" {
			return sandbox.Result{}, fmt.Errorf("%w: %s", sandbox.ErrUnenforceable, limit)
		}
	}
	checked := spec
	checked.Required = nil // known by now
	if err := checked.Validate(); err != nil {
		return sandbox.Result{}, err
	}
	m, err := b.find(&spec)
	if err != nil {
		return sandbox.Result{}, err
	}
	spec.Limits = spec.Limits.Or(sandbox.DefaultLimits())
	finish := func(res sandbox.Result) (sandbox.Result, error) {
		res.Tier, res.Runtime = b.description.Tier, "sha256:"+m.digest
		if res.Enforced == nil {
			res.Enforced = maps.Clone(b.description.Enforces)
		}
		return res, nil
	}
	if ctx.Err() != nil {
		return finish(cancelled())
	}
	class := classOf(spec.Limits, m.digest)
	// A worker that waits has the module in it since an earlier run of it.
	w := b.pool.Waiting(spec.Owner, class)
	giveBack := func() {
		if w != nil {
			b.pool.Put(w)
		}
	}
	// INVARIANT: I1, nothing runs before its intent is durable: the module enters
	// a jail, be it only to be compiled, after ready returned nil.
	if ready != nil {
		if err := ready(ctx); err != nil {
			giveBack()
			return sandbox.Result{}, err
		}
	}
	if ctx.Err() != nil {
		giveBack()
		return finish(cancelled())
	}
	compiling := time.Duration(0)
	if w == nil {
		began := time.Now()
		var res *sandbox.Result
		if w, res, err = b.prepare(ctx, spec, class, m); err != nil {
			return sandbox.Result{}, err
		}
		if res != nil {
			return finish(*res)
		}
		if m.uploaded() {
			// At least a moment is left, so that it is the worker that says how it ends.
			compiling = min(time.Since(began), spec.Limits.Wall-time.Millisecond)
			spec.Limits.Wall -= compiling
		}
	}
	result, reusable := w.Run(ctx, spec, 0)
	result.Usage.Wall += compiling
	result.Enforced = maps.Clone(w.Enforced)
	if reusable {
		b.pool.Put(w)
	}
	if result.Status == sandbox.Internal {
		b.cfg.Log.ErrorContext(ctx, "wasm worker failed", "run", spec.ID, "message", result.Message)
	}
	return finish(result)
}

// errCompiling: the run's time was up before its module was compiled.
var errCompiling = errors.New("compiling takes too long")

// prepare has the module compiled and a worker started with it. The result is
// set if that is how the run ended. To compile what came with the run is the run's
// own work, for which it has its time; an operator's module is compiled once, in
// time of the node's: a run waits for that as long as it may run, and then the node
// goes on without it.
func (b *Backend) prepare(ctx context.Context, spec sandbox.Spec, class worker.Class, m module) (*worker.Worker, *sandbox.Result, error) {
	for attempt := 0; ; attempt++ {
		limited, stop := context.WithTimeoutCause(ctx, spec.Limits.Wall, errCompiling)
		fresh, err := b.cache.ensure(limited, m)
		stop()
		if err != nil {
			res, err := b.notCompiled(ctx, spec, m, err)
			return nil, res, err
		}
		w, err := b.pool.Claim(ctx, spec.Owner, class)
		failed := new(worker.StartError)
		switch {
		case errors.As(err, &failed) && failed.OOM:
			const text = "the module itself does not fit into the memory limit"
			return nil, &sandbox.Result{Status: sandbox.OutOfMemory, ExitCode: 137, Message: text}, nil
		case err == nil:
			return w, nil, nil
		case ctx.Err() != nil:
			res := cancelled()
			return nil, &res, nil
		case fresh || attempt > 0 || errors.Is(err, sandbox.ErrBusy):
			return nil, nil, err
		}
		// What was kept may be damaged, or of another version: make it anew.
		b.cfg.Log.WarnContext(ctx, "compiled module does not load, compiling it again", "module", m.digest, "err", err)
		if err := b.cache.drop(m.digest); err != nil {
			return nil, nil, err
		}
	}
}

// notCompiled is the end of a run whose module is no program.
func (b *Backend) notCompiled(ctx context.Context, spec sandbox.Spec, m module, err error) (*sandbox.Result, error) {
	bad := new(badModule)
	late := fmt.Sprintf("its module was not compiled within the time limit of %v", spec.Limits.Wall)
	if !m.uploaded() {
		late += "; the node goes on with that, for the runs to come"
	}
	switch {
	case ctx.Err() != nil:
		res := cancelled()
		return &res, nil
	case errors.Is(err, errCompiling):
		return &sandbox.Result{
			Status: sandbox.Timeout, ExitCode: 124, Usage: sandbox.Usage{Wall: spec.Limits.Wall},
			Message: late,
		}, nil
	case !errors.As(err, &bad):
		return nil, err
	}
	res := &sandbox.Result{
		Status: sandbox.Error, ExitCode: 1, ErrorCode: "language_error", Message: bad.text,
		Stderr: []byte("Error: " + bad.text + "\n"), Usage: bad.usage,
	}
	if spec.Output != nil {
		spec.Output("stderr", 0, slices.Clone(res.Stderr))
	}
	return res, nil
}

// Describe implements [sandbox.Backend].
func (b *Backend) Describe() sandbox.Description {
	d := b.description
	d.Languages = slices.Clone(d.Languages)
	d.Enforces, d.Runtimes = maps.Clone(d.Enforces), maps.Clone(d.Runtimes)
	if !d.Available {
		return d
	}
	for _, m := range b.added() {
		d.Named = append(d.Named, m.SHA256)
		if m.Name != "" {
			d.Named = append(d.Named, m.Name)
		}
		for _, l := range m.Languages {
			if l != Language && d.Runtimes[l] == "" {
				d.Languages = append(d.Languages, l)
				d.Runtimes[l] = m.Digest
			}
		}
	}
	slices.Sort(d.Languages)
	return d
}

// added are the modules that an operator added.
func (b *Backend) added() []runtime.Module {
	if b.cfg.Modules == nil {
		return nil
	}
	list, err := b.cfg.Modules.Modules()
	if err != nil {
		b.cfg.Log.Warn("cannot list modules", "err", err)
	}
	return list
}

// Metrics returns the collectors of the backend, to be registered once.
func (b *Backend) Metrics() []prometheus.Collector {
	return append(b.pool.Metrics(), b.cache.metrics()...)
}

// Close implements [sandbox.Backend].
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.closing()
	b.running.Wait()
	b.pool.Close()
	b.cache.wait()
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

func classOf(l sandbox.Limits, digest string) worker.Class {
	return worker.Class{Memory: l.Memory, CPU: l.CPUPercent, Program: digest}
}

// enforces adds to what the jail holds what the engine and this backend do.
func enforces(jailed map[string]string) map[string]string {
	m := maps.Clone(jailed)
	if m == nil {
		m = make(map[string]string)
	}
	m[sandbox.LimitWall] = "engine+monitor"
	m[sandbox.LimitOutput] = "monitor"
	m[sandbox.LimitFileSize] = "engine" // files are in the worker's memory
	// WASI preview 1 has no word for a process or a connection.
	for _, limit := range []string{sandbox.LimitMemory, sandbox.LimitFiles, sandbox.LimitProcesses, sandbox.LimitNetwork} {
		if m[limit] == "" {
			m[limit] = "engine"
		} else {
			m[limit] = "engine+" + m[limit]
		}
	}
	return m
}
