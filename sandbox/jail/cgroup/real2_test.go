//go:build linux

package cgroup

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// version2 is a host on this machine's real version 2 tree, with one controller
// of it, whichever that is: on a hybrid machine memory, CPU and pids are in
// version 1, and only what all controllers share can be tried on the real tree.
func version2(t *testing.T) (h *Host, ctl string) {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	var why []error
	for _, m := range parseMounts(f) {
		if m.version != 2 {
			continue
		}
		offered, err := os.ReadFile(filepath.Join(m.dir, "cgroup.controllers"))
		if err != nil {
			why = append(why, err)
			continue
		}
		before, err := os.ReadFile(filepath.Join(m.dir, "cgroup.subtree_control"))
		if err != nil {
			why = append(why, err)
			continue
		}
		for _, ctl := range []string{Memory, CPU, Pids, "hugetlb", "misc", "io"} {
			if !slices.Contains(strings.Fields(string(offered)), ctl) {
				continue
			}
			if err := enable(m.dir, ctl); err != nil {
				why = append(why, err)
				continue
			}
			if !slices.Contains(strings.Fields(string(before)), ctl) {
				t.Cleanup(func() { _ = write(filepath.Join(m.dir, "cgroup.subtree_control"), "-"+ctl) }) // others may use it by now
			}
			return &Host{prefix: "agenticraft.cgtest2.", version: "v2", controllers: map[string]controller{ctl: {version: 2, dir: m.dir}}}, ctl
		}
	}
	t.Skipf("no version 2 tree in which this user may make groups: %v", errors.Join(why...))
	return nil, ""
}

// On the kernel's own version 2 tree: groups are made with their controller
// handed down, a process and its children are in them and are counted, one write
// kills all of them, and sweeping finds what a killed spawner left.
func TestRealVersion2(t *testing.T) {
	h, ctl := version2(t)
	t.Logf("the controller is %s", ctl)
	g, err := h.Make("run.1", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(5 * time.Second); err != nil {
			t.Error(err)
		}
	})
	dir := g.dirs[0]
	if b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")); err != nil || !slices.Contains(strings.Fields(string(b)), ctl) {
		t.Errorf("the group has the controllers %q, %v, want %s", b, err, ctl)
	}
	if files, err := g.Tasks(); err != nil || len(files) != 0 {
		t.Errorf("Tasks = %v, %v: those are for version 1", files, err)
	}
	// A process that is in the group from its first instruction, as the kernel can
	// have it, and children of it that ignore what can be ignored.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "trap '' TERM HUP INT; sleep 1000 & sleep 1000 & echo up; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	// And one that is moved, as jails are.
	moved := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := moved.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Attach(moved.Process.Pid); err != nil {
		t.Error(err)
	}
	pids, err := members(dir)
	if err != nil || len(pids) < 4 || !slices.Contains(pids, moved.Process.Pid) || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("members are %v, %v, want %d, its children and %d", pids, err, cmd.Process.Pid, moved.Process.Pid)
	}
	if n := number(filepath.Join(dir, "cpu.stat"), "usage_usec"); n < 0 {
		t.Error("its CPU time is not counted")
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*exec.Cmd{cmd, moved} {
		if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("%s ended with %v, want killed", c.Path, err)
		}
	}
	if n, err := h.Sweep(5 * time.Second); err != nil || n != 1 {
		t.Errorf("Sweep = %d, %v, want 1", n, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group is still there: %v", err)
	}
}
