//go:build long && linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A leader that the network cuts off from the others refuses, and they go on
// without it; when the network is whole again everything that was acknowledged
// on either side, before or meanwhile, is on each node once.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestPartitionOfProcesses(t *testing.T) {
	c := startApart(t, 3)
	acked := newLedger()
	lead := c.leads()
	others := []int{(lead + 1) % 3, (lead + 2) % 3}
	stop := c.loadAt([]int{0, 1, 2}, acked)
	c.await("some executions", func() bool { return acked.size() >= 5 })

	c.link(lead, "down")
	c.await("the others to elect one", func() bool { return c.agreeing(others, lead) })
	before := acked.size()
	c.await("the others to go on", func() bool { return acked.size() >= before+3 })
	c.await("the one that is cut off to say so", func() bool {
		s := c.glimpse(lead)
		return s.ID != "" && !s.Ready
	})
	if rep, r := c.exec(lead, "--lang", "starlark", "-c", "result = 1"); r.code != exitUnavailable {
		t.Errorf("alone, the old leader answers with exit %d, %+v: %s", r.code, rep, r.stderr)
	}

	c.link(lead, "up")
	c.await("all to be ready", func() bool {
		for i := range c.Nodes {
			if !c.glimpse(i).Ready {
				return false
			}
		}
		return true
	})
	stop()
	c.nothingLost(acked)
}

// startApart is a cluster whose nodes each have a network of their own, tied
// together by a bridge. The test reaches their doors by listeners on loopback.
func startApart(t *testing.T, nodes int) *testCluster {
	t.Helper()
	dir := t.TempDir()
	c := &testCluster{t: t, dir: dir, data: dir}
	ip := func(args ...string) error {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	hub := c.network("hub")
	if err := ip("netns", "add", hub); err != nil && os.Getenv("CI") == "" {
		t.Skipf("no networks of their own for nodes: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(ip("netns", "del", hub)) })
	must(errors.Join(ip("-n", hub, "link", "add", "name", "br0", "type", "bridge"), ip("-n", hub, "link", "set", "br0", "up")))

	c.apart = func(node int) []string { return []string{"nsenter", "--net=/run/netns/" + c.network(fmt.Sprint(node))} }
	var keepers []string
	for i := range nodes {
		name, port := c.network(fmt.Sprint(i)), fmt.Sprint("p", i)
		must(ip("netns", "add", name))
		t.Cleanup(func() { must(ip("netns", "del", name)) })
		must(errors.Join(
			ip("-n", hub, "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", name),
			ip("-n", hub, "link", "set", port, "master", "br0", "up"),
			ip("-n", name, "addr", "add", meshIP(i)+"/24", "dev", "eth0"),
			ip("-n", name, "link", "set", "eth0", "up"), ip("-n", name, "link", "set", "lo", "up"),
		))
		data := filepath.Join(dir, fmt.Sprint("node", i+1))
		c.Nodes = append(c.Nodes, devNode{HTTP: forwarded(t, "/run/netns/"+name), Data: data})
		if i > 0 {
			r := c.try(exitOK, "", "init", "--data", data, "--key-only")
			keepers = append(keepers, "--keeper", strings.TrimSpace(r.stdout)+"@"+meshAddr(i))
		}
	}
	first := c.Nodes[0].Data
	c.try(exitOK, "", append([]string{"init", "--data", first, "--http", doorAddr, "--mesh", meshAddr(0)}, keepers...)...)
	for i, n := range c.Nodes[1:] {
		c.try(exitOK, "", "init", "--data", n.Data, "--http", doorAddr, "--mesh", meshAddr(i+1), "--genesis", filepath.Join(first, "genesis.json"))
	}
	key, err := os.ReadFile(filepath.Join(first, apiKeyFile))
	must(err)
	c.key = strings.TrimSpace(string(key))
	for i := range c.Nodes {
		c.start(i)
	}
	for i := range c.Nodes {
		c.awaitReady(i)
		c.Nodes[i].ID = c.glimpse(i).ID
	}
	c.Trust = filepath.Join(dir, "trust.json")
	must(os.WriteFile(c.Trust, []byte(c.try(exitOK, "", "trust", "export", "--server", c.Nodes[0].HTTP).stdout), 0o600))
	return c
}

const doorAddr = "127.0.0.1:8420" // of each node, in its own network

func meshIP(node int) string { return fmt.Sprintf("10.77.0.%d", node+1) }

func meshAddr(node int) string { return "/ip4/" + meshIP(node) + "/tcp/8520" }

// network names one of the test's networks.
func (c *testCluster) network(name string) string {
	return fmt.Sprintf("agenticraft-%d-%s", os.Getpid(), name)
}

// link takes a node off the network, or puts it back.
func (c *testCluster) link(node int, state string) {
	c.t.Helper()
	if out, err := exec.Command("ip", "-n", c.network("hub"), "link", "set", fmt.Sprint("p", node), state).CombinedOutput(); err != nil {
		c.t.Fatalf("link %s: %v: %s", state, err, out)
	}
}

// forwarded is the URL of a listener on loopback that leads to the door of a
// node in a network of its own.
func forwarded(t *testing.T, network string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		work.Wait()
	})
	work.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer in.Close()
				out, err := dialWithin(network, doorAddr)
				if err != nil {
					return // as if nobody listened
				}
				defer out.Close()
				defer context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })()
				work.Go(func() {
					_, _ = io.Copy(out, in)
					_ = out.(*net.TCPConn).CloseWrite()
				})
				_, _ = io.Copy(in, out)
			})
		}
	})
	return "http://" + l.Addr().String()
}

// dialWithin connects within a network namespace: a socket stays in the one that
// it was made in.
func dialWithin(network, addr string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	there, err := os.Open(network)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", addr)
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		panic("the test's thread does not get back into its network: " + back.Error())
	}
	return conn, err
}
