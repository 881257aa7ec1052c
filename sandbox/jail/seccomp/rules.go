//go:build linux

package seccomp

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Rule lets calls pass for which every condition holds.
type Rule struct {
	Call uint32
	When []Condition
}

// Condition holds if an argument, under Mask, has the value Value.
type Condition struct {
	Arg         uint32
	Mask, Value uint32
}

// Rules is the table of [Interpreter], or of [Networked], for those who build a
// filter of their own: what passes, and what answers ENOSYS. All else answers
// EPERM.
func Rules(networked bool) (pass []Rule, absent []uint32) {
	when := func(nr, arg, mask, value uint32) Rule {
		return Rule{Call: nr, When: []Condition{{Arg: arg, Mask: mask, Value: value}}}
	}
	for _, nr := range slices.Concat(common, archCommon, interpreter, archInterpreter) {
		pass = append(pass, Rule{Call: nr})
	}
	for _, nr := range slices.Sorted(maps.Keys(mknods)) {
		pass = append(pass, when(nr, mknods[nr], unix.S_IFMT, unix.S_IFIFO))
	}
	const whole = ^uint32(0)
	pass = append(pass,
		when(unix.SYS_SOCKETPAIR, 0, whole, unix.AF_UNIX),
		when(unix.SYS_CLONE, 0, cloneForbidden, 0))
	for _, v := range ioctls {
		pass = append(pass, when(unix.SYS_IOCTL, 1, whole, v))
	}
	for _, v := range prctls {
		pass = append(pass, when(unix.SYS_PRCTL, 0, whole, v))
	}
	if networked {
		for _, protocol := range protocols {
			pass = append(pass, Rule{Call: unix.SYS_SOCKET, When: []Condition{
				{Arg: 0, Mask: whole, Value: unix.AF_INET}, {Arg: 1, Mask: socketType, Value: unix.SOCK_STREAM}, {Arg: 2, Mask: whole, Value: protocol},
			}})
		}
		for _, nr := range dialing {
			pass = append(pass, Rule{Call: nr})
		}
	}
	return pass, slices.Clone(missing)
}
