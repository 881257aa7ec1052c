//go:build linux

package seccomp

import "golang.org/x/sys/unix"

const (
	arch   = unix.AUDIT_ARCH_AARCH64
	x32Bit = 0
)

// The calls that only this architecture names so.
var (
	archCommon      = []uint32{unix.SYS_FSTATAT}
	archInterpreter = []uint32{}
)

// mknods are the calls that make special files, with the number of the
// argument that holds the mode.
var mknods = map[uint32]uint32{unix.SYS_MKNODAT: 2}
