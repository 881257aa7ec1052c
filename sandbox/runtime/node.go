package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// nodeShare is where distributions keep the parts of Node.js that they took out
// of its binary.
const nodeShare = "/usr/share/nodejs"

// nodeProbe asks a node what it is and which of its own modules it reads from
// files.
const nodeProbe = `process.stdout.write(JSON.stringify({version: process.versions.node, path: process.execPath, parts: process.config.variables.node_builtin_shareable_builtins || []}))`

type nodeAnswer struct {
	Version string   `json:"version"`
	Path    string   `json:"path"`
	Parts   []string `json:"parts"`
}

var isVersion = regexp.MustCompile(`^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$`).MatchString

// AddNode copies the host's Node.js into the store and returns the runtime.
// Without one, the error wraps [sandbox.ErrUnavailable] and names the command
// that installs it.
func (s *Store) AddNode(ctx context.Context, cfg AddConfig) (Runtime, error) {
	node, err := findNode(ctx, cfg.Interpreter)
	if err != nil {
		return Runtime{}, err
	}
	tell := orSilent(cfg.Progress)
	tell(fmt.Sprintf("copying Node.js %s from %s", node.Version, node.Path))
	return s.add(ctx, recipe{
		draft: Runtime{Name: cfg.Name, Languages: []string{"javascript"}, Version: node.Version},
		fill: func(stage string, r *Runtime) error {
			t, err := openTree(ctx, stage)
			if err != nil {
				return err
			}
			defer t.close()
			const bin = "/usr/bin/node"
			r.Argv = []string{bin}
			if err := t.copyFile(node.Path, bin, 0o755); err != nil {
				return err
			}
			for _, part := range nodeParts(node.Parts) {
				if _, err := t.copyLibrary(part, part); err != nil {
					return err
				}
			}
			return t.copyLibraries([]string{node.Path})
		},
		progress: tell,
	})
}

// nodeParts are the folders of the parts that this machine's node reads from
// files: "deps/undici/undici.js" is the package undici.
func nodeParts(ids []string) []string {
	var dirs []string
	seen := make(map[string]bool)
	for _, id := range ids {
		fields := strings.Split(id, "/")
		if len(fields) < 2 || seen[fields[1]] || !filepath.IsLocal(fields[1]) {
			continue
		}
		seen[fields[1]] = true
		dir := filepath.Join(nodeShare, fields[1])
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// findNode asks candidates until one answers as a Node.js that will do.
func findNode(ctx context.Context, name string) (nodeAnswer, error) {
	candidates := []string{name}
	if name == "" {
		candidates = executables("node", "nodejs")
	}
	tried := []error{fmt.Errorf("%w: no usable node on this machine; run: apt-get install nodejs", sandbox.ErrUnavailable)}
	for _, c := range candidates {
		node, err := probeNode(ctx, c)
		if err == nil {
			return node, nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", c, err))
	}
	return nodeAnswer{}, errors.Join(tried...)
}

func probeNode(ctx context.Context, name string) (nodeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, "-e", nodeProbe)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	cmd.WaitDelay = time.Second
	out, errs := &capped{most: maxProbeBytes}, &capped{most: 200}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Run(); err != nil {
		return nodeAnswer{}, fmt.Errorf("ask interpreter: %w: %s", err, bytes.TrimSpace(errs.data))
	}
	var node nodeAnswer
	if err := json.Unmarshal(out.data, &node); err != nil {
		return nodeAnswer{}, fmt.Errorf("ask interpreter: %w", err)
	}
	if !isVersion(node.Version) || !filepath.IsAbs(node.Path) {
		return nodeAnswer{}, fmt.Errorf("it calls itself %.20q at %.80q", node.Version, node.Path)
	}
	var major int
	if _, err := fmt.Sscanf(node.Version, "%d.", &major); err != nil || major < 16 {
		return nodeAnswer{}, fmt.Errorf("its version is %s, older than 16", node.Version)
	}
	return node, nil
}
