//go:build linux

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool finds a program that a test needs; in CI it must be there.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed, and in CI it must be", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// do runs a program in the repository's root and returns what it printed.
func do(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = repository(t), append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func TestUnitFileIsSystemds(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	text, err := os.ReadFile(filepath.Join(repository(t), "deploy", "agenticraft.service"))
	if err != nil {
		t.Fatal(err)
	}
	// The program need not be installed here; everything else stays as it is.
	const installed = "/usr/local/bin/agenticraft"
	if !bytes.Contains(text, []byte("ExecStart="+installed+" serve")) {
		t.Fatal("the unit does not start the program")
	}
	unit := filepath.Join(t.TempDir(), "agenticraft.service")
	if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("ExecStart="+installed), []byte("ExecStart=/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := do(t, nil, analyze, "verify", "--man=no", unit)
	for line := range strings.Lines(out) {
		if strings.Contains(line, "agenticraft.service") {
			t.Error(strings.TrimSpace(line))
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

// engineOf is the environment with which the docker command reaches the tests'
// engine.
func engineOf(t *testing.T) []string {
	t.Helper()
	socket := os.Getenv("AGENTICRAFT_TEST_DOCKER")
	if socket == "" {
		socket = defaultDocker
	}
	if _, err := os.Stat(socket); err != nil && os.Getenv("CI") == "" {
		t.Skipf("no Docker engine on this machine: %v", err)
	}
	tool(t, "docker")
	return []string{"DOCKER_HOST=unix://" + socket}
}

// image builds deploy/Dockerfile under a name of the test's own.
func image(t *testing.T, env []string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(repository(t), "bin", "agenticraft")); err != nil {
		t.Fatalf("run make build first: %v", err)
	}
	name := "agenticraft-test-" + strings.ToLower(filepath.Base(filepath.Dir(t.TempDir())))
	if out, err := do(t, env, "docker", "build", "-q", "-f", "deploy/Dockerfile", "-t", name, "."); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := do(t, env, "docker", "image", "rm", "--force", name); err != nil {
			t.Errorf("docker image rm: %v\n%s", err, out)
		}
	})
	return name
}

// What docs/operations.md says of each way to start a container is so.
func TestImageAndItsTiers(t *testing.T) {
	env := engineOf(t)
	name := image(t, env)
	if out, err := do(t, env, "docker", "run", "--rm", "--network", "none", name, "version"); err != nil || !strings.HasPrefix(out, "agenticraft ") {
		t.Errorf("version: %v\n%s", err, out)
	}
	for _, c := range []struct {
		options []string
		want    string
	}{
		{nil, "tier T4"},
		{[]string{"--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges", "--cap-drop", "ALL"}, "tier T2"},
		{[]string{"--user", "0"}, "run the node as another user"},
	} {
		args := append(append([]string{"run", "--rm", "--network", "none"}, c.options...), name, "sandbox", "probe")
		if out, err := do(t, env, "docker", args...); !strings.Contains(out, c.want) {
			t.Errorf("docker %v: %v, want %q in\n%s", args, err, c.want, out)
		}
	}
}
