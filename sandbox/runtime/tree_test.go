package runtime_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/runtime"
)

// entry is one of a tar archive.
type entry struct {
	name, body, link string
	kind             byte
	mode             int64
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		if e.mode == 0 {
			e.mode = 0o755
		}
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Linkname: e.link, Size: int64(len(e.body))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packed(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func addTree(t *testing.T, data []byte) (*runtime.Store, runtime.Runtime, error) {
	t.Helper()
	s, err := runtime.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := s.AddTree(t.Context(), runtime.AddTreeConfig{Path: file, Name: "tree"})
	return s, r, err
}

var shell = entry{name: "bin/sh", body: "a shell"}

func TestHostileArchivesAreRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"above":              archive(t, shell, entry{name: "../x", body: "x"}),
		"above, deep":        archive(t, shell, entry{name: "a/../../x", body: "x"}),
		"link above":         archive(t, shell, entry{name: "l", kind: tar.TypeSymlink, link: "../../etc"}),
		"link above, deep":   archive(t, shell, entry{name: "a/b/l", kind: tar.TypeSymlink, link: "../../../etc/passwd"}),
		"empty link":         archive(t, shell, entry{name: "l", kind: tar.TypeSymlink, link: ""}),
		"hard link above":    archive(t, shell, entry{name: "h", kind: tar.TypeLink, link: "../etc/passwd"}),
		"hard link outside":  archive(t, shell, entry{name: "h", kind: tar.TypeLink, link: "/etc/passwd"}),
		"hard link to link":  archive(t, shell, entry{name: "l", kind: tar.TypeSymlink, link: "bin"}, entry{name: "h", kind: tar.TypeLink, link: "l"}),
		"device":             archive(t, shell, entry{name: "sda", kind: tar.TypeBlock}),
		"character device":   archive(t, shell, entry{name: "dev/mem", kind: tar.TypeChar}),
		"pipe":               archive(t, shell, entry{name: "p", kind: tar.TypeFifo}),
		"too deep":           archive(t, shell, entry{name: strings.Repeat("d/", 80) + "x"}),
		"cut short":          archive(t, shell)[:515],
		"no archive":         []byte("hello, this is no archive at all"),
		"nothing":            nil,
		"no interpreter":     archive(t, entry{name: "etc/x", body: "x"}),
		"not executable":     archive(t, entry{name: "bin/sh", body: "x", mode: 0o644}),
		"interpreter a link": archive(t, entry{name: "bin/sh", kind: tar.TypeSymlink, link: "/proc/self/exe"}),
		"broken gzip":        packed(t, archive(t, shell))[:60],
		"no layers":          archive(t, entry{name: "manifest.json", body: `[{"Layers":[]}]`}),
		"two images":         archive(t, entry{name: "manifest.json", body: `[{"Layers":["a"]},{"Layers":["a"]}]`}),
		"layer missing":      archive(t, entry{name: "manifest.json", body: `[{"Layers":["a"]}]`}),
		"layer above":        archive(t, entry{name: "manifest.json", body: `[{"Layers":["a"]}]`}, entry{name: "a", body: string(archive(t, entry{name: "../x"}))}),
		"manifest nonsense":  archive(t, entry{name: "manifest.json", body: `{`}),
		"odd blob":           archive(t, entry{name: "oci-layout"}, entry{name: "index.json", body: `{"manifests":[{"digest":"../../x"}]}`}),
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := addTree(t, data)
			if !errors.Is(err, sandbox.ErrSpec) {
				t.Errorf("AddTree = %v, want %v", err, sandbox.ErrSpec)
			}
			entries, err := os.ReadDir(s.Dir())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() != ".lock" {
					t.Errorf("%s is left", e.Name())
				}
			}
		})
	}
}

// Files written through links of the archive's own stay inside.
func TestLinksOfAnArchiveLeadNowhereElse(t *testing.T) {
	outside := t.TempDir()
	s, r, err := addTree(t, archive(t, shell,
		entry{name: "absolute", kind: tar.TypeSymlink, link: outside},
		entry{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"}, entry{name: "usr/lib/a", body: "a"}, entry{name: "lib/b", body: "b"},
		entry{name: "self", kind: tar.TypeSymlink, link: "/"}, entry{name: "suid", body: "x", mode: 0o6755},
	))
	if err != nil {
		t.Fatal(err)
	}
	dir, _, argv, err := s.Select("sh", "tree")
	if err != nil || len(argv) != 1 || argv[0] != "/bin/sh" || r.Name != "tree" {
		t.Fatalf("Select = %v, %v; %+v", argv, err, r)
	}
	for name, want := range map[string]string{"absolute": strings.TrimPrefix(outside, "/"), "lib": "usr/lib", "self": "."} {
		if got, err := os.Readlink(filepath.Join(dir, name)); err != nil || got != want {
			t.Errorf("%s leads to %q, %v, want %q", name, got, err, want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "usr/lib/b")); err != nil || string(b) != "b" {
		t.Errorf("lib/b: %q, %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "suid")); err != nil || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		t.Errorf("suid: %v, %v", info.Mode(), err)
	}
	// One whose folder is not there is refused, which is as well.
	_, _, err = addTree(t, archive(t, shell, entry{name: "l", kind: tar.TypeSymlink, link: outside}, entry{name: "l/x", body: "x"}))
	if err != nil && !errors.Is(err, sandbox.ErrSpec) {
		t.Errorf("a file through a link that begins at the root: %v", err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside lies %v, %v", left, err)
	}
}

func TestLayersOfAnImage(t *testing.T) {
	below := archive(t, shell, entry{name: "a/gone", body: "1"}, entry{name: "a/kept", body: "1"}, entry{name: "b/x", body: "1"}, entry{name: "c", body: "old"})
	above := archive(t, entry{name: "a/.wh.gone"}, entry{name: "b/.wh..wh..opq"}, entry{name: "b/y", body: "2"}, entry{name: "c", body: "new"})
	manifest, err := json.Marshal([]map[string]any{{"Layers": []string{"one/layer.tar", "two.tar.gz"}}})
	if err != nil {
		t.Fatal(err)
	}
	saved := archive(t, entry{name: "one/layer.tar", body: string(below)}, entry{name: "two.tar.gz", body: string(packed(t, above))}, entry{name: "manifest.json", body: string(manifest)})
	digest := strings.Repeat("ab", 32)
	layout := archive(t, entry{name: "oci-layout", body: "{}"}, entry{name: "index.json", body: `{"manifests":[{"digest":"sha256:` + digest + `"}]}`},
		entry{name: "blobs/sha256/" + digest, body: `{"layers":[{"digest":"sha256:` + strings.Repeat("01", 32) + `"},{"digest":"sha256:` + strings.Repeat("02", 32) + `"}]}`},
		entry{name: "blobs/sha256/" + strings.Repeat("01", 32), body: string(below)}, entry{name: "blobs/sha256/" + strings.Repeat("02", 32), body: string(packed(t, above))})
	for name, data := range map[string][]byte{"docker save": saved, "packed": packed(t, saved), "OCI layout": layout} {
		s, r, err := addTree(t, data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		dir := filepath.Join(s.Dir(), r.Digest)
		var got []string
		for _, f := range []string{"a/gone", "a/kept", "b/x", "b/y", "c"} {
			if b, err := os.ReadFile(filepath.Join(dir, f)); err == nil {
				got = append(got, f+"="+string(b))
			}
		}
		if want := "a/kept=1 b/y=2 c=new"; strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
		if err := s.Verify(t.Context(), r.Digest); err != nil {
			t.Error(err)
		}
	}
}

func TestAddFolder(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"bin/sh": 0o755, "proc/secret": 0o644, "lib/x": 0o644} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := runtime.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.AddTree(t.Context(), runtime.AddTreeConfig{Path: dir})
	if err != nil || r.Files != 2 || r.Languages[0] != "sh" {
		t.Fatalf("AddTree = %+v, %v", r, err)
	}
	if err := os.Symlink("../../etc", filepath.Join(dir, "lib/out")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddTree(t.Context(), runtime.AddTreeConfig{Path: dir}); !errors.Is(err, sandbox.ErrSpec) {
		t.Errorf("AddTree with a link out of it = %v", err)
	}
	if err := s.Remove(r.Digest[:12]); err != nil {
		t.Error(err)
	}
	if err := s.Remove(r.Digest[:12]); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Remove again = %v", err)
	}
}

// wheel is a package of one module.
func wheel(t *testing.T, dir, name, module string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name+"-1.0-py3-none-any.whl"))
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(f)
	for file, text := range map[string]string{
		name + ".py":                     module,
		name + "-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n",
		name + "-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		name + "-1.0.dist-info/RECORD":   "",
	} {
		out, err := w.Create(file)
		if err == nil {
			_, err = out.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestPythonPackages(t *testing.T) {
	s, _ := store(t)
	wheels, lists := t.TempDir(), t.TempDir()
	wheel(t, wheels, "greeting", "words = 'hello'\n")
	add := func(requirements string) (runtime.Runtime, error) {
		file := filepath.Join(lists, "requirements.txt")
		if err := os.WriteFile(file, []byte(requirements), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.AddPython(t.Context(), runtime.AddConfig{Name: "greeter", Packages: runtime.Packages{Requirements: file, FindLinks: []string{wheels}}})
	}
	for _, bad := range []string{"-e .", "--index-url http://127.0.0.1", "greeting @ file:///tmp/x", "git+https://127.0.0.1/x", "./here", "not-there-at-all==3"} {
		if _, err := add(bad); !errors.Is(err, sandbox.ErrSpec) && !errors.Is(err, sandbox.ErrUnavailable) {
			t.Errorf("requirement %q: %v", bad, err)
		}
	}
	r, err := add("greeting == 1.0  # words\n")
	if errors.Is(err, sandbox.ErrUnavailable) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove("greeter"); err != nil {
			t.Error(err)
		}
	})
	found, err := filepath.Glob(filepath.Join(s.Dir(), r.Digest, "usr/lib/python3*/site-packages/greeting.py"))
	if err != nil || len(found) != 1 {
		t.Errorf("the package is not there: %v, %v", found, err)
	}
	if _, digest, _, err := s.Lookup("python"); err != nil || digest == r.Digest {
		t.Errorf("a named runtime became the default: %v", err)
	}
	if _, digest, _, err := s.Select("python", "greeter"); err != nil || digest != r.Digest {
		t.Errorf("Select by name = %s, %v", digest, err)
	}
}
