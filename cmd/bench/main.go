// Command bench prints the figures that a user waits for, each beside a peer
// that was measured in the same run, turn by turn. It asserts nothing: a goal
// is met or missed, and a figure holds for the machine it was made on.
//
// It uses the built binary as an operator would; only what no door offers, the
// bare log, runs in processes of its own (keeper.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == keeperArgument {
		if err := keep(ctx, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "keeper: %v\n", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == taskServerArgument {
		if err := serveTasks(ctx, os.Args[2], os.Args[3], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "task server: %v\n", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == natsArgument {
		if err := serveNATS(ctx, os.Args[2]); err != nil {
			fmt.Fprintf(os.Stderr, "nats: %v\n", err)
			os.Exit(1)
		}
		return
	}
	seconds := flag.Float64("seconds", 5, "seconds to measure each row of executions and appends for")
	starts := flag.Int("n", 5, "how many starts of each kind to measure")
	only := flag.String("only", "", "measure only the parts whose name holds this, such as \"A2A\"")
	huge := flag.Bool("huge", false, "measure reading a log of ten million entries, too; it needs 15 GB of disk and some minutes")
	asJSON := flag.Bool("json", false, "print one JSON document")
	flag.Parse()
	if flag.NArg() > 0 || *seconds <= 0 || *starts < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := bench(ctx, time.Duration(*seconds*float64(time.Second)), *starts, *only, *huge, *asJSON); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// bench measures everything and prints one table. What cannot be measured is
// named in it; an error is returned at the end all the same.
func bench(ctx context.Context, each time.Duration, starts int, only string, huge, asJSON bool) (err error) {
	l, err := newLab()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(l.dir)) }()
	begun := time.Now()
	t := &Table{}
	watch := min(2*each, 10*time.Second)
	var faults []error
	for _, part := range []struct {
		name string
		do   func() error
	}{
		{"the Python runtime", func() error { return l.finish(ctx, "runtime", "add", "python") }},
		{"executions", func() error {
			return l.onCluster(ctx, 3, func(c *cluster) error {
				if err := measureIdle(ctx, c, t, watch); err != nil {
					return err
				}
				// A second cluster beside it keeps no jail waiting: its Python
				// starts cold.
				l.warm = 0
				err := l.onCluster(ctx, 3, func(cold *cluster) error {
					l.warm = 1
					return l.measureExec(ctx, c, cold, t, each)
				})
				return errors.Join(err, measureAfterLoad(ctx, c, t))
			})
		}},
		{"sandboxes", func() error { return l.measureSandboxes(ctx, t, each) }},
		{"decisions", func() error { return measureDecisions(ctx, t, each) }},
		{"policies", func() error {
			return l.onCluster(ctx, 3, func(c *cluster) error { return measureApply(ctx, c, t, 4*starts) })
		}},
		{"audit appends", func() error { return l.measureAppends(ctx, t, each) }},
		{"audit reading", func() error { return l.measureReading(ctx, t, each, huge) }},
		{"A2A tasks", func() error { return l.measureTasks(ctx, t, each) }},
		{"A2A executions", func() error { return l.measureTaskExec(ctx, t, each) }},
		{"one idle node", func() error {
			return l.onCluster(ctx, 1, func(c *cluster) error { return measureIdle(ctx, c, t, watch) })
		}},
		{"starts", func() error { return l.measureReady(ctx, t, starts) }},
		{"the binary", func() error { return l.binarySize(t) }},
	} {
		if !strings.Contains(part.name, only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s …\n", part.name)
		e := part.do()
		if ctx.Err() != nil {
			return errors.Join(errors.New("interrupted"), e)
		}
		if e != nil {
			faults = append(faults, fmt.Errorf("%s: %w", part.name, e))
			t.Problems = append(t.Problems, fmt.Sprintf("%s: %v", part.name, e))
		}
	}
	t.Machine = machine(ctx, l, time.Since(begun))
	show := t.printText
	if asJSON {
		show = t.printJSON
	}
	return errors.Join(append(faults, show(os.Stdout))...)
}

// onCluster does something with a cluster that is started for it and stopped
// afterwards.
func (l *lab) onCluster(ctx context.Context, nodes int, do func(*cluster) error) error {
	c, err := l.start(ctx, nodes)
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.stop())
}

// machine describes what the figures hold for.
func machine(ctx context.Context, l *lab, took time.Duration) []string {
	text := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(out))
	}
	load := "unknown"
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Join(strings.Fields(string(raw))[:3], " ")
	}
	filesystem := strings.Fields(text("stat", "-f", "-c", "%T", l.dir))
	return []string{
		fmt.Sprintf("%s, %d cores, Linux %s, data on %s, %s", text(l.bin, "version"), runtime.NumCPU(), text("uname", "-r"), strings.Join(filesystem, " "), runtime.GOARCH),
		fmt.Sprintf("measured in %.0f s, ending %s, load at the end %s", took.Seconds(), time.Now().UTC().Format(time.RFC3339), load),
	}
}
