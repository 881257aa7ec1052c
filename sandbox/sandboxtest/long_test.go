//go:build long

package sandboxtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

func init() { sandboxtest.Long = true } //nolint:gochecknoinits // the build tag is the setting

// stressors are those of stress-ng that want more than a jail gives: each must
// end, within its time or the jail's, and leave the machine as it was.
var stressors = []string{
	"fork", "vfork", "clone", "pthread", "kill", "sigq", "pipe", "vm", "mmap", "memfd", "shm", "sysv-shm", "msg", "mq", "sem", "key",
	"userfaultfd", "io-uring", "epoll", "eventfd", "timer", "inotify", "dir", "filename", "link", "symlink", "dentry", "rename",
	"fallocate", "seek", "aio", "sock", "sockpair", "udp", "netdev", "af-alg", "ptrace", "personality", "seccomp", "unshare", "chroot",
	"resources", "brk", "stack", "zombie", "daemon", "prctl", "procfs", "dev", "sysbadaddr", "sysinval", "context", "cpu",
}

// tree is a runtime of a shell and one more program of this machine.
func tree(t *testing.T, program string) *runtime.Store {
	t.Helper()
	file, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: %v", program, err)
		}
		t.Skipf("no %s on this machine: %v", program, err)
	}
	store := runtimes(t)
	from, _, _, err := store.Select("sh", "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if text, err := exec.CommandContext(t.Context(), "cp", "-a", from+"/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v: %s", err, text)
	}
	text, err := exec.CommandContext(t.Context(), "ldd", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	libraries := []string{file}
	for _, word := range strings.Fields(string(text)) {
		if strings.HasPrefix(word, "/") {
			libraries = append(libraries, word)
		}
	}
	for _, lib := range libraries {
		to := filepath.Join(dir, lib)
		if lib == file {
			to = filepath.Join(dir, "usr/bin", program)
		}
		if _, err := os.Stat(to); err == nil {
			continue
		}
		content, err := os.ReadFile(lib)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.AddTree(t.Context(), runtime.AddTreeConfig{Path: dir, Name: program, Language: "sh"}); err != nil {
		t.Fatal(err)
	}
	return store
}

func attack(t *testing.T, b *process.Backend, name, runtime, code string, wall time.Duration) sandbox.Result {
	t.Helper()
	limits := sandboxtest.Limits()
	limits.Wall, limits.Memory, limits.FileSize, limits.Files = wall, 256<<20, 32<<20, 2000
	began := time.Now()
	r, err := b.Run(t.Context(), sandbox.Spec{ID: name, Owner: "tester", Language: "sh", Runtime: runtime, Code: []byte(code), Limits: limits}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status == sandbox.Internal || time.Since(began) > wall+10*time.Second {
		t.Errorf("it ended as %s after %v: %s", r.Status, time.Since(began), r.Message)
	}
	return r
}

func TestStress(t *testing.T) {
	b := open(t, process.Config{Runtimes: tree(t, "stress-ng")})
	before := sandboxtest.Before(t)
	for _, s := range stressors {
		t.Run(s, func(t *testing.T) {
			r := attack(t, b, "stress-"+s, "stress-ng", "cd /work && stress-ng --"+s+" 4 --timeout 2 --temp-path /work 2>&1 | tail -n 3", 15*time.Second)
			t.Logf("%s, exit code %d: %.300s", r.Status, r.ExitCode, r.Stdout)
			before.NothingBeyond(t, 0)
		})
	}
}

// A fuzzer of system calls, as the jailed program.
func TestTrinity(t *testing.T) {
	b := open(t, process.Config{Runtimes: tree(t, "trinity")})
	before := sandboxtest.Before(t)
	r := attack(t, b, "trinity", "trinity", "cd /work && trinity -C 4 -N 2000000 -q -l off 2>&1 | tail -n 3", 5*time.Minute)
	t.Logf("%s, exit code %d: %.300s", r.Status, r.ExitCode, r.Stdout)
	before.NothingBeyond(t, 0)
}
