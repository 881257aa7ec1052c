package main

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
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

// full is a disk without space.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// An answer that could not be printed is no success, and one that failed keeps
// its own exit code.
func TestAnswersThatCannotBePrinted(t *testing.T) {
	for args, want := range map[string]int{"version": exitFailed, "version --json": exitFailed, "--help": exitFailed, "audit nonsense --json": exitUsage} {
		var said bytes.Buffer
		if got := run(t.Context(), strings.Fields(args), nil, full{}, &said); got != want {
			t.Errorf("%s: exit %d, want %d", args, got, want)
		}
		if want == exitFailed && !strings.Contains(said.String(), "no space left") {
			t.Errorf("%s: says %q", args, said.String())
		}
	}
}

// A node that is not there, or whose certificate nobody signed that we know, is
// told alike by commands that speak A2A and those that do not.
func TestNobodyAnswers(t *testing.T) {
	const away = "http://127.0.0.1:1" // a port that no other test can be given meanwhile
	secret := httptest.NewUnstartedServer(nil)
	secret.Config.ErrorLog = log.New(io.Discard, "", 0)
	secret.StartTLS()
	defer secret.Close()
	agent := filepath.Join(t.TempDir(), "agent.key")
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Save(agent); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]struct {
		code      int
		says, how string
	}{
		away:       {a2a.ExitUnavailable, "no answer from " + away + ": dial tcp", "agenticraft dev"},
		secret.URL: {a2a.ExitFailed, secret.URL + ": x509: certificate signed by unknown authority", "--ca-file"},
	} {
		for _, args := range [][]string{
			{"status"},
			{"exec", "-c", "result = 1"},
			{"exec", "--detach", "-c", "result = 1"},
			{"exec", "--agent-key", agent, "-c", "result = 1"},
			{"task", "cancel", "0123"},
			{"find", "--lang", "python"},
		} {
			var out, trouble bytes.Buffer
			code := run(t.Context(), append(args, "--server", server), strings.NewReader(""), &out, &trouble)
			if code != want.code || !strings.Contains(trouble.String(), want.says) || !strings.Contains(trouble.String(), want.how) || out.Len() > 0 {
				t.Errorf("%v at %s: exit %d, %q %q", args, server, code, out.String(), trouble.String())
			}
		}
	}
}
