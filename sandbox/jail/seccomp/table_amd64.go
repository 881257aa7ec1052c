//go:build linux

package seccomp

import "golang.org/x/sys/unix"

const (
	arch   = unix.AUDIT_ARCH_X86_64
	x32Bit = 0x40000000 // marks calls of the x32 ABI
)

// The calls that only this architecture still has.
var (
	archCommon      = []uint32{unix.SYS_ARCH_PRCTL, unix.SYS_EPOLL_WAIT, unix.SYS_NEWFSTATAT, unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_TIME}
	archInterpreter = []uint32{
		unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_GETDENTS, unix.SYS_DUP2,
		unix.SYS_PIPE, unix.SYS_VFORK, unix.SYS_FORK, unix.SYS_GETPGRP, unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_UNLINK,
		unix.SYS_RENAME, unix.SYS_LINK, unix.SYS_SYMLINK, unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME,
		unix.SYS_UTIMES, unix.SYS_CREAT, unix.SYS_EVENTFD, unix.SYS_EPOLL_CREATE, unix.SYS_ALARM, unix.SYS_PAUSE,
	}
)

// mknods are the calls that make special files, with the number of the
// argument that holds the mode.
var mknods = map[uint32]uint32{unix.SYS_MKNOD: 1, unix.SYS_MKNODAT: 2}
