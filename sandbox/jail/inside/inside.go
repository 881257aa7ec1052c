//go:build linux

// Package inside is the init of a jail: process 1 of its namespaces. It closes
// the jail around itself step by step, runs the worker in it, and tells the
// spawner how the worker ended. When init ends, the kernel kills whatever is
// left in the jail.
package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/seccomp"
	"github.com/agenticraft/node/sandbox/jail/wire"
)

// Descriptors that the spawner gives to init, after the worker's four.
const (
	SyncFD  = 4 // packets to and from the spawner
	FilesFD = 5 // files for the working folder, or closed
	TreeFD  = 6 // detached mount of the language tree, or closed
	GroupFD = 7 // the first of the control groups to join
)

// stepError says which step of the set-up the kernel refused.
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

func step(name string, err error) error {
	if err == nil {
		return nil
	}
	return &stepError{step: name, err: err}
}

// Main runs on the main goroutine, locked to the main thread. It returns the
// exit code of init.
func Main() int {
	// Once the jail is full, no new thread can be made: nothing may want one.
	debug.SetGCPercent(-1)
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return 1
	}
	j, err := readJail()
	if err != nil {
		return 1 // the spawner is gone
	}
	// The main thread owns the memory of init, which is so charged to the jail,
	// with the files that init places. The thread that forks the worker joins
	// as well, and hands that on.
	joined := join(j.Groups)
	rep := wire.Report{Kind: wire.ReportStarted}
	type made struct {
		pid int
		fds []int // for the node
		err error
	}
	ready := make(chan made)
	// The worker inherits credentials, filters and Landlock from the thread
	// that forks it. That is not the main thread: init itself keeps the jail's
	// user 0, so that the worker can neither signal nor trace it.
	go func() {
		runtime.LockOSThread()
		m := made{err: step("join control groups", errors.Join(joined, join(j.Groups)))}
		if m.err == nil {
			m.pid, m.fds, m.err = build(&j, &rep)
		}
		ready <- m
		select {} // a locked thread that ends would be noticed by nobody, but costs a fork
	}()
	m := <-ready
	if m.err != nil {
		rep = wire.Report{Kind: wire.ReportFailed, Failure: &wire.Failure{Step: "set up jail", Text: m.err.Error()}}
		if s, ok := errors.AsType[*stepError](m.err); ok {
			rep.Failure.Step, rep.Failure.Text = s.step, s.err.Error()
		}
		_ = report(rep) // the spawner notices the end as well
		return 1
	}
	if err := report(rep, m.fds...); err != nil {
		return 1
	}
	for fd := 0; fd <= wire.ControlFD; fd++ {
		_ = unix.Close(fd) // the worker's alone from here on
	}
	for _, fd := range m.fds {
		_ = unix.Close(fd)
	}
	code, sig := reap(m.pid)
	if report(wire.Report{Kind: wire.ReportExited, Code: code, Signal: sig}) != nil {
		return 1
	}
	return 0
}

func readJail() (wire.Jail, error) {
	var j wire.Jail
	buf := make([]byte, wire.MaxPacket)
	n, err := unix.Read(SyncFD, buf)
	if err != nil {
		return j, err
	}
	if n == 0 {
		return j, errors.New("the spawner hung up")
	}
	return j, json.Unmarshal(buf[:n], &j)
}

func report(r wire.Report, fds ...int) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(SyncFD, b, oob, nil, unix.MSG_NOSIGNAL)
}

// build closes the jail and starts the worker. The order matters: each step
// needs what a later one takes away.
func build(j *wire.Jail, rep *wire.Report) (pid int, fds []int, err error) {
	if err := step("close descriptors", closeOthers()); err != nil {
		return 0, nil, err
	}
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
		return 0, nil, step("start session", err)
	}
	unix.Umask(0o022) // the worker reads what is made here
	if err := mounts(j, rep); err != nil {
		return 0, nil, err
	}
	// After the spawner put us into our control groups, so that the jail sees
	// them as the root of all.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return 0, nil, step("unshare cgroup namespace", err)
	}
	if err := step("set host name", unix.Sethostname([]byte("jail"))); err != nil {
		return 0, nil, err
	}
	if j.FilesFD >= 0 {
		if err := step("place files", placeFiles(j)); err != nil {
			return 0, nil, err
		}
	}
	work, err := unix.Open("/work", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, nil, step("open working folder", err)
	}
	fds = []int{work}
	if j.Start.Network {
		listener, err := listen()
		if err != nil {
			return 0, nil, step("open way to the proxy", err)
		}
		fds = append(fds, listener)
	}
	if err := unix.Chdir("/work"); err != nil {
		return 0, nil, step("enter working folder", err)
	}
	unix.Umask(0o077)
	if err := rlimits(j); err != nil {
		return 0, nil, err
	}
	if err := credentials(j.WorkerID); err != nil {
		return 0, nil, err
	}
	if j.Landlock {
		rep.Landlock, err = landlock(j.Start.Network)
		if err != nil {
			return 0, nil, step("restrict with Landlock", err)
		}
	}
	if err := ignoreSignals(); err != nil {
		return 0, nil, step("ignore signals", err)
	}
	set := seccomp.Interpreter
	switch {
	case j.Start.Tight:
		set = seccomp.Starting
	case j.Start.Network:
		set = seccomp.Networked
	}
	if err := step("install seccomp filter", seccomp.Install(set)); err != nil {
		return 0, nil, err
	}
	pid, err = syscall.ForkExec(j.Start.Argv[0], j.Start.Argv, &syscall.ProcAttr{
		Dir: "/work", Env: j.Start.Env, Files: []uintptr{0, 1, 2, wire.ControlFD},
	})
	if err != nil {
		return 0, nil, step("run "+j.Start.Argv[0], err)
	}
	return pid, fds, nil
}

// join moves the calling thread into the jail's control groups.
func join(groups []int) error {
	for _, fd := range groups {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return err
		}
	}
	return nil
}

// closeOthers makes sure that no descriptor but its own reaches the worker.
func closeOthers() error {
	return unix.CloseRange(SyncFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}

// reap waits for every process that becomes ours, until the worker ends.
func reap(worker int) (code, sig int) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, 0
		}
		if pid != worker {
			continue
		}
		if ws.Signaled() {
			return -1, int(ws.Signal())
		}
		return ws.ExitStatus(), 0
	}
}

// ignoreSignals makes init deaf: a signal from inside must neither end it nor
// let the worker forge how it ended.
func ignoreSignals() error {
	const lastSignal = 64
	for sig := unix.Signal(1); sig <= lastSignal; sig++ {
		switch {
		case sig == unix.SIGKILL || sig == unix.SIGSTOP:
			continue
		case sig == unix.SIGCHLD:
			// Ignoring it would reap children behind our back.
			if err := sigaction(sig, sigDefault); err != nil {
				return err
			}
			continue
		case sig >= 32 && sig <= 34:
			continue // the runtime's own, which it checks itself
		}
		if err := sigaction(sig, sigIgnore); err != nil {
			return fmt.Errorf("signal %d: %w", int(sig), err)
		}
	}
	return nil
}
