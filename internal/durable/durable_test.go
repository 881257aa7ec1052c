package durable_test

import (
	"os"
	"path/filepath"
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

func TestMkdirMakesParents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := durable.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Errorf("Stat(%s) = %v, %v", dir, info, err)
	}
}
