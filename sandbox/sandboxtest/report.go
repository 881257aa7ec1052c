//go:build linux

package sandboxtest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox"
)

// ReportEnv names a file to which [Test] appends what it found, as Markdown.
const ReportEnv = "AGENTICRAFT_ISOLATION_REPORT"

// finding is one case and whether it ended as it must.
type finding struct {
	name, must string
	held       bool
}

// must says how a case has to end.
func (c testCase) must() string {
	text := string(c.status)
	if c.exit != 0 {
		text += fmt.Sprintf(", exit code %d", c.exit)
	}
	if c.errorCode != "" {
		text += ", " + c.errorCode
	}
	if c.value != "" && len(c.value) <= 40 {
		text += ", result " + c.value
	}
	return text
}

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
		fmt.Fprintf(&rows, "| %s | %s | %s |\n", f.name, strings.ReplaceAll(f.must, "|", `\|`), answer)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("\n## %s, %s\n\nTier %s, Linux %s, %d of %d held. After every case nothing was left: no process, control group,\nmount or descriptor.\n\n| the program | must end as | held |\n|---|---|---|\n%s",
		d.Name, s.options.Language, d.Tier, unix.ByteSliceToString(u.Release[:]), held, len(s.findings), rows.String())
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
