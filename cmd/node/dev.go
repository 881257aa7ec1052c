package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/agenticraft/node/bridges/http/console"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/runtime"
)

// devCluster is what dev.json says of a development cluster.
type devCluster struct {
	Nodes  []devNode `json:"nodes"`
	APIKey string    `json:"api_key"`
	Trust  string    `json:"trust"`
}

type devNode struct {
	ID   identity.ID `json:"id"`
	HTTP string      `json:"http"`
	PID  int         `json:"pid"`
	Data string      `json:"data"`
}

const (
	maxDevNodes = 7
	devReady    = 30 * time.Second
	devStop     = 12 * time.Second
	devContext  = "dev"
	devFile     = "dev.json"
)

func (a *app) devCommand() *cobra.Command {
	var nodes, port int
	var data string
	cmd := &cobra.Command{
		Use: "dev", Short: "Start a cluster of real nodes on this machine", Args: noArgs,
		Long: `Start a cluster of real node processes on loopback, with keys, a tenant, an API
key, the default policy and language runtimes. It needs no root, no Docker, no
configuration and no network. Interrupt it to stop every node.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if nodes < 1 || nodes > maxDevNodes {
				return usage("--nodes %d is not from 1 to %d", nodes, maxDevNodes)
			}
			if port < 0 || port+nodes > 65536 {
				return usage("--port %d leaves no room for %d nodes", port, nodes)
			}
			return a.dev(cmd.Context(), nodes, port, data)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 3, "how many nodes, 1 to 7; all are keepers")
	cmd.Flags().IntVar(&port, "port", 8420, "HTTP port of node 1; node i has the port after that of node i-1; 0 finds free ones")
	cmd.Flags().StringVar(&data, "data", "", "folder to keep (default: a temporary one, removed at the end)")
	return cmd
}

func (a *app) dev(ctx context.Context, nodes, port int, data string) (err error) {
	kept := data != ""
	if !kept {
		if data, err = os.MkdirTemp("", "agenticraft-dev-"); err != nil {
			return fmt.Errorf("make data folder: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	}
	if data, err = filepath.Abs(data); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	d, err := a.prepareDev(ctx, nodes, port, data)
	if err != nil {
		return err
	}
	if err := d.start(ctx); err != nil {
		return errors.Join(err, d.stop())
	}
	if err := a.announce(d); err != nil {
		return errors.Join(err, d.stop())
	}
	d.wait(ctx, a)
	return d.stop()
}

// devRun is a development cluster while it runs.
type devRun struct {
	data    string
	cluster devCluster
	configs []string // configuration file of each node
	python  string   // why there is no python, or ""

	procs []*devProc
}

// devProc is one node process. The write end of the pipe is never written to:
// when this process dies, however it dies, the node reads its end and stops.
type devProc struct {
	cmd  *exec.Cmd
	pipe *os.File
	done chan struct{} // closed when the process was reaped
	err  error         // valid after done
}

// prepareDev makes the data folder, or takes over the one of an earlier run.
func (a *app) prepareDev(ctx context.Context, nodes, port int, data string) (*devRun, error) {
	port, err := devPorts(ctx, port, nodes)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	runtimes, err := a.runtimesDir()
	if err != nil {
		return nil, err
	}
	// A file of an earlier run names processes that are gone.
	if err := os.Remove(filepath.Join(data, devFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old %s: %w", devFile, err)
	}
	d := &devRun{data: data}
	if err := a.devRuntime(ctx, d, runtimes); err != nil {
		return nil, err
	}
	keys, err := devKeys(data, nodes)
	if err != nil {
		return nil, err
	}
	secrets, err := devGenesis(data, keys)
	if err != nil {
		return nil, err
	}
	var httpPorts []int
	for i := range nodes {
		httpPorts = append(httpPorts, port+i)
	}
	meshPorts, err := freePorts(ctx, nodes, httpPorts...)
	if err != nil {
		return nil, err
	}
	for i, key := range keys {
		dir := filepath.Join(data, "node"+strconv.Itoa(i+1))
		values := map[string]any{
			"data":     dir,
			"genesis":  filepath.Join(data, "genesis.json"),
			"http":     "127.0.0.1:" + strconv.Itoa(port+i),
			"mesh":     meshAddrs(meshPorts[i]),
			"peers":    devPeers(keys, meshPorts, i),
			"runtimes": runtimes,
		}
		text, err := yaml.Marshal(values)
		if err != nil {
			return nil, fmt.Errorf("write configuration: %w", err)
		}
		file := filepath.Join(dir, "config.yaml")
		if err := durable.WriteFile(file, text, 0o600); err != nil {
			return nil, fmt.Errorf("write configuration: %w", err)
		}
		d.configs = append(d.configs, file)
		d.cluster.Nodes = append(d.cluster.Nodes, devNode{ID: key.ID(), HTTP: "http://127.0.0.1:" + strconv.Itoa(port+i), Data: dir})
	}
	d.cluster.APIKey = secrets.apiKey
	d.cluster.Trust = filepath.Join(data, "trust.json")
	return d, nil
}

// devRuntime has a runtime made of each interpreter that the machine has;
// without Python the cluster runs Starlark and says what is missing.
func (a *app) devRuntime(ctx context.Context, d *devRun, dir string) error {
	store, err := runtime.Open(dir)
	if err != nil {
		return err
	}
	cfg := runtime.AddConfig{Progress: func(line string) {
		if !a.json {
			fmt.Fprintf(a.stderr, "agenticraft: %s\n", line)
		}
	}}
	for language, add := range map[string]func(context.Context, runtime.AddConfig) (runtime.Runtime, error){
		"python": store.AddPython, "javascript": store.AddNode, "sh": store.AddShell,
	} {
		if _, _, _, err := store.Lookup(language); err == nil {
			continue
		}
		_, err := add(ctx, cfg)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && language == "python":
			d.python = err.Error()
		case err != nil && !errors.Is(err, sandbox.ErrUnavailable):
			fmt.Fprintf(a.stderr, "agenticraft: no %s: %v\n", language, err)
		}
	}
	return nil
}

func meshAddrs(port int) []string {
	p := strconv.Itoa(port)
	return []string{"/ip4/127.0.0.1/tcp/" + p, "/ip4/127.0.0.1/udp/" + p + "/quic-v1"}
}

func devPeers(keys []*identity.Key, ports []int, self int) []string {
	var out []string
	for i, key := range keys {
		if i == self {
			continue
		}
		for _, addr := range meshAddrs(ports[i]) {
			out = append(out, addr+"/p2p/"+string(key.ID()))
		}
	}
	return out
}

// devKeys makes or loads the keys of the nodes.
func devKeys(data string, nodes int) ([]*identity.Key, error) {
	var keys []*identity.Key
	for i := 1; ; i++ {
		dir := filepath.Join(data, "node"+strconv.Itoa(i))
		file := filepath.Join(dir, "node.key")
		_, err := os.Stat(file)
		exists := err == nil
		if i > nodes {
			if exists {
				return nil, failed("%s holds a cluster of more than %d nodes; give --nodes as it was, or another --data", data, nodes)
			}
			return keys, nil
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make data folder: %w", err)
		}
		key, err := loadOrMakeKey(file)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
}

func loadOrMakeKey(file string) (*identity.Key, error) {
	if _, err := os.Stat(file); err == nil {
		return identity.Load(file)
	}
	key, err := identity.Generate()
	if err != nil {
		return nil, err
	}
	return key, key.Save(file)
}

// start starts every node and waits until all are ready.
func (d *devRun) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	for i := range d.configs {
		if err := d.startNode(self, i); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, devReady)
	defer cancel()
	var work sync.WaitGroup
	faults := make([]error, len(d.procs))
	for i, p := range d.procs {
		work.Go(func() { faults[i] = d.ready(ctx, i, p) })
	}
	work.Wait()
	return errors.Join(faults...)
}

func (d *devRun) startNode(self string, i int) error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start node %d: %w", i+1, err)
	}
	defer read.Close()
	logFile, err := os.OpenFile(d.logFile(i), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(fmt.Errorf("start node %d: %w", i+1, err), write.Close())
	}
	defer logFile.Close()
	// Not bound to a context: the nodes are stopped one way only, by stop.
	cmd := exec.CommandContext(context.Background(), self, "serve", "--config", d.configs[i], "--stop-with-parent")
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{read} // descriptor 3 of the node
	// An interrupt at the terminal goes to dev alone, which stops the nodes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start node %d: %w", i+1, err), write.Close())
	}
	p := &devProc{cmd: cmd, pipe: write, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	d.procs = append(d.procs, p)
	d.cluster.Nodes[i].PID = cmd.Process.Pid
	return nil
}

func (d *devRun) logFile(i int) string {
	return filepath.Join(d.cluster.Nodes[i].Data, "node.log")
}

// ready waits until the node answers that it can take requests.
func (d *devRun) ready(ctx context.Context, i int, p *devProc) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.cluster.Nodes[i].HTTP+"/readyz", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close() // nothing is read from it
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.done:
			return failed("node %d stopped at once; its log ends with:\n%s", i+1, tail(d.logFile(i)))
		case <-ctx.Done():
			return failed("node %d was not ready in %v; its log ends with:\n%s", i+1, devReady, tail(d.logFile(i)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func tail(file string) string {
	const lines = 8
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// announce writes dev.json and trust.json, sets the context and says how to
// go on.
func (a *app) announce(d *devRun) error {
	keyFile := filepath.Join(d.data, "api.key")
	door := &api{base: d.cluster.Nodes[0].HTTP, key: d.cluster.APIKey, http: http.DefaultClient}
	var trust json.RawMessage
	if err := door.do(context.Background(), "GET", "/v1/trust", nil, &trust); err != nil {
		return err
	}
	if err := durable.WriteFile(d.cluster.Trust, trust, 0o644); err != nil {
		return err
	}
	s, err := a.loadSettings()
	if err != nil {
		return err
	}
	s.Current = devContext
	s.Contexts[devContext] = clientContext{Server: d.cluster.Nodes[0].HTTP, APIKeyFile: keyFile, Trust: d.cluster.Trust}
	if err := a.saveSettings(s); err != nil {
		return err
	}
	text, err := json.MarshalIndent(d.cluster, "", "  ")
	if err != nil {
		return fmt.Errorf("write dev.json: %w", err)
	}
	// dev.json comes last: who sees it may rely on everything else.
	if err := durable.WriteFile(filepath.Join(d.data, devFile), append(text, '\n'), 0o600); err != nil {
		return err
	}
	if a.json {
		a.print(d.cluster)
		return nil
	}
	a.nextCommands(d)
	return nil
}

// nextCommands prints the five next commands.
func (a *app) nextCommands(d *devRun) {
	n := len(d.cluster.Nodes)
	up := "nodes are"
	if n == 1 {
		up = "node is"
	}
	fmt.Fprintf(a.stdout, "%d %s up: %s (data in %s)\n", n, up, d.cluster.Nodes[0].HTTP, d.data)
	fmt.Fprintf(a.stdout, "A quorum is %d of %d", n/2+1, n)
	if n < 3 {
		fmt.Fprint(a.stdout, ": this cluster does not survive the loss of a node")
	}
	fmt.Fprintln(a.stdout, ".")
	lang := ""
	if d.python != "" {
		fmt.Fprintf(a.stdout, "Python is not available: %s\nStarlark is.\n", d.python)
		lang = "--lang starlark "
	}
	self := os.Args[0]
	last := d.cluster.Nodes[n-1].ID
	receipt := filepath.Join(d.data, "receipt.json")
	fmt.Fprintf(a.stdout, `
Run code:                %[1]s exec %[2]s-c 'result = 6 * 7'
Run it on another node:  %[1]s exec %[2]s--on %[3]s --receipt %[4]s -c 'result = [n * n for n in range(10)]'
Verify that offline:     %[1]s verify %[4]s --trust %[5]s
See policy refuse:       %[1]s exec %[2]s--network allow=example.org:443 -c 'result = 1'
Read the log:            %[1]s audit list
Web console:             %[6]s, with the API key in %[7]s

Interrupt (Ctrl-C) stops all nodes.
`, self, lang, last, receipt, d.cluster.Trust, d.cluster.Nodes[0].HTTP+console.Path, filepath.Join(d.data, "api.key"))
}

// wait returns when ctx is done or every node is gone. It restarts no node.
func (d *devRun) wait(ctx context.Context, a *app) {
	gone := make(chan int)
	for i, p := range d.procs {
		go func() {
			<-p.done
			select {
			case gone <- i:
			case <-ctx.Done():
			}
		}()
	}
	for left := len(d.procs); left > 0; left-- {
		select {
		case <-ctx.Done():
			return
		case i := <-gone:
			fmt.Fprintf(a.stderr, "agenticraft: node %d (pid %d) is gone: %v\n", i+1, d.procs[i].cmd.Process.Pid, d.procs[i].err)
		}
	}
}

// stop ends every node, with force if need be, and waits for all.
func (d *devRun) stop() error {
	var faults []error
	for _, p := range d.procs {
		faults = append(faults, ignoreDone(p.cmd.Process.Signal(syscall.SIGTERM)))
	}
	deadline := time.After(devStop)
	for i, p := range d.procs {
		select {
		case <-p.done:
		case <-deadline:
			faults = append(faults, failed("node %d did not stop in %v and was killed", i+1, devStop), ignoreDone(p.cmd.Process.Kill()))
			<-p.done
		}
		faults = append(faults, p.pipe.Close())
	}
	return errors.Join(faults...)
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
