//go:build linux && long

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Three keepers of deploy/compose.yaml find each other and run code.
func TestComposeMakesACluster(t *testing.T) {
	env := engineOf(t)
	compose := []string{"docker", "compose"}
	if _, err := do(t, env, "docker", "compose", "version"); err != nil {
		if _, err := exec.LookPath("docker-compose"); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal("docker compose is not installed")
			}
			t.Skip("docker compose is not installed")
		}
		compose = []string{"docker-compose"}
	}
	if out, err := do(t, env, "docker", "build", "-q", "-f", "deploy/Dockerfile", "-t", "agenticraft", "."); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	env = append(env, fmt.Sprintf("COMPOSE_PROJECT_NAME=agenticraft-test-%d", os.Getpid()))
	with := func(args ...string) (string, error) {
		all := append(append(append([]string(nil), compose...), "-f", "deploy/compose.yaml"), args...)
		return do(t, env, all[0], all[1:]...)
	}
	t.Cleanup(func() {
		if out, err := with("down", "-v"); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	if out, err := do(t, env, "deploy/compose-init"); err != nil {
		t.Fatalf("compose-init: %v\n%s", err, out)
	}
	if out, err := with("up", "-d"); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	agenticraft := func(args ...string) (string, error) {
		return with(append([]string{"exec", "-T", "keeper-a", "/agenticraft", "--api-key-file", "/data/api.key"}, args...)...)
	}
	var out string
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if out, err = agenticraft("exec", "--lang", "starlark", "-c", "result = 6 * 7"); err == nil {
			break
		}
	}
	if err != nil || !strings.Contains(out, "result: 42") || !strings.Contains(out, "restricted T2") {
		t.Errorf("exec: %v\n%s", err, out)
	}
	if out, err := agenticraft("nodes"); err != nil || strings.Count(out, "connected") != 2 {
		t.Errorf("nodes: %v\n%s", err, out)
	}
}
