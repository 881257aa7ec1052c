package consensus_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/consensus/consensustest"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

// childEnv holds a childConfig as JSON; its presence makes this test program a
// keeper that lives until it is killed.
const childEnv = "AGENTICRAFT_TEST_KEEPER"

type childConfig struct {
	Key     string
	Dir     string
	Listen  []string
	Keepers []identity.ID
	Worker  identity.ID // the test itself
}

// child is a keeper. It tells its addresses on stdout, reads its peers'
// addresses from stdin, and serves its machine's commands as protocol "dump".
func child(text string) error {
	var cfg childConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	key, err := identity.Load(cfg.Key)
	if err != nil {
		return err
	}
	member := func(id identity.ID) bool { return id == cfg.Worker || slices.Contains(cfg.Keepers, id) }
	node, err := mesh.New(mesh.Config{Key: key, Cluster: "test", Listen: cfg.Listen, Allow: member})
	if err != nil {
		return err
	}
	go node.Run(context.Background())
	machine := consensustest.NewMachine()
	dump, err := node.Listen("dump")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := dump.Accept()
			if err != nil {
				return
			}
			json.NewEncoder(c).Encode(machine.Commands())
			c.Close()
		}
	}()
	warnings := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("keeper", filepath.Base(cfg.Dir))
	group, err := consensus.Open(consensus.Config{Self: key.ID(), Keepers: cfg.Keepers, Dir: cfg.Dir, AllowForward: member, Log: warnings}, node, machine)
	if err != nil {
		return err
	}
	go func() {
		err := <-group.Failed() // as the node does
		fmt.Fprintln(os.Stderr, "keeper", filepath.Base(cfg.Dir), "stops:", err)
		os.Exit(1)
	}()
	if err := json.NewEncoder(os.Stdout).Encode(node.Addrs()); err != nil {
		return err
	}
	for lines := json.NewDecoder(os.Stdin); ; {
		var peers map[identity.ID][]string
		if err := lines.Decode(&peers); err != nil {
			return err // the test is over
		}
		node.SetPeers(peers)
	}
}

type process struct {
	cfg   childConfig
	id    identity.ID
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func (p *process) start(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("keeper did not start: %v", err)
	}
	if err := json.Unmarshal(line, &p.cfg.Listen); err != nil {
		t.Fatal(err)
	}
}

func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// Three keepers in processes of their own; whoever leads is killed, again and
// again, and started again on the same folder and port.
//
// INVARIANT: I7 an acknowledged entry is never lost, changed or reordered.
func TestI7SurvivesKilledLeaders(t *testing.T) {
	dir := t.TempDir()
	newKey := func(name string) (string, identity.ID) {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := key.Save(file); err != nil {
			t.Fatal(err)
		}
		return file, key.ID()
	}
	workerFile, worker := newKey("worker.key")
	var keepers []*process
	var ids []identity.ID
	for i := range 3 {
		file, id := newKey(fmt.Sprint(i, ".key"))
		keepers = append(keepers, &process{cfg: childConfig{Key: file, Dir: filepath.Join(dir, fmt.Sprint(i)), Worker: worker}, id: id})
		ids = append(ids, id)
	}
	workerKey, err := identity.Load(workerFile)
	if err != nil {
		t.Fatal(err)
	}
	node, err := mesh.New(mesh.Config{Key: workerKey, Cluster: "test", Allow: func(identity.ID) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- node.Run(t.Context()) }()
	t.Cleanup(func() { node.Close(); <-ran })
	tell := func() {
		at := map[identity.ID][]string{}
		for _, p := range keepers {
			at[p.id] = p.cfg.Listen
		}
		node.SetPeers(at)
		for _, p := range keepers {
			if p.cmd != nil {
				if err := json.NewEncoder(p.stdin).Encode(at); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, p := range keepers {
		p.cfg.Keepers = ids
		p.start(t)
		t.Cleanup(p.kill)
	}
	tell()
	group, err := consensus.Open(consensus.Config{Self: worker, Keepers: ids}, node, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { group.Close() })
	propose(t, group, "first")

	const writers = 8
	var mu sync.Mutex
	acked := map[string]int{}
	stop := make(chan struct{})
	var work sync.WaitGroup
	for w := range writers {
		work.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				cmd := fmt.Sprintf("w%d-%d", w, i)
				at := propose(t, group, cmd)
				mu.Lock()
				acked[cmd] = at
				mu.Unlock()
			}
		})
	}
	for range 3 {
		i := -1
		eventually(t, "a leader", func() bool {
			lead, _ := group.Leader()
			i = slices.Index(ids, lead)
			return i >= 0
		})
		mu.Lock()
		before := len(acked)
		mu.Unlock()
		begin := time.Now()
		keepers[i].kill()
		propose(t, group, fmt.Sprint("after killing ", before))
		t.Logf("committed again %v after SIGKILL of the leader, %d acknowledged before", time.Since(begin), before)
		keepers[i].start(t)
		tell()
		eventually(t, "more commands", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acked) > before+50
		})
	}
	close(stop)
	work.Wait()
	last := propose(t, group, "last")
	for _, p := range keepers {
		var commands []string
		eventually(t, "the last command on every keeper", func() bool {
			got, err := dumped(t, node, p.id)
			commands = got
			return err == nil && len(got) > last
		})
		for cmd, at := range acked {
			if at >= len(commands) || commands[at] != cmd {
				t.Fatalf("keeper %s does not hold %s at %d", p.id, cmd, at)
			}
		}
	}
	t.Logf("%d acknowledged, none lost", len(acked))
}

func dumped(t *testing.T, node *mesh.Node, id identity.ID) (commands []string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience/4)
	defer cancel()
	c, err := node.Dial(ctx, id, "dump")
	if err != nil {
		return nil, err
	}
	defer c.Close() // an error, if the keeper has closed it first
	c.SetDeadline(time.Now().Add(patience / 4))
	return commands, json.NewDecoder(c).Decode(&commands)
}
