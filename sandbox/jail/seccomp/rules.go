//go:build linux

package seccomp

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Rule lets calls pass whose argument, under Mask, has the value Value; with
// Mask 0 it lets every call pass.
type Rule struct {
	Call        uint32
	Arg         uint32
	Mask, Value uint32
}

// Rules is the table of [Interpreter] for those who build a filter of their
// own: what passes, and what answers ENOSYS. All else answers EPERM.
func Rules() (pass []Rule, absent []uint32) {
	for _, nr := range slices.Concat(common, archCommon, interpreter, archInterpreter) {
		pass = append(pass, Rule{Call: nr})
	}
	for _, nr := range slices.Sorted(maps.Keys(mknods)) {
		pass = append(pass, Rule{Call: nr, Arg: mknods[nr], Mask: unix.S_IFMT, Value: unix.S_IFIFO})
	}
	const whole = ^uint32(0)
	pass = append(pass,
		Rule{Call: unix.SYS_SOCKETPAIR, Arg: 0, Mask: whole, Value: unix.AF_UNIX},
		Rule{Call: unix.SYS_CLONE, Arg: 0, Mask: cloneForbidden})
	for _, v := range ioctls {
		pass = append(pass, Rule{Call: unix.SYS_IOCTL, Arg: 1, Mask: whole, Value: v})
	}
	for _, v := range prctls {
		pass = append(pass, Rule{Call: unix.SYS_PRCTL, Arg: 0, Mask: whole, Value: v})
	}
	return pass, slices.Clone(missing)
}
