//go:build linux && long

package docker_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
)

// gVisorEngine starts an engine whose containers are those of gVisor.
func gVisorEngine(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root starts an engine")
	}
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skip("dockerd is not installed")
	}
	runsc, err := exec.LookPath("runsc")
	if err != nil {
		t.Skip("runsc is not installed (apt-get install runsc)")
	}
	config := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(config, []byte(`{"runtimes": {"runsc": {"path": "`+runsc+`", "runtimeArgs": ["--host-fifo=open", "--platform=ptrace", "--network=none"]}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, _ := ownEngine(t, dockerd, "--config-file", config)
	return socket
}

// A real gVisor, as Debian packages it, which calls itself Linux 4.4.0, runs every
// language: what goes in comes
// out, limits hold, and what it cannot hold it does not claim.
func TestGVisor(t *testing.T) {
	socket := gVisorEngine(t)
	b := open(t, docker.Config{Socket: socket, Runtimes: runtimes(t)})
	d := b.Describe()
	if !d.Available || d.Enforces[sandbox.LimitSyscalls] != "gvisor" || d.Enforces[sandbox.LimitProcesses] != "" || d.Egress {
		t.Fatalf("Describe = %+v", d)
	}
	code := map[string]string{
		"python":     "import os, sys\nopen('out', 'w').write(open('in/a').read())\nprint('said')\nresult = [sys.stdin.read(), '4.4.0' in open('/proc/version').read(), os.getuid()]",
		"javascript": "const fs = require('fs'); fs.writeFileSync('out', fs.readFileSync('in/a')); console.log('said'); const result = [fs.readFileSync(0, 'utf8'), fs.readFileSync('/proc/version', 'utf8').includes('4.4.0'), process.getuid()]",
		"sh":         "cat in/a > out; echo said; read x; case $(cat /proc/version) in *4.4.0*) y=true;; *) y=false;; esac; echo \"[\\\"$x\\\",$y,$(id -u)]\" > result.json",
	}
	for _, language := range d.Languages {
		t.Run(language, func(t *testing.T) {
			spec := sandbox.Spec{
				ID: "g", Owner: "tester", Language: language, Code: []byte(code[language]), Stdin: []byte("typed"),
				Files: []sandbox.File{{Path: "in/a", Content: []byte("given")}},
			}
			spec.Limits.Wall = time.Minute
			r, err := b.Run(t.Context(), spec, nil)
			if err != nil || r.Status != sandbox.OK || string(r.Value) != `["typed",true,65534]` || string(r.Stdout) != "said\n" {
				t.Fatalf("Run = %+v, %v\nstderr %s", r, err, r.Stderr)
			}
			if len(r.Files) != 1 || r.Files[0].Path != "out" || string(r.Files[0].Content) != "given" {
				t.Errorf("files are %v", r.Files)
			}
		})
	}
	for name, tt := range map[string]struct {
		code   string
		status sandbox.Status
		exit   int
	}{
		"memory":    {"x = b'x' * (400 << 20)", sandbox.OutOfMemory, 137},
		"time":      {"while True: pass", sandbox.Timeout, 124},
		"a signal":  {"import os\nos.kill(os.getpid(), 9)", sandbox.Killed, 137},
		"exit code": {"exit(3)", sandbox.Error, 3},
		"output":    {"while True: print('x' * 1000)", sandbox.OutputLimit, 1},
		"file size": {"f = open('f', 'wb')\nfor _ in range(40): f.write(b'x' * (1 << 20)); f.flush()", sandbox.Error, 1},
	} {
		t.Run(name, func(t *testing.T) {
			spec := python1("l", tt.code)
			spec.Limits = sandbox.Limits{Memory: 192 << 20, Wall: 5 * time.Second, Output: 64 << 10, FileSize: 1 << 20}
			if r, err := b.Run(t.Context(), spec, nil); err != nil || r.Status != tt.status || r.ExitCode != tt.exit {
				t.Errorf("Run = %s, exit code %d, %v, want %s, %d: %s\nstderr %.500s", r.Status, r.ExitCode, err, tt.status, tt.exit, r.Message, r.Stderr)
			}
		})
	}
	spec := python1("required", "result = 1")
	spec.Required = []string{sandbox.LimitProcesses}
	if _, err := b.Run(t.Context(), spec, nil); !errors.Is(err, sandbox.ErrUnenforceable) || !strings.Contains(err.Error(), sandbox.LimitProcesses) {
		t.Errorf("a run that requires what gVisor does not count = %v", err)
	}
}

// As [TestAKilledNodeEndsItsContainers], where the kernel of a container is a
// process of its own and holds the pipes of its programs.
func TestAKilledNodeEndsItsGVisors(t *testing.T) {
	killedNode(t, gVisorEngine(t))
}
