// Package nodetest builds the program from source, for tests that run it as its
// users do and need no earlier `make build`.
package nodetest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/agenticraft/node"

// Build does what `make build` does, into dir, and returns the program's name. It
// writes nothing into the source tree, so tests of several packages may build at the
// same time. dir must stay until the tests are done.
func Build(ctx context.Context, dir string) (string, error) {
	root, err := run(ctx, "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", err
	}
	helper, program := filepath.Join(dir, "jail"), filepath.Join(dir, "agenticraft")
	if _, err := build(ctx, helper, "cmd/jail"); err != nil {
		return "", err
	}
	// The program embeds the helper from where `make build` puts it: here from dir.
	embedded := filepath.Join(strings.TrimSpace(root), "sandbox", "jail", "bin", "jail")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {embedded: helper}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return "", err
	}
	_, err = build(ctx, program, "cmd/node", "-overlay", file)
	return program, err
}

func build(ctx context.Context, out, pkg string, flags ...string) (string, error) {
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", out}, flags...)
	return run(ctx, append(args, module+"/"+pkg)...)
}

// run runs the go command in the tests' module and returns what it printed.
func run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, &said)
	}
	return string(out), nil
}
