//go:build linux

package inside

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sigDefault = 0 // SIG_DFL
	sigIgnore  = 1 // SIG_IGN
)

// kernelAction is the kernel's struct sigaction. The runtime puts its own
// handlers on every signal and offers no way to ignore the faults among them.
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

func sigaction(sig unix.Signal, handler uintptr) error {
	act := kernelAction{handler: handler}
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0,
		unsafe.Sizeof(act.mask), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// IgnoreSignal ignores a signal for good, in this process and, unlike
// signal.Ignore, without keeping a handler.
func IgnoreSignal(sig unix.Signal) error { return sigaction(sig, sigIgnore) }
