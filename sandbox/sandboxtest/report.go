//go:build linux

package sandboxtest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
)

// report appends what was found of one backend.
func (s *suite) report(t *testing.T, d sandbox.Description) {
	t.Helper()
	name := os.Getenv(ReportEnv)
	if name == "" {
		return
	}
	held := 0
	var rows strings.Builder
	for _, f := range s.findings {
		answer := "**no**"
		if f.held {
			answer = "yes"
			held++
		}
		fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", f.name, f.proves, strings.ReplaceAll(f.must, "|", `\|`), answer)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("\n## %s, %s\n\nTier %s, Linux %s, %d of %d held. Beside every case a well-behaved run of\nanother owner went well, and after it nothing was left: no process, control group, mount or descriptor.\n\n| the program | proves | must end as | held |\n|---|---|---|---|\n%s",
		d.Name, s.options.Language, d.Tier, unix.ByteSliceToString(u.Release[:]), held, len(s.findings), rows.String())
	if err := appendTo(name, []byte(text)); err != nil {
		t.Error(err)
	}
}

func appendTo(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
