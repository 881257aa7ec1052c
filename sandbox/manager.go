package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Auto is the backend name that lets the manager choose.
const Auto = "auto"

// ManagerConfig configures a [Manager].
type ManagerConfig struct {
	// Backends by the name under which callers ask for them. The manager owns
	// them from now on: Close closes them.
	Backends map[string]Backend
	// Default is the backend that "auto" tries first for every language it
	// offers; "" and "auto" leave the choice to Order.
	Default string
	// Order names, by language, the backends that "auto" tries, best first. A
	// language without an entry tries every backend that offers it, by name.
	// Its keys are also the languages that the manager calls known.
	Order map[string][]string
	// Defaults replace limits that a spec leaves at zero; a field left at zero
	// here means [DefaultLimits].
	Defaults Limits
	// Max caps every limit; a field left at zero means [MaxLimits].
	Max Limits
	// Slots is how many programs run at once; default twice the number of
	// cores and at least 4.
	Slots int
	// Queue is how many runs wait for a slot at most; default 16 for each
	// slot, negative for none.
	Queue int
	// Wait is the longest time in the queue; default 4 s.
	Wait time.Duration
	// Log receives what operators should see; default: nothing.
	Log *slog.Logger
}

// Manager runs programs on the backends of one node: it checks and completes
// the spec, chooses the backend, and shares a bounded number of slots fairly
// between owners. All its methods may be called concurrently.
type Manager struct {
	cfg     ManagerConfig
	queue   *queue
	metrics *metrics

	stop    context.Context // done when Close begins
	closing context.CancelCauseFunc

	// mu guards closed and active, and so the growth of running.
	mu      sync.Mutex
	closed  bool
	active  map[string]bool // ids of admitted runs
	running sync.WaitGroup

	closeOnce sync.Once
	closeErr  error
}

// Load is how busy a manager is.
type Load struct {
	Slots  int `json:"slots"`
	Busy   int `json:"busy"`
	Queued int `json:"queued"`
}

// BusyError refuses a run because every slot is taken and the queue is full,
// or because no slot came free in time. It wraps [ErrBusy].
type BusyError struct {
	RetryAfter time.Duration // when a slot can be expected, from recent run times
}

// Error implements error.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%v: retry in %v", ErrBusy, e.RetryAfter)
}

// Unwrap makes errors.Is(err, ErrBusy) true.
func (e *BusyError) Unwrap() error { return ErrBusy }

// NewManager makes a manager from cfg and reports every fault of cfg at once.
func NewManager(cfg ManagerConfig) (*Manager, error) {
	var faults []error
	for name, b := range cfg.Backends {
		if !isName(name) || name == Auto {
			faults = append(faults, fmt.Errorf("backend name %q is not usable", name))
		}
		if b == nil {
			faults = append(faults, fmt.Errorf("backend %q is nil", name))
		}
	}
	if cfg.Default == Auto {
		cfg.Default = ""
	}
	if cfg.Default != "" && cfg.Backends[cfg.Default] == nil {
		faults = append(faults, fmt.Errorf("default sandbox %q does not exist: there is %s", cfg.Default, listed(slices.Sorted(maps.Keys(cfg.Backends)))))
	}
	cfg.Defaults = cfg.Defaults.Or(DefaultLimits())
	cfg.Max = cfg.Max.Or(MaxLimits())
	if err := errors.Join(cfg.Defaults.check("default"), cfg.Max.check("maximum")); err != nil {
		faults = append(faults, err)
	}
	if cfg.Slots < 0 || cfg.Wait < 0 {
		faults = append(faults, errors.New("slots and wait must not be negative"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("sandbox manager: %w", err)
	}
	if cfg.Slots == 0 {
		cfg.Slots = max(4, 2*runtime.GOMAXPROCS(0))
	}
	switch {
	case cfg.Queue == 0:
		cfg.Queue = 16 * cfg.Slots
	case cfg.Queue < 0:
		cfg.Queue = 0
	}
	if cfg.Wait == 0 {
		cfg.Wait = 4 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Backends = maps.Clone(cfg.Backends)
	m := &Manager{cfg: cfg, queue: newQueue(cfg.Slots, cfg.Queue), active: make(map[string]bool)}
	m.stop, m.closing = context.WithCancelCause(context.Background())
	m.metrics = newMetrics(m.queue)
	return m, nil
}

// Run runs one program on the named backend ("" and "auto" let the manager
// choose) and returns after every process of it is gone. Before it waits for a
// slot it checks the spec (errors wrap [ErrSpec] or [ErrUnavailable]), gives it
// an ID if it has none, and replaces zero limits by the defaults and excessive
// ones by the maximum. A full queue is a [BusyError].
//
// ready is called at most once, as [Backend.Run] says. A ctx that ends before
// the program started, even in the queue, gives a Result with [Cancelled] like
// one that ends later.
func (m *Manager) Run(ctx context.Context, backend string, spec Spec, ready func(context.Context) error) (Result, error) {
	spec, err := m.complete(spec)
	if err != nil {
		m.metrics.refused.WithLabelValues("bad_run").Inc()
		return Result{}, err
	}
	name, err := m.Resolve(backend, spec.Language, spec.needs())
	if err != nil {
		m.metrics.refused.WithLabelValues("unavailable").Inc()
		return Result{}, err
	}
	offers := m.cfg.Backends[name].Describe()
	if len(spec.Network) > 0 && !offers.Egress {
		m.metrics.refused.WithLabelValues("unavailable").Inc()
		return Result{}, fmt.Errorf("%w: %s in the sandbox %s has no network; ask for none", ErrUnavailable, spec.Language, name)
	}
	if err := m.enter(spec.ID); err != nil {
		return Result{}, err
	}
	defer m.leave(spec.ID)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(m.stop, func() { cancel(ErrClosed) })()

	if err := m.queue.acquire(ctx, spec.Owner, m.cfg.Wait); err != nil {
		switch {
		case m.stop.Err() != nil:
			return Result{}, ErrClosed
		case ctx.Err() != nil:
			return Result{Status: Cancelled, ExitCode: 130, Message: "cancelled while waiting for a slot"}, nil
		}
		m.metrics.refused.WithLabelValues("busy").Inc()
		return Result{}, err
	}
	if m.stop.Err() != nil {
		m.queue.release(0) // the slot of a run that Close ended
		return Result{}, ErrClosed
	}
	slot := &slot{queue: m.queue, owner: spec.Owner, since: time.Now()}
	if offers.Bare && ready != nil {
		ready = slot.lentWhile(ready)
	}
	result, err := m.cfg.Backends[name].Run(ctx, spec, ready)
	elapsed := slot.release()
	if err != nil {
		m.metrics.refused.WithLabelValues("backend").Inc()
		return Result{}, fmt.Errorf("sandbox %s: %w", name, err)
	}
	// INVARIANT: I6, a backend that ran a program without a required limit
	// broke its promise; its result must not pass for a good one.
	for _, limit := range spec.Required {
		if result.Enforced[limit] == "" && result.Status != Cancelled && result.Status != Internal {
			m.cfg.Log.ErrorContext(ctx, "a required limit was not enforced", "run", spec.ID, "sandbox", name, "limit", limit)
			result.Status, result.ExitCode, result.Value = Internal, 1, nil
			result.ErrorCode, result.Message = "internal", "the required limit "+limit+" was not enforced"
		}
	}
	m.metrics.runs.WithLabelValues(name, string(result.Status)).Inc()
	m.metrics.seconds.WithLabelValues(name).Observe(elapsed.Seconds())
	return result, nil
}

// Resolve says which backend a request for backend ("" and "auto" included),
// language and runtime ("" for any, else a name or digest) would run on now. An error wraps [ErrSpec] if the backend or
// the language is unknown, or [ErrUnavailable], and says what exists and what
// would mend it.
func (m *Manager) Resolve(backend, language, runtime string) (string, error) {
	all := make(map[string]Description, len(m.cfg.Backends))
	for name, b := range m.cfg.Backends {
		all[name] = b.Describe()
	}
	offers := func(name string) bool {
		d, exists := all[name]
		return exists && d.Available && slices.Contains(d.Languages, language) && (runtime == "" || slices.Contains(d.Named, runtime))
	}
	var tried []string
	switch backend {
	case "", Auto:
		if m.cfg.Default != "" && offers(m.cfg.Default) {
			return m.cfg.Default, nil
		}
		order, known := m.cfg.Order[language]
		if !known {
			order = slices.Sorted(maps.Keys(all))
		}
		for _, name := range order {
			if offers(name) {
				return name, nil
			}
		}
		tried = order
	default:
		if _, exists := all[backend]; !exists {
			return "", fmt.Errorf("%w: sandbox %q does not exist; this node has %s", ErrSpec, backend, listed(slices.Sorted(maps.Keys(all))))
		}
		if offers(backend) {
			return backend, nil
		}
		tried = []string{backend}
	}
	return "", m.unavailable(language, runtime, tried, all)
}

// Describe returns what each backend offers now, sorted by name.
func (m *Manager) Describe() []Description {
	var all []Description
	for _, name := range slices.Sorted(maps.Keys(m.cfg.Backends)) {
		d := m.cfg.Backends[name].Describe()
		d.Name = name
		all = append(all, d)
	}
	return all
}

// Load returns how busy the manager is now.
func (m *Manager) Load() Load { return m.queue.load() }

// Metrics returns the collectors of the manager and of those backends that
// have some, to be registered once.
func (m *Manager) Metrics() []prometheus.Collector {
	all := m.metrics.collectors()
	for _, name := range slices.Sorted(maps.Keys(m.cfg.Backends)) {
		if b, ok := m.cfg.Backends[name].(interface{ Metrics() []prometheus.Collector }); ok {
			all = append(all, b.Metrics()...)
		}
	}
	return all
}

// Close refuses new runs, kills the running ones, waits for them and closes
// the backends. Later calls wait for the first and return the same error.
func (m *Manager) Close() error {
	m.closeOnce.Do(func() {
		m.mu.Lock()
		m.closed = true
		m.mu.Unlock()
		m.closing(ErrClosed)
		m.running.Wait()
		for _, name := range slices.Sorted(maps.Keys(m.cfg.Backends)) {
			if err := m.cfg.Backends[name].Close(); err != nil {
				m.closeErr = errors.Join(m.closeErr, fmt.Errorf("close sandbox %s: %w", name, err))
			}
		}
	})
	return m.closeErr
}

// complete checks spec and fills in what it leaves open.
func (m *Manager) complete(spec Spec) (Spec, error) {
	if spec.ID == "" {
		var id [12]byte
		rand.Read(id[:]) // never fails
		spec.ID = "run-" + hex.EncodeToString(id[:])
	}
	if err := spec.Validate(); err != nil {
		return Spec{}, err
	}
	spec.Limits = spec.Limits.Or(m.cfg.Defaults).clamp(m.cfg.Max)
	if err := spec.checkLimits(); err != nil {
		return Spec{}, err
	}
	return spec, nil
}

// enter registers a run, so that Close waits for it and no second run uses its
// id, which names its cgroups and folders.
func (m *Manager) enter(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	if m.active[id] {
		return fmt.Errorf("%w: a run with the id %s is already active", ErrSpec, id)
	}
	m.active[id] = true
	m.running.Add(1)
	return nil
}

func (m *Manager) leave(id string) {
	m.mu.Lock()
	delete(m.active, id)
	m.mu.Unlock()
	m.running.Done()
}

// unavailable explains why none of the tried backends can run language.
func (m *Manager) unavailable(language, runtime string, tried []string, all map[string]Description) error {
	exist := make(map[string]bool)
	known := m.cfg.Order[language] != nil
	for _, d := range all {
		for _, l := range d.Languages {
			known = known || l == language
			if d.Available {
				exist[l] = true
			}
		}
	}
	languages := slices.Sorted(maps.Keys(exist))
	if !known {
		for l := range m.cfg.Order {
			exist[l] = true
		}
		return fmt.Errorf("%w: unknown language %q; this node knows %s", ErrSpec, language, listed(slices.Sorted(maps.Keys(exist))))
	}
	var why []string
	for _, name := range tried {
		d, exists := all[name]
		switch {
		case !exists:
			why = append(why, "sandbox "+name+" does not exist here")
		case !d.Available:
			text := "sandbox " + name + " is unavailable"
			if d.Reason != "" {
				text += ": " + strings.TrimPrefix(d.Reason, ErrUnavailable.Error()+": ")
			}
			if !strings.Contains(text, d.Hint) {
				text += "; " + d.Hint
			}
			why = append(why, text)
		case runtime != "" && slices.Contains(d.Languages, language):
			why = append(why, fmt.Sprintf("sandbox %s has no runtime %.80q", name, runtime))
		case d.Hint != "":
			why = append(why, "sandbox "+name+" has no "+language+"; "+d.Hint)
		case name == WASM:
			why = append(why, "sandbox "+name+" has no module for "+language+"; run: agenticraft runtime add FILE.wasm --language "+language)
		case hasRuntime[language] && name != "restricted":
			why = append(why, "sandbox "+name+" has no "+language+" runtime; run: agenticraft runtime add "+source(language))
		default:
			why = append(why, "sandbox "+name+" does not run "+language)
		}
	}
	return fmt.Errorf("%w: %s cannot run here; this node runs %s; %s", ErrUnavailable, language, listed(languages), strings.Join(why, "; "))
}

// hasRuntime names the languages that "agenticraft runtime add" can install.
var hasRuntime = map[string]bool{"python": true, "javascript": true, "sh": true}

// source is what "runtime add" calls that which runs a language.
func source(language string) string {
	if language == "javascript" {
		return "node"
	}
	return language
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
