//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	imageapi "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/sandbox/docker"
	store "github.com/agenticraft/node/sandbox/runtime"
)

// dockerSocket is where the tests' Docker engine listens. In continuous
// integration there must be one.
func dockerSocket(t *testing.T) string {
	t.Helper()
	socket := os.Getenv("AGENTICRAFT_TEST_DOCKER")
	if socket == "" {
		socket = docker.DefaultSocket
	}
	if _, err := os.Stat(socket); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI needs a Docker engine: %v", err)
		}
		t.Skipf("no Docker engine on this machine: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("a shell's result can be taken out of a container by root only")
	}
	return socket
}

// shellTree is the host's shell in a folder, with a file that makes it another
// tree, and so another image, than any that the engine has.
func shellTree(t *testing.T) (dir, interpreter string) {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddShell(t.Context(), store.AddConfig{}); err != nil {
		t.Fatal(err)
	}
	from, _, argv, err := s.Lookup("sh")
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "tree")
	if err := errors.Join(os.CopyFS(dir, os.DirFS(from)), os.MkdirAll(filepath.Join(dir, "etc"), 0o755),
		os.WriteFile(filepath.Join(dir, "etc", "made"), []byte(t.Name()+time.Now().String()), 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir, argv[0]
}

// imageRegistry serves one image, made of a tree, as the OCI distribution
// specification says, under every name and tag.
func imageRegistry(t *testing.T, tree, interpreter string) (host string) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := errors.Join(w.AddFS(os.DirFS(tree)), w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeSymlink, Name: "usr/local/bin/sh", Linkname: interpreter, Mode: 0o777,
	}), w.Close()); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	blobs := map[string][]byte{}
	add := func(b []byte) (digest string) {
		sum := sha256.Sum256(b)
		digest = "sha256:" + hex.EncodeToString(sum[:])
		blobs[digest] = b
		return digest
	}
	text := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	type object = map[string]any
	layerDigest := add(layer.Bytes())
	config := text(object{"architecture": runtime.GOARCH, "os": "linux", "rootfs": object{"type": "layers", "diff_ids": []string{layerDigest}}})
	const kind = "application/vnd.docker.distribution.manifest.v2+json"
	manifest := text(object{
		"schemaVersion": 2, "mediaType": kind,
		"config": object{"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": add(config)},
		"layers": []object{{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": layer.Len(), "digest": layerDigest}},
	})
	manifestDigest := add(manifest)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		body, found := blobs[last]
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Docker-Content-Digest", manifestDigest)
			body, found = manifest, true
		}
		if !found && r.URL.Path != "/v2/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body) // the engine may have enough
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// Whoever runs a program in a container is told while its image is pulled or
// made, which happens once; named images and named runtimes are both used.
func TestProgressOfImages(t *testing.T) {
	socket := dockerSocket(t)
	api, err := client.NewClientWithOpts(client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	tree, interpreter := shellTree(t)
	name := fmt.Sprintf("%s/agenticraft-test:%d", imageRegistry(t, tree, interpreter), os.Getpid())
	t.Setenv("AGENTICRAFT_DOCKER_SOCKET", socket)
	t.Setenv("AGENTICRAFT_DOCKER_IMAGES", "sh="+name)
	c := startCluster(t, 1)
	var made store.Runtime
	c.json(&made, "runtime", "add", tree, "--name", "of-test", "--language", "sh", "--interpreter", interpreter)
	t.Cleanup(func() {
		for _, one := range []string{name, docker.ImageOf(made.Digest)} {
			if _, err := api.ImageRemove(context.Background(), one, imageapi.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
		c.try(exitOK, "", "runtime", "rm", made.Digest)
	})
	run := func(args ...string) (a2a.Report, []string) {
		t.Helper()
		rep, r := c.exec(0, append([]string{"--sandbox", "docker", "--lang", "sh", "-c", "cat /etc/made >/dev/null && echo 42 > result.json"}, args...)...)
		if rep.Status != a2a.Succeeded || string(rep.Result) != "42" || rep.Sandbox != "docker" {
			t.Fatalf("%v: %+v\n%s", args, rep, r.stderr)
		}
		var told []string
		for line := range strings.Lines(r.stderr) {
			if text, ok := strings.CutPrefix(strings.TrimSpace(line), "agenticraft: "); ok {
				told = append(told, text)
			}
		}
		return rep, told
	}
	rep, told := run()
	if want := "pulling the image " + name; len(told) == 0 || told[0] != want || !strings.HasPrefix(rep.Runtime, "sha256:") {
		t.Errorf("while an image was pulled its caller was told %q, want %q first; runtime %s", told, want, rep.Runtime)
	}
	rep, told = run("--runtime", "of-test")
	if want := []string{"making the image of a runtime, once"}; !slices.Equal(told, want) || rep.Runtime != made.Digest {
		t.Errorf("while an image was made its caller was told %q, want %q; runtime %s", told, want, rep.Runtime)
	}
	for _, args := range [][]string{nil, {"--runtime", "of-test"}} {
		if _, told := run(args...); len(told) > 0 {
			t.Errorf("with the image at hand the caller was told %q", told)
		}
	}
}
