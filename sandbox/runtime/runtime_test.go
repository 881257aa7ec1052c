package runtime_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/runtime"
)

// added returns a store with the host's Python in it, shared by the tests that
// only read it, or skips.
var added = sync.OnceValues(func() (*runtime.Store, error) {
	dir, err := os.MkdirTemp("", "agenticraft-runtime-test-")
	if err != nil {
		return nil, err
	}
	temporary = dir
	s, err := runtime.Open(dir)
	if err != nil {
		return nil, err
	}
	_, err = s.AddPython(context.Background(), runtime.AddConfig{})
	return s, err
})

var temporary string

func TestMain(m *testing.M) {
	code := m.Run()
	if temporary != "" {
		os.RemoveAll(temporary)
	}
	os.Exit(code)
}

func store(t *testing.T) (*runtime.Store, runtime.Runtime) {
	t.Helper()
	s, err := added()
	if errors.Is(err, sandbox.ErrUnavailable) {
		t.Skipf("no python3 on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) == 0 {
		t.Fatalf("List() = %v, %v", list, err)
	}
	return s, list[0]
}

func TestAddPythonIsIdempotent(t *testing.T) {
	s, r := store(t)
	again, err := s.AddPython(t.Context(), runtime.AddConfig{Progress: func(line string) { t.Log(line) }})
	if err != nil || again.Digest != r.Digest {
		t.Errorf("AddPython again = %v, %v, want %v", again.Digest, err, r.Digest)
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("List() has %d runtimes, %v, want 1", len(list), err)
	}
	t.Logf("%s: Python %s, %d files, %d bytes, %v", r.Digest, r.Version, r.Files, r.Bytes, r.Argv)
}

func TestPythonTreeHoldsOnlyWhatItShould(t *testing.T) {
	s, r := store(t)
	dir, digest, argv, err := s.Lookup("python")
	if err != nil || digest != r.Digest || len(argv) == 0 {
		t.Fatalf("Lookup = %v, %v, %v", digest, argv, err)
	}
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		switch mode := info.Mode(); {
		case d.IsDir():
			if mode.Perm() != 0o755 {
				t.Errorf("folder %s has mode %v", rel, mode)
			}
			switch d.Name() {
			case "test", "tests", "idlelib", "tkinter", "ensurepip", "site-packages", "dist-packages":
				t.Errorf("folder %s should have been left out", rel)
			}
		case mode.IsRegular():
			if p := mode.Perm(); p != 0o644 && p != 0o755 || mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
				t.Errorf("file %s has mode %v", rel, mode)
			}
			if mode.Perm() == 0o755 && rel != strings.TrimPrefix(argv[0], "/") && !strings.HasPrefix(d.Name(), "ld-") {
				t.Errorf("file %s is executable", rel)
			}
			if d.Name() == "sh" || d.Name() == "bash" || d.Name() == "dash" {
				t.Errorf("there is a shell: %s", rel)
			}
		case mode&fs.ModeSymlink != 0:
			target, _ := os.Readlink(name)
			if !filepath.IsLocal(filepath.Join(filepath.Dir(rel), target)) || filepath.IsAbs(target) {
				t.Errorf("link %s leads out, to %s", rel, target)
			}
		default:
			t.Errorf("%s has mode %v", rel, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPythonRunsInItsTreeAlone(t *testing.T) {
	s, _ := store(t)
	dir, _, argv, err := s.Lookup("python")
	if err != nil {
		t.Fatal(err)
	}
	chroot, err := exec.LookPath("chroot")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	const program = `
import sys, os, json, ctypes, zoneinfo, ssl, sqlite3, zlib, bz2, lzma, hashlib, decimal, asyncio, threading, unittest, ctypes.util, uuid, socket, xml.etree.ElementTree
assert not os.path.exists('/etc/passwd') and not os.path.exists('/bin/sh'), 'host files'
assert not os.path.isdir('/usr/share/zoneinfo') or zoneinfo.ZoneInfo('Europe/Paris').key
assert json.__cached__.endswith('.pyc') and os.path.exists(json.__cached__)
with open(json.__cached__, 'rb') as f: head = f.read(8)
assert head[4:8] == b'\x01\0\0\0', head
def calculate(a, b): return a + b
print(calculate(10, 20), sys.flags.isolated, sys.prefix, sys.path)
`
	cmd := exec.CommandContext(t.Context(), chroot, append(append([]string{dir}, argv...), "-I", "-S", "-c", program)...)
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "30 1 /usr ") {
		t.Errorf("python in its tree: %v\n%s", err, out)
	}
}

func TestVerifyNamesTheChangedFile(t *testing.T) {
	_, r := store(t)
	src, _ := added()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(src.Dir())); err != nil {
		t.Fatal(err)
	}
	s, err := runtime.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), r.Digest); err != nil {
		t.Fatalf("Verify of a faithful copy: %v", err)
	}
	matches, _ := filepath.Glob(filepath.Join(dir, r.Digest, "usr/lib*/python3*/json/decoder.py"))
	if len(matches) != 1 {
		t.Fatalf("decoder.py: %v", matches)
	}
	for name, spoil := range map[string]func() error{
		"content": func() error { return os.WriteFile(matches[0], []byte("import os\n"), 0o644) },
		"setuid":  func() error { return os.Chmod(matches[0], 0o644|fs.ModeSetuid) },
		"extra": func() error {
			return os.WriteFile(filepath.Join(filepath.Dir(matches[0]), "decoder.pyx"), nil, 0o644)
		},
		"missing": func() error { return os.Remove(matches[0]) },
	} {
		before, err := os.ReadFile(matches[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), r.Digest); err == nil || !strings.Contains(err.Error(), "json/decoder.py") {
			t.Errorf("%s: Verify = %v, want an error naming the file", name, err)
		}
		os.Remove(filepath.Join(filepath.Dir(matches[0]), "decoder.pyx"))
		if err := errors.Join(os.WriteFile(matches[0], before, 0o644), os.Chmod(matches[0], 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(r.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(r.Digest); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("second Remove = %v, want ErrNotFound", err)
	}
	if _, _, _, err := s.Lookup("python"); !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "agenticraft runtime add python") {
		t.Errorf("Lookup after Remove = %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*"+r.Digest[:8]+"*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Two processes add to one store at once; one of them does the work, and the
// digest is the same as in another store.
func TestSharedStoreAddsOnceAndEqual(t *testing.T) {
	_, want := store(t)
	dir := t.TempDir()
	// What a crashed addition left must not stay.
	if err := os.MkdirAll(filepath.Join(dir, ".stage-1", "usr"), 0o755); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			s, err := runtime.Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			if r, err := s.AddPython(t.Context(), runtime.AddConfig{}); err != nil || r.Digest != want.Digest {
				t.Errorf("AddPython = %v, %v", r.Digest, err)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != 4 { // lock, runtime, manifest, index
		t.Errorf("the store holds %v", names)
	}
}

func TestAddPythonSaysWhatIsMissing(t *testing.T) {
	s, err := runtime.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/nonexistent/python3", "/bin/cat"} {
		if _, err := s.AddPython(t.Context(), runtime.AddConfig{Interpreter: name}); !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), name) {
			t.Errorf("AddPython(%s) = %v, want ErrUnavailable", name, err)
		}
	}
	if _, _, _, err := s.Lookup("python"); !errors.Is(err, sandbox.ErrUnavailable) {
		t.Errorf("Lookup in an empty store = %v, want ErrUnavailable", err)
	}
}

func TestOpenRefusesAnIndexItDoesNotKnow(t *testing.T) {
	for _, text := range []string{`{"v":2}`, `{`, `{"v":1,"runtimes":[{"digest":"../../etc","argv":["x"]}]}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "runtimes.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := runtime.Open(dir); err == nil {
			t.Errorf("Open with the index %s succeeded", text)
		}
	}
}
