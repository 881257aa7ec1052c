package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"time"
)

// measureReady measures starts: of one node, of three, and of dev as a whole.
func (l *lab) measureReady(ctx context.Context, t *Table, n int) error {
	version := &contender{name: "agenticraft version", run: repeated(func(ctx context.Context) error { return l.finish(ctx, "version") })}
	var three *cluster
	var dev []float64
	for i := range n {
		c, err := l.start(ctx, 3)
		if err != nil {
			return err
		}
		if err := c.stop(); err != nil {
			return err
		}
		dev = append(dev, milliseconds(c.took))
		if i == 0 {
			three = c
		}
	}
	one, err := l.initialised(ctx)
	if err != nil {
		return err
	}
	single := &contender{name: "serve, one node", run: startsOf(func(ctx context.Context) (time.Duration, error) { return l.serve(ctx, one) })}
	trio := &contender{name: "serve, three nodes", run: startsOf(func(ctx context.Context) (time.Duration, error) { return l.serve(ctx, three) })}
	if err := interleave(ctx, n, 0, []*contender{version, single, trio}); err != nil {
		return err
	}
	g := Group{Name: "from start to ready, with data there"}
	worst := 0.0
	for _, c := range []*contender{single, trio} {
		row := c.row()
		row.Rate = 0
		row.compare(c, version)
		worst = max(worst, row.P50)
		g.Rows = append(g.Rows, row)
	}
	whole := summary("dev, three new nodes", "ms", dev)
	whole.Note = "keys and genesis made, runtime already there"
	floor := version.row()
	floor.Rate, floor.Note = 0, "starts and ends the binary, does nothing"
	g.Rows = append(g.Rows, whole, floor)
	t.Sections = append(t.Sections, g)
	t.Targets = append(t.Targets, Target{Name: "ready, p50, the slower of one and three nodes", Unit: "ms", Most: 2000, Got: worst})
	return nil
}

// startsOf makes a turn of one start, whose end does not count.
func startsOf(once func(context.Context) (time.Duration, error)) func(context.Context, time.Duration) (slice, error) {
	return func(ctx context.Context, _ time.Duration) (slice, error) {
		d, err := once(ctx)
		return slice{Each: []time.Duration{d}, Elapsed: d}, err
	}
}

// initialised is a cluster of one node that does not run.
func (l *lab) initialised(ctx context.Context) (*cluster, error) {
	port, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	dir, addr := filepath.Join(l.dir, "single"), port.Addr().String()
	if err := port.Close(); err != nil {
		return nil, err
	}
	if err := l.finish(ctx, "init", "--data", dir, "--http", addr); err != nil {
		return nil, err
	}
	return &cluster{data: dir, Nodes: []member{{HTTP: "http://" + addr, Data: dir}}}, nil
}

// serve starts the nodes of a cluster that does not run, waits until all are
// ready, and stops them.
func (l *lab) serve(ctx context.Context, c *cluster) (took time.Duration, err error) {
	var nodes []*process
	defer func() {
		for _, p := range nodes {
			err = errors.Join(err, p.stop())
		}
	}()
	begun := time.Now()
	for i := range c.Nodes {
		p, err := startProcess(ctx, l.serveCommand(c, i))
		if err != nil {
			return 0, err
		}
		nodes = append(nodes, p)
	}
	for i, p := range nodes {
		if err := p.until(ctx, "it was ready", func(ctx context.Context) bool { return answersReady(ctx, c.Nodes[i].HTTP) }); err != nil {
			return 0, fmt.Errorf("node %d: %w", i+1, err)
		}
	}
	return time.Since(begun), nil
}

func (l *lab) serveCommand(c *cluster, node int) *exec.Cmd {
	return l.command("serve", "--config", filepath.Join(c.Nodes[node].Data, "config.yaml"))
}
