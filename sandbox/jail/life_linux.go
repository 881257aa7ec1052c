package jail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// life is one spawner process, from its start to its death.
type life struct {
	sock  *net.UnixConn
	cmd   *exec.Cmd
	hello wire.Hello
	gone  chan struct{} // closed when the process is reaped and every jail settled

	sendMu sync.Mutex // one message at a time

	mu    sync.Mutex // guards the rest
	next  uint64
	jails map[uint64]*Jail
	dead  bool
	err   error
}

// launch runs the helper as spawner and waits for its greeting.
func (s *Spawner) launch() (*life, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket to the jail spawner: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "spawner"), os.NewFile(uintptr(fds[1]), "spawner")
	conn, err := net.FileConn(ours)
	err = errors.Join(err, ours.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open socket to the jail spawner: %w", err), theirs.Close())
	}
	//nolint:noctx // it ends when its socket does, which lets it clean up first
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", s.helper.Fd()), "spawner", s.cfg.Node, strconv.Itoa(s.cfg.Slots))
	cmd.Args[0] = "agenticraft-jail"
	cmd.Env = []string{"GOMAXPROCS=2"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &logWriter{log: s.cfg.Log}
	// A session of its own: an interrupt typed at the terminal is for the node.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = closeTimeout
	err = cmd.Start()
	err = errors.Join(err, theirs.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("run jail helper: %w", err), conn.Close())
	}
	l := &life{sock: conn.(*net.UnixConn), cmd: cmd, gone: make(chan struct{}), jails: map[uint64]*Jail{}}
	if err := l.greet(); err != nil {
		l.hangUp()
		return nil, errors.Join(err, cmd.Wait())
	}
	s.wg.Go(func() { l.read(s.lost) })
	return l, nil
}

func (l *life) greet() error {
	if err := l.sock.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return fmt.Errorf("set deadline for the jail spawner: %w", err)
	}
	ev, fds, err := l.receive(make([]byte, wire.MaxPacket))
	closeAll(fds)
	if err != nil {
		return fmt.Errorf("wait for the jail spawner: %w", err)
	}
	if ev.Kind != wire.EventHello || ev.Hello == nil {
		return fmt.Errorf("jail spawner began with %q", ev.Kind)
	}
	l.hello = *ev.Hello
	return l.sock.SetReadDeadline(time.Time{})
}

func (l *life) receive(buf []byte) (ev wire.Event, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, on, _, _, err := l.sock.ReadMsgUnix(buf, oob)
	if err != nil {
		return ev, nil, err
	}
	if on > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:on])
		if err != nil {
			return ev, nil, fmt.Errorf("parse descriptors: %w", err)
		}
		for _, m := range msgs {
			got, err := unix.ParseUnixRights(&m)
			if err != nil {
				continue
			}
			fds = append(fds, got...)
		}
	}
	if n == 0 {
		return ev, fds, net.ErrClosed
	}
	if err := json.Unmarshal(buf[:n], &ev); err != nil {
		return ev, fds, fmt.Errorf("parse event: %w", err)
	}
	return ev, fds, nil
}

// read handles events until the spawner is gone, calls lost, and then settles
// every jail.
func (l *life) read(lost func(*life)) {
	buf := make([]byte, wire.MaxPacket)
	var err error
	for {
		var ev wire.Event
		var fds []int
		ev, fds, err = l.receive(buf)
		if err != nil {
			closeAll(fds)
			break
		}
		l.handle(ev, fds)
	}
	l.hangUp()
	waitErr := l.reap()
	l.mu.Lock()
	l.dead = true
	l.err = errors.Join(err, waitErr) // err is never nil here
	left := l.jails
	l.jails = nil
	l.mu.Unlock()
	lost(l)
	for _, j := range left {
		j.fail(fmt.Errorf("%w: the jail spawner died", ErrLost))
	}
	close(l.gone)
}

// reap waits for the spawner, which removes every jail first, and kills it if
// it takes too long: its jails die with it.
func (l *life) reap() error {
	timer := time.AfterFunc(closeTimeout, func() { _ = l.cmd.Process.Kill() })
	defer timer.Stop()
	return l.cmd.Wait()
}

func (l *life) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// hangUp closes the socket, which tells the spawner to end everything.
func (l *life) hangUp() { _ = l.sock.Close() } // closing twice is harmless

func (l *life) handle(ev wire.Event, fds []int) {
	l.mu.Lock()
	j := l.jails[ev.ID]
	if j != nil && (ev.Kind == wire.EventEnded || ev.Kind == wire.EventFailed) {
		delete(l.jails, ev.ID)
	}
	l.mu.Unlock()
	switch {
	case j == nil:
		closeAll(fds)
	case ev.Kind == wire.EventStarted && (len(fds) == 1 || len(fds) == 2):
		files := []*os.File{os.NewFile(uintptr(fds[0]), "work"), nil}
		if len(fds) == 2 {
			files[1] = os.NewFile(uintptr(fds[1]), "listener")
		}
		j.run(files[0], files[1], ev.Enforced)
	case ev.Kind == wire.EventFailed && ev.Failure != nil:
		closeAll(fds)
		j.fail(failure(ev.Failure))
	case ev.Kind == wire.EventLimited:
		closeAll(fds)
		j.answerLimit(ev.Failure)
	case ev.Kind == wire.EventEnded && ev.Exit != nil:
		closeAll(fds)
		j.end(*ev.Exit)
	default:
		closeAll(fds)
	}
}

func failure(f *wire.Failure) error {
	switch {
	case f.Limit != "":
		return fmt.Errorf("%w: %s: %s", sandbox.ErrUnenforceable, f.Limit, f.Text)
	case f.Busy:
		return fmt.Errorf("%w: %s", sandbox.ErrBusy, f.Text)
	}
	return fmt.Errorf("%w: %s: %s", sandbox.ErrUnavailable, f.Step, f.Text)
}

func (l *life) send(req wire.Request, fds []int) error {
	b, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if len(b) > wire.MaxPacket {
		return fmt.Errorf("%w: the profile takes %d bytes, more than %d", sandbox.ErrSpec, len(b), wire.MaxPacket)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	l.sendMu.Lock()
	defer l.sendMu.Unlock()
	if err := l.sock.SetWriteDeadline(time.Now().Add(startTimeout)); err != nil {
		return fmt.Errorf("%w: jail spawner: %w", sandbox.ErrUnavailable, err)
	}
	if _, _, err := l.sock.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("%w: jail spawner: %w", sandbox.ErrUnavailable, err)
	}
	return nil
}

// kill asks the spawner to end a jail. One that does not within hangTimeout
// hangs itself and is replaced, which ends all its jails.
func (l *life) kill(j *Jail) {
	j.mu.Lock()
	over, first := j.over, j.hang == nil
	if !over && first {
		j.hang = time.AfterFunc(hangTimeout, l.hangUp)
	}
	j.mu.Unlock()
	if over || !first {
		return
	}
	// An error means that the spawner is gone, and every jail with it.
	_ = l.send(wire.Request{Op: wire.OpKill, ID: j.id}, nil)
}

func (l *life) start(ctx context.Context, spec *wire.Start, files []sandbox.File) (*Jail, error) {
	p, err := openPipes(len(files) > 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err)
	}
	defer p.closeTheirs()
	j := &Jail{
		spawner: l, began: time.Now(),
		control: p.control, stdin: p.stdin, stdout: p.stdout, stderr: p.stderr,
		started: make(chan struct{}), done: make(chan struct{}),
	}
	l.mu.Lock()
	if l.dead {
		l.mu.Unlock()
		p.closeOurs()
		return nil, fmt.Errorf("%w: the jail spawner died", sandbox.ErrUnavailable)
	}
	l.next++
	j.id = l.next
	l.jails[j.id] = j
	l.mu.Unlock()
	if err := l.send(wire.Request{Op: wire.OpStart, ID: j.id, Start: spec}, p.theirs); err != nil {
		l.mu.Lock()
		delete(l.jails, j.id)
		l.mu.Unlock()
		p.closeOurs()
		return nil, err
	}
	p.closeTheirs()
	if p.files != nil {
		deadline, _ := ctx.Deadline()
		_ = p.files.SetWriteDeadline(deadline)
		// A failure here is told by init, which misses the rest.
		_ = sendFiles(p.files, files)
	}
	select {
	case <-j.started:
	case <-ctx.Done():
		j.Release()
		return nil, fmt.Errorf("start jail: %w", context.Cause(ctx))
	}
	j.mu.Lock()
	err = j.err
	ran := j.work != nil
	j.mu.Unlock()
	if err != nil && !ran {
		j.Release()
		return nil, fmt.Errorf("start jail: %w", err)
	}
	return j, nil
}

// run notes that the worker runs.
func (j *Jail) run(work, listener *os.File, enforced map[string]string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.settled {
		_ = work.Close() // released meanwhile, nobody reads it
		if listener != nil {
			_ = listener.Close()
		}
		return
	}
	j.work, j.listener, j.enforced, j.settled = work, listener, enforced, true
	close(j.started)
}

// Lower replaces the limits of the running jail by tighter ones; zero fields
// mean the defaults of [Normalize], and those that the jail does not hold
// itself (Output, Result) mean nothing. Files must stay as it was, and so must
// Memory where no control group holds it; no limit may be higher than before.
// After an error some limits may be lowered and others not: the jail should
// then not be used. It must not be called twice at the same time.
func (j *Jail) Lower(ctx context.Context, l sandbox.Limits) error {
	answer := make(chan error, 1)
	j.mu.Lock()
	j.limited = answer
	j.mu.Unlock()
	limits := wireLimits(Normalize(l))
	if err := j.spawner.send(wire.Request{Op: wire.OpLimit, ID: j.id, Limits: &limits}, nil); err != nil {
		return fmt.Errorf("lower limits: %w", err)
	}
	select {
	case err := <-answer:
		return err
	case <-j.done:
		return fmt.Errorf("lower limits: %w", ErrLost)
	case <-ctx.Done():
		return fmt.Errorf("lower limits: %w", context.Cause(ctx))
	}
}

// answerLimit hands the answer of a Lower to its caller.
func (j *Jail) answerLimit(f *wire.Failure) {
	j.mu.Lock()
	answer := j.limited
	j.limited = nil
	j.mu.Unlock()
	switch {
	case answer == nil:
	case f != nil:
		answer <- failure(f)
	default:
		answer <- nil
	}
}

// fail notes that the jail is gone and how it ended is unknown.
func (j *Jail) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = err
	j.finish()
}

func (j *Jail) end(e wire.Exit) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.Fault != "" {
		j.err = fmt.Errorf("%w: %s", ErrLost, e.Fault)
	}
	j.exit = Exit{
		Code: e.Code, Signal: e.Signal, OOM: e.OOM, CPULimit: e.CPULimit, Killed: e.Killed,
		Usage: sandbox.Usage{Wall: time.Since(j.began), CPU: e.CPU, PeakMemory: e.Peak},
	}
	j.finish()
}

// finish closes the channels; j.mu is held.
func (j *Jail) finish() {
	if !j.settled {
		j.settled = true
		close(j.started)
	}
	if j.hang != nil {
		j.hang.Stop()
	}
	if !j.over {
		j.over = true
		close(j.done)
	}
}
