package sandboxtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// stressors are those of stress-ng that want more than a jail gives: each must
// end, within its time or the jail's, and leave the machine as it was. The last
// is one that stress-ng itself warns may hang or reboot the machine.
var stressors = []string{
	"fork", "vfork", "clone", "pthread", "kill", "sigq", "pipe", "vm", "mmap", "memfd", "shm", "shm-sysv", "msg", "mq", "sem", "key",
	"userfaultfd", "io-uring", "epoll", "eventfd", "timer", "inotify", "dir", "filename", "link", "symlink", "dentry", "rename",
	"fallocate", "seek", "aio", "sock", "sockpair", "udp", "netdev", "af-alg", "ptrace", "personality", "seccomp", "unshare", "chroot",
	"resources", "brk", "pipeherd", "futex", "mlock", "madvise", "mremap", "munmap", "splice", "tee", "vm-splice", "sendfile", "flock",
	"fiemap", "xattr", "chmod", "chown", "utime", "getrandom", "handle", "fanotify", "clock", "timerfd", "schedpolicy", "nice", "affinity",
	"mknod", "fifo", "full", "null", "urandom", "env", "exec", "session", "set", "get", "switch", "yield", "wait", "zero", "cap",
	"bad-altstack", "sigsegv", "sigtrap", "vforkmany", "hdd", "iomix", "copy-file", "sync-file", "mincore", "msync", "pty", "rtc",
	"stack", "zombie", "daemon", "prctl", "procfs", "dev", "sysbadaddr", "sysinval", "context", "cpu",
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
	store, err := runtime.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.AddShell(t.Context(), runtime.AddConfig{}); err != nil {
		t.Fatal(err)
	}
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
	for word := range strings.FieldsSeq(string(text)) {
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

// refused are those of which a jail offers nothing.
var refused = map[string]bool{
	"key": true, "msg": true, "mq": true, "userfaultfd": true, "io-uring": true, "af-alg": true, "seccomp": true, "chroot": true,
	"memfd": true, "personality": true, "ptrace": true, "netdev": true, "fanotify": true, "handle": true,
}

// complaints of stress-ng about what it was not let do.
var complaints = []string{"fail:", "aborted early", "skipping stressor", "finished prematurely"}

func attack(t *testing.T, b *process.Backend, name, runtime, code string, wall time.Duration) sandbox.Result {
	t.Helper()
	limits := sandboxtest.Limits()
	limits.Wall, limits.Memory, limits.FileSize, limits.Files = wall, 256<<20, 32<<20, 2000
	began := time.Now()
	r, err := b.Run(t.Context(), sandbox.Spec{ID: name, Owner: "tester", Language: "sh", Runtime: runtime, Code: []byte(code), Limits: limits}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status == sandbox.Internal || time.Since(began) > wall+time.Minute {
		t.Errorf("it ended as %s after %v: %s", r.Status, time.Since(began), r.Message)
	}
	return r
}

// Stressors as the jailed programs, two jails at a time. Nothing of them remains,
// and who runs beside them is not hurt.
func TestStress(t *testing.T) {
	b := open(t, process.Config{Runtimes: tree(t, "stress-ng")})
	before := sandboxtest.Before(t)
	var mu sync.Mutex
	var went, stopped []string
	t.Run("one", func(t *testing.T) {
		for _, s := range stressors {
			t.Run(s, func(t *testing.T) {
				t.Parallel()
				r := attack(t, b, "stress-"+s, "stress-ng", fmt.Sprintf(stressCommand, s), 15*time.Second)
				said := string(r.Stdout)
				if r.Status == sandbox.OK && !strings.Contains(said, "stress-ng: ") {
					t.Errorf("stress-ng did not start: %s, exit code %d: %.500s", r.Status, r.ExitCode, said)
				}
				// What it could not do at all, or only in part, and says so.
				ended := strings.Contains(said, "] successful run") && !slices.ContainsFunc(complaints, func(text string) bool { return strings.Contains(said, text) })
				if ended && refused[s] {
					t.Errorf("the jail let it: %.500s", said)
				}
				beside, err := b.Run(t.Context(), sandbox.Spec{ID: "beside-" + s, Owner: "neighbour", Language: "sh", Runtime: "stress-ng", Code: []byte("echo 7 > result.json"), Limits: sandboxtest.Limits()}, nil)
				if err != nil || string(beside.Value) != "7" {
					t.Errorf("the run beside it ended as %s, %v: %s", beside.Status, err, beside.Message)
				}
				mu.Lock()
				defer mu.Unlock()
				if ended {
					went = append(went, s)
				} else {
					stopped = append(stopped, s)
				}
			})
		}
	})
	before.NothingBeyond(t, 0)
	slices.Sort(stopped)
	t.Logf("%d stressors ran as they wished, %d met the jail: %s", len(went), len(stopped), strings.Join(stopped, " "))
}

// A fuzzer of system calls, as the jailed program.
func TestTrinity(t *testing.T) {
	b := open(t, process.Config{Runtimes: tree(t, "trinity")})
	before := sandboxtest.Before(t)
	r := attack(t, b, "trinity", "trinity", "cd /work && trinity -C 4 -N 2000000 -q -l off 2>&1 | (head -n 3; cat > /dev/null)", trinityTime)
	t.Logf("%s, exit code %d: %.300s", r.Status, r.ExitCode, r.Stdout)
	if !strings.Contains(strings.ToLower(string(r.Stdout)), "trinity") {
		t.Errorf("trinity did not start: %s", r.Stderr)
	}
	before.NothingBeyond(t, 0)
}
