package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/agenticraft/node/internal/nodetest"
)

// nodeReady only ends what hangs; a busy machine may take long.
const nodeReady = 2 * time.Minute

// startNode does for an Example what its reader has done before: it runs
// `agenticraft dev`, registers an agent, and goes to a folder that holds the agent's
// key and whom to trust. It returns the node's address, and what ends all that.
func startNode() (server string, stop func()) {
	before, err := os.Getwd()
	check(err)
	dir, err := os.MkdirTemp("", "agenticraft-example-")
	check(err)
	program, err := nodetest.Build(context.Background(), dir)
	check(err)
	check(os.Chdir(dir))

	command := func(args ...string) *exec.Cmd {
		c := exec.Command(program, args...)
		c.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"), "XDG_CACHE_HOME="+filepath.Join(dir, "cache"), "AGENTICRAFT_SERVER=", "AGENTICRAFT_API_KEY=")
		return c
	}
	dev := command("dev", "--nodes", "1", "--port", "0", "--data", "dev-data")
	var said bytes.Buffer // to be read when it has ended
	dev.Stdout, dev.Stderr = &said, &said
	check(dev.Start())
	ended := make(chan error, 1)
	go func() { ended <- dev.Wait() }()
	stop = func() {
		_ = dev.Process.Signal(os.Interrupt) // unless it has ended, which is an error in itself
		if err := <-ended; err != nil {
			panic(fmt.Errorf("agenticraft dev: %w\n%s", err, &said))
		}
		check(errors.Join(os.Chdir(before), os.RemoveAll(dir)))
	}
	if server = awaitNode(filepath.Join("dev-data", "dev.json"), ended); server == "" {
		stop()
		panic("agenticraft dev: no node")
	}
	for _, args := range [][]string{
		{"agent", "keygen", "my-agent.key"},
		{"agent", "add", "--name", "my-agent", "--role", "runner", "--agent-key", "my-agent.key"},
		{"trust", "export"},
	} {
		out, err := command(args...).Output()
		if err == nil && args[0] == "trust" {
			err = os.WriteFile("trust.json", out, 0o600)
		}
		if err != nil {
			stop()
			panic(fmt.Errorf("agenticraft %s: %w", strings.Join(args, " "), err))
		}
	}
	return server, stop
}

// awaitNode waits for what dev writes when its node is up, and returns where that is;
// "" if dev ends before, whose error it leaves in ended.
func awaitNode(file string, ended chan error) string {
	for deadline := time.Now().Add(nodeReady); time.Now().Before(deadline); {
		var cluster struct {
			Nodes []struct {
				HTTP string `json:"http"`
			} `json:"nodes"`
		}
		text, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(text, &cluster) == nil && len(cluster.Nodes) == 1 {
			return cluster.Nodes[0].HTTP
		}
		select {
		case err := <-ended:
			ended <- err
			return ""
		case <-time.After(10 * time.Millisecond):
		}
	}
	return ""
}
