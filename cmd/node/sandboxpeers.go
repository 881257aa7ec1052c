package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/restricted"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/wasm"
)

// Figures that goals are about.
const (
	pythonCold     = "python cold"
	pythonResult   = "python warm, result"
	starlarkWorker = "starlark"
	wasmWorker     = "wasm"
	bubblewrap     = "bubblewrap and python"
	dockerCold     = "docker cold"
	dockerWarm     = "docker warm"
	dockerRun      = "docker run"
	pythonRate     = "python, sustained"
	bareRate       = "python3 -I -S, sustained"
	forkBomb       = "fork bomb"
	wasmOverdue    = "wasm, past its deadline"
)

// barePython is what the runtime was copied from, not some wrapper earlier in
// PATH.
const barePython = "/usr/bin/python3"

// bench are the sandboxes of this machine, each as nodes use it.
type bench struct {
	store    *runtime.Store
	cold     *process.Backend
	warm     warmed
	many     *process.Backend // keeps enough jails for all cores
	starlark *restricted.Backend
	modules  *wasm.Backend
	docker   *dockerBench // nil: see missing

	closers []func() error
	missing []string
	serial  atomic.Uint64
}

// warmer is a backend in which something may wait for a run.
type warmer interface {
	sandbox.Backend
	AwaitWarm(ctx context.Context) error
}

// warmed is a backend whose runs each wait until a jail or container does.
type warmed struct{ warmer }

func openBench(ctx context.Context, s *jail.Spawner, cfg benchConfig) (_ *bench, err error) {
	b := &bench{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.store, err = runtime.Open(filepath.Join(cfg.dir, "runtimes")); err != nil {
		return nil, err
	}
	if _, err := b.store.AddPython(ctx, runtime.AddConfig{}); err != nil {
		return nil, fmt.Errorf("make python runtime: %w", err)
	}
	open := func(warm int) (*process.Backend, error) {
		p, err := process.New(process.Config{Spawner: s, Runtimes: b.store, Warm: warm})
		if err == nil {
			b.closers = append(b.closers, p.Close)
		}
		return p, err
	}
	if b.cold, err = open(0); err != nil {
		return nil, err
	}
	warm, err := open(1)
	if err != nil {
		return nil, err
	}
	b.warm = warmed{warm}
	if b.many, err = open(min(2*goruntime.NumCPU(), process.MaxWarm)); err != nil {
		return nil, err
	}
	if b.starlark, err = restricted.New(restricted.Config{Spawner: s}); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.starlark.Close)
	if b.modules, err = wasm.New(wasm.Config{Spawner: s, Dir: filepath.Join(cfg.dir, "modules")}); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.modules.Close)
	if b.docker, err = openDockerBench(ctx, cfg, b.store); err != nil {
		b.missing = append(b.missing, "docker: "+err.Error())
		err = nil
	} else {
		b.closers = append(b.closers, b.docker.close)
	}
	return b, nil
}

func (b *bench) close() error {
	var faults []error
	for _, c := range slices.Backward(b.closers) {
		faults = append(faults, c())
	}
	return errors.Join(faults...)
}

// The program of the Python figures, and one that prints once its result is on
// its way out: what is registered to be done at the exit is done after that.
const (
	benchProgram = "result = 6 * 7"
	afterResult  = "import atexit\natexit.register(lambda: print(1, flush=True))\nresult = 6 * 7"
)

func (b *bench) contenders(ctx context.Context) []contender {
	all := []contender{
		{name: pythonCold, note: "jail, interpreter, program, and the jail's end", run: b.program(b.cold, process.Python, benchProgram)},
	}
	if run, err := b.bubblewrap(ctx); err != nil {
		b.missing = append(b.missing, bubblewrap+": "+err.Error())
	} else {
		all = append(all, contender{name: bubblewrap, note: "the same tree and interpreter, with namespaces and no limits", run: run})
	}
	bare := command(nil, barePython, "-I", "-S", "-c", "import json")
	if _, err := bare(ctx); err != nil {
		b.missing = append(b.missing, barePython+": "+err.Error())
	} else {
		all = append(all, contender{name: "python3 -I -S", note: "the same interpreter with no jail", run: bare})
	}
	all = append(
		all,
		contender{name: "python warm", note: "in a jail that waited: program, and the jail's end", run: b.program(b.warm, process.Python, benchProgram)},
		contender{name: pythonResult, note: "in a jail that waited: from the code's way in until its result is out", run: b.firstOutput(b.warm, afterResult)},
		contender{name: starlarkWorker, note: "in a worker that ran this owner's program before", run: b.program(b.starlark, restricted.Language, benchProgram)},
		contender{name: wasmWorker, note: "a module that does nothing, in a worker that ran it before", run: b.module},
		contender{name: wasmOverdue, note: "an endless loop, from its deadline until its worker is gone", slow: true, run: b.overdue},
		contender{name: forkBomb, note: "from the kill until every process is gone", slow: true, run: b.forkBomb},
	)
	for _, l := range []struct {
		language, code string
		add            func(context.Context, runtime.AddConfig) (runtime.Runtime, error)
	}{
		{process.JavaScript, benchProgram, b.store.AddNode},
		{process.Shell, "expr 6 \\* 7 > result.json", b.store.AddShell},
	} {
		if _, err := l.add(ctx, runtime.AddConfig{}); err != nil {
			b.missing = append(b.missing, l.language+": "+err.Error())
			continue
		}
		all = append(all, contender{name: l.language + " cold", note: "jail, interpreter, program, and the jail's end", run: b.program(b.cold, l.language, l.code)})
	}
	if b.docker != nil {
		all = append(
			all,
			contender{name: dockerCold, note: "container, interpreter, program, and the container's end", slow: true, run: b.program(b.docker.cold, process.Python, benchProgram)},
			contender{name: dockerWarm, note: "in a container that waited: program, and the container's end", slow: true, run: b.program(warmed{b.docker.warm}, process.Python, benchProgram)},
		)
		if run, err := b.docker.run(ctx); err != nil {
			b.missing = append(b.missing, dockerRun+": "+err.Error())
		} else {
			all = append(all, contender{name: dockerRun, note: "the engine's own command, with the same image", slow: true, run: run})
		}
	}
	return all
}

func (b *bench) spec(language, code string) sandbox.Spec {
	return sandbox.Spec{
		ID: fmt.Sprintf("bench-%d", b.serial.Add(1)), Owner: "bench", Language: language,
		Code: []byte(code), Limits: sandbox.DefaultLimits(),
	}
}

// program measures one small program as a whole.
func (b *bench) program(on sandbox.Backend, language, code string) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		if err := awaitWarm(ctx, on); err != nil {
			return 0, err
		}
		began := time.Now()
		r, err := on.Run(ctx, b.spec(language, code), nil)
		return time.Since(began), expect42(r, err)
	}
}

// firstOutput measures from ready, after which the code goes in, to the first
// that the program prints.
func (b *bench) firstOutput(on sandbox.Backend, code string) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		if err := awaitWarm(ctx, on); err != nil {
			return 0, err
		}
		spec := b.spec(process.Python, code)
		var entered, first time.Time
		spec.Output = func(string, int64, []byte) {
			if first.IsZero() {
				first = time.Now()
			}
		}
		r, err := on.Run(ctx, spec, func(context.Context) error { entered = time.Now(); return nil })
		return first.Sub(entered), expect42(r, err)
	}
}

func awaitWarm(ctx context.Context, on sandbox.Backend) error {
	if w, ok := on.(warmed); ok {
		return w.AwaitWarm(ctx)
	}
	return nil
}

func expect42(r sandbox.Result, err error) error {
	if err == nil && string(r.Value) != "42" {
		err = fmt.Errorf("it ended as %s: %s", r.Status, r.Message)
	}
	return err
}

func (b *bench) module(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	r, err := b.modules.Run(ctx, wasm.Nothing("bench"), nil)
	if err == nil && r.Status != sandbox.OK {
		err = fmt.Errorf("it ended as %s: %s", r.Status, r.Message)
	}
	return time.Since(began), err
}

// overdue measures by how much a module outlives its deadline.
func (b *bench) overdue(ctx context.Context) (time.Duration, error) {
	spec := wasm.Endless("bench")
	spec.Limits.Wall = 200 * time.Millisecond
	r, err := b.modules.Run(ctx, spec, nil)
	took := r.Usage.Wall - spec.Limits.Wall // from the program's start to its worker's end
	if err == nil && r.Status != sandbox.Timeout {
		err = fmt.Errorf("it ended as %s: %s", r.Status, r.Message)
	}
	return took, err
}

// forkBomb measures from the end of a run that fills its jail with processes
// which go on forking until none of them is left.
func (b *bench) forkBomb(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	spec := b.spec(process.Python, "import os\nfull = False\nwhile True:\n  try:\n    os.fork()\n  except OSError:\n    if not full:\n      full = True\n      os.write(1, b'full\\n')\n")
	spec.Limits.Processes = 200
	var killed time.Time
	spec.Output = func(string, int64, []byte) {
		if killed.IsZero() {
			killed = time.Now()
			cancel()
		}
	}
	r, err := b.cold.Run(ctx, spec, nil)
	took := time.Since(killed)
	if err == nil && r.Status != sandbox.Cancelled {
		err = fmt.Errorf("it ended as %s: %s", r.Status, r.Message)
	}
	return took, err
}

// bubblewrap runs the same interpreter from the same tree in the namespaces of
// the usual tool.
func (b *bench) bubblewrap(ctx context.Context) (func(context.Context) (time.Duration, error), error) {
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		return nil, errors.New("not on this machine; run: apt-get install bubblewrap")
	}
	dir, _, argv, err := b.store.Select(process.Python, "")
	if err != nil {
		return nil, err
	}
	args := []string{"--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"}
	entries, err := filepath.Glob(dir + "/*")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		args = append(args, "--ro-bind", e, "/"+filepath.Base(e))
	}
	args = append(append(args, argv...), "-I", "-S", "-c", "import json\nprint(json.dumps(6 * 7))")
	run := command(nil, bwrap, args...)
	_, err = run(ctx)
	return run, err
}

// command measures one command as a whole.
func command(env []string, name string, args ...string) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), env...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		began := time.Now()
		err := cmd.Run()
		took := time.Since(began)
		if err != nil {
			const most = 300
			err = fmt.Errorf("%w: %.*s", err, most, out.String())
		}
		return took, err
	}
}

// sustainTurns is in how many turns those are measured that are about a rate.
const sustainTurns = 3

// sustained measures how many runs a second all cores together do.
func (b *bench) sustained(ctx context.Context, turn time.Duration) ([]figureView, error) {
	figures := []figureView{
		{Name: pythonRate, Note: "as many at once as there are cores, in jails that waited if there are any"},
		{Name: bareRate, Note: "the same interpreter with no jail, as many at once, importing json"},
	}
	runs := []func(context.Context) (time.Duration, error){
		b.program(b.many, process.Python, benchProgram), command(nil, barePython, "-I", "-S", "-c", "import json"),
	}
	if _, err := runs[1](ctx); err != nil {
		figures, runs = figures[:1], runs[:1]
	}
	elapsed := make([]time.Duration, len(runs))
	for range sustainTurns {
		for i, run := range runs {
			n, took, err := rate(ctx, turn, run)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", figures[i].Name, err)
			}
			figures[i].Runs += n
			elapsed[i] += took
		}
	}
	for i := range figures {
		figures[i].PerSecond = float64(figures[i].Runs) / elapsed[i].Seconds()
	}
	return figures, nil
}

// rate does the same over and over on all cores.
func rate(ctx context.Context, turn time.Duration, run func(context.Context) (time.Duration, error)) (int, time.Duration, error) {
	var done atomic.Int64
	faults := make([]error, goruntime.NumCPU())
	var wg sync.WaitGroup
	began := time.Now()
	for i := range faults {
		wg.Go(func() {
			for time.Since(began) < turn {
				if _, err := run(ctx); err != nil {
					faults[i] = err
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return int(done.Load()), time.Since(began), errors.Join(faults...)
}
