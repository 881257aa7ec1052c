package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Three machines form a cluster with init alone, each in its own folder.
func TestInitOnThreeMachines(t *testing.T) {
	c := &testCluster{t: t, dir: t.TempDir()}
	port, err := devPorts(t.Context(), 0, 6)
	if err != nil {
		t.Fatal(err)
	}
	data := func(i int) string { return filepath.Join(c.dir, fmt.Sprint("machine", i)) }
	addr := func(i int) string { return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port+3+i) }
	init := func(i int, args ...string) map[string]string {
		out := map[string]string{}
		c.json(&out, append([]string{"init", "--data", data(i), "--http", fmt.Sprintf("127.0.0.1:%d", port+i)}, args...)...)
		return out
	}
	b, d := init(1, "--key-only")["id"], init(2, "--key-only")["id"]
	first := init(0, "--mesh", addr(0), "--keeper", b+"@"+addr(1), "--keeper", d+"@"+addr(2))
	genesis := filepath.Join(data(0), genesisFile)
	init(1, "--mesh", addr(1), "--genesis", genesis)
	init(2, "--mesh", addr(2), "--genesis", genesis)
	for i := range 3 {
		cmd := exec.CommandContext(t.Context(), testBinary, "serve", "--config", filepath.Join(data(i), "config.yaml"))
		cmd.Env = c.env()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		})
	}
	for i := range 3 {
		server := fmt.Sprintf("http://127.0.0.1:%d", port+i)
		c.await("a run through each", func() bool {
			r := c.run("exec", "--lang", "starlark", "--server", server, "--api-key-file", first["api_key_file"], "-c", "result = 6 * 7")
			return r.code == exitOK && strings.Contains(r.stdout, "42")
		})
	}
	// What init refuses.
	for _, args := range [][]string{
		{"init"},
		{"init", "--data", data(0)},
		{"init", "--data", data(9), "--keeper", "nobody"},
		{"init", "--data", data(9), "--genesis", genesis},
		{"init", "--data", data(8), "--genesis", "/dev/null"},
		{"init", "--data", data(8), "--genesis", genesis, "--signed-policy"},
		{"init", "--data", data(8), "--genesis", genesis, "--keeper", b + "@" + addr(1)},
	} {
		if r := c.run(args...); r.code == exitOK {
			t.Errorf("agenticraft %v succeeded", args)
		}
	}
}
