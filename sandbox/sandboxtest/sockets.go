package sandboxtest

import "github.com/agenticraft/node/sandbox"

// sockets are ways to others on this machine and beyond that are no files.
var sockets = []testCase{
	{
		name: "C sockets of every family", proves: "no family and no kind of socket can be made", status: sandbox.OK, value: "[1]",
		code: python("import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nanswers = set()\nfor family in range(0, 48):\n  for kind in (1, 2, 3, 4, 5, 10):\n    fd = libc.socket(family, kind, 0)\n    answers.add(ctypes.get_errno() if fd == -1 else 'family %d' % family)\nresult = sorted(answers, key=str)"),
	},
	{
		name: "C30 abstract sockets by way of a pair", proves: "a pair of sockets leads to no third (ECONNREFUSED)", status: sandbox.OK, value: "[111,1]",
		code: python("import ctypes, socket, struct\nlibc = ctypes.CDLL(None, use_errno=True)\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nto = struct.pack('H', 1) + b'\\0/tmp/.X11-unix/X0'\nresult = []\nlibc.sendto(a.fileno(), b'x', 1, 0, to, len(to))\nresult.append(ctypes.get_errno())\nlibc.connect(a.fileno(), to, len(to))\nresult.append(ctypes.get_errno())"),
	},
	{
		name: "C30 another's credentials", proves: "nobody says that he is another", status: sandbox.OK, value: "1",
		code: python("import socket, struct\na, b = socket.socketpair()\ntry:\n  a.sendmsg([b'x'], [(socket.SOL_SOCKET, 2, struct.pack('iII', 1, 0, 0))])\n  result = 0\nexcept OSError as e: result = e.errno"),
	},
	{
		name: "C connections of JavaScript", proves: "no connection, no name, no server", status: sandbox.OK, value: "[]",
		code: map[string]string{"javascript": "const net = require('net'), dns = require('dns'), dgram = require('dgram'); const tried = [new Promise(r => net.connect(443, '1.1.1.1').on('connect', () => r('connect')).on('error', () => r())), new Promise(r => net.createServer().listen(0, () => r('listen')).on('error', () => r())), new Promise(r => net.createServer().listen('/tmp/s', () => r('unix')).on('error', () => r())), new Promise(r => dns.resolve('example.com', e => r(e ? undefined : 'dns'))), new Promise(r => { try { dgram.createSocket('udp4').on('error', () => r()).bind(0, () => r('udp')) } catch { r() } })]; const result = Promise.all(tried).then(all => all.filter(x => x))"},
	},
	calls("C queues of messages", "no object that another jail could name", eperm,
		sysCall{240, 180, []int64{0, 0o102, 0o666, 0}}, sysCall{241, 181, []int64{0}}, sysCall{70, 188, []int64{0, 0, 0, 0, 0}}, sysCall{69, 189, []int64{0, 0, 0, 0}}, sysCall{71, 187, []int64{0, 0, 0}}, sysCall{30, 196, []int64{0, 0, 0}}, sysCall{31, 195, []int64{0, 0, 0}}, sysCall{65, 193, []int64{0, 0, 0}}, sysCall{66, 191, []int64{0, 0, 0, 0}}),
	calls("C serving", "nobody listens, whatever the socket", eperm,
		sysCall{49, 200, []int64{0, 0, 0}}, sysCall{50, 201, []int64{0, 1}}, sysCall{43, 202, []int64{0, 0, 0}}, sysCall{288, 242, []int64{0, 0, 0, 0}}),
	calls("E locks on memory", "no page is kept from the kernel", eperm,
		sysCall{149, 228, []int64{0, 4096}}, sysCall{151, 230, []int64{1}}, sysCall{325, 284, []int64{0, 4096, 0}}, sysCall{216, 234, []int64{0, 4096, 0, 0, 0}}),
	calls("E rules of one's own", "what locks the jail cannot be meddled with", eperm,
		sysCall{444, 444, []int64{0, 0, 0}}, sysCall{445, 445, []int64{0, 0, 0, 0}}, sysCall{446, 446, []int64{0, 0}}, sysCall{157, 167, []int64{38, 0, 0, 0, 0}}, sysCall{157, 167, []int64{24, 0, 0, 0, 0}}, sysCall{157, 167, []int64{28, 0, 0, 0, 0}}, sysCall{157, 167, []int64{47, 2, 0, 0, 0}}, sysCall{157, 167, []int64{36, 1, 0, 0, 0}}, sysCall{157, 167, []int64{35, 1, 0, 0, 0}}, sysCall{157, 167, []int64{59, 1, 0, 0, 0}}, sysCall{126, 91, []int64{0, 0}}),
	calls("E names on files", "no attribute that gives a file rights or lasts", eperm,
		sysCall{188, 5, []int64{0, 0, 0, 0, 0}}, sysCall{189, 6, []int64{0, 0, 0, 0, 0}}, sysCall{190, 7, []int64{0, 0, 0, 0, 0}}, sysCall{197, 14, []int64{0, 0}}),
	calls("E calls of long ago", "what no program needs any more does not answer", eperm,
		sysCall{134, -1, []int64{0}}, sysCall{136, -1, []int64{0, 0}}, sysCall{139, -1, []int64{1, 0, 0}}, sysCall{156, -1, []int64{0}}, sysCall{180, 42, []int64{0, 0, 0}}, sysCall{212, 18, []int64{0, 0, 0}}),
	calls("F81 flushing everything", "nobody makes the machine write all its files", eperm,
		sysCall{162, 81, nil}, sysCall{306, 267, []int64{1}}, sysCall{277, 84, []int64{1, 0, 0, 0}}, sysCall{187, 213, []int64{0, 0, 4096}}),
	calls("F80 watches without end", "no watch on a file outlives or outnumbers", eperm,
		sysCall{294, 26, []int64{0}}, sysCall{253, -1, nil}, sysCall{254, 27, []int64{0, 0, 0}}, sysCall{301, 263, []int64{0, 0, 0, 0, 0}}),
	{
		name: "E a foreign ABI in machine code", proves: "the other gate of the kernel is shut (int 0x80)", status: sandbox.OK, value: "true",
		code: python("import ctypes, mmap, os, platform\nif platform.machine() != 'x86_64': result = True\nelse:\n  pid = os.fork()\n  if pid == 0:\n    page = mmap.mmap(-1, 4096, prot=7)\n    page.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()\n    os._exit(0)\n  result = os.WIFSIGNALED(os.waitpid(pid, 0)[1])"),
	},
}
