//go:build linux

// Package cgroup limits the processes of a jail through control groups of
// version 1, version 2, both at once (hybrid), or not at all.
//
// Each controller is looked for by its own name, never by the kind of mount:
// on hybrid machines some live in version 1 and some in version 2, and in
// containers they are often mounted read-only.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Controllers that a jail uses.
const (
	Memory = "memory"
	CPU    = "cpu"
	Pids   = "pids"
)

// controller is one limit in one version.
type controller struct {
	version int    // 1 or 2
	dir     string // folder in which groups are made
}

// Host is what a machine offers, found by [Detect].
type Host struct {
	prefix      string // of the names of this node's groups
	version     string
	controllers map[string]controller
	cpuacct     string            // v1: folder of the controller that counts CPU time, or ""
	features    map[string]string // "cgroup_memory" -> "ok" or why not
}

// Limits of a group; zero means none.
type Limits struct {
	Memory    int64 // bytes, with swap
	Processes int
}

// Version is "v1", "v2", "hybrid" or "none".
func (h *Host) Version() string { return h.version }

// Features says for each controller whether groups can be made, or why not.
func (h *Host) Features() map[string]string { return h.features }

// Mechanism names what enforces a controller's limit, "cgroup1" or "cgroup2",
// or "" if nothing does.
func (h *Host) Mechanism(name string) string {
	c, ok := h.controllers[name]
	if !ok {
		return ""
	}
	return fmt.Sprintf("cgroup%d", c.version)
}

// Group is the control groups of one jail, one folder for each hierarchy.
type Group struct {
	host *Host
	dirs []string          // all folders made
	at   map[string]string // controller -> folder
	acct string            // v1 folder that counts CPU time, or ""
}

// Make makes the groups of one jail and sets its limits. name must be unique
// among this node's. Nothing is left behind by a Make that fails.
func (h *Host) Make(name string, l Limits) (_ *Group, err error) {
	g := &Group{host: h, at: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Remove(0))
		}
	}()
	for ctl, c := range h.controllers {
		dir := filepath.Join(c.dir, h.prefix+name)
		if err := g.mkdir(dir); err != nil {
			return nil, err
		}
		g.at[ctl] = dir
	}
	if h.cpuacct != "" {
		g.acct = filepath.Join(h.cpuacct, h.prefix+name)
		if err := g.mkdir(g.acct); err != nil {
			return nil, err
		}
	}
	if err := g.LimitMemory(l.Memory); err != nil {
		return nil, err
	}
	return g, g.LimitProcesses(l.Processes)
}

func (g *Group) mkdir(dir string) error {
	if slices.Contains(g.dirs, dir) {
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make control group: %w", err)
	}
	g.dirs = append(g.dirs, dir)
	return nil
}

func (g *Group) write(ctl, file, value string) error {
	return write(filepath.Join(g.at[ctl], file), value)
}

func write(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open control group file: %w", err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s to %s: %w", filepath.Base(name), value, err)
	}
	return nil
}

// LimitMemory sets the memory limit in bytes, with swap. It can only be
// lowered later, not raised.
func (g *Group) LimitMemory(bytes int64) error {
	c, ok := g.host.controllers[Memory]
	if !ok || bytes <= 0 {
		return nil
	}
	n := fmt.Sprint(bytes)
	if c.version == 2 {
		if err := g.write(Memory, "memory.max", n); err != nil {
			return err
		}
		// Kernels without swap accounting lack the file and the swap.
		if err := g.write(Memory, "memory.swap.max", "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := g.write(Memory, "memory.limit_in_bytes", n); err != nil {
		return err
	}
	if err := g.write(Memory, "memory.memsw.limit_in_bytes", n); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// LimitProcesses sets the number of processes and threads.
func (g *Group) LimitProcesses(n int) error {
	if _, ok := g.host.controllers[Pids]; !ok || n <= 0 {
		return nil
	}
	return g.write(Pids, "pids.max", fmt.Sprint(n))
}

// Attach moves a process into the version 2 groups. Its later children
// follow. For those of version 1 see [Group.Tasks].
func (g *Group) Attach(pid int) error {
	for _, dir := range g.dirs {
		if g.isV1(dir) {
			continue
		}
		if err := write(filepath.Join(dir, "cgroup.procs"), fmt.Sprint(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Tasks opens the files of the version 1 groups by which a thread moves itself
// there, by writing "0". Moving another process waits for every CPU of the
// machine to notice, which takes 10 ms and more; moving oneself does not.
func (g *Group) Tasks() ([]*os.File, error) {
	var out []*os.File
	for _, dir := range g.dirs {
		if !g.isV1(dir) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			for _, f := range out {
				err = errors.Join(err, f.Close())
			}
			return nil, fmt.Errorf("open control group: %w", err)
		}
		out = append(out, f)
	}
	return out, nil
}

func (g *Group) isV1(dir string) bool {
	if dir == g.acct {
		return true
	}
	for ctl, d := range g.at {
		if d == dir {
			return g.host.controllers[ctl].version == 1
		}
	}
	return false
}

// Counted says which of a process's threads count against the process limit.
func (g *Group) Counted(threads []int) int {
	dir, ok := g.at[Pids]
	if !ok || !g.isV1(dir) {
		return len(threads)
	}
	b, err := os.ReadFile(filepath.Join(dir, "tasks"))
	if err != nil {
		return len(threads)
	}
	n := 0
	for f := range strings.FieldsSeq(string(b)) {
		tid, err := strconv.Atoi(f)
		if err == nil && slices.Contains(threads, tid) {
			n++
		}
	}
	return n
}

// Usage is what a group consumed; a negative number is unknown.
type Usage struct {
	CPU  time.Duration
	Peak int64 // bytes
	OOM  bool  // the limit killed a process
}

// Usage reads the counters.
func (g *Group) Usage() Usage {
	u := Usage{CPU: -1, Peak: -1}
	if c, ok := g.host.controllers[Memory]; ok {
		dir := g.at[Memory]
		if c.version == 2 {
			u.Peak = number(filepath.Join(dir, "memory.peak"), "")
			u.OOM = number(filepath.Join(dir, "memory.events"), "oom_kill") > 0
		} else {
			u.Peak = number(filepath.Join(dir, "memory.max_usage_in_bytes"), "")
			u.OOM = number(filepath.Join(dir, "memory.oom_control"), "oom_kill") > 0
		}
	}
	if g.acct != "" {
		u.CPU = time.Duration(number(filepath.Join(g.acct, "cpuacct.usage"), ""))
	} else if c, ok := g.host.controllers[CPU]; ok && c.version == 2 {
		if us := number(filepath.Join(g.at[CPU], "cpu.stat"), "usage_usec"); us >= 0 {
			u.CPU = time.Duration(us) * time.Microsecond
		}
	}
	return u
}

// number reads a counter, or the one named key of a file of pairs; -1 if there
// is none.
func number(name, key string) int64 {
	b, err := os.ReadFile(name)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		text := strings.TrimSpace(line)
		if key != "" {
			k, v, ok := strings.Cut(text, " ")
			if !ok || k != key {
				continue
			}
			text = v
		}
		var n int64
		if _, err := fmt.Sscan(text, &n); err != nil {
			return -1
		}
		return n
	}
	return -1
}

// Kill kills every process of the groups once, and hurries their end.
func (g *Group) Kill() error {
	err := g.Hurry()
	for _, dir := range g.dirs {
		err = errors.Join(err, killDir(dir))
	}
	return err
}

func killDir(dir string) error {
	if err := write(filepath.Join(dir, "cgroup.kill"), "1"); err == nil {
		return nil
	}
	pids, err := members(dir)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := killMember(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// killMember kills pid if it still belongs to the group: between reading the
// list and opening the process, its number may have gone to another.
func killMember(dir string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing to lose
	pids, err := members(dir)
	if err != nil {
		return err
	}
	for _, p := range pids {
		if p != pid {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}

func members(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list control group: %w", err)
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		var pid int
		if _, err := fmt.Sscan(strings.TrimSpace(line), &pid); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Remove removes the groups, killing what is left in them, for at most
// patience.
func (g *Group) Remove(patience time.Duration) error {
	var err error
	for _, dir := range g.dirs {
		err = errors.Join(err, removeDir(dir, patience))
	}
	return err
}

func removeDir(dir string, patience time.Duration) error {
	const pause = 2 * time.Millisecond
	end := time.Now().Add(patience)
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
		if err := killDir(dir); err != nil {
			return err
		}
		time.Sleep(pause)
	}
}

// Sweep removes the groups that an earlier spawner of this node left behind,
// with every process in them, and returns how many folders those were.
func (h *Host) Sweep(patience time.Duration) (int, error) {
	bases := map[string]bool{}
	for _, c := range h.controllers {
		bases[c.dir] = true
	}
	if h.cpuacct != "" {
		bases[h.cpuacct] = true
	}
	n := 0
	var faults error
	for base := range bases {
		entries, err := os.ReadDir(base)
		if err != nil {
			faults = errors.Join(faults, fmt.Errorf("list control groups: %w", err))
			continue
		}
		for _, e := range entries {
			if !e.IsDir() || !strings.HasPrefix(e.Name(), h.prefix) {
				continue
			}
			n++
			faults = errors.Join(faults, removeDir(filepath.Join(base, e.Name()), patience))
		}
	}
	return n, faults
}
