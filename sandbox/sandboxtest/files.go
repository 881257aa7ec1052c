package sandboxtest

import (
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/sandbox"
)

// kept checks which files came back.
func kept(want ...string) func(*testing.T, sandbox.Result) {
	return func(t *testing.T, r sandbox.Result) {
		t.Helper()
		var got []string
		for _, f := range r.Files {
			got = append(got, f.Path)
		}
		if !slices.Equal(got, want) {
			t.Errorf("files are %q, want %q", got, want)
		}
	}
}

// cutFiles is kept where the result must say that there were others.
func cutFiles(want ...string) func(*testing.T, sandbox.Result) {
	return func(t *testing.T, r sandbox.Result) {
		t.Helper()
		kept(want...)(t, r)
		if !r.FilesTruncated || !strings.Contains(r.Message, "not every output file was kept") {
			t.Errorf("it is not said that files are missing: truncated %v, message %q", r.FilesTruncated, r.Message)
		}
	}
}

// files are the ways to files that are not the program's.
var files = []testCase{
	{
		name: "A1 files of the host", proves: "none of the host's files is there", status: sandbox.OK, value: "[]",
		code: map[string]string{
			"javascript": "const fs = require('fs'); const result = ['/etc/passwd', '/etc/shadow', '/root', '/home', '/sys', '/bin/sh', '/var', '/jail'].filter(p => fs.existsSync(p))",
			"sh":         "found=; for p in /etc/passwd /etc/shadow /root /home /sys /var /jail; do [ -e $p ] && found=\"$found\\\"$p\\\"\"; done; echo \"[$found]\" > result.json",
			"wasm":       "guest exists /etc/passwd,/etc/shadow,/root,/home,/proc,/sys,/bin/sh,/work,/dev,/module.wasm",
		},
	},
	{
		name: "A2 writing outside", proves: "only /work and /tmp can be written", status: sandbox.OK, value: "[]",
		code: map[string]string{
			"javascript": "const fs = require('fs'); const result = []; for (const p of ['/x', '/usr/x', '/usr/lib/x', '/proc/x', '/dev/x']) { try { fs.writeFileSync(p, 'x'); result.push(p) } catch {} }",
			"sh":         "found=; for p in /x /usr/x /bin/x /proc/x /dev/x; do (echo x > $p) 2>/dev/null && found=$found$p; done; echo \"[$found]\" > result.json",
		},
	},
	{
		name: "A3 links out of the folder", proves: "paths and links lead to the jail's own files only", status: sandbox.OK, value: "[]", check: kept(),
		code: python("import os\nresult = []\nos.symlink('/etc/passwd', 'absolute')\nos.symlink('../' * 20 + 'etc/passwd', 'relative')\nfor p in ('absolute', 'relative', '../' * 30 + 'etc/passwd', '/proc/self/root/etc/passwd', '/proc/1/root/etc/passwd', '/proc/self/cwd/../etc/passwd'):\n  try:\n    open(p).read()\n    result.append(p)\n  except OSError: pass"),
	},
	{
		name: "A8 remounting", proves: "what is read-only stays so", status: sandbox.OK, value: "[-1,-1,-1]",
		code: python("import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nresult = [libc.mount(None, b'/', None, 32 | 4096, None), libc.mount(None, b'/usr', None, 32, None), libc.umount2(b'/work', 2)]"),
	},
	{
		name: "A10 descriptors left open", proves: "three standard descriptors and the result's", status: sandbox.OK, value: "[]",
		code: map[string]string{
			"sh":         "found=; for fd in $(ls /proc/self/fd); do [ $fd -gt 3 ] && found=$found,$fd; done; echo \"[${found#,}]\" > result.json",
			"javascript": "const fs = require('fs'); const result = fs.readdirSync('/proc/self/fd').filter(fd => { try { return /^(\\/(?!dev\\/(null|urandom))|socket)/.test(fs.readlinkSync('/proc/self/fd/' + fd)) && +fd > 3 } catch { return false } })",
		},
	},
	{
		name: "A12 the interpreter's own file", proves: "no program can be overwritten (CVE-2019-5736)", status: sandbox.OK, value: "[]",
		code: python("import os\nresult = []\nfor p in ('/proc/self/exe', '/proc/1/exe', '/usr/bin/python3'):\n  for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):\n    try:\n      os.close(os.open(p, flags))\n      result.append(p)\n    except OSError: pass"),
	},
	{
		name: "A13 devices", proves: "only harmless devices are there", status: sandbox.OK, value: "[]",
		code: python("import os, stat\nresult = [n for n in os.listdir('/dev') if n not in ('null', 'zero', 'full', 'random', 'urandom', 'fd', 'stdin', 'stdout', 'stderr', 'shm', 'pts', 'ptmx', 'tty', 'mqueue', 'console', 'core')]\nfor p in ('/dev/mem', '/dev/kmem', '/dev/kvm', '/dev/vda', '/dev/sda', '/dev/fuse', '/dev/tty', '/dev/net/tun'):\n  try:\n    open(p).close()\n    result.append(p)\n  except OSError: pass"),
	},
	{
		name: "A executables of one's own", proves: "what is written can be run, still jailed", status: sandbox.OK, value: `"jailed"`, check: func(*testing.T, sandbox.Result) {},
		code: map[string]string{"sh": "printf '#!/bin/sh\\necho \\\"jailed\\\"\\n' > run; chmod 755 run; ./run > result.json; rm run"},
	},
	{
		name: "G89 what is left behind", proves: "links, pipes, sockets and second names are not taken for files", status: sandbox.OK, check: kept("real"),
		code: python("import os, socket\nopen('real', 'w').write('x')\nopen('one', 'w').write('x'); os.link('one', 'two')\nos.symlink('real', 'link'); os.mkfifo('pipe')\nopen('sparse', 'w').truncate(1 << 19)"),
	},
	{
		name: "G90 names", proves: "names that confuse are left out, which is said", status: sandbox.OK, check: cutFiles("good name", "ü"),
		code: python("for name in (b'good name', 'ü'.encode(), b'new\\nline', b'esc\\x1b[31m', b'\\xff', b'tab\\t', '\\u202egnp.exe'.encode(), 'end\\u2028'.encode(), b'C:\\\\x'):\n  open(name, 'w').write('x')"),
	},
	{
		name: "G90 more files than are kept", proves: "what does not fit is said", status: sandbox.OK, check: func(t *testing.T, r sandbox.Result) {
			if len(r.Files) == 0 || len(r.Files) > 256 || !strings.Contains(r.Message, "output file") {
				t.Errorf("%d files, message %q", len(r.Files), r.Message)
			}
		},
		code:    python("for i in range(300): open('f%03d' % i, 'w').write('x')"),
		prepare: func(s *sandbox.Spec) { s.Limits.Files = 1000 },
	},
	{
		name: "G89 a file as it was", proves: "only what changed comes back", status: sandbox.OK, check: kept("new"),
		code: map[string]string{
			"python":     "open('new', 'w').write(open('given').read())",
			"javascript": "const fs = require('fs'); fs.writeFileSync('new', fs.readFileSync('given'))",
			"sh":         "cat given > new",
			"wasm":       "guest leave new hey",
		},
		prepare: func(s *sandbox.Spec) {
			s.Files = append(s.Files, sandbox.File{Path: "given", Content: []byte("hey")})
		},
	},
	{
		name: "F73 deep folders", proves: "what is deep can be removed", status: sandbox.OK, value: "true", check: func(*testing.T, sandbox.Result) {},
		code: python("import os\nn = 0\ntry:\n  while n < 2000:\n    os.mkdir('d' * 100); os.chdir('d' * 100); n += 1\nexcept OSError: pass\nresult = n >= 50"),
	},
	{
		name: "files out", proves: "what a program leaves comes back", status: sandbox.OK, check: kept("d/out.txt"),
		code: map[string]string{
			"javascript": "const fs = require('fs'); fs.mkdirSync('d'); fs.writeFileSync('d/out.txt', 'hey'); fs.symlinkSync('/etc/passwd', 'link')",
			"sh":         "mkdir d; echo hey > d/out.txt; ln -s /etc/passwd link",
			"wasm":       "guest leave d/out.txt hey leave tmp/scratch x",
		},
	},
	{
		name: "links of modules", proves: "WebAssembly has no links", status: sandbox.OK, value: "false",
		code: map[string]string{"wasm": "guest link /etc/passwd"},
	},
}

// secrets are those of the host, the node and other runs.
var secrets = []testCase{
	{
		name: "B15 the environment", proves: "nothing of the node's environment", status: sandbox.OK, value: "[]",
		code: map[string]string{
			"javascript": "const result = Object.keys(process.env).filter(k => !['HOME', 'LANG', 'PATH', 'TMPDIR', 'UV_THREADPOOL_SIZE', 'NODE_NO_WARNINGS'].includes(k))",
			"sh":         "env | cut -d= -f1 | grep -vxE 'HOME|LANG|PATH|TMPDIR|PWD|_|OLDPWD' | sed 's/.*/\"&\"/' | paste -sd, | sed 's/^/[/; s/$/]/' > result.json; [ -s result.json ] || echo '[]' > result.json",
		},
	},
	{name: "B15 the environment of modules", proves: "nothing of the node's environment", status: sandbox.OK, value: `["HOME","PWD","TMPDIR"]`, code: map[string]string{"wasm": "guest environment"}},
	{
		name: "B16 the environment of process 1", proves: "init shows nothing", status: sandbox.OK, value: "[]",
		code: python("result = []\nfor f in ('environ', 'mem', 'maps', 'root', 'cwd', 'fd'):\n  try:\n    open('/proc/1/' + f, 'rb').read(10)\n    result.append(f)\n  except OSError: pass"),
	},
	{
		name: "B17 files of other runs", proves: "a run begins with empty folders", status: sandbox.OK, value: "[]",
		code: map[string]string{
			"python":     "import os\nresult = os.listdir('/tmp') + os.listdir('/work')",
			"javascript": "const fs = require('fs'); const result = fs.readdirSync('/tmp').concat(fs.readdirSync('/work'))",
			"sh":         "x=$(ls -A /tmp; ls -A /work); [ -z \"$x\" ] && echo '[]' > result.json || echo '[1]' > result.json",
		},
	},
	{name: "B17 files of other modules", proves: "a run begins with empty folders", status: sandbox.OK, value: `["tmp"]`, code: map[string]string{"wasm": "guest list /"}},
	{
		name: "B19 other processes", proves: "only the jail's own processes are seen", status: sandbox.OK, value: "true",
		code: python("import os\nresult = len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3"),
	},
	{
		name: "B20 core dumps", proves: "no memory is left in files", status: sandbox.Killed, exit: 128 + 11, check: kept(),
		code: python("import ctypes\nctypes.string_at(0)"),
	},
	{
		name: "B21 control groups", proves: "the host's names for the jail are hidden", status: sandbox.OK, value: "[]",
		code: python("try:\n  text = open('/proc/self/cgroup').read()\nexcept OSError:\n  text = ''\nresult = [line for line in text.splitlines() if 'agenticraft' in line]"),
	},
	{
		name: "B22 the kernel's settings", proves: "no file that tells of the machine", status: sandbox.OK, value: "[]",
		code: python("import os\nresult = [p for p in ('/proc/sys', '/proc/kallsyms', '/proc/kcore', '/proc/mounts', '/proc/net', '/proc/modules', '/proc/cmdline', '/proc/meminfo', '/proc/version') if os.path.exists(p)" + " and p not in ('/proc/mounts', '/proc/net')]"),
	},
	{
		name: "B25 sockets of the host", proves: "no way to the engine, the bus or an agent", status: sandbox.OK, value: "[]",
		code: python("import os\nresult = [p for p in ('/var/run/docker.sock', '/run/docker.sock', '/run/dbus/system_bus_socket', '/run/systemd', '/tmp/.X11-unix') if os.path.exists(p)]"),
	},
}
