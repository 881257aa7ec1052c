package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/sandbox/jail"
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
