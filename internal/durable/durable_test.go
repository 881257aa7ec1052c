package durable_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/agenticraft/node/internal/durable"
)

func TestWriteFileReplacesWholly(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"a long first version", "short"} {
		if err := durable.WriteFile(name, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("file holds %q, want %q", got, want)
		}
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode().Perm())
	}
}

func TestWriteFileLeavesNothingBehindWhenItFails(t *testing.T) {
	dir := t.TempDir()
	// A folder in the file's place makes the rename fail after the temporary
	// file was written.
	name := filepath.Join(dir, "f")
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(name, []byte("x"), 0o600); err == nil {
		t.Fatal("WriteFile over a folder succeeded")
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 {
		t.Errorf("folder holds %v, want only the folder f", left)
	}
}

// A rename to the name of a device or a pipe would replace it for everybody.
func TestWriteFileReplacesOnlyFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	toPipe := filepath.Join(dir, "to pipe")
	if err := os.Symlink(pipe, toPipe); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{pipe, toPipe, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/../dev/stderr"} {
		if err := durable.WriteFile(name, []byte("x"), 0o600); err == nil {
			t.Errorf("%s was replaced", name)
		}
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe is now %v, %v", info, err)
	}
	file, toFile := filepath.Join(dir, "file"), filepath.Join(dir, "to file")
	if err := os.Symlink("file", toFile); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		if err := durable.WriteFile(file, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := durable.WriteFile(toFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("what the link leads to holds %q, %v", got, err)
		}
	}
	if info, err := os.Lstat(toFile); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is now %v, %v", info, err)
	}
}

func TestMkdirMakesParents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := durable.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Errorf("Stat(%s) = %v, %v", dir, info, err)
	}
}
