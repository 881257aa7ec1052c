package sandboxtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// traces are what runs might leave behind.
type traces struct {
	processes   []string // descendants of this process, "pid name"
	cgroups     []string // of spawners of this process, as package jailtest names them
	mounts      []string
	descriptors int
}

// Each process kept on purpose may bear this many of our descriptors: those
// of its jail.
const descriptorsPerProcess = 6

func take(t *testing.T) traces {
	t.Helper()
	var s traces
	s.processes = descendants(t)
	for _, pattern := range []string{"/sys/fs/cgroup/*/agenticraft.*", "/sys/fs/cgroup/agenticraft.*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.Contains(filepath.Base(name), fmt.Sprintf("-%d-", os.Getpid())) {
				s.cgroups = append(s.cgroups, name)
			}
		}
	}
	if data, err := os.ReadFile("/proc/self/mounts"); err == nil {
		own, _, _ := strings.Cut(t.Name(), "/")
		for line := range strings.Lines(string(data)) {
			// Those of container engines beside us come and go, and so do those in the
			// temporary folders of other tests. A mount of a jail that got out would be,
			// or lie below, a tmpfs.
			fields := strings.Fields(line)
			if len(fields) < 3 || strings.Contains(fields[1], "/Test") && !strings.Contains(fields[1], "/"+own) {
				continue
			}
			if fields[2] == "tmpfs" || fields[2] == "proc" {
				s.mounts = append(s.mounts, line)
			}
		}
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		s.descriptors = len(fds)
	}
	return s
}

// beyond says what s has that before has not, or nothing; a number of
// processes, and what belongs to them, is allowed.
func (s traces) beyond(before traces, residents int) string {
	var left []string
	if n := len(s.processes) - len(before.processes); n > residents {
		left = append(left, fmt.Sprintf("%d processes: %v", n, s.processes))
	}
	// A jail has one process at least and one group per controller at most.
	const controllers = 4
	if n := len(s.cgroups) - len(before.cgroups); n > residents*controllers {
		left = append(left, fmt.Sprintf("%d control groups: %v", n, s.cgroups))
	}
	for _, m := range s.mounts {
		if !slices.Contains(before.mounts, m) {
			left = append(left, "mount "+m)
		}
	}
	if n := s.descriptors - before.descriptors; n > residents*descriptorsPerProcess {
		left = append(left, fmt.Sprintf("%d descriptors", n))
	}
	return strings.Join(left, "; ")
}

// descendants lists the processes below this one.
func descendants(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	parent, name := make(map[int]int), make(map[int]string)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // gone meanwhile
		}
		// The name may hold anything; what follows the last parenthesis is plain.
		open, shut := strings.IndexByte(string(data), '('), strings.LastIndexByte(string(data), ')')
		if open < 0 || shut < open {
			continue
		}
		fields := strings.Fields(string(data[shut+1:]))
		if len(fields) < 2 {
			continue
		}
		if parent[pid], err = strconv.Atoi(fields[1]); err != nil {
			continue
		}
		name[pid] = string(data[open+1 : shut])
	}
	var below []string
	for pid := range parent {
		for up, steps := pid, 0; up > 1 && steps < 64; up, steps = parent[up], steps+1 {
			if parent[up] == os.Getpid() {
				below = append(below, fmt.Sprintf("%d %s", pid, name[pid]))
				break
			}
		}
	}
	slices.Sort(below)
	return below
}
