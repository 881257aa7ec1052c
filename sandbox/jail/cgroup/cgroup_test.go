//go:build linux

package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const hybrid = `24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:24 / /sys/fs/cgroup/with\040space rw,relatime shared:1 - cgroup cgroup rw,memory
27 24 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
nonsense
28 24 0:26 / /short - cgroup
`

func TestParseMounts(t *testing.T) {
	got := parseMounts(strings.NewReader(hybrid))
	want := []mount{
		{dir: "/sys/fs/cgroup/cpu,cpuacct", version: 1, controllers: []string{"rw", "cpu", "cpuacct"}},
		{dir: "/sys/fs/cgroup/with space", version: 1, controllers: []string{"rw", "memory"}},
		{dir: "/sys/fs/cgroup/unified", version: 2},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); d != "" {
		t.Error(d)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(hybrid)
	f.Fuzz(func(t *testing.T, s string) {
		for _, m := range parseMounts(strings.NewReader(s)) {
			if m.version != 1 && m.version != 2 {
				t.Errorf("version %d", m.version)
			}
		}
	})
}

// unified imitates a version 2 group folder, whose files a kernel would make.
func unified(t *testing.T) (*Host, *Group) {
	t.Helper()
	dir := t.TempDir()
	h := &Host{prefix: "agenticraft.n.", version: "v2", controllers: map[string]controller{
		Memory: {version: 2, dir: dir}, CPU: {version: 2, dir: dir}, Pids: {version: 2, dir: dir},
	}}
	group := filepath.Join(dir, "agenticraft.n.run")
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"memory.max": "", "memory.swap.max": "", "pids.max": "", "cpu.max": "", "cpu.weight": "", "cgroup.procs": "", "cgroup.kill": "",
		"memory.peak": "4096\n", "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n",
		"cpu.stat": "usage_usec 1500\nuser_usec 1000\n",
	} {
		if err := os.WriteFile(filepath.Join(group, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return h, &Group{host: h, dirs: []string{group}, at: map[string]string{Memory: group, CPU: group, Pids: group}}
}

func TestVersion2Files(t *testing.T) {
	h, g := unified(t)
	if got := h.Mechanism(Memory); got != "cgroup2" {
		t.Errorf("Mechanism = %q", got)
	}
	for _, err := range []error{g.LimitMemory(1 << 20), g.LimitProcesses(7), g.LimitCPU(25), g.Attach(42)} {
		if err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]string{
		"memory.max": "1048576", "memory.swap.max": "0", "pids.max": "7", "cpu.max": "25000 100000", "cgroup.procs": "42",
	} {
		got, err := os.ReadFile(filepath.Join(g.dirs[0], name))
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v, want %q", name, got, err, want)
		}
	}
	if got, want := g.Usage(), (Usage{CPU: 1500 * time.Microsecond, Peak: 4096, OOM: true}); got != want {
		t.Errorf("Usage = %+v, want %+v", got, want)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	// What must die is before others, and not throttled.
	for name, want := range map[string]string{"cgroup.kill": "1", "cpu.weight": "10000", "cpu.max": "max"} {
		got, err := os.ReadFile(filepath.Join(g.dirs[0], name))
		if err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%s holds %q, %v, want %s", name, got, err, want)
		}
	}
}

func TestEnableVersion2Controllers(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("cgroup.controllers", "cpu memory\n")
	put("cgroup.subtree_control", "cpu\n")
	if err := enable(dir, "pids"); err == nil {
		t.Error("a controller that is not there was enabled")
	}
	if err := enable(dir, "cpu"); err != nil {
		t.Error(err)
	}
	if err := enable(dir, "memory"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); err != nil || !strings.HasPrefix(string(b), "+memory") {
		t.Errorf("subtree_control holds %q, %v", b, err)
	}
}

// TestRealGroups uses what this machine has.
func TestRealGroups(t *testing.T) {
	h := Detect("cgtest")
	if h.Version() == "none" {
		t.Skipf("no control groups for this user: %v", h.Features())
	}
	for range 2 {
		g, err := h.Make("run.1", Limits{Memory: 32 << 20, Processes: 4})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.LimitCPU(10); err != nil {
			t.Error(err)
		}
		if u := g.Usage(); u.OOM {
			t.Errorf("Usage of an empty group = %+v", u)
		}
		n, err := h.Sweep(time.Second)
		if err != nil || n != len(g.dirs) {
			t.Errorf("Sweep = %d, %v, want %d", n, err, len(g.dirs))
		}
		if err := g.Remove(0); err != nil {
			t.Errorf("Remove after Sweep: %v", err)
		}
	}
}
