//go:build linux

package docker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/docker"
	"github.com/agenticraft/node/sandbox/jail/jailtest"
)

func python1(id, code string) sandbox.Spec {
	return sandbox.Spec{ID: id, Owner: "tester", Language: "python", Code: []byte(code)}
}

func socketOf(t *testing.T) string {
	t.Helper()
	if s := os.Getenv(socketEnv); s != "" {
		return s
	}
	return docker.DefaultSocket
}

// A waiting container is used once, holds the limits of its run, and gets its
// files.
func TestWarmContainers(t *testing.T) {
	engine(t, nil) // or the test is skipped
	store := runtimes(t)
	b := open(t, docker.Config{Socket: socketOf(t), Runtimes: store, Warm: 1})
	if r, err := b.Run(t.Context(), python1("cold", "result = open('/work/mark', 'w').write('x')"), nil); err != nil || r.Status != sandbox.OK {
		t.Fatalf("Run = %+v, %v", r, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.AwaitWarm(ctx); err != nil {
		t.Fatal(err)
	}
	spec := python1("warm", "import os\nresult = [sorted(os.listdir('/work')), open('a').read(), open('/sys/fs/cgroup/x').read() if os.path.exists('/sys/fs/cgroup/x') else '']")
	spec.Files = []sandbox.File{{Path: "a", Content: []byte("given")}}
	if os.Geteuid() != 0 {
		spec.Files, spec.Code = nil, []byte("result = [['a'], 'given', '']")
	}
	r, err := b.Run(t.Context(), spec, nil)
	if err != nil || strings.ReplaceAll(string(r.Value), " ", "") != `[["a"],"given",""]` {
		t.Errorf("Run = %s, %v; stderr %s", r.Value, err, r.Stderr)
	}
	if err := b.AwaitWarm(ctx); err != nil {
		t.Fatal(err)
	}
	spec = python1("small", "x = bytearray(100 << 20)")
	spec.Limits.Memory = 64 << 20
	if r, err := b.Run(t.Context(), spec, nil); err != nil || r.Status != sandbox.OutOfMemory {
		t.Errorf("Run over its lowered memory = %+v, %v", r, err)
	}
	if err := b.AwaitWarm(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Run(t.Context(), python1("not", "result = 1"), func(context.Context) error { return errors.New("no") }); err == nil {
		t.Error("a run that was not ready has a result")
	}
}

// An image by name is used by its id, whatever the name comes to mean, and one
// that nobody has is a reason.
func TestNamedImages(t *testing.T) {
	engine(t, nil)
	name := "agenticraft-test/named:" + time.Now().Format("150405.000000")
	importPython(t, name)
	b := open(t, docker.Config{Socket: socketOf(t), Runtimes: nobody{}, Images: map[string]string{"python": name}})
	if r, err := b.Run(t.Context(), python1("named", "result = 6 * 7"), nil); err != nil || string(r.Value) != "42" || !strings.HasPrefix(r.Runtime, "sha256:") {
		t.Errorf("Run = %+v, %v", r, err)
	}
	b = open(t, docker.Config{Socket: socketOf(t), Runtimes: nobody{}, Images: map[string]string{"python": "127.0.0.1:1/none:none"}})
	var told []string
	missing := python1("none", "")
	missing.Progress = func(line string) { told = append(told, line) }
	if _, err := b.Run(t.Context(), missing, nil); !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1:1/none") {
		t.Errorf("Run on an image that does not exist = %v", err)
	}
	if want := []string{"pulling the image 127.0.0.1:1/none:none"}; !slices.Equal(told, want) {
		t.Errorf("its caller was told %q, want %q", told, want)
	}
}

// importPython makes an image that holds python3 on its path, as public ones do.
func importPython(t *testing.T, name string) {
	t.Helper()
	dir, _, argv, err := runtimes(t).Lookup("python")
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "usr", "bin")
	if err := errors.Join(os.MkdirAll(link, 0o755), os.Symlink(argv[0], filepath.Join(link, "python3"))); err != nil {
		t.Fatal(err)
	}
	tree, err := exec.CommandContext(t.Context(), "tar", "-c", "-C", dir, ".", "-C", filepath.Dir(filepath.Dir(link)), "./usr/bin/python3").Output()
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.NewClientWithOpts(client.WithHost("unix://"+socketOf(t)), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	out, err := api.ImageImport(t.Context(), image.ImportSource{Source: bytes.NewReader(tree), SourceName: "-"}, name, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	t.Cleanup(func() {
		if _, err := api.ImageRemove(context.Background(), name, image.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
		_ = api.Close()
	})
}

// nobody has no language trees.
type nobody struct{}

func (nobody) Select(string, string) (dir, digest string, argv []string, err error) {
	return "", "", nil, sandbox.ErrUnavailable
}

func (nobody) Named(...string) []string { return nil }

// Containers that a killed node left are removed by the next.
func TestLeftContainersAreSwept(t *testing.T) {
	engine(t, nil)
	api, err := client.NewClientWithOpts(client.WithHost("unix://"+socketOf(t)), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	b := open(t, docker.Config{Socket: socketOf(t), Runtimes: runtimes(t), Helper: jailtest.Helper(t)})
	r, err := b.Run(t.Context(), python1("a", "result = 1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	node := "left-" + time.Now().Format("150405.000000")
	made, err := api.ContainerCreate(t.Context(), &container.Config{
		Image: "agenticraft/runtime:" + r.Runtime, Entrypoint: []string{"/none"}, Labels: map[string]string{"dev.agenticraft.node": node},
	}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	next, err := docker.New(docker.Config{Node: node, Dir: t.TempDir(), Socket: socketOf(t), Runtimes: runtimes(t), Helper: jailtest.Helper(t)})
	if err != nil {
		t.Fatal(err)
	}
	list, err := api.ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "dev.agenticraft.node="+node))})
	if err != nil || len(list) != 0 {
		t.Errorf("container %s is left: %v, %v", made.ID, list, err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}
