package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/internal/nodetest"
)

// The tests of this package run the built binary: real processes, real
// libp2p, raft, bbolt and jails.

var testBinary string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "agenticraft-test-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if testBinary, err = nodetest.Build(context.Background(), dir); err != nil {
		return 1, err
	}
	// One runtime tree for all clusters of this package, made by the first.
	if err := os.Setenv("AGENTICRAFT_RUNTIMES", filepath.Join(dir, "runtimes")); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// testCluster is a development cluster in processes of its own.
type testCluster struct {
	devCluster
	t    testing.TB
	dir  string
	data string
	dev  *exec.Cmd
	out  *printout // what dev printed

	before    string   // what a shell does before dev
	restarted []func() // end the nodes that were started again

	// apart is what a node's command begins with where nodes are not dev's; nil:
	// nothing.
	apart func(node int) []string
	key   string // the API key of commands, where there is no context with one
}

// These only end what hangs; a busy machine may take long.
const (
	clusterReady = 2 * time.Minute
	commandWait  = 2 * time.Minute
	conditionMet = 2 * time.Minute
)

// startCluster starts a cluster that ends with the test.
func startCluster(t testing.TB, nodes int) *testCluster {
	t.Helper()
	dir := t.TempDir()
	c := &testCluster{t: t, dir: dir, data: filepath.Join(dir, "data"), out: new(printout)}
	c.startDev(nodes)
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *testCluster) startDev(nodes int) {
	c.t.Helper()
	c.dev = exec.Command("sh", "-c", c.before+`exec "$0" "$@"`, testBinary, "dev", "--nodes", strconv.Itoa(nodes), "--data", c.data, "--port", "0")
	c.dev.Env, c.dev.Dir = c.env(), c.dir
	c.dev.Stdout, c.dev.Stderr = c.out, c.out
	if err := c.dev.Start(); err != nil {
		c.t.Fatal(err)
	}
	deadline := time.Now().Add(clusterReady)
	for time.Now().Before(deadline) {
		text, err := os.ReadFile(filepath.Join(c.data, "dev.json"))
		if err == nil && json.Unmarshal(text, &c.devCluster) == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = c.dev.Process.Kill()
	_ = c.dev.Wait()
	c.t.Fatalf("the cluster did not start:\n%s", c.out)
}

// stop interrupts dev, as a user at the terminal would, and checks that no
// process is left.
func (c *testCluster) stop() {
	c.t.Helper()
	if c.dev == nil {
		return
	}
	if err := c.dev.Process.Signal(os.Interrupt); err != nil {
		c.t.Errorf("stop: %v", err)
	}
	err := c.dev.Wait()
	c.dev = nil
	if err != nil {
		c.t.Errorf("dev ended with %v:\n%s\n%s", err, c.out, c.logs())
	}
	if len(c.restarted) > 0 {
		return // those are not dev's
	}
	for _, n := range c.Nodes {
		if alive(n.PID) {
			c.t.Errorf("node process %d is still there", n.PID)
		}
	}
}

// stopAll ends every node, those that were started again included.
func (c *testCluster) stopAll() {
	c.t.Helper()
	c.stop()
	for _, end := range c.restarted {
		end()
	}
}

func (c *testCluster) logs() string {
	var b strings.Builder
	for i, n := range c.Nodes {
		text, err := os.ReadFile(filepath.Join(n.Data, "node.log"))
		if err != nil {
			text = []byte(err.Error())
		}
		fmt.Fprintf(&b, "--- node %d\n%s", i+1, text[max(0, len(text)-4000):])
	}
	return b.String()
}

func (c *testCluster) env() []string {
	return append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(c.dir, "config"), "AGENTICRAFT_SERVER=", "AGENTICRAFT_API_KEY="+c.key)
}

// result is what one command did.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// run runs the binary with the cluster's context.
func (c *testCluster) run(args ...string) result {
	c.t.Helper()
	return c.runWith(nil, "", args...)
}

func (c *testCluster) runWith(env []string, stdin string, args ...string) result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, testBinary, args...)
	cmd.Env = append(c.env(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Dir = c.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("agenticraft %v: %v", args, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(began)}
}

// exec runs `exec --json` at a node and reads the report.
func (c *testCluster) exec(node int, args ...string) (a2a.Report, result) {
	c.t.Helper()
	r := c.run(append([]string{"exec", "--json", "--server", c.Nodes[node].HTTP}, args...)...)
	var rep a2a.Report
	if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil {
		c.t.Errorf("exec %v printed no JSON: %v\n%s%s", args, err, r.stdout, r.stderr)
	}
	return rep, r
}

// json runs a command that must succeed and reads what it prints.
func (c *testCluster) json(into any, args ...string) {
	c.t.Helper()
	r := c.run(append(args, "--json")...)
	if r.code != exitOK {
		c.t.Fatalf("agenticraft %v exited with %d:\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		c.t.Fatalf("agenticraft %v printed no JSON: %v\n%s", args, err, r.stdout)
	}
}

func (c *testCluster) kill(node int) {
	c.t.Helper()
	if err := syscall.Kill(c.Nodes[node].PID, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	c.await("node to die", func() bool { return !alive(c.Nodes[node].PID) })
}

// restart runs a node again that was killed, outside of dev, until it answers.
// It ends with the test.
func (c *testCluster) restart(node int) {
	c.t.Helper()
	c.start(node)
	c.await("node to be ready", func() bool {
		return c.run("status", "--server", c.Nodes[node].HTTP).code == exitOK
	})
}

// start runs a node outside of dev.
func (c *testCluster) start(node int) {
	c.t.Helper()
	args := []string{testBinary, "serve", "--config", filepath.Join(c.Nodes[node].Data, "config.yaml")}
	if c.apart != nil {
		args = append(c.apart(node), args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = c.env()
	log, err := os.OpenFile(filepath.Join(c.Nodes[node].Data, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.Nodes[node].PID = cmd.Process.Pid
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it may have been killed again
		close(done)
	}()
	end := func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			c.t.Errorf("stop node: %v", err)
		}
		<-done
	}
	c.restarted = append(c.restarted, end)
	c.t.Cleanup(end)
}

// await waits for something that must come true.
func (c *testCluster) await(what string, is func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(conditionMet); time.Now().Before(deadline); {
		if is() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatalf("waited in vain for %s\n%s", what, c.logs())
}

// alive reports whether the process exists and is no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, ok := strings.Cut(string(text), ") ")
	return ok && !strings.HasPrefix(state, "Z")
}

// printout is what a process printed so far.
type printout struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *printout) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *printout) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// runShell runs a line as a user would paste it.
func (c *testCluster) runShell(line string) result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Env, cmd.Dir = c.env(), c.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("%s: %v", line, err)
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}
