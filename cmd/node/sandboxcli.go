package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/restricted"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/wasm"
)

// probeView is what `sandbox probe` shows: this machine, as the caller's user.
type probeView struct {
	Tier     string            `json:"tier"`
	Reason   string            `json:"reason,omitempty"`
	Hint     string            `json:"hint,omitempty"`
	Cgroup   string            `json:"cgroup"`
	Features []featureView     `json:"features"`
	Enforces map[string]string `json:"enforces"`
}

// featureView is one thing that jails are made of. Answer is the kernel's own.
type featureView struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Answer string `json:"answer"`
	Cost   string `json:"cost,omitempty"` // of doing without
}

// costs says what a machine loses that lacks a feature.
var costs = map[string]string{
	"cgroup":        "memory, processes and CPU are held by resource limits and a watchdog: a burst is noticed up to 10 ms late (tier T2)",
	"cgroup_memory": "memory is held for each process by RLIMIT_AS and for all together by a watchdog; the working folder is not counted",
	"cgroup_cpu":    "CPU time is shared out by stopping and continuing processes every 100 ms",
	"cgroup_pids":   "processes are counted by RLIMIT_NPROC",
	"landlock":      "the file system is closed by mount namespaces alone",
	"user_ids":      "the worker has the user id of the jail's init and of the node: it may signal init, which ignores it",
	"jail":          "nothing that is not trusted can run in sandboxes process and restricted",
}

// withSpawner runs f with a spawner of its own in a folder that goes away.
func withSpawner(f func(s *jail.Spawner, dir string) error) (err error) {
	dir, err := os.MkdirTemp("", "agenticraft-sandbox-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Workers have users of their own, who must reach the language trees.
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	s, err := jail.Start(jail.Config{Node: fmt.Sprintf("cli-%d", os.Getpid()), Dir: filepath.Join(dir, "jails")})
	if err != nil {
		return fmt.Errorf("start jail helper: %w", err)
	}
	return errors.Join(f(s, dir), s.Close())
}

func (a *app) sandboxProbeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "probe", Short: "Show what this machine can enforce, the kernel's answer where it cannot, and what that costs", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			var view probeView
			err := withSpawner(func(s *jail.Spawner, _ string) error {
				view = probed(s.Probe())
				return nil
			})
			if err != nil {
				return failed("%v", err)
			}
			if a.json {
				a.print(view)
				return nil
			}
			fmt.Fprintf(a.stdout, "tier %s, control groups %s\n", view.Tier, view.Cgroup)
			for _, f := range view.Features {
				fmt.Fprintf(a.stdout, "  %-14s %s\n", f.Name, f.Answer)
				if f.Cost != "" {
					fmt.Fprintf(a.stdout, "  %-14s   without it: %s\n", "", f.Cost)
				}
			}
			for _, limit := range sortedKeys(view.Enforces) {
				fmt.Fprintf(a.stdout, "  %-14s held by %s\n", limit, view.Enforces[limit])
			}
			if view.Hint != "" {
				fmt.Fprintf(a.stdout, "hint: %s\n", view.Hint)
			}
			return nil
		},
	}
}

func probed(p jail.Probe) probeView {
	view := probeView{Tier: p.Tier, Reason: p.Reason, Hint: p.Hint, Cgroup: p.CgroupVersion, Enforces: p.Enforces, Features: []featureView{}}
	for _, name := range sortedKeys(p.Features) {
		f := featureView{Name: name, Answer: p.Features[name]}
		f.OK = f.Answer == "ok" || strings.HasPrefix(f.Answer, "ok ")
		if !f.OK {
			f.Cost = costs[name]
		}
		view.Features = append(view.Features, f)
	}
	return view
}

// figureView is one line of `sandbox bench`.
type figureView struct {
	Name string  `json:"name"`
	Runs int     `json:"runs"`
	Min  float64 `json:"min_ms"`
	P50  float64 `json:"p50_ms"`
	P95  float64 `json:"p95_ms"`
	Note string  `json:"note"`
}

func (a *app) sandboxBenchCommand() *cobra.Command {
	var runs int
	c := &cobra.Command{
		Use: "bench", Short: "Measure this machine's sandboxes beside an interpreter without one", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const most = 10_000
			if runs < 1 || runs > most {
				return usage("--runs must be from 1 to %d", most)
			}
			var figures []figureView
			err := withSpawner(func(s *jail.Spawner, dir string) (err error) {
				figures, err = measure(cmd.Context(), s, dir, runs)
				return err
			})
			if err != nil {
				return failed("%v", err)
			}
			if a.json {
				a.print(map[string]any{"figures": figures})
				return nil
			}
			for _, f := range figures {
				fmt.Fprintf(a.stdout, "%-24s p50 %8.2f ms  p95 %8.2f ms  min %8.2f ms  %s\n", f.Name, f.P50, f.P95, f.Min, f.Note)
			}
			return nil
		},
	}
	c.Flags().IntVar(&runs, "runs", 50, "runs of each kind")
	return c
}

// contender is one thing that is measured. It returns what a run took.
type contender struct {
	name, note string
	run        func(ctx context.Context) (time.Duration, error)
}

// measure runs the contenders in turn, so that all see the same machine.
func measure(ctx context.Context, s *jail.Spawner, dir string, runs int) (_ []figureView, err error) {
	store, err := runtime.Open(filepath.Join(dir, "runtimes"))
	if err != nil {
		return nil, err
	}
	if _, err := store.AddPython(ctx, runtime.AddConfig{}); err != nil {
		return nil, fmt.Errorf("make python runtime: %w", err)
	}
	cold, err := process.New(process.Config{Spawner: s, Runtimes: store})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cold.Close()) }()
	warm, err := process.New(process.Config{Spawner: s, Runtimes: store, Warm: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, warm.Close()) }()
	starlark, err := restricted.New(restricted.Config{Spawner: s})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, starlark.Close()) }()
	modules, err := wasm.New(wasm.Config{Spawner: s, Dir: filepath.Join(dir, "modules")})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, modules.Close()) }()

	all := []contender{
		{"python cold", "jail, interpreter, program, and the jail's end", program(cold, process.Python, "")},
		{"python warm", "in a jail that waited: program, and the jail's end", program(warmed{warm}, process.Python, "")},
		{"python warm, first output", "from the code's way in to its first line", program(warmed{warm}, process.Python, "print(1, flush=True)\n")},
		{"starlark", "in a worker that ran this owner's program before", program(starlark, restricted.Language, "")},
		{"wasm", "a module that does nothing, in a worker that ran it before", func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			r, err := modules.Run(ctx, wasm.Nothing("bench"), nil)
			if err == nil && r.Status != sandbox.OK {
				err = fmt.Errorf("it ended as %s: %s", r.Status, r.Message)
			}
			return time.Since(began), err
		}},
	}
	for language, add := range map[string]func(context.Context, runtime.AddConfig) (runtime.Runtime, error){
		process.JavaScript: store.AddNode, process.Shell: store.AddShell,
	} {
		if _, err := add(ctx, runtime.AddConfig{}); err == nil { // else this machine has none
			all = append(all, contender{language + " cold", "jail, interpreter, program, and the jail's end", program(cold, language, "")})
		}
	}
	const python = "/usr/bin/python3" // what the runtime was copied from, not some wrapper earlier in PATH
	if py, err := exec.LookPath(python); err == nil {
		all = append(all, contender{"python3 -I -S", "the same interpreter with no jail", func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			err := exec.CommandContext(ctx, py, "-I", "-S", "-c", "import json").Run()
			return time.Since(began), err
		}})
	}
	took := make([][]time.Duration, len(all))
	for range runs {
		for i, c := range all {
			d, err := c.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			took[i] = append(took[i], d)
		}
	}
	var out []figureView
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	for i, c := range all {
		slices.Sort(took[i])
		out = append(out, figureView{Name: c.name, Runs: runs, Note: c.note, Min: ms(took[i][0]), P50: ms(took[i][runs/2]), P95: ms(took[i][runs*95/100])})
	}
	return out, nil
}

// warmed is a backend whose runs each wait until a jail does.
type warmed struct{ *process.Backend }

// program measures one small program on b. One that prints is measured from
// ready, after which the code goes in, to its first output; the others whole.
func program(b sandbox.Backend, language, prints string) func(context.Context) (time.Duration, error) {
	serial := 0
	return func(ctx context.Context) (time.Duration, error) {
		serial++
		spec := sandbox.Spec{
			ID: fmt.Sprintf("bench-%d", serial), Owner: "bench", Language: language,
			Code: []byte(prints + "result = 6 * 7"), Limits: sandbox.DefaultLimits(),
		}
		if language == process.Shell {
			spec.Code = []byte("expr 6 \\* 7 > result.json")
		}
		var entered, first time.Time
		spec.Output = func(string, int64, []byte) {
			if first.IsZero() {
				first = time.Now()
			}
		}
		if w, ok := b.(warmed); ok {
			if err := w.AwaitWarm(ctx); err != nil {
				return 0, err
			}
		}
		began := time.Now()
		r, err := b.Run(ctx, spec, func(context.Context) error { entered = time.Now(); return nil })
		took := time.Since(began)
		switch {
		case err != nil:
			return 0, err
		case string(r.Value) != "42":
			return 0, fmt.Errorf("it ended as %s: %s", r.Status, r.Message)
		case prints != "":
			return first.Sub(entered), nil
		}
		return took, nil
	}
}
