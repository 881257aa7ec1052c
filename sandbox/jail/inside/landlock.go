//go:build linux

package inside

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/wire"
)

// Rights that only read.
const readRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR

// rightsOf is every right on files that an ABI version knows.
func rightsOf(abi int) uint64 {
	rights := uint64(1<<13 - 1)
	if abi >= 2 {
		rights |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		rights |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		rights |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return rights
}

// rulesetAttr is the kernel's struct landlock_ruleset_attr. Older kernels know
// only the first fields and are given only those.
type rulesetAttr struct {
	fs, net, scoped uint64
}

// netPortAttr is the kernel's struct landlock_net_port_attr.
type netPortAttr struct {
	access, port uint64
}

// Networking rights (bind and connect TCP) and scopes (abstract sockets,
// signals), see landlock(7).
const (
	allNet     = 0x3
	allScopes  = 0x3
	connectTCP = 0x2
	ruleOfPort = 2 // LANDLOCK_RULE_NET_PORT
)

// LandlockABI is the version that this kernel offers, 0 for none.
func LandlockABI() (int, error) {
	abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(abi), nil
}

// landlock binds this thread, and all that it starts, to reading the jail and
// writing its scratch folders, a second lock behind the mounts. It returns the
// ABI version in force. With a network, TCP may be connected to the proxy's port.
func landlock(network bool) (int, error) {
	abi, err := LandlockABI()
	if err != nil || abi < 1 {
		return 0, err
	}
	attr := rulesetAttr{fs: rightsOf(abi)}
	size := unsafe.Sizeof(attr.fs)
	if abi >= 4 {
		attr.net, size = allNet, size+unsafe.Sizeof(attr.net)
	}
	if abi >= 6 {
		attr.scoped, size = allScopes, size+unsafe.Sizeof(attr.scoped)
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return 0, errno
	}
	rules := int(fd)
	err = errors.Join(
		allow(rules, "/", readRights),
		allow(rules, "/work", attr.fs),
		allow(rules, "/tmp", attr.fs),
		allow(rules, "/dev", readRights|unix.LANDLOCK_ACCESS_FS_WRITE_FILE),
	)
	if network && abi >= 4 {
		err = errors.Join(err, allowPort(rules, wire.ProxyPort))
	}
	if err == nil {
		if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
			err = errno
		}
	}
	return abi, errors.Join(err, unix.Close(rules))
}

// allowPort lets TCP be connected to a port.
func allowPort(rules int, port uint64) error {
	attr := netPortAttr{access: connectTCP, port: port}
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), ruleOfPort,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("allow port %d: %w", port, errno)
	}
	return nil
}

// allow adds rights below a path. The kernel's struct is packed: rights, then
// the descriptor.
func allow(rules int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		err = fmt.Errorf("allow %s: %w", path, errno)
	}
	return errors.Join(err, unix.Close(fd))
}
