//go:build linux

package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/process"
)

const (
	// DefaultSocket is where an engine listens unless told otherwise.
	DefaultSocket = "/var/run/docker.sock"
	// label marks the containers of a node, with the node's name.
	label = "dev.agenticraft.node"

	callTimeout   = 20 * time.Second // of one call that makes or removes a container
	killTimeout   = 5 * time.Second  // from a kill to the engine's word of the end
	maxRemoving   = 8                // ended containers that the engine is removing
	probeTimeout  = 2 * time.Second
	importTimeout = 5 * time.Minute
	probeEvery    = 10 * time.Second
	suspectFor    = 2 * time.Second // until the next probe, after the engine failed
	// tier is that of a container: the engine's namespaces and control groups and
	// the jail's table of system calls, but neither Landlock nor user ids of its own.
	tier = "T3"
)

// Config of a [Backend].
type Config struct {
	Node     string // names the node's containers; one node of that name per engine
	Dir      string // state folder, made if missing; the engine must see it under the same path
	Socket   string // of the engine; default [DefaultSocket]
	Runtimes process.Runtimes
	Log      *slog.Logger
	// Images are those to use instead of the node's own trees: language -> name or
	// digest, as the engine knows it. It must hold the interpreter on the usual path,
	// python3, node, or sh and head, and is pulled if the engine lacks it.
	Images map[string]string
	// Warm is how many complete containers wait for a run of Python, each used once,
	// from the first run on; default none, at most [MaxWarm]. Unless it is none, one
	// waits for a run of JavaScript too, from the first of those on. WarmLimits are
	// their limits.
	Warm       int
	WarmLimits sandbox.Limits
	// Egress connects programs that may reach a network; nil: none may.
	Egress *egress.Gateway
	// Helper is the jail helper's executable; default: the embedded one. Tests pass
	// one that they have built.
	Helper []byte
}

// Backend is the backend "docker". Its methods may be called concurrently.
type Backend struct {
	cfg      Config
	api      *client.Client
	profiles map[bool]string // of system calls, as JSON, without and with a network

	ctx     context.Context // done when closed
	stop    context.CancelFunc
	wg      sync.WaitGroup // runs, probes and removals
	tending sync.WaitGroup // of the pool

	importing sync.Mutex       // one image at a time
	removing  chan struct{}    // holds one for each container that is being removed
	pools     map[string]*pool // by language
	counts    *poolMetrics

	mu      sync.Mutex // guards the rest
	closed  bool
	probed  time.Time
	probing bool
	reason  string // why the engine cannot be used, or ""
	hint    string
	swept   bool
	enforce map[string]string
	runtime string // of the engine, for containers; "" is its default
}

var _ sandbox.Backend = (*Backend)(nil)

// New returns a backend for the engine. That there is none, or that it does not
// answer, is no error: Describe says so, and finds out when that changes.
func New(cfg Config) (*Backend, error) {
	var faults []error
	if cfg.Node == "" || cfg.Dir == "" || cfg.Runtimes == nil {
		faults = append(faults, errors.New("docker backend: Node, Dir or Runtimes is missing"))
	}
	for language := range cfg.Images {
		if !slices.Contains(languages(), language) {
			faults = append(faults, fmt.Errorf("docker backend: no image can be named for %q; this backend speaks %s", language, strings.Join(languages(), ", ")))
		}
	}
	if cfg.Warm < 0 || cfg.Warm > MaxWarm {
		faults = append(faults, fmt.Errorf("docker backend: Warm is not 0 to %d", MaxWarm))
	}
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if !filepath.IsAbs(cfg.Socket) {
		faults = append(faults, fmt.Errorf("docker backend: Socket %q is not an absolute path", cfg.Socket))
	}
	profiles := make(map[bool]string)
	for _, networked := range []bool{false, true} {
		text, err := encodedProfile(networked)
		faults, profiles[networked] = append(faults, err), text
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("find state folder: %w", err)
	}
	// What runs of an earlier life left there is of no use.
	unmountWork(cfg.Dir)
	if err := errors.Join(os.RemoveAll(cfg.Dir), os.MkdirAll(cfg.Dir, 0o700)); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	if err := writeHelpers(cfg); err != nil {
		return nil, err
	}
	api, err := client.NewClientWithOpts(client.WithHost("unix://"+cfg.Socket), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("make engine client: %w", err)
	}
	b := &Backend{cfg: cfg, api: api, profiles: profiles, removing: make(chan struct{}, maxRemoving), counts: newPoolMetrics()}
	b.pools = map[string]*pool{
		process.Python: b.newPool(process.Python, cfg.Warm), process.JavaScript: b.newPool(process.JavaScript, min(cfg.Warm, 1)),
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.probe()
	if cfg.Warm > 0 {
		for _, p := range b.pools {
			b.tending.Go(func() { p.tend(b.ctx) })
		}
	}
	return b, nil
}

// Describe implements [sandbox.Backend]. It never waits for the engine.
func (b *Backend) Describe() sandbox.Description {
	b.mu.Lock()
	if !b.closed && !b.probing && time.Since(b.probed) > probeEvery {
		b.probing = true
		b.wg.Go(b.probe)
	}
	d := sandbox.Description{Name: "docker", Reason: b.reason, Hint: b.hint, Enforces: maps.Clone(b.enforce)}
	enters := b.runtime != gVisor && os.Geteuid() == 0 // who else may not enter a container's network
	b.mu.Unlock()
	if d.Reason != "" {
		d.Enforces = nil
		return d
	}
	d.Tier = tier
	d.Runtimes = make(map[string]string)
	for _, language := range languages() {
		digest := b.cfg.Images[language]
		if digest == "" {
			var err error
			if _, digest, _, err = b.cfg.Runtimes.Select(language, ""); err != nil {
				if d.Reason == "" {
					d.Reason, d.Hint = err.Error(), "agenticraft runtime add python"
				}
				continue
			}
		}
		d.Languages, d.Runtimes[language] = append(d.Languages, language), digest
	}
	if d.Available = len(d.Languages) > 0; d.Available {
		d.Reason, d.Hint = "", ""
		d.Named = b.cfg.Runtimes.Named(d.Languages...)
		d.Egress = b.cfg.Egress != nil && enters
		slices.Sort(d.Languages)
	}
	return d
}

// languages are those of package process, as far as their results can be had: a
// shell's is a file, which only root can take out of a container.
func languages() []string {
	all := process.Languages()
	if os.Geteuid() != 0 {
		all = slices.DeleteFunc(all, func(l string) bool { return l == process.Shell })
	}
	return all
}

// probe asks the engine what it can do, and removes what an earlier life of
// this node left in it.
func (b *Backend) probe() {
	ctx, cancel := context.WithTimeout(b.ctx, probeTimeout)
	defer cancel()
	enforce, runtime, err := b.ask(ctx)
	b.mu.Lock()
	b.runtime = runtime
	b.probed, b.probing, b.reason, b.hint = time.Now(), false, "", ""
	b.enforce = enforce
	sweep := err == nil && !b.swept
	b.swept = b.swept || sweep
	if err != nil {
		b.reason = cut("the Docker engine at " + b.cfg.Socket + " cannot be used: " + err.Error())
		b.hint = "start the engine, or set docker_socket to where it listens"
	}
	b.mu.Unlock()
	if sweep {
		b.sweep()
	}
}

// suspect notes that the engine did not do what it was asked: it is unavailable
// until the next probe, which comes soon, says otherwise.
func (b *Backend) suspect(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reason = cut("the Docker engine at " + b.cfg.Socket + " does not answer: " + err.Error())
	b.hint = "it is asked again in a moment"
	b.probed = time.Now().Add(suspectFor - probeEvery)
}

// gVisor is the runtime with a kernel of its own, which is used where an engine
// has it, started with hostPipes: without that a container's named pipes do not
// lead to the node.
const (
	gVisor    = "runsc"
	hostPipes = "--host-fifo=open"
)

// What gVisor's own kernel changes: its network is not the one that the node could
// enter, and unless it is told it applies no table of system calls.
const engineSeccomp = "--oci-seccomp"

// runtimeOf is which runtime of an engine containers get; "" is its default.
func runtimeOf(info system.Info) string {
	if r, offered := info.Runtimes[gVisor]; offered && slices.Contains(r.Args, hostPipes) {
		return gVisor
	}
	return ""
}

// ask returns what of the limits the engine holds, and which of its runtimes to
// use.
func (b *Backend) ask(ctx context.Context) (enforces map[string]string, runtime string, err error) {
	if _, err := os.Stat(b.cfg.Socket); err != nil {
		return nil, "", err
	}
	info, err := b.api.Info(ctx)
	if ctx.Err() != nil {
		return nil, "", fmt.Errorf("no answer within %v", probeTimeout)
	}
	if err != nil {
		return nil, "", err
	}
	if info.OSType != "linux" {
		return nil, "", fmt.Errorf("it runs %s containers, not linux ones", info.OSType)
	}
	runtime = runtimeOf(info)
	m := map[string]string{
		sandbox.LimitFileSize: "rlimit_fsize",
		sandbox.LimitFiles:    "mountns",
		sandbox.LimitNetwork:  "netns+seccomp",
		sandbox.LimitWall:     "monitor",
		sandbox.LimitOutput:   "monitor",
	}
	group := "cgroup" + info.CgroupVersion
	for limit, held := range map[string]bool{
		sandbox.LimitMemory: info.MemoryLimit, sandbox.LimitProcesses: info.PidsLimit, sandbox.LimitCPUPercent: info.CPUCfsQuota,
	} {
		if held {
			m[limit] = group
		}
	}
	for _, option := range info.SecurityOptions {
		if strings.Contains(option, "seccomp") {
			m[sandbox.LimitSyscalls] = "seccomp"
		}
	}
	if m[sandbox.LimitSyscalls] == "" {
		return nil, "", errors.New("it was built without seccomp")
	}
	if runtime == gVisor {
		m[sandbox.LimitSyscalls], m[sandbox.LimitNetwork], m[sandbox.LimitFileSize] = "gvisor", "netns+gvisor", "gvisor"
		delete(m, sandbox.LimitProcesses) // the engine counts its kernel's threads, too
		if slices.Contains(info.Runtimes[gVisor].Args, engineSeccomp) {
			m[sandbox.LimitSyscalls] = "gvisor+seccomp"
		}
	}
	return m, runtime, nil
}

// sweep removes the node's containers.
func (b *Backend) sweep() {
	ctx, cancel := context.WithTimeout(b.ctx, callTimeout)
	defer cancel()
	list, err := b.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label+"="+b.cfg.Node))})
	if err != nil {
		b.cfg.Log.Warn("cannot list left containers", "err", err)
		return
	}
	for _, c := range list {
		if err := b.api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}); err != nil {
			b.cfg.Log.Warn("cannot remove a left container", "container", c.ID, "err", err)
		}
	}
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
	d := b.Describe()
	if !d.Available {
		return sandbox.Result{}, fmt.Errorf("%w: %s", sandbox.ErrUnavailable, d.Reason)
	}
	if !slices.Contains(d.Languages, spec.Language) {
		return sandbox.Result{}, fmt.Errorf("%w: the docker backend does not speak %.40q", sandbox.ErrUnavailable, spec.Language)
	}
	if len(spec.Network) > 0 && !d.Egress {
		return sandbox.Result{}, fmt.Errorf("%w: %s: only a node that runs as root gives containers a way out, and none to those of gVisor", sandbox.ErrUnenforceable, sandbox.LimitNetwork)
	}
	// INVARIANT: I6, a limit that cannot be enforced refuses the run.
	for _, limit := range spec.Required {
		if d.Enforces[limit] == "" {
			return sandbox.Result{}, fmt.Errorf("%w: %s: the Docker engine has no means to enforce it", sandbox.ErrUnenforceable, limit)
		}
	}
	spec, err := process.Complete(spec)
	if err != nil {
		return sandbox.Result{}, err
	}
	c, digest, err := b.obtain(ctx, spec, d.Enforces)
	if err != nil {
		if ctx.Err() != nil {
			return sandbox.Result{Status: sandbox.Cancelled, ExitCode: 130, Message: "cancelled before it started"}, nil
		}
		return sandbox.Result{}, err
	}
	defer b.pools[spec.Language].kick()
	res, err := process.Execute(ctx, spec, c, b.cfg.Log, ready)
	res.Tier, res.Runtime = d.Tier, digest
	return res, err
}

// obtain is a container for a run: one that waits, or a new one.
func (b *Backend) obtain(ctx context.Context, spec sandbox.Spec, enforced map[string]string) (*contained, string, error) {
	from, err := b.source(ctx, spec)
	if err != nil {
		return nil, "", err
	}
	if c := b.pools[spec.Language].claim(ctx, from, spec); c != nil {
		return c, from.digest, nil
	}
	c, err := b.start(ctx, spec, from, enforced)
	return c, from.digest, err
}

func (b *Backend) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("docker backend: %w", sandbox.ErrClosed)
	}
	b.wg.Add(1)
	return nil
}

// Close implements [sandbox.Backend].
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.tending.Wait()
	for _, p := range b.pools {
		p.close()
	}
	b.wg.Wait()
	if err := b.api.Close(); err != nil {
		return fmt.Errorf("close engine client: %w", err)
	}
	return nil
}

// cut keeps what the engine says short.
func cut(s string) string {
	const most = 500 // bytes
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
