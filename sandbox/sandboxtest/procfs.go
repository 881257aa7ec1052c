package sandboxtest

import (
	"time"

	"github.com/agenticraft/node/sandbox"
)

// procfs are attempts by what the kernel offers as files, and by paths.
var procfs = []testCase{
	{
		name: "B22 mounts", proves: "where on the host the jail's files lie is not told", status: sandbox.OK, value: `["","",""]`,
		code: python("result = [open('/proc/self/' + f).read() for f in ('mountinfo', 'mounts', 'mountstats')]"),
	},
	{
		name: "B22 paths of one's own", proves: "a process reads of itself what it sees, not what the host sees", status: sandbox.OK, value: "[]",
		code: python("import os\nlinks = ['/proc/self/' + n for n in ('root', 'cwd', 'exe')] + ['/proc/self/fd/' + n for n in os.listdir('/proc/self/fd')]\nresult = []\nfor link in links:\n  try: to = os.readlink(link)\n  except OSError: continue\n  if not (to == '/' or to.startswith(('/work', '/usr/', '/proc/', '/dev/', '/run/agenticraft/', 'pipe:', 'socket:'))): result.append(to)\nresult += [line for line in open('/proc/self/maps') if 'agenticraft' in line or '/home' in line]"),
	},
	{
		name: "B22 addresses of the kernel", proves: "no address that would help to attack it", status: sandbox.OK, value: "[]",
		code: python("import re\nresult = []\nfor f in ('stack', 'wchan', 'syscall'):\n  try: text = open('/proc/self/' + f).read()\n  except OSError: continue\n  result += [f for word in re.findall(r'[0-9a-f]{16}', text) if word.startswith('ffff')]"),
	},
	{
		name: "A12 memory as a file", proves: "no page of a file that others read is written by way of memory", status: sandbox.OK, value: "[]",
		code: python("import os\nresult = []\nfor f in ('mem', 'attr/current', 'loginuid', 'coredump_filter', 'clear_refs', 'timerslack_ns'):\n  try:\n    os.close(os.open('/proc/self/' + f, os.O_WRONLY))\n    result.append(f)\n  except OSError: pass"),
	},
	{
		name: "D44 maps of users", proves: "nobody gives himself user ids", status: sandbox.OK, value: "[]",
		code: python("result = []\nfor f, text in (('setgroups', 'allow'), ('uid_map', '0 0 4294967295'), ('gid_map', '0 0 4294967295'), ('projid_map', '0 0 1')):\n  try:\n    with open('/proc/self/' + f, 'w') as out: out.write(text)\n    result.append(f)\n  except OSError: pass"),
	},
	{
		name: "D44 programs with rights of their own", proves: "the tree has no setuid file, and none can be made", status: sandbox.OK, value: "[]", check: kept("mine"),
		code: python("import os, stat\nresult = []\nfor top, _, names in os.walk('/'):\n  if top.startswith('/proc'): continue\n  for n in names:\n    try: mode = os.lstat(os.path.join(top, n)).st_mode\n    except OSError: continue\n    if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID): result.append(os.path.join(top, n))\nopen('mine', 'w').write('x')\nos.chmod('mine', 0o6755)\nfor name in ('security.capability', 'trusted.x', 'system.posix_acl_access'):\n  try:\n    os.setxattr('mine', name, b'\\x01\\x00\\x00\\x02' + b'\\xff' * 16)\n    result.append(name)\n  except OSError: pass\nos.chmod('mine', 0o644)"),
	},
	{
		name: "E50 namespaces as files", proves: "a file that names a namespace opens nothing", status: sandbox.OK, value: "[]",
		code: python("import ctypes, fcntl, os\nlibc = ctypes.CDLL(None, use_errno=True)\nresult = []\nfor n in os.listdir('/proc/self/ns'):\n  try: fd = os.open('/proc/self/ns/' + n, os.O_RDONLY)\n  except OSError: continue\n  if libc.setns(fd, 0) != -1: result.append(n)\n  for request in (0xb701, 0xb702):\n    try:\n      fcntl.ioctl(fd, request)\n      result.append(n + ' %x' % request)\n    except OSError: pass"),
	},
	{
		name: "A3 the way up", proves: "above the root there is nothing, by path, folder or descriptor", status: sandbox.OK, value: "[]",
		code: python("import os\nhere = set(os.listdir('/'))\nallowed = {'bin', 'ca.pem', 'dev', 'etc', 'lib', 'lib32', 'lib64', 'libx32', 'proc', 'run', 'sbin', 'sys', 'tmp', 'usr', 'work', '.dockerenv'}\nresult = sorted(here - allowed)\nfd = os.open('/work', os.O_RDONLY)\nfor way in (lambda: os.listdir('../' * 40), lambda: os.listdir('/proc/self/cwd/' + '../' * 40), lambda: os.listdir(os.open('../' * 40, os.O_RDONLY, dir_fd=fd))):\n  result += sorted(set(way()) - here)\nos.chdir('/')\nfor _ in range(50): os.chdir('..')\nresult += [] if os.getcwd() == '/' and set(os.listdir('.')) == here else [os.getcwd()]"),
	},
	{
		name: "D48 a name that confuses", proves: "who reads of processes is not misled by what they call themselves", status: sandbox.OK, value: "true", prepare: func(s *sandbox.Spec) { s.Limits.CPUPercent = 20 },
		code: python("import ctypes, os, time\nlibc = ctypes.CDLL(None)\nlibc.prctl(15, b') Z 1 1 (\\n\\xff')\nfor _ in range(3):\n  if os.fork() == 0:\n    libc.prctl(15, b'x) X 1 (')\n    while True: pass\nwall = time.monotonic()\nwhile time.monotonic() - wall < 1.2: pass\nused = sum(int(open('/proc/%s/stat' % p, 'rb').read().rpartition(b')')[2].split()[11]) for p in os.listdir('/proc') if p.isdigit())\nresult = used / os.sysconf('SC_CLK_TCK') < 1.2 * 0.6"),
	},
	{
		name: "G89 whiteouts", proves: "what hides files of layers is no output", status: sandbox.OK, value: "0", check: kept("moved"),
		code: python("import ctypes\nopen('old', 'w').write('x')\nresult = ctypes.CDLL(None).renameat2(-100, b'old', -100, b'moved', 4)\nif result != 0:\n  import os\n  os.rename('old', 'moved')\n  result = 0"),
	},
	{
		name: "A3 the way up of a shell", proves: "above the root there is nothing", status: sandbox.OK, value: "1",
		code: map[string]string{"sh": "a=$(ls /); cd ../../../../../..; [ \"$(ls)\" = \"$a\" ] && [ \"$(ls -d /*agenticraft* 2>/dev/null)\" = '' ] && echo 1 > /work/result.json"},
	},
	{
		name: "B22 mounts of a shell", proves: "where on the host the jail's files lie is not told", status: sandbox.OK, value: `""`,
		code: map[string]string{"sh": "printf '\"%s\"' \"$(cat /proc/self/mountinfo /proc/mounts 2>/dev/null)\" > result.json", "javascript": "const result = require('fs').readFileSync('/proc/self/mountinfo', 'utf8')"},
	},
	{
		name: "A3 paths of modules", proves: "a module's root is all that it has", status: sandbox.OK, value: "[]",
		code: map[string]string{"wasm": "guest exists ../etc/passwd,../../../../etc/passwd,tmp/../../etc/passwd,/proc/self/environ,/dev/null,/jail"},
	},
	{
		name: "A native code of JavaScript", proves: "what is loaded is a file of the jail, and jailed", status: sandbox.OK, value: "true", check: kept(),
		code: map[string]string{"javascript": "const fs = require('fs'); fs.writeFileSync('x.node', '\\x7fELF nonsense'); let result = false; try { process.dlopen({exports: {}}, '/work/x.node') } catch { result = true } fs.rmSync('x.node')"},
	},
	{
		name: "E the debugger of JavaScript", proves: "nobody can be let in from outside", status: sandbox.OK, value: "true",
		code: map[string]string{"javascript": "let result; try { require('inspector').open(0, '127.0.0.1'); result = require('inspector').url() === undefined } catch { result = true }"},
	},
	{
		name: "H95 standing still at the end", proves: "what is done at the deadline has one end", prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124,
		code: python("import os, time\nfor _ in range(4):\n  if os.fork() == 0:\n    while True: time.sleep(0.0001)\nos.close(3)\nwhile True: time.sleep(0.0001)"),
	},
}
