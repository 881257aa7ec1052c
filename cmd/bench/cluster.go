package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// lab is where the figures are made: the built binary and a folder that goes
// away with everything in it.
type lab struct {
	bin, dir string
	clusters int // started so far
	warm     int // jails that nodes started from now on keep waiting
}

const binary = "bin/agenticraft"

func newLab() (*lab, error) {
	bin, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("%s is not built: run make build", binary)
	}
	dir, err := os.MkdirTemp("", "agenticraft-bench-")
	if err != nil {
		return nil, err
	}
	return &lab{bin: bin, dir: dir, warm: 1}, nil
}

// command is the binary with settings and runtimes of its own, so that the
// user's stay as they are.
func (l *lab) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), l.bin, args...) // stopped one way only, by process.stop
	cmd.Env = append(os.Environ(),
		"XDG_CONFIG_HOME="+filepath.Join(l.dir, "config"), "AGENTICRAFT_RUNTIMES="+filepath.Join(l.dir, "runtimes"),
		"AGENTICRAFT_SERVER=", "AGENTICRAFT_API_KEY=", "AGENTICRAFT_SANDBOX_WARM="+strconv.Itoa(l.warm))
	return cmd
}

// finish runs a command to its end.
func (l *lab) finish(ctx context.Context, args ...string) error {
	p, err := startProcess(ctx, l.command(args...))
	if err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.wait()
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.stop())
	}
}

// cluster is one that dev started.
type cluster struct {
	dev   *process
	data  string
	took  time.Duration // from the start of dev until all was ready
	name  string
	agent *identity.Key
	Nodes []member `json:"nodes"`
	Key   string   `json:"api_key"`
}

type member struct {
	ID   identity.ID `json:"id"`
	HTTP string      `json:"http"`
	PID  int         `json:"pid"`
	Data string      `json:"data"`
}

// start starts a new cluster and waits until it is ready.
func (l *lab) start(ctx context.Context, nodes int) (*cluster, error) {
	l.clusters++
	c := &cluster{data: filepath.Join(l.dir, "cluster"+strconv.Itoa(l.clusters))}
	begun := time.Now()
	var err error
	c.dev, err = startProcess(ctx, l.command("dev", "--nodes", strconv.Itoa(nodes), "--data", c.data, "--port", "0"))
	if err != nil {
		return nil, err
	}
	err = c.dev.until(ctx, "the cluster was ready", func(context.Context) bool {
		text, err := os.ReadFile(filepath.Join(c.data, "dev.json"))
		return err == nil && json.Unmarshal(text, c) == nil
	})
	c.took = time.Since(begun)
	if err == nil {
		err = c.read()
	}
	if err != nil {
		return nil, errors.Join(err, c.dev.stop())
	}
	return c, nil
}

// read reads what requests need: the cluster's name and an agent's key.
func (c *cluster) read() error {
	leaf, err := os.ReadFile(filepath.Join(c.data, "genesis.json"))
	if err != nil {
		return err
	}
	g, err := registry.ReadGenesis(leaf)
	if err != nil {
		return err
	}
	c.name = g.Cluster
	c.agent, err = identity.Load(filepath.Join(c.data, "agent.key"))
	return err
}

// stop stops the cluster and holds it to leaving no process behind.
func (c *cluster) stop() error {
	faults := []error{c.dev.stop()}
	for _, n := range c.Nodes {
		if syscall.Kill(n.PID, 0) == nil {
			faults = append(faults, fmt.Errorf("process %d is still there", n.PID))
		}
	}
	return errors.Join(faults...)
}

// door is a client with the agent's key at one node, whose connections, one for
// each request at the same time, stay open between requests.
func (c *cluster) door(node int) (*client.Client, error) {
	hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: taskClients}}
	return client.New(client.Config{URL: c.Nodes[node].HTTP + a2aPath, Key: c.agent, Audience: a2a.Audience(c.name), HTTPClient: hc})
}

// a2aPath is where a node serves A2A over JSON-RPC, as its card says.
const a2aPath = "/a2a/jsonrpc"

// freePorts finds n ports of loopback that are free now.
func freePorts(ctx context.Context, n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // all at once, so that no port is found twice
		_, text, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
