// Command demo does the node's main job on real input and shows what each step
// proves. It uses nothing but the built binary, as an operator would, and exits
// 0 only if everything it says really happened.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed programs/calculate.py
var pythonProgram []byte

//go:embed programs/calculate.star
var starlarkProgram []byte

const (
	nodes     = 3
	startWait = 60 * time.Second // the first start copies the Python library
	stopWait  = 15 * time.Second
	binary    = "bin/agenticraft"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

// demo is the story, one step a line.
func demo(ctx context.Context) (err error) {
	s, err := newStage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	if err := s.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, step := range []func(context.Context) error{
		s.look, s.runPython, s.runStarlark, s.denied, s.killLeader, s.verifyReceipt, s.tamper,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.say("all of it happened", "%s", "stopping the two nodes that are left")
	return nil
}

// stage is the cluster that the story plays on.
type stage struct {
	dir     string
	bin     string
	dev     *exec.Cmd
	cluster struct {
		Nodes []struct {
			ID   string `json:"id"`
			HTTP string `json:"http"`
			PID  int    `json:"pid"`
			Data string `json:"data"`
		} `json:"nodes"`
		Trust string `json:"trust"`
	}
	python  bool
	step    int
	door    int    // index of the node that requests go to
	killed  int    // index of the node that was killed
	task    string // of the run whose record is looked at
	intent  uint64
	receipt string
}

// report is what exec --json prints.
type report struct {
	Task     string            `json:"task"`
	Node     string            `json:"node"`
	Status   string            `json:"status"`
	Result   json.RawMessage   `json:"result"`
	Stdout   string            `json:"stdout"`
	Sandbox  string            `json:"sandbox"`
	Tier     string            `json:"tier"`
	Enforced map[string]string `json:"enforced"`
	Intent   *uint64           `json:"intent"`
	Outcome  *uint64           `json:"outcome"`
	Duration float64           `json:"duration_ms"`
	Error    *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

func newStage() (*stage, error) {
	bin, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("%s is not built: run make build", binary)
	}
	dir, err := os.MkdirTemp("", "agenticraft-demo-")
	if err != nil {
		return nil, err
	}
	s := &stage{dir: dir, bin: bin, receipt: filepath.Join(dir, "receipt.json")}
	for name, text := range map[string][]byte{"calculate.py": pythonProgram, "calculate.star": starlarkProgram} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *stage) start(ctx context.Context) error {
	began := time.Now()
	data := filepath.Join(s.dir, "data")
	s.dev = s.command(ctx, "dev", "--nodes", strconv.Itoa(nodes), "--data", data, "--port", "0")
	s.dev.Cancel = func() error { return s.dev.Process.Signal(os.Interrupt) }
	s.dev.WaitDelay = stopWait
	var out bytes.Buffer
	s.dev.Stdout, s.dev.Stderr = &out, &out
	if err := s.dev.Start(); err != nil {
		return err
	}
	file := filepath.Join(data, "dev.json")
	for time.Since(began) < startWait && ctx.Err() == nil {
		text, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(text, &s.cluster) == nil {
			s.say("three node processes joined one mesh and elected a leader", "%d nodes, ready in %.1f s", len(s.cluster.Nodes), time.Since(began).Seconds())
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = s.dev.Process.Kill() // it is of no use any more
	_ = s.dev.Wait()
	return fmt.Errorf("the cluster did not start:\n%s", out.String())
}

func (s *stage) stop() error {
	pids := []int{s.dev.Process.Pid}
	for _, n := range s.cluster.Nodes {
		pids = append(pids, n.PID)
	}
	if err := s.dev.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("stop the cluster: %w", err)
	}
	if err := s.dev.Wait(); err != nil {
		return fmt.Errorf("stop the cluster: %w", err)
	}
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d is still there", pid)
		}
	}
	fmt.Println("   stopped; no process is left.")
	return nil
}

// look says what isolation this machine gives.
func (s *stage) look(ctx context.Context) error {
	var out struct {
		Sandboxes []struct {
			Name      string   `json:"name"`
			Available bool     `json:"available"`
			Reason    string   `json:"reason"`
			Hint      string   `json:"hint"`
			Tier      string   `json:"tier"`
			Languages []string `json:"languages"`
		} `json:"sandboxes"`
	}
	if err := s.json(ctx, &out, 0, "sandbox", "list"); err != nil {
		return err
	}
	for _, b := range out.Sandboxes {
		if slices.Contains(b.Languages, "python") && b.Available {
			s.python = true
			s.note("sandbox tier %s (%s)", b.Tier, tiers[b.Tier])
		}
	}
	if !s.python {
		s.note("this machine has no python3, so the Starlark half runs; to mend it: apt-get install python3")
	}
	return nil
}

var tiers = map[string]string{
	"T1": "root: namespaces, unused user ids, control groups",
	"T2": "no root: user namespaces, rlimits and a watchdog; root would add control groups",
}

// runPython has a signed request delegated to another node.
func (s *stage) runPython(ctx context.Context) error {
	program, what := "calculate.py", "Python"
	if !s.python {
		program, what = "calculate.star", "Starlark"
	}
	peer := s.cluster.Nodes[1]
	var rep report
	err := s.json(ctx, &rep, 0, "exec", "--agent-key", s.agentKey(), "--on", peer.ID, "--receipt", s.receipt, filepath.Join(s.dir, program))
	if err != nil {
		return err
	}
	if rep.Node != peer.ID || rep.Status != "succeeded" || string(rep.Result) != "30" || rep.Intent == nil || rep.Outcome == nil {
		return fmt.Errorf("unexpected report: %+v", rep)
	}
	s.task, s.intent = rep.Task, *rep.Intent
	s.say("an agent's signed request to node 1 ran on node 2, in a jail", "%s on %s, %.0f ms", what, rep.Node, rep.Duration)
	s.showRun(rep)
	return nil
}

func (s *stage) runStarlark(ctx context.Context) error {
	var rep report
	if err := s.json(ctx, &rep, 0, "exec", "--agent-key", s.agentKey(), filepath.Join(s.dir, "calculate.star")); err != nil {
		return err
	}
	if rep.Status != "succeeded" || string(rep.Result) != "30" {
		return fmt.Errorf("unexpected report: %+v", rep)
	}
	s.say("the restricted language runs where no interpreter is", "Starlark on %s, %.0f ms", rep.Node, rep.Duration)
	s.showRun(rep)
	return nil
}

func (s *stage) denied(ctx context.Context) error {
	var rep report
	err := s.json(ctx, &rep, 3, "exec", "--agent-key", s.agentKey(), "--network", "allow=example.org:443", filepath.Join(s.dir, "calculate.star"))
	if err != nil {
		return err
	}
	if rep.Status != "denied" || rep.Error == nil || rep.Intent != nil {
		return fmt.Errorf("unexpected report: %+v", rep)
	}
	s.say("policy refused a request, said why, and nothing ran", "%s: %s", rep.Error.Code, rep.Error.Message)
	return nil
}

// killLeader kills the raft leader and runs again.
func (s *stage) killLeader(ctx context.Context) error {
	var out struct {
		Nodes []struct {
			ID     string `json:"id"`
			Leader bool   `json:"leader"`
		} `json:"nodes"`
	}
	if err := s.json(ctx, &out, 0, "nodes"); err != nil {
		return err
	}
	s.killed = -1
	for _, n := range out.Nodes {
		for i, known := range s.cluster.Nodes {
			if n.Leader && known.ID == n.ID {
				s.killed = i
			}
		}
	}
	if s.killed < 0 {
		return errors.New("no node says that it leads")
	}
	s.door = (s.killed + 1) % nodes
	if err := syscall.Kill(s.cluster.Nodes[s.killed].PID, syscall.SIGKILL); err != nil {
		return err
	}
	began := time.Now()
	for time.Since(began) < startWait {
		var rep report
		err := s.json(ctx, &rep, 0, "exec", "--agent-key", s.agentKey(), filepath.Join(s.dir, "calculate.star"))
		if err == nil && rep.Status == "succeeded" {
			s.say("the raft leader was killed with SIGKILL, and the cluster went on", "node %d killed, next run done %.1f s later", s.killed+1, time.Since(began).Seconds())
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.New("the cluster did not go on after its leader was killed")
}

func (s *stage) verifyReceipt(ctx context.Context) error {
	cmd := s.command(ctx, "verify", s.receipt, "--trust", s.cluster.Trust)
	cmd.Env = append(cmd.Env, "AGENTICRAFT_SERVER=") // it speaks to nobody
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("verify: %w\n%s", err, out)
	}
	s.say("anyone with the receipt and one small file can check it offline", "%d checks", strings.Count(string(out), "ok "))
	s.indent(string(out))
	return nil
}

// tamper changes one byte in a copy of the killed node's log.
func (s *stage) tamper(ctx context.Context) error {
	from := filepath.Join(s.cluster.Nodes[s.killed].Data, "audit.db")
	whole, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	copied := filepath.Join(s.dir, "copy")
	if err := os.Mkdir(copied, 0o700); err != nil {
		return err
	}
	file := filepath.Join(copied, "audit.db")
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		return err
	}
	if out, code := s.run(ctx, "audit", "verify", copied, "--trust", s.cluster.Trust); code != 0 {
		return fmt.Errorf("the untouched copy does not verify:\n%s", out)
	}
	// The task's entries hold its name. Pages that the database no longer uses
	// may hold older copies, which are no part of the log.
	mark := []byte(`"task":"` + s.task)
	for at := 0; ; {
		i := bytes.Index(whole[at:], mark)
		if i < 0 {
			return errors.New("no changed byte was noticed")
		}
		at += i + len(mark)
		changed := slices.Clone(whole)
		changed[at-1] ^= 1
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			return err
		}
		out, code := s.run(ctx, "audit", "verify", copied, "--trust", s.cluster.Trust, "--json")
		if code == 0 {
			continue
		}
		var rep struct {
			Bad *struct {
				Index *uint64 `json:"index"`
				What  string  `json:"what"`
			} `json:"bad"`
		}
		if code != 5 || json.Unmarshal(out, &rep) != nil || rep.Bad == nil || rep.Bad.Index == nil {
			return fmt.Errorf("audit verify exited with %d:\n%s", code, out)
		}
		s.say("one changed byte in a copy of the log is found and named", "entry %d: %s", *rep.Bad.Index, rep.Bad.What)
		return nil
	}
}

// command is the binary with an environment of its own, so that the user's
// contexts stay as they are.
func (s *stage) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(s.dir, "config"))
	if len(s.cluster.Nodes) > 0 {
		cmd.Env = append(cmd.Env, "AGENTICRAFT_SERVER="+s.cluster.Nodes[s.door].HTTP)
	}
	return cmd
}

func (s *stage) run(ctx context.Context, args ...string) ([]byte, int) {
	cmd := s.command(ctx, args...)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		return []byte(err.Error()), -1
	}
	return out, cmd.ProcessState.ExitCode()
}

// json runs a command that must exit with want, and reads what it prints.
func (s *stage) json(ctx context.Context, into any, want int, args ...string) error {
	out, code := s.run(ctx, append(args, "--json")...)
	if code != want {
		return fmt.Errorf("agenticraft %s exited with %d, not %d:\n%s", strings.Join(args, " "), code, want, out)
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("agenticraft %s printed no JSON: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (s *stage) agentKey() string { return filepath.Join(s.dir, "data", "agent.key") }

// say is one step's line: what it proved, and with what.
func (s *stage) say(proved, format string, args ...any) {
	s.step++
	fmt.Printf("%d. %s.\n", s.step, strings.ToUpper(proved[:1])+proved[1:])
	s.note(format, args...)
}

func (s *stage) note(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

func (s *stage) indent(text string) {
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		s.note("  %s", line)
	}
}

func (s *stage) showRun(rep report) {
	s.note("stdout: %q, result: %s", rep.Stdout, rep.Result)
	var held []string
	for limit, by := range rep.Enforced {
		held = append(held, limit+" by "+by)
	}
	slices.Sort(held)
	s.note("enforced (%s, tier %s): %s", rep.Sandbox, rep.Tier, strings.Join(held, ", "))
	s.note("on record: intent %d, outcome %d", *rep.Intent, *rep.Outcome)
}
