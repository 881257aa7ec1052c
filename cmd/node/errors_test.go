package main

import (
	"bytes"
	"testing"
)

// What an error repeats, a terminal does not obey.
func TestErrorsOnATerminal(t *testing.T) {
	var out bytes.Buffer
	a := &app{stderr: &out}
	a.finish(failed("a\x1b[2Jb\xffc\u202ed\r\n\té"))
	if got, want := out.String(), "agenticraft: error: a\ufffd[2Jb\ufffdc\ufffdd\ufffd\n\té\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
