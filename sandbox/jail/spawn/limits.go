//go:build linux

package spawn

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/cgroup"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// mechanisms says what holds each limit on this machine. The names are those
// of package sandbox.
func (s *server) mechanisms(worker bool) map[string]string {
	m := map[string]string{
		"file_size":  "rlimit_fsize",
		"filesystem": "mountns",
		"network":    "netns+seccomp",
		"syscalls":   "seccomp",
		"wall":       "monitor",
		"output":     "monitor",
	}
	or := func(limit, controller, instead string) {
		m[limit] = s.host.Mechanism(controller)
		if m[limit] == "" {
			m[limit] = instead
		}
	}
	memory := "rlimit_as"
	if worker {
		memory = "rlimit_data"
	}
	or("memory", cgroup.Memory, memory+"+watchdog")
	or("processes", cgroup.Pids, "rlimit_nproc")
	or("cpu_percent", cgroup.CPU, "duty_cycle")
	return m
}

// enforced is what holds the limits of one jail.
func (s *server) enforced(j *jail, rep wire.Report) map[string]string {
	m := s.mechanisms(j.spec.Worker)
	if rep.Landlock > 0 {
		m["filesystem"] += "+landlock"
	}
	if j.spec.Network {
		m["network"] += "+proxy" // of the node, to which alone the network leads
	}
	return m
}

// unenforceable names a required limit for which there is no mechanism.
func (s *server) unenforceable(spec wire.Start) string {
	have := s.mechanisms(spec.Worker)
	for _, limit := range spec.Require {
		if have[limit] == "" {
			return limit
		}
	}
	return ""
}

// limitWorker sets the limits that bind the worker alone, before the node is
// told of it and so before it has anything to run.
func (j *jail) limitWorker() error {
	pids, err := children(j.pid)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return nil // ended already, which init is about to tell
	}
	j.worker = pids[0]
	// Under want of memory the worker goes before init, which reports it.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", j.worker), []byte("1000"), 0); err != nil {
		if ended(j.worker) {
			return nil
		}
		return fmt.Errorf("prefer the worker when memory ends: %w", err)
	}
	threads, err := threads(j.pid)
	if err != nil {
		return err
	}
	j.own = len(threads)
	if j.group != nil {
		j.own = j.group.Counted(threads)
	}
	if err := j.apply(j.spec.Limits, map[int]uint64{}); err != nil {
		return err
	}
	j.running.Store(true)
	return nil
}

// lower replaces the limits of a running jail by tighter ones. After an error
// some may be lowered and others not.
func (j *jail) lower(l wire.Limits) error {
	old := *j.limits.Load()
	if !j.running.Load() {
		return errors.New("the worker does not run")
	}
	// The working folder keeps its size, for it is part of the worker's mounts;
	// where memory has a control group, that counts what lies in it.
	sameMemory := l.Memory == old.Memory || j.server.host.Mechanism(cgroup.Memory) != ""
	if l.Memory > old.Memory || l.CPUPercent > old.CPUPercent || l.Wall > old.Wall || l.FileSize > old.FileSize ||
		l.Processes > old.Processes || l.Files != old.Files || !sameMemory || min(l.Memory, l.FileSize) <= 0 || min(l.CPUPercent, l.Processes) <= 0 {
		return errors.New("limits can only be lowered")
	}
	if j.group != nil {
		if err := j.group.LimitMemory(l.Memory); err != nil {
			return err
		}
	}
	if err := j.apply(l, map[int]uint64{unix.RLIMIT_FSIZE: uint64(l.FileSize)}); err != nil {
		return err
	}
	if ended(j.worker) {
		return errors.New("the worker has ended")
	}
	j.limits.Store(&l)
	return nil
}

// untouched is what the Go runtime maps at its start, to write to hardly any of
// it (the map of its arenas alone is 32 MiB), in bytes. RLIMIT_DATA counts it all;
// without this a worker with a limit of 64 MiB starts only with luck. What is
// really used, the watchdog holds to the limit.
const untouched = 40 << 20

// apply sets the limits that bind the worker alone, and those in set.
func (j *jail) apply(l wire.Limits, set map[int]uint64) error {
	host := j.server.host
	if host.Mechanism(cgroup.Memory) == "" {
		set[unix.RLIMIT_AS] = uint64(l.Memory)
		if j.spec.Worker {
			delete(set, unix.RLIMIT_AS)
			set[unix.RLIMIT_DATA] = uint64(l.Memory) + untouched
		}
		// A process that never sleeps may not outlive the wall clock by much,
		// even if everything of ours hangs.
		set[unix.RLIMIT_CPU] = uint64(l.Wall/time.Second) + 2
	}
	if host.Mechanism(cgroup.Pids) == "" {
		set[unix.RLIMIT_NPROC] = uint64(l.Processes + j.own)
	}
	for res, n := range set {
		if err := unix.Prlimit(j.worker, res, &unix.Rlimit{Cur: n, Max: n}, nil); err != nil {
			if ended(j.worker) {
				return nil
			}
			return fmt.Errorf("set resource limit %d: %w", res, err)
		}
	}
	if j.group == nil {
		return nil
	}
	return errors.Join(j.group.LimitProcesses(l.Processes+j.own), j.group.LimitCPU(l.CPUPercent))
}

// gone says that the process ended before we came to it.
func gone(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) }

// ended says that a process has ended, whether its parent knows or not. Of one
// that has, the kernel answers anything: its files belong to root.
func ended(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	text := string(b)
	// The name in parentheses is the program's choice; the state follows.
	_, state, _ := strings.Cut(text[strings.LastIndexByte(text, ')')+1:], " ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// children lists the children of all threads of a process.
func children(pid int) ([]int, error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list threads: %w", err)
	}
	var out []int
	for _, t := range tasks {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list children: %w", err)
		}
		for f := range strings.FieldsSeq(string(b)) {
			var n int
			if _, err := fmt.Sscan(f, &n); err == nil {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// threads lists the threads of a process.
func threads(pid int) ([]int, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("list threads of init: %w", err)
	}
	var out []int
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			out = append(out, tid)
		}
	}
	return out, nil
}
