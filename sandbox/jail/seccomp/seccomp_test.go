//go:build linux

package seccomp

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// decide runs a set's filter on one call as the kernel would.
func decide(t *testing.T, set Set, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	// The virtual machine reads big-endian words, the kernel the machine's own.
	data := make([]byte, 64)
	word := func(off int, v uint32) { binary.BigEndian.PutUint32(data[off:], v) }
	word(offNumber, nr)
	word(offArch, arch)
	for i, a := range args {
		word(offArgs+8*i, uint32(a))
		word(offArgs+8*i+4, uint32(a>>32))
	}
	vm, err := bpf.NewVM(program(set))
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func TestEveryFilterAssembles(t *testing.T) {
	for _, set := range []Set{Interpreter, Starting, Networked, Tight} {
		raw, err := bpf.Assemble(program(set))
		if err != nil || len(raw) > 4096 {
			t.Errorf("set %d: %d instructions, %v", set, len(raw), err)
		}
	}
}

func TestFilterAnswers(t *testing.T) {
	const allow = retAllow & 0xffffffff
	for _, c := range []struct {
		name string
		set  Set
		nr   uint32
		args []uint64
		want uint32
	}{
		{"read", Interpreter, unix.SYS_READ, nil, allow},
		{"execve", Interpreter, unix.SYS_EXECVE, nil, allow},
		{"execve of a tight worker", Tight, unix.SYS_EXECVE, nil, retEPERM},
		{"openat of a tight worker", Tight, unix.SYS_OPENAT, nil, retEPERM},
		{"ptrace", Interpreter, unix.SYS_PTRACE, nil, retEPERM},
		{"socket", Interpreter, unix.SYS_SOCKET, []uint64{unix.AF_INET}, retEPERM},
		{"TCP socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, unix.IPPROTO_TCP}, allow},
		{"connect", Networked, unix.SYS_CONNECT, nil, allow},
		{"connect without a network", Interpreter, unix.SYS_CONNECT, nil, retEPERM},
		{"UDP socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, 0}, retEPERM},
		{"raw socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP}, retEPERM},
		{"multipath TCP socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, retEPERM},
		{"SCTP socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, retEPERM},
		{"IPv6 socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM, 0}, retEPERM},
		{"packet socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_PACKET, unix.SOCK_STREAM, 0}, retEPERM},
		{"netlink socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, 0}, retEPERM},
		{"vsock socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_STREAM, 0}, retEPERM},
		{"local socket", Networked, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_STREAM, 0}, retEPERM},
		{"bind", Networked, unix.SYS_BIND, nil, retEPERM},
		{"listen", Networked, unix.SYS_LISTEN, nil, retEPERM},
		{"socketpair", Interpreter, unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX}, allow},
		{"vsock pair", Interpreter, unix.SYS_SOCKETPAIR, []uint64{unix.AF_VSOCK}, retEPERM},
		{"thread", Tight, unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD}, allow},
		{"process of a tight worker", Tight, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, retEPERM},
		{"process", Interpreter, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, allow},
		{"user namespace", Interpreter, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER}, retEPERM},
		{"user namespace of a thread", Tight, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | unix.CLONE_THREAD}, retEPERM},
		{"clone3", Interpreter, unix.SYS_CLONE3, nil, retNoSys},
		{"a call of the future", Interpreter, 900, nil, retNoSys},
		{"seccomp", Interpreter, unix.SYS_SECCOMP, nil, retEPERM},
		{"seccomp of a starting worker", Starting, unix.SYS_SECCOMP, nil, allow},
		{"TIOCSTI", Interpreter, unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, retEPERM},
		{"TIOCSTI with high bits", Interpreter, unix.SYS_IOCTL, []uint64{0, 1<<32 | unix.TIOCSTI}, retEPERM},
		{"TCGETS", Interpreter, unix.SYS_IOCTL, []uint64{0, unix.TCGETS}, allow},
		{"set dumpable", Interpreter, unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE}, retEPERM},
		{"set name", Interpreter, unix.SYS_PRCTL, []uint64{unix.PR_SET_NAME}, allow},
		{"device", Interpreter, unix.SYS_MKNODAT, []uint64{0, 0, unix.S_IFBLK | 0o600}, retEPERM},
		{"fifo", Interpreter, unix.SYS_MKNODAT, []uint64{0, 0, unix.S_IFIFO | 0o600}, allow},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := decide(t, c.set, arch, c.nr, c.args...); got != c.want {
				t.Errorf("filter answers %#x, want %#x", got, c.want)
			}
		})
	}
	if got := decide(t, Interpreter, unix.AUDIT_ARCH_I386, unix.SYS_READ); got != retKill {
		t.Errorf("a foreign architecture is answered %#x", got)
	}
	if x32Bit != 0 {
		if got := decide(t, Interpreter, arch, x32Bit|unix.SYS_READ); got != retKill {
			t.Errorf("an x32 call is answered %#x", got)
		}
	}
}

func TestTableNamesEachCallOnce(t *testing.T) {
	all := slices.Concat(common, archCommon, interpreter, archInterpreter, missing)
	slices.Sort(all)
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			t.Errorf("call %d is listed twice", all[i])
		}
	}
}

// The rules for other filters and the program for the kernel are two forms of
// one table: they agree on every call and every argument that the table names.
func TestRulesAgreeWithTheFilter(t *testing.T) {
	for _, set := range []Set{Interpreter, Networked} {
		rulesAgree(t, set)
	}
}

func rulesAgree(t *testing.T, set Set) {
	t.Helper()
	pass, absent := Rules(set == Networked)
	plain := []uint32{0, 1}
	values := []uint32{0, 1, 2, unix.AF_UNIX, unix.AF_INET, unix.S_IFIFO, unix.S_IFIFO | 0o600, unix.S_IFCHR, unix.S_IFBLK | 0o777, unix.CLONE_THREAD | unix.CLONE_VM, unix.CLONE_NEWUSER, unix.SOCK_CLOEXEC | 1, 1 << 31}
	for _, r := range pass {
		for _, c := range r.When {
			values = append(values, c.Value, c.Value+1, c.Mask)
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	try := func(nr uint32, args ...uint64) {
		want := retEPERM
		if slices.Contains(absent, nr) {
			want = retNoSys
		}
		for _, r := range pass {
			if r.Call == nr && !slices.ContainsFunc(r.When, func(c Condition) bool { return uint32(args[c.Arg])&c.Mask != c.Value }) {
				want = retAllow
			}
		}
		if got := decide(t, set, arch, nr, args...); got != want {
			t.Fatalf("set %d, call %d with %#x: the filter answers %#x, the rules %#x", set, nr, args, got, want)
		}
	}
	for nr := range uint32(firstUnknown) {
		tried := plain
		if slices.ContainsFunc(pass, func(r Rule) bool { return r.Call == nr && len(r.When) > 0 }) {
			tried = values
		}
		for _, v := range tried {
			try(nr, uint64(v), uint64(v), uint64(v))
		}
	}
	if set == Networked {
		few := []uint32{0, 1, 2, 3, 6, 10, 17, 40, unix.SOCK_STREAM | unix.SOCK_NONBLOCK, unix.IPPROTO_MPTCP, 1 << 31}
		for _, a := range few {
			for _, b := range few {
				for _, c := range few {
					try(unix.SYS_SOCKET, uint64(a), uint64(b), uint64(c))
				}
			}
		}
	}
}
