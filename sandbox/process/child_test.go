package process_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/runtime"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// What this test binary does when it runs itself.
const (
	holderEnv   = "AGENTICRAFT_TEST_HOLDER"   // node id: holds a spawner and a run until it is killed
	runtimesEnv = "AGENTICRAFT_TEST_RUNTIMES" // store to use instead of making one
)

// child prepares a run of this test binary that sees the same helper and
// runtimes, as whoever it will run.
func child(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	store := python(t)
	cmd := jailtest.Self(t, scratchDir, args...)
	cmd.Env = append(cmd.Env, runtimesEnv+"="+store.Dir())
	return cmd
}

func TestUnprivilegedUserHasTheSameJail(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is an unprivileged user already, every other test shows it")
	}
	cmd := child(t, "-test.v", "-test.run", "^(TestTier2|TestProgramsEnd|TestJailDenies|TestAbuseEnds|TestCPUShare|TestReady|TestCancel)")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: sandboxtest.Nobody, Gid: sandboxtest.Nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("tests as an unprivileged user: %v\n%s", err, sandboxtest.Failures(string(out)))
	}
	if !strings.Contains(string(out), "--- PASS: TestTier2") {
		t.Errorf("tier 2 was not tested:\n%.4000s", out)
	}
}

// TestTier2 says what holds the limits without control groups.
func TestTier2(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root has control groups; TestUnprivilegedUserHasTheSameJail runs this as another")
	}
	b := open(t)
	s := spec("import os\nresult = [os.getuid(), os.path.exists('/proc/self')]")
	s.Required = []string{"memory", "cpu_percent", "processes"}
	r := b.run(t, s)
	t.Logf("%s %v %v, result %s", r.Tier, r.Enforced, b.spawner.Probe(), r.Value)
	if r.Tier != jail.Tier2 {
		t.Errorf("tier is %s, want %s", r.Tier, jail.Tier2)
	}
	for limit, want := range map[string]string{"memory": "rlimit_as+watchdog", "cpu_percent": "duty_cycle", "processes": "rlimit_nproc"} {
		if r.Enforced[limit] != want {
			t.Errorf("%s is held by %q, want %q", limit, r.Enforced[limit], want)
		}
	}
}

// hold starts a run, says so, and waits to be killed.
func hold() int {
	fail := func(err error) int {
		fmt.Println(err)
		return 1
	}
	helper, err := os.ReadFile(os.Getenv(jailtest.HelperEnv))
	if err != nil {
		return fail(err)
	}
	store, err := runtime.Open(os.Getenv(runtimesEnv))
	if err != nil {
		return fail(err)
	}
	dir, err := os.MkdirTemp("", "holder")
	if err != nil {
		return fail(err)
	}
	s, err := jail.Start(jail.Config{Node: os.Getenv(holderEnv), Dir: dir, Helper: helper})
	if err != nil {
		return fail(err)
	}
	b, err := process.New(process.Config{Spawner: s, Runtimes: store})
	if err != nil {
		return fail(err)
	}
	run := spec("import os\nfor _ in range(3): os.fork()\nprint('up', flush=True)\nwhile True: pass")
	run.Limits.Wall = time.Minute
	run.Output = func(_ string, _ int64, data []byte) { os.Stdout.Write(data) }
	_, err = b.Run(context.Background(), run, nil)
	return fail(err)
}

func TestKilledNodeLeavesNothing(t *testing.T) {
	const node = "killed"
	id := fmt.Sprintf("%s-%d", node, os.Getpid())
	cmd := child(t)
	cmd.Env = append(cmd.Env, holderEnv+"="+id)
	cmd.Env = append(cmd.Env, "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "up\n" {
		t.Fatalf("holder says %q, %v", line, err)
	}
	below := descendants(t, cmd.Process.Pid)
	if len(below) < 3 {
		t.Fatalf("only processes %v below the node", below)
	}
	pidfds := make(map[int]*os.Process, len(below))
	for _, pid := range below {
		p, err := os.FindProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		pidfds[pid] = p
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	deadline := time.Now().Add(time.Minute)
	for pid, p := range pidfds {
		for p.Signal(syscall.Signal(0)) == nil && !zombie(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d lives on", pid)
			}
			time.Sleep(5 * time.Millisecond) // no event tells of the end of a stranger's child
		}
		_ = p.Release()
	}
	for len(jailtest.Cgroups(t, id)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("control groups are left: %v", jailtest.Cgroups(t, id))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z")
}
