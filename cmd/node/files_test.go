package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agenticraft/node/a2a"
)

func TestReadSmallEndsWhateverTheNameStandsFor(t *testing.T) {
	dir := t.TempDir()
	exact, pipe := filepath.Join(dir, "exact"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(exact, []byte(strings.Repeat("x", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		limit int64
		want  int
		fault string
	}{
		{exact, 100, 100, ""},
		{exact, 99, 0, "more than 99 bytes"},
		{"/dev/zero", 1 << 20, 0, "more than 1048576 bytes"},
		{pipe, 100, 0, ""},
		{dir, 100, 0, "is a directory"},
		{filepath.Join(dir, "none"), 100, 0, "no such file"},
	} {
		text, err := readSmall(tt.name, tt.limit)
		if len(text) != tt.want || (err == nil) != (tt.fault == "") || (err != nil && !strings.Contains(err.Error(), tt.fault)) {
			t.Errorf("readSmall(%s, %d) = %d bytes, %v, want %d, %q", tt.name, tt.limit, len(text), err, tt.want, tt.fault)
		}
	}
	_, err := readSmall(exact, 1)
	if e := new(a2a.Error); !errors.As(err, &e) || e.Code != a2a.CodeTooLarge {
		t.Errorf("the error of a large file is %v, want code %s", err, a2a.CodeTooLarge)
	}
}
