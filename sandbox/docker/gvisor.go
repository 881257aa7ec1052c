//go:build linux

package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// chosen is the engine's runtime for containers; "" is its default.
func (b *Backend) chosen() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.runtime
}

// kernelThreads are at most those of gVisor's kernel itself.
const kernelThreads = 256

// pids is how many threads the engine lets a container have. gVisor's kernel is
// among them, so that what is left for a program is no limit to name.
func (b *Backend) pids(l sandbox.Limits) int64 {
	if b.chosen() == gVisor {
		return int64(l.Processes + waiters + kernelThreads)
	}
	return int64(l.Processes + waiters)
}

// Folders of the helper, in the state folder.
const (
	closedHelper = "helper"
	openHelper   = "helper-readable"
)

// writeHelpers writes the helper twice. A process whose file can only be run is
// closed to others of its user; gVisor, whose programs have a kernel of their own
// and there a helper that closes itself, runs what it can read.
func writeHelpers(cfg Config) error {
	for folder, mode := range map[string]os.FileMode{closedHelper: 0o111, openHelper: 0o555} {
		dir := filepath.Join(cfg.Dir, folder)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make state folder: %w", err)
		}
		if err := jail.WriteHelper(dir, cfg.Helper, mode); err != nil {
			return err
		}
	}
	return nil
}

// linkHelper puts the helper into the folder that a container sees.
func (b *Backend) linkHelper(dir string) error {
	folder := closedHelper
	if b.chosen() == gVisor {
		folder = openHelper
	}
	return os.Link(filepath.Join(b.cfg.Dir, folder, wire.Helper), filepath.Join(dir, wire.Helper))
}

// workMount is what the names of mounted working folders end with.
const workMount = ".work"

// mountWork gives a container of gVisor a working folder that the node can look
// into: the kernel inside keeps its own to itself. Only root can; without it files
// go neither in nor out, as with every other runtime.
func (c *contained) mountWork(host *container.HostConfig) error {
	if host.Runtime != gVisor || os.Geteuid() != 0 {
		return nil
	}
	at := c.dir + workMount
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	// As [Backend.describe] says, without the flags that stand before.
	options := host.Tmpfs["/work"][len(workFlags):]
	if err := unix.Mount("agenticraft", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return errors.Join(err, os.Remove(at))
	}
	c.mounted = at
	delete(host.Tmpfs, "/work")
	host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: at, Target: "/work"})
	return nil
}

// unmountWork removes a mounted working folder, or all that are left in dir. What
// still holds one keeps it to itself.
func unmountWork(dir string) {
	all, _ := filepath.Glob(filepath.Join(dir, "*"+workMount)) // the pattern is a good one
	for _, at := range append(all, dir) {
		if filepath.Ext(at) == workMount && unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			_ = os.Remove(at) // in the state folder, which is emptied at the next start
		}
	}
}
