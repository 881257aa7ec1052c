//go:build linux

package seccomp

import (
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Set chooses a filter.
type Set int

const (
	// Interpreter is for a language's interpreter and init.
	Interpreter Set = iota
	// Starting is for a worker that will call [Tighten] itself: Interpreter
	// and the call that installs a filter.
	Starting
	// Networked is Interpreter with TCP connections.
	Networked
	// Tight is for a Go worker after its start.
	Tight
)

// Offsets into the kernel's struct seccomp_data; arguments are little endian.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retKill  = unix.SECCOMP_RET_KILL_PROCESS
	retEPERM = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retNoSys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// program assembles the filter of a set.
func program(set Set) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: retKill},
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
	}
	if x32Bit != 0 {
		p = append(p,
			bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: x32Bit, SkipTrue: 1},
			bpf.RetConstant{Val: retKill})
	}
	answer := func(nr, ret uint32) {
		p = append(p,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: 1},
			bpf.RetConstant{Val: ret})
	}
	for _, nr := range slices.Concat(common, archCommon) {
		answer(nr, retAllow)
	}
	if set != Tight {
		for _, nr := range slices.Concat(interpreter, archInterpreter) {
			answer(nr, retAllow)
		}
		for _, nr := range slices.Sorted(maps.Keys(mknods)) {
			p = append(p, onArg(nr, mknods[nr],
				bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: unix.S_IFMT},
				bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.S_IFIFO, SkipTrue: 1},
				bpf.RetConstant{Val: retAllow})...)
		}
		p = append(p, oneOf(unix.SYS_SOCKETPAIR, 0, []uint32{unix.AF_UNIX})...)
		p = append(p, oneOf(unix.SYS_IOCTL, 1, ioctls)...)
		p = append(p, onArg(unix.SYS_CLONE, 0,
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: cloneForbidden, SkipTrue: 1},
			bpf.RetConstant{Val: retAllow})...)
	} else {
		// Threads, never processes.
		p = append(p, onArg(unix.SYS_CLONE, 0,
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: cloneForbidden, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.CLONE_THREAD, SkipTrue: 1},
			bpf.RetConstant{Val: retAllow})...)
	}
	if set == Networked {
		for _, nr := range dialing {
			answer(nr, retAllow)
		}
		p = append(p, sockets()...)
	}
	if set == Starting {
		answer(unix.SYS_SECCOMP, retAllow)
	}
	p = append(p, oneOf(unix.SYS_PRCTL, 0, prctls)...)
	for _, nr := range missing {
		answer(nr, retNoSys)
	}
	return append(p,
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: firstUnknown, SkipTrue: 1},
		bpf.RetConstant{Val: retNoSys},
		bpf.RetConstant{Val: retEPERM})
}

// sockets allows TCP over IPv4.
func sockets() []bpf.Instruction {
	arg := func(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offArgs + 8*n, Size: 4} }
	rule := []bpf.Instruction{
		arg(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 1},
		bpf.RetConstant{Val: retEPERM},
		arg(1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: socketType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_STREAM, SkipTrue: 1},
		bpf.RetConstant{Val: retEPERM},
		arg(2),
	}
	for _, v := range protocols {
		rule = append(rule, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1}, bpf.RetConstant{Val: retAllow})
	}
	rule = append(rule, bpf.RetConstant{Val: retEPERM})
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKET, SkipTrue: uint8(len(rule))}}, rule...)
}

// onArg runs rule with the low word of an argument of one call loaded, and
// answers EPERM if rule does not return.
func onArg(nr, arg uint32, rule ...bpf.Instruction) []bpf.Instruction {
	block := []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: uint8(len(rule) + 2)},
		bpf.LoadAbsolute{Off: offArgs + 8*arg, Size: 4},
	}
	return append(append(block, rule...), bpf.RetConstant{Val: retEPERM})
}

// oneOf allows a call if an argument has one of the values.
func oneOf(nr, arg uint32, values []uint32) []bpf.Instruction {
	var rule []bpf.Instruction
	for _, v := range values {
		rule = append(rule,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1},
			bpf.RetConstant{Val: retAllow})
	}
	return onArg(nr, arg, rule...)
}

// Install binds every thread of this process, and all that they start, to the
// set. It cannot be undone. The calling thread must have no-new-privileges set.
func Install(set Set) error {
	raw, err := bpf.Assemble(program(set))
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	tid, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("install filter: %w", errno)
	}
	if tid != 0 {
		return fmt.Errorf("install filter: thread %d refuses it", tid)
	}
	return nil
}

// Tighten binds the calling worker to [Tight]. Init started it under
// [Starting], which has no-new-privileges set.
func Tighten() error { return Install(Tight) }
