package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agenticraft/node/internal/durable"
)

// Names in the cache's folder, beside one folder per module, which is the root
// of its workers' jails: the helper, the module and the compiled code.
const (
	stagePrefix = ".stage-"
	versionName = "helper" // holds the digest of the helper that made the rest
	moduleName  = "module.wasm"
	codeName    = "code"
)

const (
	maxModule  = 64 << 20 // bytes
	maxModules = 256      // kept
)

// cache keeps compiled modules in a folder. Losing it costs time only. Its
// methods may be called concurrently.
type cache struct {
	cfg      Config
	building sync.WaitGroup // grows only while a run is under way
	serial   atomic.Uint64  // of compiling jails
	compiled *prometheus.CounterVec
	seconds  prometheus.Histogram

	mu      sync.Mutex // guards the rest
	flights map[string]*flight

	// moving is held while modules come and go.
	moving sync.Mutex
}

// flight is one compilation under way. err may be read after done.
type flight struct {
	done    chan struct{}
	err     error
	waiting int // who waits for it, guarded by the cache's mu
	giveUp  context.CancelFunc
}

// openCache opens the folder and empties it unless this build filled it.
func openCache(cfg Config) (*cache, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open module cache: %w", err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open module cache: %w", err)
	}
	c := &cache{
		cfg: cfg, flights: make(map[string]*flight),
		compiled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agenticraft_sandbox_wasm_modules_total",
			Help: "Modules wanted by whether their code was there (hit), was made (made) or could not be (bad).",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "agenticraft_sandbox_wasm_compile_seconds",
			Help:    "Time to compile a module, in a jail of its own.",
			Buckets: prometheus.ExponentialBuckets(0.004, 2, 14), // 4 ms to 33 s
		}),
	}
	version := filepath.Join(dir, versionName)
	made, err := os.ReadFile(version)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open module cache: %w", err)
	}
	same := string(made) == cfg.Spawner.HelperDigest()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open module cache: %w", err)
	}
	for _, e := range entries {
		if !same && e.Name() != versionName || strings.HasPrefix(e.Name(), stagePrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("clear module cache: %w", err)
			}
		}
	}
	if !same {
		if err := durable.WriteFile(version, []byte(cfg.Spawner.HelperDigest()), 0o644); err != nil {
			return nil, fmt.Errorf("open module cache: %w", err)
		}
	}
	return c, nil
}

func (c *cache) metrics() []prometheus.Collector {
	return []prometheus.Collector{c.compiled, c.seconds}
}

// root is the folder that the workers of a module have as their root.
func (c *cache) root(digest string) string { return filepath.Join(c.cfg.Dir, digest) }

// wait waits for what is still being compiled for those who have gone.
func (c *cache) wait() { c.building.Wait() }

// ensure has the module's code in its folder when it returns nil; fresh says
// that it was made now. A module that is no program gives a [*badModule].
// Several who want the same module at once wait for one compilation. One that
// came with a run ends with the last who waits for it; one of an operator's module
// goes on, for the next who wants it.
func (c *cache) ensure(ctx context.Context, m module) (fresh bool, err error) {
	root := c.root(m.digest)
	if _, err := os.Stat(root); err == nil {
		now := time.Now()
		_ = os.Chtimes(root, now, now) // only the order of going
		c.compiled.WithLabelValues("hit").Inc()
		return false, nil
	}
	c.mu.Lock()
	f := c.flights[m.digest]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.flights[m.digest] = f
		// Not the first caller's alone: who comes meanwhile waits for the same.
		building, giveUp := context.WithCancel(context.WithoutCancel(ctx))
		f.giveUp = giveUp
		c.building.Go(func() {
			defer giveUp()
			f.err = c.build(building, m)
			c.mu.Lock()
			c.forget(m, f)
			c.mu.Unlock()
			close(f.done)
		})
	}
	f.waiting++
	c.mu.Unlock()
	select {
	case <-f.done:
		return true, f.err
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.waiting--; f.waiting == 0 && m.uploaded() {
			c.forget(m, f)
			f.giveUp()
		}
		return false, context.Cause(ctx)
	}
}

// forget lets the next who wants the module begin anew. It is called with mu held.
func (c *cache) forget(m module, f *flight) {
	if c.flights[m.digest] == f {
		delete(c.flights, m.digest)
	}
}

// build compiles a module and puts it into the cache.
func (c *cache) build(ctx context.Context, m module) (err error) {
	began := time.Now()
	defer func() {
		c.seconds.Observe(time.Since(began).Seconds())
		result := "made"
		if err != nil {
			result = "bad"
		}
		c.compiled.WithLabelValues(result).Inc()
	}()
	stage, err := os.MkdirTemp(c.cfg.Dir, stagePrefix)
	if err != nil {
		return fmt.Errorf("compile module: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }() // moved away where all went well
	if err := os.Chmod(stage, 0o755); err != nil {
		return fmt.Errorf("compile module: %w", err)
	}
	size, err := m.place(filepath.Join(stage, moduleName))
	if err != nil {
		return err
	}
	if err := c.cfg.Spawner.PlaceHelper(stage); err != nil {
		return err
	}
	if err := c.compile(ctx, stage, m.size(size)); err != nil {
		return err
	}
	c.moving.Lock()
	defer c.moving.Unlock()
	if err := os.Rename(stage, c.root(m.digest)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep compiled module: %w", err)
	}
	c.evict(m.digest)
	return nil
}

// place writes the module to a file of its own and returns its size.
func (m module) place(name string) (int64, error) {
	if m.uploaded() {
		if len(m.content) > maxModule {
			return 0, &badModule{text: fmt.Sprintf("the module has more than %d bytes", int64(maxModule))}
		}
		return int64(len(m.content)), durable.WriteFile(name, m.content, 0o444)
	}
	in, err := os.Open(m.file)
	if err != nil {
		return 0, fmt.Errorf("read module: %w", err)
	}
	defer func() { _ = in.Close() }() // only read
	return copyTo(name, in, maxModule)
}

// copyTo writes what in holds, at most so many bytes, to a new file.
func copyTo(name string, in io.Reader, most int64) (_ int64, err error) {
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return 0, fmt.Errorf("write file: %w", err)
	}
	n, err := io.Copy(out, io.LimitReader(in, most+1))
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return n, fmt.Errorf("write file: %w", err)
	}
	if n > most {
		return n, fmt.Errorf("%s has more than %d bytes", filepath.Base(name), most)
	}
	return n, nil
}

// drop forgets a module's code.
func (c *cache) drop(digest string) error {
	c.moving.Lock()
	defer c.moving.Unlock()
	if err := os.RemoveAll(c.root(digest)); err != nil {
		return fmt.Errorf("drop compiled module: %w", err)
	}
	return nil
}

// evict takes away the modules that were not wanted for longest, until the rest
// fits. Workers that hold one keep what they have of it. It is called with
// moving held.
func (c *cache) evict(except string) {
	type kept struct {
		digest string
		used   time.Time
		bytes  int64
	}
	var all []kept
	var total int64
	entries, err := os.ReadDir(c.cfg.Dir)
	if err != nil {
		c.cfg.Log.Warn("cannot list compiled modules", "err", err)
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !isDigest(e.Name()) {
			continue
		}
		k := kept{digest: e.Name(), used: info.ModTime(), bytes: treeBytes(c.root(e.Name()))}
		total += k.bytes
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	for i, k := range all {
		if total <= c.cfg.CacheBytes && len(all)-i <= maxModules {
			return
		}
		if k.digest == except {
			continue
		}
		if err := os.RemoveAll(c.root(k.digest)); err != nil {
			c.cfg.Log.Warn("cannot drop a compiled module", "module", k.digest, "err", err)
		}
		total -= k.bytes
	}
}

// treeBytes is what a module's folder takes, without the helper, which is the
// same file for all.
func treeBytes(dir string) (n int64) {
	// What cannot be read is not counted.
	_ = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && e.Name() != "jail" {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
