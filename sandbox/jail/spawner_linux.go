package jail

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// Config of a [Spawner].
type Config struct {
	Node  string // short id of the node, in the names of cgroups; [A-Za-z0-9-], at most 64
	Dir   string // state folder of the jails, made if missing; not on a noexec file system
	Slots int    // jails at the same time, at most 512; default 64
	Log   *slog.Logger

	// Helper is the helper's executable; default: the embedded one. Tests pass
	// one that they have built.
	Helper []byte
}

const (
	maxSlots     = 512
	startTimeout = 10 * time.Second // for one jail, from the request to the running worker
	helloTimeout = 10 * time.Second
	closeTimeout = 7 * time.Second
	hangTimeout  = 6 * time.Second // of the spawner, to end a jail
)

// helperMode lets a worker, who has a user id of its own, run the helper.
const helperMode = 0o555

// Spawner makes jails. Its methods may be called concurrently.
type Spawner struct {
	cfg     Config
	helper  *os.File // sealed memfd holding the helper
	minRoot string
	digest  string // of the helper
	probe   Probe

	ctx  context.Context // done when closed
	stop context.CancelFunc
	wg   sync.WaitGroup // the keeper

	mu  sync.Mutex // guards cur and up
	cur *life
	up  chan struct{} // closed while cur lives, replaced when it dies
}

var nodePattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// Start runs the helper as spawner, removes what an earlier one of the same
// node left behind, and probes what this machine can enforce by making a jail.
// That no jail can be made is not an error: see [Spawner.Probe]. A build
// without the helper is one, wrapping [sandbox.ErrUnavailable].
//
// A spawner that dies is started again; jails that ran end with [ErrLost].
func Start(cfg Config) (*Spawner, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Slots == 0 {
		cfg.Slots = 64
	}
	var faults []error
	if !nodePattern.MatchString(cfg.Node) {
		faults = append(faults, fmt.Errorf("jail: Node %.80q is not 1 to 64 of A-Z, a-z, 0-9 and -", cfg.Node))
	}
	if cfg.Dir == "" {
		faults = append(faults, errors.New("jail: Dir is missing"))
	}
	if cfg.Slots < 1 || cfg.Slots > maxSlots {
		faults = append(faults, fmt.Errorf("jail: Slots %d is not in 1 to %d", cfg.Slots, maxSlots))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	binary := cfg.Helper
	if binary == nil {
		var err error
		if binary, err = helperBinary(); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("find state folder: %w", err)
	}
	minRoot, err := writeMinRoot(dir, binary)
	if err != nil {
		return nil, err
	}
	helper, err := sealedFile("agenticraft-jail", binary)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err)
	}
	sum := sha256.Sum256(binary)
	s := &Spawner{cfg: cfg, helper: helper, minRoot: minRoot, digest: hex.EncodeToString(sum[:]), up: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	first, err := s.launch()
	if err != nil {
		s.stop()
		return nil, errors.Join(fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err), helper.Close())
	}
	s.adopt(first)
	s.wg.Go(func() { s.keep(first) })
	s.probe = s.try(first.hello)
	return s, nil
}

// writeMinRoot makes the tree of a jail that holds only the helper. It is
// readable by all, for the worker has a user id of its own.
func writeMinRoot(dir string, binary []byte) (string, error) {
	root := filepath.Join(dir, "minroot")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make jail folder: %w", err)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		return "", fmt.Errorf("open jail folder to workers: %w", err)
	}
	return root, WriteHelper(root, binary, helperMode)
}

// PlaceHelper puts the helper into a folder under the name [wire.Helper], for a tree
// of which a worker needs more than the helper alone.
func (s *Spawner) PlaceHelper(dir string) error {
	from, to := filepath.Join(s.minRoot, wire.Helper), filepath.Join(dir, wire.Helper)
	if err := os.Link(from, to); err == nil {
		return nil
	}
	binary, err := os.ReadFile(from) // on another file system
	if err != nil {
		return fmt.Errorf("read jail helper: %w", err)
	}
	return WriteHelper(dir, binary, helperMode)
}

// HelperDigest is the SHA-256 of the helper, in hex.
func (s *Spawner) HelperDigest() string { return s.digest }

// sealedFile returns an executable file in memory that nobody can change.
func sealedFile(name string, data []byte) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("make memory file for the jail helper: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(fmt.Errorf("fill memory file of the jail helper: %w", err), f.Close())
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal memory file of the jail helper: %w", err), f.Close())
	}
	return f, nil
}

// keep starts the spawner anew each time it dies, until s is closed.
func (s *Spawner) keep(l *life) {
	const maxPause = 5 * time.Second
	pause := 50 * time.Millisecond
	for {
		select {
		case <-l.gone:
		case <-s.ctx.Done():
			<-l.gone
		}
		if s.ctx.Err() != nil {
			return
		}
		s.cfg.Log.Error("jail spawner died, starting another", "err", l.reason())
		for {
			next, err := s.launch()
			if err == nil {
				l = next
				break
			}
			s.cfg.Log.Error("jail spawner does not start", "err", err)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
				return
			}
			pause = min(2*pause, maxPause)
		}
		s.adopt(l)
	}
}

// adopt makes l the spawner that is asked for jails, if it still lives.
func (s *Spawner) adopt(l *life) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		l.hangUp()
		return
	}
	if l.reason() == nil {
		s.cur = l
		close(s.up)
	}
}

// lost notes that l is dead, before anyone who waits for its jails is told:
// who then asks for another waits for the next spawner.
func (s *Spawner) lost(l *life) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == l {
		s.cur, s.up = nil, make(chan struct{})
	}
}

// Probe returns what was found at the start.
func (s *Spawner) Probe() Probe { return s.probe.clone() }

// try makes a jail and reports whether that worked.
func (s *Spawner) try(h wire.Hello) Probe {
	p := Probe{Features: h.Features, CgroupVersion: h.Cgroup, Enforces: h.Enforces}
	if p.Features == nil {
		p.Features = map[string]string{}
	}
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout)
	defer cancel()
	err := s.tryJail(ctx)
	if err != nil {
		p.Tier, p.Reason = Tier4, err.Error()
		p.Features["jail"] = err.Error()
		p.Enforces = nil
		p.Hint = "jails need unprivileged user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns); in a container also seccomp=unconfined and systempaths=unconfined"
		if !mountsForOthers() {
			p.Hint = "this root lacks CAP_SYS_ADMIN, as in a container: run the node as another user, or give it the capability; " + p.Hint
		}
		return p
	}
	p.Features["jail"] = "ok"
	p.Tier = Tier2
	if p.Features["user_ids"] == "ok" && p.Features["cgroup_memory"] == "ok" && p.Features["cgroup_pids"] == "ok" && p.Features["cgroup_cpu"] == "ok" {
		p.Tier = Tier1
	}
	return p
}

// mountsForOthers is false for a root who may not hand a mount to the users of a
// jail. Who is not root need not.
func mountsForOthers() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&head, &sets[0])
	return os.Geteuid() != 0 || err != nil || sets[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

func (s *Spawner) tryJail(ctx context.Context) error {
	j, err := s.Start(ctx, Profile{ID: "probe", Argv: []string{"/jail", "probe"}, Worker: true, Syscalls: SyscallsWorker})
	if err != nil {
		return err
	}
	defer j.Release()
	exit, err := j.Wait(ctx)
	if err != nil {
		return err
	}
	if exit.Code != 0 {
		text, _ := io.ReadAll(io.LimitReader(j.Stderr(), 1024)) // what it says is only a help
		return fmt.Errorf("the program in the jail ended with code %d, signal %d: %s", exit.Code, exit.Signal, text)
	}
	return nil
}

// Start makes a complete jail and starts the worker in it. When it returns,
// the worker has been executed. Errors wrap [sandbox.ErrSpec] (the profile is
// wrong), [sandbox.ErrUnenforceable] (a required limit, named),
// [sandbox.ErrBusy] (no slot), [sandbox.ErrClosed] or
// [sandbox.ErrUnavailable]. Done ctx ends only the start, not the jail.
func (s *Spawner) Start(ctx context.Context, p Profile) (*Jail, error) {
	spec, err := p.start(s.minRoot)
	if err != nil {
		return nil, err
	}
	l, err := s.live(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return l.start(ctx, spec, p.Files)
}

// live returns the running spawner, waiting a little for one that is being
// started again.
func (s *Spawner) live(ctx context.Context) (*life, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		l, up := s.cur, s.up
		s.mu.Unlock()
		if s.ctx.Err() != nil {
			return nil, fmt.Errorf("start jail: %w", sandbox.ErrClosed)
		}
		if l != nil {
			return l, nil
		}
		select {
		case <-up:
		case <-s.ctx.Done():
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the jail spawner is not running", sandbox.ErrUnavailable)
		}
	}
}

// Close ends every jail and the spawner and waits until all traces are
// removed. It may be called twice.
func (s *Spawner) Close() error {
	s.mu.Lock()
	s.stop()
	l := s.cur
	s.mu.Unlock()
	if l != nil {
		l.hangUp()
	}
	s.wg.Wait()
	if err := s.helper.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close jail helper: %w", err)
	}
	return nil
}

// sendFiles writes the files to w as package wire describes, and closes it.
func sendFiles(w *os.File, files []sandbox.File) error {
	for _, f := range files {
		head := make([]byte, 0, 10+len(f.Path))
		head = binary.BigEndian.AppendUint16(head, uint16(len(f.Path)))
		head = binary.BigEndian.AppendUint64(head, uint64(len(f.Content)))
		head = append(head, f.Path...)
		if _, err := w.Write(head); err != nil {
			return errors.Join(err, w.Close())
		}
		if _, err := w.Write(f.Content); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return w.Close()
}
