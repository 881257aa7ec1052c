package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// measureTaskExec measures governed Starlark by one agent, many requests at the
// same time, beside the SDK's handler that only keeps tasks, in memory: each of
// ours is signed, verified, decided, run in a jailed worker and on the record of a
// quorum. The clients, who sign, share the machine.
func (l *lab) measureTaskExec(ctx context.Context, t *Table, each time.Duration) (err error) {
	served, err := l.startTasks(ctx, sdkTasks)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, served.stop()) }()
	var unused time.Duration
	peer := served.contender(&unused)
	g := Group{Name: fmt.Sprintf("A2A executions, %d at the same time, one agent", taskClients)}
	for _, nodes := range []int{1, 3} {
		peer.slices = nil
		if err := l.onCluster(ctx, nodes, func(c *cluster) error {
			leader, err := c.leader(ctx)
			if err != nil {
				return err
			}
			door, err := c.door(leader)
			if err != nil {
				return err
			}
			name := fmt.Sprintf("signed Starlark, %d node", nodes)
			if nodes > 1 {
				name += "s, at the leader"
			}
			one := newGoverned(name, door, "starlark", "local")
			ours := &contender{name: name, run: func(ctx context.Context, d time.Duration) (slice, error) { return crowd(ctx, d, one.once) }}
			if err := interleave(ctx, rounds, max(each/rounds, 500*time.Millisecond), []*contender{ours, peer}); err != nil {
				return err
			}
			row, beside := ours.row(), peer.row()
			times := rates(ours, peer)
			row.Peers = []Ratio{{Peer: fmt.Sprintf("the SDK's bare tasks (%s per second)", number(beside.Rate)), Times: times, Of: "rate"}}
			row.Note = fmt.Sprintf("of it %s ms in the nodes (p50)", number(percentile(one.whole, 50)))
			g.Rows = append(g.Rows, row)
			if nodes == 1 {
				t.Targets = append(t.Targets, Target{Name: "signed, audited Starlark for each bare task of the SDK's handler, one node", Unit: "x", Least: 1.5, Got: times})
			}
			return nil
		}); err != nil {
			return err
		}
	}
	t.Sections = append(t.Sections, g)
	return nil
}
