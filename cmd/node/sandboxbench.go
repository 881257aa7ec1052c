package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/sandbox/jail"
)

// benchView is what `sandbox bench` shows.
type benchView struct {
	Figures []figureView `json:"figures"`
	Goals   []goalView   `json:"goals"`
	Missing []string     `json:"missing"` // what could not be measured here, and why
}

// figureView is one thing that was measured: what one run takes, or how many
// runs a second are done.
type figureView struct {
	Name      string  `json:"name"`
	Runs      int     `json:"runs"`
	Min       float64 `json:"min_ms,omitempty"`
	P50       float64 `json:"p50_ms,omitempty"`
	P95       float64 `json:"p95_ms,omitempty"`
	PerSecond float64 `json:"runs_per_second,omitempty"`
	Note      string  `json:"note"`
}

// goalView compares a figure with what it should be. Missing a goal fails nothing.
type goalView struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`            // "ms", or "x": times that of the peer
	Most  float64 `json:"most,omitempty"`  // the goal is at most this,
	Least float64 `json:"least,omitempty"` // or, if Most is 0, at least this
	Got   float64 `json:"got"`
	Met   bool    `json:"met"`
}

func (a *app) sandboxBenchCommand() *cobra.Command {
	cfg := benchConfig{socket: defaultDocker, sustain: time.Second}
	c := &cobra.Command{
		Use: "bench", Short: "Measure this machine's sandboxes beside bubblewrap, docker run and a bare interpreter", Args: noArgs,
		Long: "Measures what a run takes in each sandbox of this machine, its peers in turn with it, and compares\n" +
			"that with what it should be. With a Docker engine, the image of the Python runtime stays in it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			const most = 10_000
			if cfg.runs < 1 || cfg.runs > most {
				return usage("--runs must be from 1 to %d", most)
			}
			var view benchView
			err := withSpawner(func(s *jail.Spawner, dir string) (err error) {
				cfg.dir = dir
				view, err = measure(cmd.Context(), s, cfg)
				return err
			})
			if err != nil {
				return failed("%v", err)
			}
			if a.json {
				a.print(view)
				return nil
			}
			a.printBench(view)
			return nil
		},
	}
	c.Flags().IntVar(&cfg.runs, "runs", 50, "runs of each kind; of slow ones fewer")
	c.Flags().StringVar(&cfg.socket, "docker-socket", cfg.socket, "socket of the Docker engine, or \"off\"")
	return c
}

func (a *app) printBench(view benchView) {
	for _, f := range view.Figures {
		if f.PerSecond > 0 {
			fmt.Fprintf(a.stdout, "%-34s %8.1f runs per second %25s %s\n", f.Name, f.PerSecond, "", f.Note)
			continue
		}
		fmt.Fprintf(a.stdout, "%-34s p50 %8.2f ms  p95 %8.2f ms  min %8.2f ms  %s\n", f.Name, f.P50, f.P95, f.Min, f.Note)
	}
	for _, g := range view.Goals {
		goal, verdict := fmt.Sprintf("at most %g %s", g.Most, g.Unit), "missed"
		if g.Most == 0 {
			goal = fmt.Sprintf("at least %g %s", g.Least, g.Unit)
		}
		if g.Met {
			verdict = "met"
		}
		fmt.Fprintf(a.stdout, "goal: %-62s %8.2f %-2s  %-16s %s\n", g.Name, g.Got, g.Unit, goal, verdict)
	}
	for _, m := range view.Missing {
		fmt.Fprintf(a.stdout, "not measured: %s\n", m)
	}
}

// benchConfig says what to measure where.
type benchConfig struct {
	dir    string // of what is made on the way
	socket string // of the Docker engine, or [dockerOff]
	runs   int
	// sustain is how long each of those is measured, in each of its turns, that are
	// about a rate.
	sustain time.Duration
}

// contender is one thing that is measured. A run returns what it took.
type contender struct {
	name, note string
	slow       bool // a tenth of the runs will do
	run        func(ctx context.Context) (time.Duration, error)
}

// turns is in how many turns the contenders make their runs, so that what
// drifts on the machine meets all alike.
const turns = 10

// measure measures all that this machine has.
func measure(ctx context.Context, s *jail.Spawner, cfg benchConfig) (view benchView, err error) {
	b, err := openBench(ctx, s, cfg)
	if err != nil {
		return view, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	all := b.contenders(ctx)
	took := make([][]time.Duration, len(all))
	for turn := range turns {
		for i, c := range all {
			runs := share(cfg.runs, turn)
			if c.slow {
				runs = share(max(cfg.runs/10, 2), turn)
			}
			for range runs {
				d, err := c.run(ctx)
				if err != nil {
					return view, fmt.Errorf("%s: %w", c.name, err)
				}
				took[i] = append(took[i], d)
			}
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	for i, c := range all {
		slices.Sort(took[i])
		n := len(took[i])
		view.Figures = append(view.Figures, figureView{
			Name: c.name, Runs: n, Note: c.note, Min: ms(took[i][0]), P50: ms(took[i][n/2]), P95: ms(took[i][n*95/100]),
		})
	}
	sustained, err := b.sustained(ctx, cfg.sustain)
	if err != nil {
		return view, err
	}
	view.Figures = append(view.Figures, sustained...)
	view.Goals, view.Missing = goals(view.Figures), append([]string{}, b.missing...)
	return view, nil
}

// share is how many of all runs fall to a turn.
func share(all, turn int) int { return all*(turn+1)/turns - all*turn/turns }

// goals are those whose figures were measured.
func goals(figures []figureView) []goalView {
	p50 := func(f figureView) float64 { return f.P50 }
	out := []goalView{}
	for _, g := range []struct {
		name, of, peer string
		value          func(figureView) float64
		most, least    float64
	}{
		{"python cold, p50, over bubblewrap's", pythonCold, bubblewrap, p50, 1.4, 0},
		{"python warm, code in to result out, p50", pythonResult, "", p50, 1.2, 0},
		{"starlark, p50", starlarkWorker, "", p50, 1.5, 0},
		{"small WebAssembly, p50", wasmWorker, "", p50, 1, 0},
		{"endless WebAssembly, past its deadline, p95", wasmOverdue, "", func(f figureView) float64 { return f.P95 }, 50, 0},
		{"docker cold, p50, over docker run's", dockerCold, dockerRun, p50, 0.7, 0},
		{"docker warm, p50", dockerWarm, "", p50, 100, 0},
		{"python runs per second, over the bare interpreter's", pythonRate, bareRate, func(f figureView) float64 { return f.PerSecond }, 0, 0.7},
		{"fork bomb, from kill to reaped, p95", forkBomb, "", func(f figureView) float64 { return f.P95 }, 2000, 0},
	} {
		at := func(name string) int {
			return slices.IndexFunc(figures, func(f figureView) bool { return f.Name == name })
		}
		i, j := at(g.of), at(g.peer)
		if i < 0 || g.peer != "" && j < 0 {
			continue
		}
		v := goalView{Name: g.name, Unit: "ms", Most: g.most, Least: g.least, Got: g.value(figures[i])}
		if g.peer != "" {
			v.Unit, v.Got = "x", v.Got/g.value(figures[j])
		}
		v.Met = g.most > 0 && v.Got <= g.most || g.most == 0 && v.Got >= g.least
		out = append(out, v)
	}
	return out
}
