//go:build linux

package inside

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/wire"
)

// Contained is process 1 of a container that something else made and closed. It
// opens the named pipes to the node, runs the interpreter that args say with
// them, and ends as that does, so that a program is nobody's process 1: no signal
// from inside reaches that. Where the helper's file cannot be read, the kernel lets
// nobody look at its memory and descriptors either. It returns its exit code: the interpreter's, 128 and
// the signal that ended it, or 1.
func Contained(args []string) int {
	// Once the container is full, no new thread can be made: nothing may want one.
	debug.SetGCPercent(-1)
	err := endWithNode()
	pid := 0
	if err == nil {
		pid, err = contain(args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "jail:", err) // to the engine's log, if it keeps one
		return 1
	}
	code, sig := reap(pid)
	if sig != 0 {
		return signalled + sig
	}
	return code
}

// signalled and a signal's number are the exit code of whom that ended.
const signalled = 128

// endWithNode ends this process, and with it all others of the container, when the
// node is gone that holds the other end of a pipe: nobody is left to end a program
// at its limits. Only the node may write to that pipe, so that no program can hold
// it open. A thread waits for it, which is there before any program is.
func endWithNode() error {
	// Who opened it for reading only would wait for a node that has gone meanwhile.
	fd, err := unix.Open(filepath.Join(wire.Pipes, wire.PipeLife), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return step("open "+wire.PipeLife, err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return step("wait on "+wire.PipeLife, err)
	}
	waits := make(chan struct{})
	go func() {
		runtime.LockOSThread() // for good
		close(waits)
		for b := make([]byte, 1); ; {
			if _, err := unix.Read(fd, b); !errors.Is(err, unix.EINTR) {
				os.Exit(signalled + int(unix.SIGKILL))
			}
		}
	}()
	<-waits
	return nil
}

// contain starts the interpreter.
func contain(args []string) (pid int, err error) {
	if len(args) == 0 {
		return 0, errors.New("no interpreter is named")
	}
	// Where a table of system calls refuses that, the file's mode has done it.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err := ignoreSignals(); err != nil {
		return 0, step("ignore signals", err)
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return 0, step("find interpreter", err)
	}
	var pipes []uintptr
	for _, p := range []struct {
		name  string
		flags int
	}{
		{wire.PipeStdin, unix.O_RDONLY},
		{wire.PipeStdout, unix.O_WRONLY},
		{wire.PipeStderr, unix.O_WRONLY},
		{wire.PipeOutlet, unix.O_WRONLY},
		{wire.PipeInlet, unix.O_RDONLY},
	} {
		fd, err := unix.Open(filepath.Join(wire.Pipes, p.name), p.flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, step("open "+p.name, err)
		}
		pipes = append(pipes, uintptr(fd))
	}
	var env []string
	for _, v := range os.Environ() {
		// What the engine adds, and what was for this process alone.
		if !strings.HasPrefix(v, "HOSTNAME=") && !strings.HasPrefix(v, wire.OwnEnv+"=") {
			env = append(env, v)
		}
	}
	pid, err = syscall.ForkExec(program, args, &syscall.ProcAttr{Env: env, Files: pipes})
	for _, fd := range pipes {
		_ = unix.Close(int(fd)) // the interpreter's alone
	}
	return pid, step("run "+program, err)
}
