package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// prelude gives programs raw system calls, past any check of a library.
const prelude = `
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(nr, *args):
    ctypes.set_errno(0)
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return "ok" if r >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(f, *args):
    try:
        f(*args)
        return "ok"
    except OSError as e:
        return errno.errorcode[e.errno]
`

// denials are programs that try what no jail allows; the value of each is a
// JSON object from what was tried to the answer.
var denials = []struct {
	name, code string
	want       map[string]string
}{
	{"host files", `
result = {p: attempt(open, p) for p in ("/etc/passwd", "/etc/shadow", "/root", "/home", "/var", "/sys", "/proc/1/environ", "/proc/1/root", "/proc/sys/kernel/hostname", "/proc/mounts/../cmdline", "/work/../../../etc/passwd")}
os.symlink("/etc/passwd", "link"); result["link"] = attempt(open, "link")
`, map[string]string{
		"/etc/passwd": "ENOENT", "/etc/shadow": "ENOENT", "/root": "ENOENT", "/home": "ENOENT", "/var": "ENOENT", "/sys": "ENOENT",
		"/proc/1/environ": "ENOENT", "/proc/1/root": "ENOENT", "/proc/sys/kernel/hostname": "ENOENT",
		"/proc/mounts/../cmdline": "ENOENT", "/work/../../../etc/passwd": "ENOENT", "link": "ENOENT",
	}},
	{"writing outside", `
result = {p: attempt(open, p, "w") for p in ("/x", "/usr/x", "/usr/lib/x", "/dev/x", "/proc/self/oom_score_adj", "/proc/self/exe")}
result = {k: "denied" if v in ("EROFS", "EACCES", "EPERM", "ETXTBSY", "ENOENT") else v for k, v in result.items()}
`, map[string]string{"/x": "denied", "/usr/x": "denied", "/usr/lib/x": "denied", "/dev/x": "denied", "/proc/self/oom_score_adj": "denied", "/proc/self/exe": "denied"}},
	{"sockets of every family", `
import socket
got = {call(41, f, t, 0) for f in range(0, 46) for t in (1, 2, 3, 5)}
result = {"socket": " ".join(sorted(got)), "inet pair": call(53, 2, 1, 0, ctypes.create_string_buffer(8)), "unix pair": attempt(socket.socketpair)}
`, map[string]string{"socket": "EPERM", "inet pair": "EPERM", "unix pair": "ok"}},
	{"namespaces", `
NEW = dict(user=0x10000000, ns=0x20000, pid=0x20000000, net=0x40000000, ipc=0x08000000, uts=0x04000000, cgroup=0x02000000, time=0x80)
result = {"unshare " + k: call(272, v) for k, v in NEW.items()}
result.update({"clone " + k: call(56, v | 17, 0, 0, 0, 0) for k, v in NEW.items() if k != "time"})
result["clone3"] = call(435, ctypes.create_string_buffer(88), 88)
result["setns"] = call(308, 0, 0)
`, map[string]string{
		"unshare user": "EPERM", "unshare ns": "EPERM", "unshare pid": "EPERM", "unshare net": "EPERM", "unshare ipc": "EPERM",
		"unshare uts": "EPERM", "unshare cgroup": "EPERM", "unshare time": "EPERM", "clone user": "EPERM", "clone ns": "EPERM",
		"clone pid": "EPERM", "clone net": "EPERM", "clone ipc": "EPERM", "clone uts": "EPERM", "clone cgroup": "EPERM",
		"clone3": "ENOSYS", "setns": "EPERM",
	}},
	{"mounts", `
N = dict(mount=165, umount2=166, pivot_root=155, chroot=161, move_mount=429, open_tree=428, fsopen=430, fsmount=432, fspick=433, mount_setattr=442, open_by_handle_at=304, name_to_handle_at=303)
result = {k: call(v, 0, 0, 0, 0, 0) for k, v in N.items()}
`, map[string]string{
		"mount": "EPERM", "umount2": "EPERM", "pivot_root": "EPERM", "chroot": "EPERM", "move_mount": "EPERM", "open_tree": "EPERM",
		"fsopen": "EPERM", "fsmount": "EPERM", "fspick": "EPERM", "mount_setattr": "EPERM", "open_by_handle_at": "EPERM", "name_to_handle_at": "EPERM",
	}},
	{"kernel surface", `
N = dict(bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, add_key=248, request_key=249, keyctl=250,
  kexec_load=246, init_module=175, finit_module=313, delete_module=176, reboot=169, swapon=167, acct=163, quotactl=179, personality=135, modify_ldt=154, iopl=172, ioperm=173,
  clock_settime=227, settimeofday=164, adjtimex=159, memfd_create=319, memfd_secret=447, mbind=237, move_pages=279, process_madvise=440, syslog=103, vhangup=153,
  ptrace=101, process_vm_readv=310, process_vm_writev=311, pidfd_getfd=438, kcmp=312, seccomp=317, landlock_create_ruleset=444, sched_setaffinity=203, sched_setscheduler=144,
  setpriority=141, ioprio_set=251, setuid=105, setgid=106, setresuid=117, setresgid=119, setgroups=116, capset=126, execveat=322, vmsplice=278, splice=275,
  inotify_init1=294, fanotify_init=300, mq_open=240, shmget=29, msgget=68, semget=64, mlock=149, lookup_dcookie=212, uselib=134, map_shadow_stack=453, lsm_get_self_attr=459)
got = {k: call(v, 0, 0, 0, 0, 0) for k, v in N.items()}
result = {"EPERM": "all but " + " ".join(k for k, v in got.items() if v != "EPERM")}
`, map[string]string{"EPERM": "all but map_shadow_stack lsm_get_self_attr"}},
	{"prctl, ioctl and devices", `
result = {"dumpable": call(157, 4, 1), "seccomp": call(157, 22, 2, 0), "keepcaps": call(157, 8, 1), "tiocsti": call(16, 0, 0x5412, ctypes.c_char_p(b"x")), "tioclinux": call(16, 0, 0x541c, 0),
  "block device": call(133, ctypes.c_char_p(b"/work/b"), 0o60600, 0x0801), "char device": call(133, ctypes.c_char_p(b"/work/c"), 0o20600, 0x0101), "pipe": attempt(os.mkfifo, "/work/p"),
  "/dev/mem": attempt(open, "/dev/mem"), "/dev/kvm": attempt(open, "/dev/kvm"), "/dev/vda": attempt(open, "/dev/vda"), "/dev/null": attempt(open, "/dev/null", "w"), "/dev/tty": attempt(open, "/dev/tty")}
`, map[string]string{
		"dumpable": "EPERM", "seccomp": "EPERM", "keepcaps": "EPERM", "tiocsti": "EPERM", "tioclinux": "EPERM", "block device": "EPERM", "char device": "EPERM", "pipe": "ok",
		"/dev/mem": "ENOENT", "/dev/kvm": "ENOENT", "/dev/vda": "ENOENT", "/dev/null": "ok", "/dev/tty": "ENOENT",
	}},
	{"limits cannot be raised", `
import resource
def rise(what):
    soft, hard = resource.getrlimit(what)
    try:
        resource.setrlimit(what, (hard + 1, hard + 1)); return "ok"
    except ValueError: return "denied"
result = {n: rise(getattr(resource, "RLIMIT_" + n)) for n in ("FSIZE", "NOFILE", "CORE", "MEMLOCK")}
result["nofile"] = str(resource.getrlimit(resource.RLIMIT_NOFILE))
`, map[string]string{"FSIZE": "denied", "NOFILE": "denied", "CORE": "denied", "MEMLOCK": "denied", "nofile": "(256, 256)"}},
	{"identity", `
st = dict(l.split(":\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\t" in l)
result = {k: st[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}
result["env"] = " ".join(sorted(os.environ)); result["host"] = os.uname().nodename; result["cgroup"] = " ".join(sorted({l.split(":", 2)[2] for l in open("/proc/self/cgroup").read().split()})); result["pid1"] = str(os.path.exists("/proc/1"))
result["fds"] = " ".join(sorted(f for f in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + f) or f == "3"))
`, map[string]string{
		"CapInh": zeros, "CapPrm": zeros, "CapEff": zeros, "CapBnd": zeros, "CapAmb": zeros, "NoNewPrivs": "1", "Seccomp": "2",
		"env": "HOME LANG PATH TMPDIR", "host": "jail", "cgroup": "/", "pid1": "False", "fds": "0 1 2 3",
	}},
	{"signals to others", `
import signal
result = {"init": attempt(os.kill, 1, 9), "probe init": attempt(os.kill, 1, 0), "parent is init": str(os.getppid())}
`, nil},
}

const zeros = "0000000000000000"

func TestJailDenies(t *testing.T) {
	b := open(t)
	for _, c := range denials {
		t.Run(c.name, func(t *testing.T) { denied(t, b, c.name, c.code, c.want) })
	}
}

func denied(t *testing.T, b bench, name, code string, want map[string]string) {
	t.Helper()
	before := processes(t)
	r := b.run(t, spec(prelude+code))
	if r.Status != sandbox.OK {
		t.Fatalf("%s: status %s: %s\n%s", name, r.Status, r.Message, r.Stderr)
	}
	got := asMap(t, r.Value)
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s: %q answered %q, want %q", name, k, got[k], w)
		}
	}
	nothingLeft(t, before)
}

// abuses are programs that harm what they can; each must end with its word.
var abuses = []struct {
	name, code string
	change     func(*sandbox.Spec)
	status     sandbox.Status
	exit       int    // -1: any
	value      string // "": any
}{
	{"infinite loop", "while True: pass", wall(400), "timeout", 124, ""},
	{"sleep forever", "import time\ntime.sleep(1e6)", wall(300), "timeout", 124, ""},
	{"stops itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", wall(300), "timeout", 124, ""},
	{"waits for input that ends", "import sys\nresult = sys.stdin.read()", nil, "ok", 0, `""`},
	{"fork bomb", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", wall(600), "timeout", 124, ""},
	{"forks are counted", "import os, time\nn = 0\nwhile True:\n    try:\n        if os.fork() == 0:\n            time.sleep(60); os._exit(0)\n        n += 1\n    except OSError as e:\n        result = [e.errno, 8 <= n <= 16]; break", nil, "ok", 0, "[11,true]"},
	{"thread bomb", "import threading, time\nn = 0\ntry:\n    while True:\n        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1\nexcept RuntimeError: result = n <= 16", nil, "ok", 0, "true"},
	{"memory bomb", "x = []\nwhile True: x.append(bytearray(1 << 20))", nil, "oom", 137, ""},
	{"memory of many processes", "import os, time\nfor _ in range(8):\n    if os.fork() == 0: break\nx = []\nwhile True: x.append(b'x' * (1 << 20))", wall(5000), "", -1, ""},
	{"memory in files", "f = open('/tmp/x', 'wb')\ntry:\n    while True: f.write(b'x' * 65536)\nexcept OSError as e: result = e.errno", func(s *sandbox.Spec) { s.Limits.FileSize = 1 << 40 }, "ok", 0, "28"},
	{"large file", "import os\ntry:\n    f = open('x', 'wb')\n    while True: f.write(b'x' * 65536); f.flush()\nexcept OSError as e:\n    n, result = e.errno, None\ntry: os.posix_fallocate(f.fileno(), 0, 1 << 40)\nexcept OSError as e: result = [n, e.errno]\ntry: os.truncate('x', 1 << 40)\nexcept OSError as e: result.append(e.errno)\nos.unlink('x')", func(s *sandbox.Spec) { s.Limits.FileSize = 1 << 20 }, "ok", 0, "[27,27,27]"},
	{"many files", "n = 0\ntry:\n    while True: open(str(n), 'w').close(); n += 1\nexcept OSError as e: result = [e.errno, n < 64]", func(s *sandbox.Spec) { s.Limits.Files = 50 }, "ok", 0, "[28,true]"},
	{"descriptors", "import os\nn = []\ntry:\n    while True: n.append(os.dup(1))\nexcept OSError as e: result = [e.errno, len(n) <= 256]", nil, "ok", 0, "[24,true]"},
	{"deep folders", "import os\nwhile True: os.mkdir('d' * 100); os.chdir('d' * 100)", func(s *sandbox.Spec) { s.Limits.Files = 20000; s.Limits.Wall = 2 * time.Second }, "", -1, ""},
	{"hostile names", "import os\nfor n in (b'\\xff', b'new\\nline', b'x' * 255, b'\\x1b[31m'): open(n, 'w').close()\nos.symlink('/etc/passwd', 'l'); os.mkfifo('p'); os.link(b'x' * 255, 'hard')\nopen('good', 'w').write('1')\nwith open('sparse', 'w') as f: f.truncate(1 << 20)", nil, "ok", 0, ""},
	{"kills everything", "import os\nos.kill(-1, 9)\nresult = 'alone'", nil, "", -1, ""},
	{"leftover daemon", "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import signal\n        for s in range(1, 32):\n            try: signal.signal(s, signal.SIG_IGN)\n            except (OSError, ValueError): pass\n        time.sleep(1e6)\n    os._exit(0)\nresult = 1", nil, "ok", 0, "1"},
	{"stdout flood", "import os\nwhile True: os.write(1, b'x' * 65536)", nil, "output_limit", 1, ""},
	{"stderr flood", "import os\nwhile True: os.write(2, b'x' * 65536)", nil, "output_limit", 1, ""},
	{"forged result", "import os\nos.write(3, (6).to_bytes(4, 'big') + b'Rtrue ')\nos._exit(0)", nil, "ok", 0, "true"},
	{"forged nonsense", "import os\nos.write(3, b'\\x00\\x00\\x00\\x05R}}}}')\nos._exit(0)", nil, "error", 1, ""},
	{"forged size", "import os\nos.write(3, b'\\xff\\xff\\xff\\xffR')\nos._exit(0)", nil, "error", 1, ""},
	{"forged error", "import os\nos.write(3, b'\\x00\\x00\\x00\\x0aEinternal\\n')\nos._exit(0)", nil, "error", 1, ""},
	{"half a frame, then silence", "import os, time\nos.write(3, b'\\x00\\x00')\ntime.sleep(1e6)", wall(300), "timeout", 124, ""},
	{"two frames", "import os\nos.write(3, b'\\x00\\x00\\x00\\x02R1\\x00\\x00\\x00\\x02R2')\nos._exit(0)", nil, "ok", 0, "1"},
	{"stuffed channel", "import os\nwhile True: os.write(3, b'\\x00\\x00\\x00\\x02R1' * 1000)", wall(300), "timeout", 124, ""},
	{"closed channel", "import os\nos.close(3)\nresult = 1", nil, "error", -1, ""},
	{"exit at the deadline", "import time\ntime.sleep(.2)", wall(200), "", -1, ""},
	{"CPU seconds ignored", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", wall(300), "timeout", 124, ""},
	{"pipe buffers", "import os, fcntl\nn = []\ntry:\n    while True:\n        r, w = os.pipe(); n.append(w)\n        fcntl.fcntl(w, 1031, 1 << 20)\n        os.set_blocking(w, False)\n        try:\n            while True: os.write(w, b'x' * 65536)\n        except BlockingIOError: pass\nexcept OSError: result = True", nil, "", -1, ""},
}

func wall(ms int) func(*sandbox.Spec) {
	return func(s *sandbox.Spec) { s.Limits.Wall = time.Duration(ms) * time.Millisecond }
}

func TestAbuseEndsWithItsWord(t *testing.T) {
	b := open(t)
	for _, c := range abuses {
		t.Run(c.name, func(t *testing.T) {
			s := spec(c.code)
			s.Limits.Output = 64 << 10
			if c.change != nil {
				c.change(&s)
			}
			abuse(t, b, s, c.status, c.exit, c.value)
		})
	}
}

func abuse(t *testing.T, b bench, s sandbox.Spec, status sandbox.Status, exit int, value string) {
	t.Helper()
	const slack = time.Minute // a program that is not ended would sleep for days
	before := processes(t)
	began := time.Now()
	r := b.run(t, s)
	if took := time.Since(began); took > s.Limits.Wall+slack {
		t.Errorf("took %v with a limit of %v", took, s.Limits.Wall)
	}
	if status != "" && r.Status != status || exit >= 0 && r.ExitCode != exit || value != "" && string(r.Value) != value {
		t.Errorf("got %s, exit %d, result %s (%s: %s), want %s, %d, %s\nstderr: %.2000s",
			r.Status, r.ExitCode, r.Value, r.ErrorCode, r.Message, status, exit, value, r.Stderr)
	}
	if r.Status == sandbox.Internal {
		t.Errorf("the sandbox failed: %s", r.Message)
	}
	if int64(len(r.Stdout)) > s.Limits.Output && s.Limits.Output > 0 {
		t.Errorf("%d bytes of stdout kept", len(r.Stdout))
	}
	for _, f := range r.Files {
		if f.Path != "good" && f.Path != "x" && strings.Trim(f.Path, "0123456789") != "" {
			t.Errorf("kept output file %q", f.Path)
		}
	}
	nothingLeft(t, before)
}

// processes lists the helper's init processes of this test's spawners.
func processes(t *testing.T) map[int]bool {
	t.Helper()
	out := map[int]bool{}
	for _, pid := range descendants(t, os.Getpid()) {
		out[pid] = true
	}
	return out
}

// descendants lists every process below pid, in whatever namespace.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	var out []int
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread ended
		}
		for w := range strings.FieldsSeq(string(b)) {
			child, err := strconv.Atoi(w)
			if err != nil {
				t.Fatal(err)
			}
			out = append(append(out, child), descendants(t, child)...)
		}
	}
	return out
}

// nothingLeft checks that a run left no process and no mount. Control groups
// are checked when the spawner closes.
func nothingLeft(t *testing.T, before map[int]bool) {
	t.Helper()
	for pid := range processes(t) {
		if !before[pid] {
			cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			t.Errorf("process %d (%.60q) is left", pid, cmd)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), " tmpfs jail ") || strings.Contains(string(mounts), " tmpfs scratch ") {
		t.Error("a mount is left")
	}
}

func TestCPUShareHolds(t *testing.T) {
	b := open(t)
	s := spec("import time\nwhile time.perf_counter() < 1e9: pass")
	s.Limits.CPUPercent = 20
	s.Limits.Wall = time.Second
	began := time.Now()
	r := b.run(t, s)
	// On a busy machine it gets less, and its end takes longer than its time.
	if took := time.Since(began); r.Status != sandbox.Timeout || r.Usage.CPU > took*45/100 || r.Usage.CPU <= 0 {
		t.Errorf("status %s, %v of CPU in %v, want timeout and about a fifth", r.Status, r.Usage.CPU, took)
	}
	t.Logf("%v of CPU in %v, held by %s", r.Usage.CPU, r.Usage.Wall, r.Enforced["cpu_percent"])
}
