package sandboxtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agenticraft/node/sandbox/jail/jailtest"
)

// Nobody is the user without rights as whom [AsNobody] runs tests.
const Nobody = 65534

// AsNobody runs those tests of this test binary that match pattern as a user
// without rights: in the tier that such a user has. env is added to the little
// that they know of this environment. What they find of each backend goes to the
// report, if one is being written.
func AsNobody(t *testing.T, pattern string, env ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this is a user without rights already: the other tests show its tier")
	}
	dir, err := os.MkdirTemp("", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // in the temporary folder anyway
	report, module := filepath.Join(dir, "report"), filepath.Join(dir, "guest.wasm")
	content, err := guest() // whom the user could not build
	if err == nil {
		err = os.WriteFile(module, content, 0o644)
	}
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(report, nil, 0o600), os.Chown(report, Nobody, Nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := jailtest.Self(t, dir, "-test.v", "-test.run", pattern)
	cmd.Env = append(append(cmd.Env, guestEnv+"="+module), env...)
	if os.Getenv(ReportEnv) != "" {
		cmd.Env = append(cmd.Env, ReportEnv+"="+report)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: Nobody, Gid: Nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: ") {
		t.Errorf("as an unprivileged user: %v\n%s", err, Failures(string(out)))
	}
	if name := os.Getenv(ReportEnv); name != "" {
		found, err := os.ReadFile(report)
		if err == nil {
			err = appendTo(name, found)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// Failures keeps the parts of a verbose test log that tell of failures and skips.
func Failures(log string) string {
	var out strings.Builder
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "=== ") && !strings.Contains(line, "--- PASS") {
			out.WriteString(line)
		}
	}
	return out.String()
}
