package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A node that is killed leaves nothing: its jails die with it, and when it
// starts again it removes control groups and containers, and ends what ran.
func TestKilledNodeLeavesNothing(t *testing.T) {
	socket := os.Getenv("AGENTICRAFT_TEST_DOCKER")
	if socket == "" {
		socket = defaultDocker
	}
	if _, err := os.Stat(socket); err != nil {
		socket = dockerOff
		t.Logf("without containers: no Docker engine on this machine: %v", err)
	}
	t.Setenv("AGENTICRAFT_DOCKER_SOCKET", socket)
	c := startCluster(t, 1)
	name := jailName(c.Nodes[0].ID)
	mark := "left-" + name
	// The jailed process says what it is where the host can see it.
	code := "import os, sys\nif os.fork() == 0: os.setsid()\nos.execv(sys.executable, [sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)', '" + mark + "'])"
	sandboxes := []string{"process"}
	if socket != dockerOff {
		sandboxes = append(sandboxes, "docker")
	}
	for _, s := range sandboxes {
		if r := c.run("exec", "--sandbox", s, "--detach", "--timeout", "60s", "-c", code); r.code != exitOK {
			t.Fatalf("exec --sandbox %s exited with %d: %s", s, r.code, r.stderr)
		}
	}
	c.await("the programs to run", func() bool { return len(marked(t, mark)) == 2*len(sandboxes) })
	open := c.open(0)
	if len(open) != len(sandboxes) {
		t.Errorf("%d runs are open on record, want %d", len(open), len(sandboxes))
	}
	c.kill(0)
	c.restart(0)
	c.await("every process to be gone", func() bool { return len(marked(t, mark)) == 0 })
	if socket != dockerOff {
		c.await("every container to be gone", func() bool { return containers(t, socket, name) == 0 })
	}
	// One jail may wait for a run by now; its groups have other names.
	c.await("every run to have its end on record", func() bool { return len(c.open(0)) == 0 })
	c.stopAll()
	c.restarted = nil
	c.await("every control group to be gone", func() bool { return len(groups(t, name)) == 0 })
}

// marked are the processes of this machine that have the mark in their arguments.
func marked(t *testing.T, mark string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(text, []byte("\x00"+mark+"\x00")) {
			continue // gone, or another
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// groups are the control groups of a node's jails.
func groups(t *testing.T, node string) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		found, err := filepath.Glob(dir + "agenticraft." + node + ".*")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// containers is how many an engine has of a node.
func containers(t *testing.T, socket, node string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), conditionMet)
	defer cancel()
	engine := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	filter := url.QueryEscape(`{"label":["dev.agenticraft.node=` + node + `"]}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/containers/json?all=1&filters="+filter, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := engine.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list []json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return len(list)
}
