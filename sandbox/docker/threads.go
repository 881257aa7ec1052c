//go:build linux

package docker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/agenticraft/node/sandbox/process"
)

// The threads of process 1 count against the engine's limit, but they are not the
// program's: the limit is raised by them. Their number depends on how the helper's
// start went; once it only waits it has all that it needs.

// channel is the way to an interpreter in a container.
type channel struct{ *contained }

var _ process.Channel = channel{}

func (c channel) Read(p []byte) (int, error) { return c.outlet.Read(p) }

// Write sends the program, before which the limit of processes is made exact.
func (c channel) Write(p []byte) (int, error) {
	c.settle.Do(func() { c.settled = c.limitThreads() })
	if c.settled != nil {
		return 0, c.settled
	}
	return c.inlet.Write(p)
}

// SetDeadline of both ways.
func (c channel) SetDeadline(t time.Time) error {
	return errors.Join(c.inlet.SetDeadline(t), c.outlet.SetDeadline(t))
}

// limitThreads corrects the limit where process 1 has another number of threads
// than was reckoned with.
func (c *contained) limitThreads() error {
	n := threadsOf(c.pid)
	if n == 0 || n == waiters || c.backend.chosen() == gVisor {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, killTimeout)
	defer cancel()
	pids := c.processes + n
	_, err := c.backend.api.ContainerUpdate(ctx, c.id, container.UpdateConfig{Resources: container.Resources{PidsLimit: &pids}})
	if err != nil {
		return fmt.Errorf("limit processes: %w", err)
	}
	return nil
}

// threadsOf is how many threads a process of this machine has, or 0.
func threadsOf(pid int) (n int64) {
	if pid == 0 {
		return 0
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "Threads:"); ok {
			_, _ = fmt.Sscan(text, &n) // 0 as well says that it is not known
			return n
		}
	}
	return 0
}
