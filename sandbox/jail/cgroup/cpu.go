//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// period over which CPU time is shared out.
const period = 100 * time.Millisecond

// LimitCPU sets the share of one core in percent; 0 lifts the limit.
func (g *Group) LimitCPU(percent int) error {
	c, ok := g.host.controllers[CPU]
	if !ok {
		return nil
	}
	quota := int64(percent) * period.Microseconds() / 100
	// The kernel accepts no quota below a millisecond.
	quota = max(quota, 1000)
	if c.version == 2 {
		if percent == 0 {
			return g.write(CPU, "cpu.max", "max")
		}
		return g.write(CPU, "cpu.max", fmt.Sprintf("%d %d", quota, period.Microseconds()))
	}
	if percent == 0 {
		quota = -1
	}
	if err := g.write(CPU, "cpu.cfs_period_us", fmt.Sprint(period.Microseconds())); err != nil {
		return err
	}
	return g.write(CPU, "cpu.cfs_quota_us", fmt.Sprint(quota))
}

// Hurry lifts the limit on CPU time and puts the group before others, so that
// its processes die soon: they count as one beside those of the rest of the
// machine, however many they are.
func (g *Group) Hurry() error {
	c, ok := g.host.controllers[CPU]
	if !ok {
		return nil
	}
	file, most := "cpu.shares", "262144"
	if c.version == 2 {
		file, most = "cpu.weight", "10000"
	}
	err := g.write(CPU, file, most)
	if errors.Is(err, os.ErrNotExist) {
		err = nil // a kernel without fair groups
	}
	return errors.Join(err, g.LimitCPU(0))
}
