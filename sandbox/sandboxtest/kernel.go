package sandboxtest

import (
	"fmt"
	"strings"

	"github.com/agenticraft/node/sandbox"
)

// sysCall is a system call by its numbers on amd64 and arm64, -1 where there is
// none, with arguments that would do harm if it were allowed.
type sysCall struct {
	amd64, arm64 int
	args         []int64
}

// Answers of the kernel, as errno.
const (
	eperm  = 1
	enosys = 38
)

// calls is a case in which a program makes system calls by number, past every
// library, and each must be answered with the same errno.
func calls(name, proves string, errno int, all ...sysCall) testCase {
	var list strings.Builder
	for _, c := range all {
		args := make([]string, len(c.args))
		for i, a := range c.args {
			args[i] = fmt.Sprint(a)
		}
		fmt.Fprintf(&list, "(%d, %d, [%s]), ", c.amd64, c.arm64, strings.Join(args, ", "))
	}
	return testCase{
		name: name, proves: proves, status: sandbox.OK, value: fmt.Sprintf("[%d]", errno),
		code: python(`import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == 'aarch64'
answers = set()
for amd64, arm64, args in [` + list.String() + `]:
    number = arm64 if arm else amd64
    if number < 0: continue
    ctypes.set_errno(0)
    r = libc.syscall(number, *[ctypes.c_long(a) for a in args])
    answers.add(ctypes.get_errno() if r == -1 else 'call %d was allowed' % number)
result = sorted(answers, key=str)`),
	}
}

// kernel are the attacks on the surface of the kernel: the filter's answer is
// part of the contract, for a program that meets another might go on.
var kernel = []testCase{
	calls("E49 new namespaces by unshare", "no namespace of one's own, and so no capabilities in it", eperm,
		sysCall{272, 97, []int64{0x10000000}}, sysCall{272, 97, []int64{0x00020000}}, sysCall{272, 97, []int64{0x40000000}}, sysCall{272, 97, []int64{0x20000000}}),
	calls("E49 new namespaces by clone", "the flags of clone are looked at", eperm,
		sysCall{56, 220, []int64{0x10000011, 0, 0, 0, 0}}, sysCall{56, 220, []int64{0x00020011, 0, 0, 0, 0}}, sysCall{56, 220, []int64{0x02000011, 0, 0, 0, 0}}),
	calls("E49 clone3", "a call whose flags cannot be looked at does not exist", enosys, sysCall{435, 435, []int64{0, 0}}),
	calls("E50 entering other namespaces", "no way into another namespace or root", eperm,
		sysCall{308, 268, []int64{0, 0}}, sysCall{161, 51, []int64{0}}, sysCall{155, 41, []int64{0, 0}}),
	calls("A7 mounting", "nothing can be mounted, moved or made writable", eperm,
		sysCall{165, 40, []int64{0, 0, 0, 0, 0}}, sysCall{166, 39, []int64{0, 0}}, sysCall{429, 429, []int64{0, 0, 0, 0, 0}}, sysCall{428, 428, []int64{-100, 0, 0}},
		sysCall{430, 430, []int64{0, 0}}, sysCall{431, 431, []int64{0, 0, 0, 0, 0}}, sysCall{432, 432, []int64{0, 0, 0}}, sysCall{442, 442, []int64{0, 0, 0, 0, 0}}),
	calls("A5 files by handle", "no file outside by guessing its number (shocker)", eperm,
		sysCall{304, 265, []int64{0, 0, 0}}, sysCall{303, 264, []int64{0, 0, 0, 0, 0}}),
	calls("E51 programs for the kernel", "no bpf, no performance events", eperm,
		sysCall{321, 280, []int64{0, 0, 0}}, sysCall{298, 241, []int64{0, 0, 0, 0, 0}}),
	calls("E52 userfaultfd", "no stopping of the kernel in the middle of a copy", eperm, sysCall{323, 282, []int64{0}}),
	calls("E52 io_uring", "no second way to make system calls", eperm,
		sysCall{425, 425, []int64{1, 0}}, sysCall{426, 426, []int64{0, 0, 0, 0, 0}}, sysCall{427, 427, []int64{0, 0, 0, 0}}),
	calls("E54 another kernel", "no loading of kernels or modules", eperm,
		sysCall{246, 104, []int64{0, 0, 0, 0}}, sysCall{320, 294, []int64{0, 0, 0, 0, 0}}, sysCall{175, 105, []int64{0, 0, 0}}, sysCall{313, 273, []int64{0, 0, 0}}, sysCall{176, 106, []int64{0, 0}}),
	calls("E54 the machine", "no reboot, swap, accounting or quotas", eperm,
		sysCall{169, 142, []int64{0, 0, 0, 0}}, sysCall{167, 224, []int64{0, 0}}, sysCall{168, 225, []int64{0}}, sysCall{163, 89, []int64{0}}, sysCall{179, 60, []int64{0, 0, 0, 0}}, sysCall{443, 443, []int64{0, 0, 0, 0}}),
	calls("E55 another personality", "no other ABI, no segments, no ports", eperm,
		sysCall{135, 92, []int64{0xffffffff}}, sysCall{154, -1, []int64{0, 0, 0}}, sysCall{172, -1, []int64{3}}, sysCall{173, -1, []int64{0, 1, 1}}),
	calls("E57 filters", "the filter can be neither added to nor replaced", eperm,
		sysCall{317, 277, []int64{1, 0, 0}}, sysCall{157, 167, []int64{22, 2, 0, 0, 0}}, sysCall{157, 167, []int64{4, 1, 0, 0, 0}}),
	calls("E61 clocks", "no clock can be set", eperm,
		sysCall{227, 112, []int64{0, 0}}, sysCall{164, 170, []int64{0, 0}}, sysCall{159, 171, []int64{0}}, sysCall{305, 266, []int64{0, 0}}),
	calls("E62 memory of others", "no secret memory, no moving of pages", eperm,
		sysCall{447, 447, []int64{0}}, sysCall{237, 235, []int64{0, 0, 0, 0, 0, 0}}, sysCall{279, 239, []int64{0, 0, 0, 0, 0, 0}}, sysCall{440, 440, []int64{0, 0, 0, 0, 0}}, sysCall{256, 238, []int64{0, 0, 0, 0}}),
	calls("D39 tracing", "nobody can be traced, read or robbed of descriptors", eperm,
		sysCall{101, 117, []int64{16, 1, 0, 0}}, sysCall{310, 270, []int64{1, 0, 0, 0, 0, 0}}, sysCall{311, 271, []int64{1, 0, 0, 0, 0, 0}}, sysCall{438, 438, []int64{0, 0, 0}}, sysCall{312, 272, []int64{1, 1, 0, 0, 0}}),
	calls("B18 keyrings", "no keys of the session, the user or other jails", eperm,
		sysCall{248, 217, []int64{0, 0, 0, 0, -3}}, sysCall{249, 218, []int64{0, 0, 0, 0}}, sysCall{250, 219, []int64{0, -3, 0}}),
	calls("A13 devices", "no device can be made", eperm, sysCall{259, 33, []int64{-100, 0, 0o020666, 0x101}}, sysCall{133, -1, []int64{0, 0o060666, 0x800}}),
	calls("D45 programs in memory", "nothing is executed that is not a file of the jail", eperm,
		sysCall{319, 279, []int64{0, 0}}, sysCall{322, 281, []int64{-1, 0, 0, 0, 0x1000}}),
	calls("D43 priorities", "nobody gets before others", eperm,
		sysCall{144, 119, []int64{0, 1, 0}}, sysCall{314, 274, []int64{0, 0, 0}}, sysCall{203, 122, []int64{0, 8, 0}}, sysCall{251, 30, []int64{1, 0, 0}}, sysCall{141, 140, []int64{0, 0, -20}}),
	calls("E watching files", "no watch on files of all, no kernel log", eperm,
		sysCall{300, 262, []int64{0, 0}}, sysCall{103, 116, []int64{2, 0, 0}}, sysCall{153, 58, nil}),
	calls("E names of the machine", "the machine keeps its name", eperm, sysCall{170, 161, []int64{0, 0}}, sysCall{171, 162, []int64{0, 0}}),
	calls("E System V objects", "nothing that outlives the run", eperm,
		sysCall{29, 194, []int64{0, 4096, 0o1666}}, sysCall{68, 186, []int64{0, 0o1666}}, sysCall{64, 190, []int64{0, 1, 0o1666}}, sysCall{240, 180, []int64{0, 0, 0, 0}}),
	calls("E pages by pipes", "no splice, by which pages of files were overwritten (CVE-2026-31431)", eperm,
		sysCall{275, 76, []int64{0, 0, 1, 0, 1, 0}}, sysCall{278, 75, []int64{1, 0, 0, 0}}, sysCall{276, 77, []int64{0, 1, 1, 0}}),
	calls("E users", "nobody becomes somebody else", eperm,
		sysCall{105, 146, []int64{0}}, sysCall{106, 144, []int64{0}}, sysCall{117, 147, []int64{0, 0, 0}}, sysCall{116, 159, []int64{0, 0}}, sysCall{126, 91, []int64{0, 0}}),
	calls("E calls to come", "a call that is newer than the filter does not exist", enosys,
		sysCall{450, 450, []int64{0}}, sysCall{462, 462, []int64{0}}, sysCall{511, 511, []int64{0}}, sysCall{437, 437, []int64{-100, 0, 0, 0}}),
	{
		name: "E a foreign ABI", proves: "calls of another architecture end the program", status: sandbox.Killed, exit: 128 + 31,
		code: python(`import ctypes, platform, os, signal
if platform.machine() != 'x86_64': os.kill(os.getpid(), signal.SIGSYS)
ctypes.CDLL(None).syscall(0x40000000 + 39)`),
	},
	{
		name: "E59 typing into terminals", proves: "no terminal, and no ioctl that types", status: sandbox.OK, value: "[true,true,true]",
		code: python(`import fcntl, os
result = []
for request in (0x5412, 0x541C, 0x5413 + 0x10000):
    try:
        fcntl.ioctl(0, request, b'x')
        result.append(False)
    except OSError:
        result.append(True)`),
	},
	{
		name: "E threads still work", proves: "what is refused is not what programs need", status: sandbox.OK, value: "10",
		code: python("import threading\ntotal = []\nthreads = [threading.Thread(target=lambda: total.append(1)) for _ in range(10)]\nfor t in threads: t.start()\nfor t in threads: t.join()\nresult = len(total)"),
	},
	{
		name: "E subprocesses still work", proves: "what is refused is not what programs need", status: sandbox.OK, value: `"child"`,
		code: python("import subprocess, sys\nresult = subprocess.run([sys.executable or '/proc/self/exe', '-I', '-S', '-c', 'print(\"child\", end=\"\")'], capture_output=True, text=True).stdout"),
	},
}
