package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/identity"
)

//go:embed programs/calculate.py
var pythonProgram string

//go:embed programs/calculate.star
var starlarkProgram string

// interpreter is the real one, not what a version manager puts before it.
const interpreter = "/usr/bin/python3"

const rounds = 8

// governed is a run through the whole path, and what the node said of it.
type governed struct {
	contender
	language string
	once     func(ctx context.Context) error // may be called concurrently

	mu         sync.Mutex // guards what follows
	whole, ran []float64  // ms: the path inside the nodes, and of it the program
}

// measureExec measures executions on a cluster of three, Python also on one that
// keeps no jail waiting, against the bare interpreter and bubblewrap.
func (l *lab) measureExec(ctx context.Context, c, cold *cluster, t *Table, each time.Duration) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	// Neither the door nor the peer leads: every entry is forwarded.
	at, peer := (leader+1)%len(c.Nodes), (leader+2)%len(c.Nodes)
	door, err := c.door(at)
	if err != nil {
		return err
	}
	front, err := c.door(leader)
	if err != nil {
		return err
	}
	coldLeader, err := cold.leader(ctx)
	if err != nil {
		return err
	}
	coldAt, coldPeer := (coldLeader+1)%len(cold.Nodes), (coldLeader+2)%len(cold.Nodes)
	coldDoor, err := cold.door(coldAt)
	if err != nil {
		return err
	}
	runs := []*governed{
		newGoverned("Starlark, at a follower", door, "starlark", "local"),
		newGoverned("Starlark, on a peer", door, "starlark", string(c.Nodes[peer].ID)),
		newGoverned("Starlark, at the leader", front, "starlark", "local"),
		newGoverned("Python cold, at a follower", coldDoor, "python", "local"),
		newGoverned("Python cold, on a peer", coldDoor, "python", string(cold.Nodes[coldPeer].ID)),
		newGoverned("Python, a jail waiting", door, "python", "local"),
	}
	plain, jailed, err := l.bare(ctx)
	if err != nil {
		t.Problems = append(t.Problems, err.Error())
	}
	var all []*contender
	for _, g := range runs {
		if g.language == "python" && plain == nil {
			t.Problems = append(t.Problems, g.name+": no "+interpreter)
			continue
		}
		all = append(all, &g.contender)
	}
	for _, b := range []*contender{plain, jailed} {
		if b != nil {
			all = append(all, b)
		}
	}
	if err := interleave(ctx, rounds, each/rounds, all); err != nil {
		return err
	}
	t.Sections = append(t.Sections, execGroup(runs, plain, jailed))
	t.Targets = append(t.Targets, execTargets(runs, jailed)...)
	return nil
}

func execGroup(runs []*governed, plain, jailed *contender) Group {
	g := Group{Name: "execution, three nodes, one request at a time"}
	for _, r := range runs {
		if len(r.slices) == 0 {
			continue
		}
		row := r.row()
		row.compare(&r.contender, plain, jailed)
		row.Note = fmt.Sprintf("of it %s in the nodes, %s the program (p50)", number(percentile(r.whole, 50)), number(percentile(r.ran, 50)))
		g.Rows = append(g.Rows, row)
	}
	for _, b := range []*contender{plain, jailed} {
		if b != nil {
			row := b.row()
			if b == jailed {
				row.compare(b, plain)
			}
			g.Rows = append(g.Rows, row)
		}
	}
	return g
}

func execTargets(runs []*governed, jailed *contender) []Target {
	starlark := Target{Name: "governed Starlark, at a follower, p50", Unit: "ms", Most: 10, Got: runs[0].row().P50}
	python := Target{Name: "Python cold, p50, over that of bubblewrap and python3", Unit: "x", Most: 3, Got: percentile(nil, 50)}
	beside := against("governed Starlark, at a follower, p50", "bubblewrap and python3", 10, referenceBubblewrap, percentile(nil, 50))
	if jailed != nil {
		python.Got = times(&runs[3].contender, jailed)
		beside.Got = times(&runs[0].contender, jailed)
	}
	return []Target{starlark, beside, python}
}

// compare adds how many times as long as each peer the contender takes.
func (r *Row) compare(c *contender, peers ...*contender) {
	for _, p := range peers {
		if p != nil {
			r.Peers = append(r.Peers, Ratio{Peer: p.name, Times: times(c, p), Of: "p50"})
		}
	}
}

func newGoverned(name string, cl *client.Client, language, on string) *governed {
	g := &governed{language: language}
	code := starlarkProgram
	if language == "python" {
		code = pythonProgram
	}
	g.name = name
	g.once = func(ctx context.Context) error {
		rep, err := cl.Run(ctx, a2a.Execution{Language: language, Code: code, On: on})
		if err != nil {
			return err
		}
		if rep.Status != a2a.Succeeded || string(rep.Result) != "30" || rep.Intent == nil || rep.Outcome == nil {
			text, err := json.Marshal(rep)
			return errors.Join(fmt.Errorf("unexpected report: %s", text), err)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.whole = append(g.whole, rep.Duration)
		g.ran = append(g.ran, rep.Usage.WallMS)
		return nil
	}
	g.run = repeated(g.once)
	return g
}

// bare are the peers: the same program under the bare interpreter, and under
// bubblewrap, nil where missing, with an error that says what is.
func (l *lab) bare(ctx context.Context) (plain, jailed *contender, err error) {
	file := filepath.Join(l.dir, "calculate.py")
	if err := os.WriteFile(file, []byte(pythonProgram), 0o600); err != nil {
		return nil, nil, err
	}
	real, err := filepath.EvalSymlinks(interpreter)
	if err != nil {
		return nil, nil, fmt.Errorf("everything with Python: no %s on this machine; run: apt-get install python3", interpreter)
	}
	plain = &contender{name: "python3 -I -S", run: bareRun(real, "-I", "-S", file)}
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		return plain, nil, errors.New("bubblewrap: not on this machine; run: apt-get install bubblewrap")
	}
	jailed = &contender{name: "bubblewrap + python3", run: bareRun(bwrap,
		"--unshare-all", "--die-with-parent", "--new-session", "--clearenv",
		"--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
		"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", file, "/program.py",
		real, "-I", "-S", "/program.py")}
	if _, err := jailed.run(ctx, 0); err != nil {
		return plain, nil, fmt.Errorf("bubblewrap does not work here: %w", err)
	}
	return plain, jailed, nil
}

func bareRun(name string, args ...string) func(context.Context, time.Duration) (slice, error) {
	return repeated(func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, name, args...)
		var out, trouble bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &trouble
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w\n%s", err, trouble.String())
		}
		if out.String() != "hello from a jail\n" {
			return fmt.Errorf("it printed %q", out.String())
		}
		return nil
	})
}

// leader asks the first node who leads.
func (c *cluster) leader(ctx context.Context) (int, error) {
	var status struct {
		Leader identity.ID `json:"leader"`
	}
	if err := c.ask(ctx, 0, http.MethodGet, "/v1/status", nil, &status); err != nil {
		return 0, fmt.Errorf("ask who leads: %w", err)
	}
	for i, n := range c.Nodes {
		if n.ID == status.Leader {
			return i, nil
		}
	}
	return 0, errors.New("no node says that it leads")
}
