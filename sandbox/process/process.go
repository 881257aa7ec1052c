// Package process runs programs of ordinary interpreters in jails: Python,
// JavaScript and sh, from language trees of the node's own.
//
// A run has two phases. First the complete jail is made and the interpreter
// started in it, up to where it asks for its program; then, once the caller
// says so, the program goes in. Each jail is used once.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// Bounds of a run.
const (
	maxCode      = 4 << 20 // bytes
	maxStdin     = 16 << 20
	bootTimeout  = 20 * time.Second // of the interpreter, before the program
	sendTimeout  = 10 * time.Second // of the program's text
	maxOutFiles  = 256
	maxOutBytes  = 8 << 20
	maxOutDepth  = 16
	abandonAfter = 30 * time.Second // of a killed jail that does not end
)

// Runtimes finds language trees. package runtime has one.
type Runtimes interface {
	// Select returns the folder of the tree on the host, its digest, and the
	// interpreter's path and arguments in it. name is the tree's name or digest;
	// "" is the language's default.
	Select(language, name string) (dir, digest string, argv []string, err error)
	// Named lists what a run in one of the languages may name.
	Named(languages ...string) []string
}

// Config of a [Backend].
type Config struct {
	Spawner  *jail.Spawner
	Runtimes Runtimes
	Log      *slog.Logger
	// Egress connects programs that may reach a network; nil: none may.
	Egress *egress.Gateway

	// Warm is how many complete Python jails wait for a run, each used once;
	// default none, at most [MaxWarm]. A run gets one whose limits can be lowered
	// to its own. Unless it is none, a JavaScript jail waits too, once that was
	// asked for.
	Warm int
	// WarmLimits are the limits of these jails; a zero field means what
	// [jail.Normalize] says.
	WarmLimits sandbox.Limits
	// WarmAge is how long a jail waits at most; default 10 min.
	WarmAge time.Duration
	// WarmIdle is after how long without a run none is kept; default 15 min.
	WarmIdle time.Duration
}

// Backend is the backend "process". Its methods may be called concurrently.
type Backend struct {
	cfg  Config
	ctx  context.Context // done when closed
	stop context.CancelCauseFunc

	mu     sync.Mutex // guards closed against wg.Add
	closed bool
	wg     sync.WaitGroup // one for each run, and one for the pool

	pools  map[string]*pool // by language
	counts *poolMetrics
	serial atomic.Uint64 // of warm jails
}

var _ sandbox.Backend = (*Backend)(nil)

// New returns a backend that makes its jails with the spawner, which remains
// the caller's to close.
func New(cfg Config) (*Backend, error) {
	var faults []error
	if cfg.Spawner == nil {
		faults = append(faults, errors.New("process backend: Spawner is missing"))
	}
	if cfg.Runtimes == nil {
		faults = append(faults, errors.New("process backend: Runtimes is missing"))
	}
	if cfg.Warm < 0 || cfg.Warm > MaxWarm || cfg.WarmAge < 0 || cfg.WarmIdle < 0 {
		faults = append(faults, fmt.Errorf("process backend: Warm is not 0 to %d, or WarmAge or WarmIdle is negative", MaxWarm))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if cfg.WarmAge == 0 {
		cfg.WarmAge = 10 * time.Minute
	}
	if cfg.WarmIdle == 0 {
		cfg.WarmIdle = 15 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{cfg: cfg}
	b.ctx, b.stop = context.WithCancelCause(context.Background())
	b.counts = newPoolMetrics()
	python, javascript := b.newPool(Python, cfg.Warm), b.newPool(JavaScript, min(cfg.Warm, 1))
	python.wanted = time.Now() // the others wait to be asked for
	b.pools = map[string]*pool{Python: python, JavaScript: javascript}
	if cfg.Warm > 0 && cfg.Spawner.Probe().Tier != jail.Tier4 {
		for _, p := range b.pools {
			b.wg.Go(func() { p.tend(b.ctx) })
		}
	}
	return b, nil
}

// Describe implements [sandbox.Backend].
func (b *Backend) Describe() sandbox.Description {
	p := b.cfg.Spawner.Probe()
	d := sandbox.Description{Name: "process", Tier: p.Tier, Enforces: p.Enforces, Reason: p.Reason, Hint: p.Hint}
	if p.Tier == jail.Tier4 {
		return d
	}
	d.Runtimes = make(map[string]string)
	for _, dialect := range dialects {
		_, digest, _, err := b.cfg.Runtimes.Select(dialect.language, "")
		if err == nil {
			d.Languages = append(d.Languages, dialect.language)
			d.Runtimes[dialect.language] = digest
		} else if d.Reason == "" {
			d.Reason, d.Hint = err.Error(), "agenticraft runtime add python"
		}
	}
	if d.Available = len(d.Languages) > 0; d.Available {
		d.Reason, d.Hint = "", ""
		d.Named = b.cfg.Runtimes.Named(d.Languages...)
		d.Egress = b.cfg.Egress != nil
		slices.Sort(d.Languages)
	}
	return d
}

// Metrics returns the collectors of the backend, to be registered once.
func (b *Backend) Metrics() []prometheus.Collector {
	all := b.counts.collectors(b.pools)
	if b.cfg.Egress != nil {
		all = append(all, b.cfg.Egress.Metrics()...)
	}
	return all
}

// Close implements [sandbox.Backend].
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop(sandbox.ErrClosed)
	b.wg.Wait()
	for _, p := range b.pools {
		p.wg.Wait()
	}
	return nil
}

func (b *Backend) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("process backend: %w", sandbox.ErrClosed)
	}
	b.wg.Add(1)
	return nil
}

// Run implements [sandbox.Backend].
func (b *Backend) Run(ctx context.Context, spec sandbox.Spec, ready func(context.Context) error) (sandbox.Result, error) {
	if err := b.enter(); err != nil {
		return sandbox.Result{}, err
	}
	defer b.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	speaks, err := dialectOf(spec.Language)
	if err != nil {
		return sandbox.Result{}, err
	}
	if len(spec.Network) > 0 && b.cfg.Egress == nil {
		return sandbox.Result{}, fmt.Errorf("%w: %s: this backend has no way to a network", sandbox.ErrUnenforceable, sandbox.LimitNetwork)
	}
	if spec, err = Complete(spec); err != nil {
		return sandbox.Result{}, err
	}
	dir, digest, argv, err := b.cfg.Runtimes.Select(spec.Language, spec.Runtime)
	if err != nil {
		return sandbox.Result{}, fmt.Errorf("find runtime: %w", err)
	}
	finish := func(res sandbox.Result, err error) (sandbox.Result, error) {
		res.Runtime, res.Tier = digest, b.cfg.Spawner.Probe().Tier
		return res, err
	}
	if ctx.Err() != nil {
		return finish(cancelled(), nil)
	}
	pool := b.pools[spec.Language]
	if w := pool.claim(ctx, b.key(spec.Language, digest), spec); w != nil {
		defer pool.kick()
		r := &run{dialect: speaks, spec: spec, jail: jailed{w.jail}, log: b.cfg.Log, greeted: true}
		res, err := r.do(ctx, ready)
		if !errors.Is(err, errWarmLost) {
			return finish(res, err)
		}
		ready = nil // said yes already
	}
	j, err := b.cfg.Spawner.Start(ctx, speaks.profile(spec, dir, argv))
	if err != nil {
		if ctx.Err() != nil {
			return finish(cancelled(), nil)
		}
		return sandbox.Result{}, err
	}
	if len(spec.Network) > 0 {
		proxy, err := b.cfg.Egress.OpenFile(j.Listener(), spec.ID, spec.Network, spec.Connected)
		if err != nil {
			j.Release()
			return sandbox.Result{}, fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err)
		}
		defer proxy.Close() // the jail is dead by then
	}
	r := &run{dialect: speaks, spec: spec, jail: jailed{j}, log: b.cfg.Log}
	return finish(r.do(ctx, ready))
}

func cancelled() sandbox.Result {
	return sandbox.Result{Status: sandbox.Cancelled, ExitCode: 130, Message: "cancelled before it started"}
}

func (d dialect) profile(spec sandbox.Spec, dir string, argv []string) jail.Profile {
	env := []string{"HOME=/work", "TMPDIR=/tmp", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	if len(spec.Network) > 0 {
		certificates := jail.Certificates
		if _, err := os.Stat(jail.CertificatesFrom); err != nil {
			certificates = ""
		}
		env = append(env, egress.Environment(jail.ProxyAddress, certificates)...)
	}
	return jail.Profile{
		ID: spec.ID, Root: dir, Argv: slices.Concat(argv, d.options(spec.Limits, wire.ControlFD, wire.ControlFD)),
		Env:      append(env, d.env...),
		Network:  len(spec.Network) > 0,
		Limits:   spec.Limits,
		Worker:   d.reserves,
		Syscalls: jail.SyscallsPython,
		Files:    spec.Files, Required: spec.Required, Proc: true,
	}
}

// Why a run was ended from outside.
var (
	errTimeout = errors.New("time is up")
	errFlood   = errors.New("too much output")
)

// errWarmLost: a warm jail died before any code was sent to it.
var errWarmLost = errors.New("the warm jail is gone")

// run is one run, from the started interpreter to its result.
type run struct {
	dialect dialect
	spec    sandbox.Spec
	jail    Vessel
	log     *slog.Logger
	// greeted: the interpreter has asked for its program.
	greeted bool
	wg      sync.WaitGroup // readers and the writer of stdin

	stdout, stderr capture
	reply          reply
}

func (r *run) do(ctx context.Context, ready func(context.Context) error) (sandbox.Result, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	r.stdout = capture{stream: "stdout", limit: r.spec.Limits.Output, sink: r.spec.Output, flooded: func() { end(errFlood) }}
	r.stderr = capture{stream: "stderr", limit: r.spec.Limits.Output, sink: r.spec.Output, flooded: func() { end(errFlood) }}
	r.wg.Go(func() { r.stdout.drain(r.jail.Stdout()) })
	r.wg.Go(func() { r.stderr.drain(r.jail.Stderr()) })
	defer r.finish()
	// INVARIANT: I1, nothing runs before its intent is durable: the program is
	// written to the jail only after ready returned nil.
	if ready != nil {
		if err := ready(ctx); err != nil {
			return sandbox.Result{}, err
		}
	}
	if ctx.Err() != nil {
		res := cancelled()
		res.Enforced = r.jail.Enforced()
		return res, nil
	}
	if r.greeted {
		select {
		case <-r.jail.Done():
			return sandbox.Result{}, errWarmLost
		default:
		}
	}
	began := time.Now()
	bootErr := r.begin(ctx)
	if bootErr == nil {
		began = time.Now()
		r.wg.Go(func() { r.reply = readReply(r.jail.Control(), r.spec.Limits.Result) })
		r.wg.Go(r.feed)
	} else {
		end(bootErr)
	}
	timer := time.AfterFunc(r.spec.Limits.Wall, func() { end(errTimeout) })
	defer timer.Stop()
	select {
	case <-r.jail.Done():
	case <-ctx.Done():
		r.jail.Kill()
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonAfter)
	defer cancel()
	exit, err := r.jail.Wait(wait)
	exit.Usage.Wall = time.Since(began)
	r.wg.Wait()
	if err == nil && bootErr != nil && errors.Is(context.Cause(ctx), bootErr) {
		r.log.ErrorContext(ctx, "interpreter does not start", "run", r.spec.ID, "err", bootErr, "exit", exit.Code, "signal", exit.Signal)
		err = fmt.Errorf("the interpreter did not start: %w", bootErr)
	}
	return r.result(ctx, exit, err), nil
}

// awaitHello waits until the interpreter asks for its program.
func awaitHello(ctx context.Context, c Channel) error {
	if err := c.SetDeadline(time.Now().Add(bootTimeout)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	kind, payload, err := readFrame(c, 1)
	if err != nil {
		return fmt.Errorf("wait for interpreter: %w", err)
	}
	if kind != frameHello || len(payload) != 0 {
		return errors.New("the interpreter greets wrongly")
	}
	return nil
}

// begin waits until the interpreter asks for its program, and sends it.
func (r *run) begin(ctx context.Context) error {
	if !r.greeted {
		if err := awaitHello(ctx, r.jail.Control()); err != nil {
			return err
		}
	}
	c := r.jail.Control()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	if err := c.SetDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	program, err := r.dialect.request(r.spec)
	if err != nil {
		return err
	}
	if _, err := c.Write(program); err != nil {
		return fmt.Errorf("send program: %w", err)
	}
	// The rest is bounded by the wall clock, which ends the jail and so the channel.
	return c.SetDeadline(time.Time{})
}

// feed writes standard input. A program that does not read it ends the write
// by ending.
func (r *run) feed() {
	in := r.jail.Stdin()
	_, err := in.Write(r.spec.Stdin)
	err = errors.Join(err, in.Close())
	if err != nil && !errors.Is(err, os.ErrClosed) {
		r.log.Debug("program left its input", "run", r.spec.ID, "err", err)
	}
}

// finish makes sure that the jail is dead and no goroutine is left.
func (r *run) finish() {
	r.jail.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), abandonAfter)
	defer cancel()
	if _, err := r.jail.Wait(ctx); err != nil {
		r.log.Error("jail ended badly", "run", r.spec.ID, "err", err)
	}
	r.jail.Release()
	r.wg.Wait()
}

// capture keeps the first bytes of a stream and drains the rest.
type capture struct {
	stream  string
	limit   int64
	sink    func(stream string, offset int64, data []byte)
	flooded func()

	data      []byte
	truncated bool
}

// floodFactor is how many times its limit a program may print before it is
// ended. Up to there the surplus is only dropped.
const floodFactor = 4

func (c *capture) drain(r io.Reader) {
	buf := make([]byte, 32<<10)
	var seen int64
	for {
		n, err := r.Read(buf)
		if n > 0 {
			part := buf[:min(int64(n), c.limit-int64(len(c.data)))]
			if len(part) > 0 {
				off := int64(len(c.data))
				c.data = append(c.data, part...)
				if c.sink != nil {
					// A copy: the receiver may keep it, and it is not ours to change.
					c.sink(c.stream, off, append([]byte(nil), part...))
				}
			}
			c.truncated = c.truncated || len(part) < n
			if seen += int64(n); seen > floodFactor*c.limit && c.flooded != nil {
				c.flooded()
				c.flooded = nil
			}
		}
		if err != nil {
			return
		}
	}
}
