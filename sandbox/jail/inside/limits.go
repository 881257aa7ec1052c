//go:build linux

package inside

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/wire"
)

// openFiles is how many descriptors one process may have.
const openFiles = 256

// rlimits sets the limits that init shares with the worker. Those that would
// hinder init itself, as on address space, which a Go program reserves too
// much of, are set by the spawner on the worker alone.
func rlimits(j *wire.Jail) error {
	l := j.Start.Limits
	set := map[int]uint64{
		unix.RLIMIT_FSIZE:      uint64(l.FileSize),
		unix.RLIMIT_NOFILE:     openFiles,
		unix.RLIMIT_CORE:       0,
		unix.RLIMIT_MEMLOCK:    0,
		unix.RLIMIT_MSGQUEUE:   0,
		unix.RLIMIT_SIGPENDING: 256,
	}
	for res, n := range set {
		if err := lower(res, n); err != nil {
			return step(fmt.Sprintf("set resource limit %d", res), err)
		}
	}
	return nil
}

// lower sets a limit, or keeps the one in force if that is lower already.
func lower(res int, n uint64) error {
	var old unix.Rlimit
	if err := unix.Getrlimit(res, &old); err != nil {
		return err
	}
	n = min(n, old.Max)
	return unix.Setrlimit(res, &unix.Rlimit{Cur: n, Max: n})
}

// securebits: user 0 means nothing, changes of user keep nothing, no ambient
// capabilities, all of it locked.
const securebits = 0xef

// credentials gives this thread the worker's user and takes every capability
// from every thread.
func credentials(worker int) error {
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // past the last one that this kernel knows
		}
		if err != nil {
			return step("drop bounding set", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, securebits, 0, 0, 0); err != nil {
		return step("lock secure bits", err)
	}
	if worker != 0 {
		// Raw calls: only this thread changes.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(worker), uintptr(worker), uintptr(worker)); errno != 0 {
			return step("set group", errno)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(worker), uintptr(worker), uintptr(worker)); errno != 0 {
			return step("set user", errno)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none[0])), 0); errno != 0 {
		return step("drop capabilities", errno)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return step("forbid tracing", err)
	}
	return step("set no-new-privileges", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}
