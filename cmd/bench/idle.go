package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const settle = 5 * time.Second

// measureIdle measures what nodes hold and consume while nobody asks anything.
func measureIdle(ctx context.Context, c *cluster, t *Table, watch time.Duration) error {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	before, err := uses(c)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := pause(ctx, watch); err != nil {
		return err
	}
	after, err := uses(c)
	if err != nil {
		return err
	}
	elapsed := time.Since(begun)
	share := func(of func(nodeUse) use) []float64 {
		var all []float64
		for i := range after {
			all = append(all, 100*(of(after[i]).cpu-of(before[i]).cpu).Seconds()/elapsed.Seconds())
		}
		return all
	}
	count := fmt.Sprintf("%d node", len(c.Nodes))
	if len(c.Nodes) > 1 {
		count += "s"
	}
	g := Group{Name: "idle, " + count + ", after " + settle.String()}
	g.Rows = append(memoryRows(after), summary("CPU, node with its jails", "% of a core", share(all)))
	g.Rows[len(g.Rows)-1].Note = fmt.Sprintf("over %v; the node alone %s", watch, number(percentile(share(alone), 50)))
	t.Sections = append(t.Sections, g)
	t.Targets = append(t.Targets,
		Target{Name: "idle memory (RSS), " + count, Unit: "MiB", Most: 120, Got: g.Rows[0].P99},
		Target{Name: "idle memory (PSS) with its jails, " + count, Unit: "MiB", Most: 120, Got: g.Rows[3].P99})
	return nil
}

// measureAfterLoad measures the memory of nodes that have worked.
func measureAfterLoad(ctx context.Context, c *cluster, t *Table) error {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	after, err := uses(c)
	if err != nil {
		return err
	}
	t.Sections = append(t.Sections, Group{Name: "three nodes, " + settle.String() + " after these executions", Rows: memoryRows(after)})
	return nil
}

// nodeUse is one node, without and with the processes below it.
type nodeUse struct {
	alone, all use
	processes  int
}

func alone(u nodeUse) use { return u.alone }
func all(u nodeUse) use   { return u.all }

func uses(c *cluster) ([]nodeUse, error) {
	var out []nodeUse
	for _, n := range c.Nodes {
		pids, err := family(n.PID)
		if err != nil {
			return nil, err
		}
		u := nodeUse{processes: len(pids)}
		if u.alone, err = usage(n.PID); err != nil {
			return nil, err
		}
		if u.all, err = usage(pids...); err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

func memoryRows(nodes []nodeUse) []Row {
	pick := func(name string, of func(nodeUse) float64) Row {
		var values []float64
		for _, u := range nodes {
			values = append(values, of(u))
		}
		return summary(name, "MiB", values)
	}
	rows := []Row{
		pick("node, RSS", func(u nodeUse) float64 { return u.alone.rss }),
		pick("node, PSS", func(u nodeUse) float64 { return u.alone.pss }),
		pick("node with its jails, RSS", func(u nodeUse) float64 { return u.all.rss }),
		pick("node with its jails, PSS", func(u nodeUse) float64 { return u.all.pss }),
	}
	rows[2].Note = fmt.Sprintf("%d processes; RSS counts shared pages again in each", nodes[0].processes)
	return rows
}

// binarySize is how much there is to copy onto a machine.
func (l *lab) binarySize(t *Table) error {
	info, err := os.Stat(l.bin)
	if err != nil {
		return err
	}
	r := summary(filepath.Base(l.bin), "MiB", []float64{float64(info.Size()) / (1 << 20)})
	t.Sections = append(t.Sections, Group{Name: "binary, everything inside", Rows: []Row{r}})
	return nil
}
