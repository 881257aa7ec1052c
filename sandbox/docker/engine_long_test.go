//go:build linux && long

package docker_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
)

// An engine that dies or hangs under a run ends the run soon, with a reason, and
// the backend says so until another is there.
func TestEngineDiesUnderARun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root starts an engine")
	}
	engine(t, nil)
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("dockerd is not installed, and in CI it must be")
		}
		t.Skip("dockerd is not installed")
	}
	store := runtimes(t)
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			socket, process := ownEngine(t, dockerd)
			b := open(t, docker.Config{Socket: socket, Runtimes: store})
			if r, err := b.Run(t.Context(), python1("before", "result = 1"), nil); err != nil || r.Status != sandbox.OK {
				t.Fatalf("Run = %+v, %v", r, err)
			}
			spec := python1("under", "print('on', flush=True)\nimport time\ntime.sleep(600)")
			spec.Limits.Wall = 3 * time.Second
			spec.Output = func(string, int64, []byte) { _ = process.Signal(signal) }
			began := time.Now()
			r, err := b.Run(t.Context(), spec, nil)
			if err != nil || r.Status != sandbox.Internal && r.Status != sandbox.Timeout {
				t.Errorf("Run = %+v, %v", r, err)
			}
			if took := time.Since(began); took > 40*time.Second {
				t.Errorf("that took %v", took)
			}
			if r, err := b.Run(t.Context(), python1("after", "result = 1"), nil); !errors.Is(err, sandbox.ErrUnavailable) {
				t.Errorf("Run = %+v, %v, want ErrUnavailable", r, err)
			}
			if signal == syscall.SIGSTOP {
				_ = process.Signal(syscall.SIGCONT)
			}
		})
	}
}

// ownEngine starts an engine for one test, and ends it with its containers.
func ownEngine(t *testing.T, dockerd string, options ...string) (socket string, process *os.Process) {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine") // short: sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	options = append(options, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "--host", "unix://"+socket, "--bridge", "none", "--iptables=false")
	// It is ended below, after what it runs.
	cmd := exec.Command(dockerd, options...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Signal(syscall.SIGTERM) // dead already: as well
		_ = cmd.Wait()
		endTree(t, dir)
		unmount(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("left %s: %v", dir, err)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if c, err := new(net.Dialer).DialContext(t.Context(), "unix", socket); err == nil {
			_ = c.Close()
			return socket, cmd.Process
		}
		if time.Now().After(deadline) {
			t.Fatal("the engine does not start")
		}
	}
}

// endTree ends what a killed engine left running: its containerd and shims, which
// name its folder.
func endTree(t *testing.T, dir string) {
	t.Helper()
	all, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		text, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil || !strings.Contains(string(text), dir+"/") {
			continue
		}
		var pid int
		for _, c := range e.Name() {
			pid = pid*10 + int(c-'0')
		}
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already: as well
	}
}

// unmount removes the mounts that a killed engine left below dir.
func unmount(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			_ = syscall.Unmount(f[1], 2) // MNT_DETACH; gone already: as well
		}
	}
}
