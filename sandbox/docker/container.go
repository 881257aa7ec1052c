//go:build linux

package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/client"
	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/egress"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/jail/wire"
	"github.com/agenticraft/node/sandbox/process"
)

const (
	worker    = 65534 // uid and gid in the container
	openFiles = 256
	// workFlags are those of the folders that a program may write.
	workFlags = "rw,exec,nosuid,nodev,"
	// startThreads are those that the engine's own start of process 1 needs.
	startThreads = 16
	// waiters are the threads that process 1, the helper, mostly has.
	waiters = 5
)

// contained is one container and its named pipes: a [process.Vessel].
type contained struct {
	backend  *Backend
	id       string
	dir      string
	enforced map[string]string
	work     *os.File // the working folder, or nil where the node may not reach it
	mounted  string   // where that is mounted on the host, if it is

	stdin, stdout, stderr *os.File
	inlet, outlet         *os.File
	life                  *os.File   // ends with this node, and process 1 with it
	keepers               []*os.File // writers that keep the outputs open until the end

	proxy *egress.Proxy // nil without a network

	init *os.File // process 1 as a pidfd, where the engine is on this machine
	pid  int      // its number, or 0

	processes int64 // that the program may have
	settle    sync.Once
	settled   error // after settle

	kill   sync.Once
	killed atomic.Bool
	ctx    context.Context // done when the engine is no longer waited for
	giveUp context.CancelFunc
	wg     sync.WaitGroup
	done   chan struct{}
	exit   jail.Exit // after done
	err    error
}

var _ process.Vessel = (*contained)(nil)

// start makes a container whose interpreter waits for a program.
func (b *Backend) start(ctx context.Context, spec sandbox.Spec, from source, enforced map[string]string) (_ *contained, err error) {
	c := &contained{backend: b, enforced: enforced, done: make(chan struct{}), processes: int64(spec.Limits.Processes)}
	c.ctx, c.giveUp = context.WithCancel(context.Background())
	started := false
	defer func() {
		if err != nil && !started {
			c.backend.wg.Go(c.remove)
			c.close()
			c.giveUp()
		}
	}()
	if err := c.pipes(filepath.Join(b.cfg.Dir, "run-"+spec.ID)); err != nil {
		return nil, fmt.Errorf("%w: make pipes: %w", sandbox.ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	config, host, err := b.describe(spec, c.dir, from)
	if err != nil {
		return nil, err
	}
	if err := c.mountWork(host); err != nil {
		return nil, fmt.Errorf("%w: make working folder: %w", sandbox.ErrUnavailable, err)
	}
	if len(spec.Network) > 0 {
		ca, err := certificates(c.dir)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err)
		}
		b.networked(config, host, ca)
	}
	made, err := b.api.ContainerCreate(ctx, config, host, nil, nil, "")
	if err != nil {
		return nil, b.failed(ctx, "make container", err)
	}
	c.id = made.ID
	if err := b.api.ContainerStart(ctx, c.id, container.StartOptions{}); err != nil {
		return nil, b.failed(ctx, "start container", err)
	}
	if n := b.pids(spec.Limits); n < startThreads {
		// Before the program comes, and with it whatever might use the rest.
		update := container.UpdateConfig{Resources: container.Resources{PidsLimit: &n}}
		if _, err := b.api.ContainerUpdate(ctx, c.id, update); err != nil {
			return nil, b.failed(ctx, "limit processes", err)
		}
	}
	started = true
	c.wg.Go(c.watch)
	if err := c.enter(ctx, spec); err != nil {
		c.Kill()
		c.Release()
		if errors.Is(err, sandbox.ErrUnenforceable) {
			return nil, err
		}
		return nil, b.failed(ctx, "enter container", err)
	}
	return c, nil
}

func (b *Backend) failed(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) || client.IsErrConnectionFailed(err) {
		b.suspect(err)
	}
	return fmt.Errorf("%w: %s: %w", sandbox.ErrUnavailable, doing, err)
}

// describe is the container of one run.
func (b *Backend) describe(spec sandbox.Spec, dir string, from source) (*container.Config, *container.HostConfig, error) {
	l := spec.Limits
	options, env, err := process.Command(spec.Language, l, wire.InletFD, wire.OutletFD)
	if err != nil {
		return nil, nil, err
	}
	scratch := workFlags + fmt.Sprintf("size=%d,nr_inodes=%d,uid=%d,gid=%d", l.Memory/4, l.Files+8, worker, worker)
	starting := max(b.pids(l), startThreads)
	limit := func(name string, n int64) *units.Ulimit { return &units.Ulimit{Name: name, Soft: n, Hard: n} }
	config := &container.Config{
		Image:           from.image,
		User:            fmt.Sprintf("%d:%d", worker, worker),
		Entrypoint:      slices.Concat([]string{path.Join(wire.Pipes, wire.Helper), "container"}, from.argv, options),
		Env:             append([]string{"HOME=/work", "TMPDIR=/tmp", "PATH=" + from.path, "LANG=C.UTF-8", wire.OwnEnv + "=1"}, env...),
		WorkingDir:      "/work",
		Hostname:        "jail",
		NetworkDisabled: true,
		Labels:          map[string]string{label: b.cfg.Node},
	}
	host := &container.HostConfig{
		Runtime:        b.chosen(),
		NetworkMode:    "none",
		ReadonlyRootfs: true,
		CapDrop:        []string{"ALL"},
		SecurityOpt:    []string{"no-new-privileges", "seccomp=" + b.profiles[false]},
		IpcMode:        "none",
		LogConfig:      container.LogConfig{Type: "none"},
		Tmpfs:          map[string]string{"/work": scratch + ",mode=0700", "/tmp": scratch + ",mode=1777", "/sys": "ro,nosuid,nodev,noexec,size=4k,nr_inodes=2"},
		Mounts:         []mount.Mount{{Type: mount.TypeBind, Source: dir, Target: wire.Pipes, ReadOnly: b.chosen() != gVisor}},
		Resources: container.Resources{
			Memory: l.Memory, MemorySwap: l.Memory, NanoCPUs: int64(l.CPUPercent) * 1e7, PidsLimit: &starting,
			Ulimits: []*units.Ulimit{
				limit("fsize", l.FileSize), limit("nofile", openFiles), limit("core", 0), limit("memlock", 0),
				limit("msgqueue", 0), limit("sigpending", 256),
			},
		},
	}
	return config, host, nil
}

// pipes makes the named pipes of a run in dir, beside the helper.
func (c *contained) pipes(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	c.dir = dir
	if err := c.backend.linkHelper(dir); err != nil {
		return err
	}
	open := func(name string, flags int) (*os.File, error) {
		return os.OpenFile(filepath.Join(dir, name), flags|unix.O_NONBLOCK, 0)
	}
	for _, p := range []struct {
		name string
		at   **os.File
		in   bool
	}{
		{wire.PipeLife, &c.life, true},
		{wire.PipeStdin, &c.stdin, true},
		{wire.PipeStdout, &c.stdout, false},
		{wire.PipeStderr, &c.stderr, false},
		{wire.PipeInlet, &c.inlet, true},
		{wire.PipeOutlet, &c.outlet, false},
	} {
		full := filepath.Join(dir, p.name)
		// The worker is nobody of this machine; the folder above is closed to others.
		mode := os.FileMode(0o666)
		if p.name == wire.PipeLife {
			mode = 0o644 // the node alone holds it open
		}
		if err := errors.Join(unix.Mkfifo(full, 0o600), os.Chmod(full, mode)); err != nil {
			return err
		}
		var err error
		if p.in {
			// Open for reading as well, so that neither side waits for the other.
			*p.at, err = open(p.name, os.O_RDWR)
		} else {
			*p.at, err = open(p.name, os.O_RDONLY)
		}
		if err != nil {
			return err
		}
		if !p.in {
			keeper, err := open(p.name, os.O_WRONLY)
			if err != nil {
				return err
			}
			c.keepers = append(c.keepers, keeper)
		}
	}
	return nil
}

// enter opens the working folder of the container, in which nothing but the
// waiting interpreter runs, places the files, and opens the way to the network.
func (c *contained) enter(ctx context.Context, spec sandbox.Spec) error {
	state, err := c.backend.api.ContainerInspect(ctx, c.id)
	if err != nil {
		return err
	}
	if state.State == nil || state.State.Pid <= 0 {
		return errors.New("it has ended")
	}
	proc := "/proc/" + strconv.Itoa(state.State.Pid)
	if pidfd, err := unix.PidfdOpen(state.State.Pid, unix.PIDFD_NONBLOCK); err == nil {
		c.init = os.NewFile(uintptr(pidfd), "init")
	}
	network, err := os.Open(proc + "/ns/net")
	if err == nil {
		defer func() { _ = network.Close() }() // only named
	} else if len(spec.Network) > 0 {
		return fmt.Errorf("%w: %s: only root can open a container's network: %w", sandbox.ErrUnenforceable, sandbox.LimitNetwork, err)
	}
	if c.mounted != "" {
		c.work, err = os.Open(c.mounted)
	} else {
		c.work, err = os.Open(proc + "/root/work")
	}
	// The number might be another's by now, or the engine on another machine.
	c.pid = state.State.Pid
	group, readErr := os.ReadFile(proc + "/cgroup")
	if readErr != nil || !strings.Contains(string(group), c.id) {
		c.pid = 0
		if c.init != nil {
			_ = c.init.Close() // not ours to signal
			c.init = nil
		}
		if err == nil {
			err = errors.Join(errors.New("the process is not the container's"), c.work.Close())
			c.work = nil
			return err
		}
	}
	if err == nil && len(spec.Network) > 0 {
		err = c.connect(network, spec)
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		if len(spec.Files) > 0 {
			return errors.New("files can be placed in a container only by root")
		}
		return nil
	case err != nil:
		return err
	}
	return c.placeAll(spec.Files)
}

// placeAll puts files into the working folder before the program comes.
func (c *contained) placeAll(files []sandbox.File) error {
	if len(files) == 0 {
		return nil
	}
	if c.work == nil {
		return errors.New("files can be placed in a container only by root")
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", c.work.Fd()))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := place(root, f); err != nil {
			return errors.Join(err, root.Close())
		}
	}
	return root.Close()
}

func place(root *os.Root, f sandbox.File) error {
	var dirs []string
	for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	for _, dir := range dirs {
		err := root.Mkdir(dir, 0o755)
		if err == nil {
			err = root.Lchown(dir, worker, worker)
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := root.WriteFile(f.Path, f.Content, 0o644); err != nil {
		return err
	}
	return root.Lchown(f.Path, worker, worker)
}

// watch waits for the end of the container, and removes it.
func (c *contained) watch() {
	defer c.giveUp()
	wait, fault := c.backend.api.ContainerWait(c.ctx, c.id, container.WaitConditionNotRunning)
	select {
	case w := <-wait:
		c.exit.Code = int(w.StatusCode)
	case err := <-fault:
		c.backend.suspect(err)
		c.err = fmt.Errorf("%w: the engine lost the container: %w", jail.ErrLost, err)
		c.endAlone()
	}
	if c.err == nil {
		short, cancel := context.WithTimeout(c.ctx, callTimeout)
		state, err := c.backend.api.ContainerInspect(short, c.id)
		cancel()
		if err == nil && state.State != nil {
			c.exit.OOM = state.State.OOMKilled && c.exit.Code == 128+int(unix.SIGKILL)
		}
	}
	c.exit.Killed = c.killed.Load() && c.exit.Code == 128+int(unix.SIGKILL)
	const last = 64 // signal
	if c.exit.Code > 128 && c.exit.Code <= 128+last {
		c.exit.Signal = c.exit.Code - 128
	}
	// Everything in it is dead. What is left of it, nobody need wait for, unless
	// the engine is far behind.
	free := func() {}
	select {
	case c.backend.removing <- struct{}{}:
		free = func() { <-c.backend.removing }
	case <-time.After(killTimeout): // it hangs
	}
	c.backend.wg.Go(func() {
		defer free()
		c.remove()
	})
	// What was printed last is read before the pipes end.
	for _, k := range c.keepers {
		_ = k.Close() // only kept open
	}
	past := time.Unix(1, 0)
	_ = errors.Join(c.stdin.SetWriteDeadline(past), c.inlet.SetDeadline(past)) // closed already: as well
	close(c.done)
}

// endAlone ends a container whose engine cannot be asked. One that cannot be
// ended, for the engine is on another machine, is no longer listened to.
func (c *contained) endAlone() {
	if c.init != nil && unix.PidfdSendSignal(int(c.init.Fd()), unix.SIGKILL, nil, 0) == nil {
		p := []unix.PollFd{{Fd: int32(c.init.Fd()), Events: unix.POLLIN}}
		for end := time.Now().Add(killTimeout); time.Now().Before(end); {
			n, err := unix.Poll(p, int(time.Until(end).Milliseconds())+1)
			if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	now := time.Now()
	_ = errors.Join(c.stdout.SetReadDeadline(now), c.stderr.SetReadDeadline(now)) // closed already: as well
}

// remove removes the container, running or not.
func (c *contained) remove() {
	if c.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := c.backend.api.ContainerRemove(ctx, c.id, container.RemoveOptions{Force: true}); err != nil {
		c.backend.cfg.Log.Warn("cannot remove a container", "container", c.id, "err", err)
	}
}

// close closes and removes the pipes.
func (c *contained) close() {
	for _, f := range append([]*os.File{c.work, c.stdin, c.stdout, c.stderr, c.inlet, c.outlet, c.life, c.init}, c.keepers...) {
		if f != nil {
			_ = f.Close() // may be closed already
		}
	}
	if c.mounted != "" {
		unmountWork(c.mounted)
	}
	if c.dir != "" {
		if err := os.RemoveAll(c.dir); err != nil {
			c.backend.cfg.Log.Warn("cannot remove pipes", "dir", c.dir, "err", err)
		}
	}
}

func (c *contained) Control() process.Channel    { return channel{c} }
func (c *contained) Stdin() *os.File             { return c.stdin }
func (c *contained) Stdout() *os.File            { return c.stdout }
func (c *contained) Stderr() *os.File            { return c.stderr }
func (c *contained) Done() <-chan struct{}       { return c.done }
func (c *contained) Enforced() map[string]string { return c.enforced }

// Kill ends the container. It does not wait.
func (c *contained) Kill() {
	select {
	case <-c.done:
		return
	default:
	}
	c.kill.Do(func() {
		c.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
			defer cancel()
			c.killed.Store(true)
			// Without the engine, where that can be: it may hang, or be gone. One that
			// has ended cannot be killed, which is as well.
			if c.init == nil || unix.PidfdSendSignal(int(c.init.Fd()), unix.SIGKILL, nil, 0) != nil {
				_ = c.backend.api.ContainerKill(ctx, c.id, "KILL")
			}
			select {
			case <-c.done:
			case <-ctx.Done():
				c.giveUp() // the engine hangs
			}
		})
	})
}

// Wait returns when the container is gone.
func (c *contained) Wait(ctx context.Context) (jail.Exit, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		return jail.Exit{}, context.Cause(ctx)
	}
	return c.exit, c.err
}

// Release closes everything once the container is gone.
func (c *contained) Release() {
	c.Kill()
	c.wg.Wait()
	if c.proxy != nil {
		c.proxy.Close() // the container is gone, and so is who used it
	}
	c.close()
}

// Collect reads the working folder.
func (c *contained) Collect(l jail.CollectLimits) ([]sandbox.File, error) {
	if c.work == nil {
		return nil, errors.New("files of a container can be read only by root")
	}
	return jail.CollectFrom(c.work, l)
}
