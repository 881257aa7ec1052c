package sandboxtest

import (
	"fmt"
	"strings"
)

// ReportEnv names a file to which [Test] appends what it found, as Markdown.
const ReportEnv = "AGENTICRAFT_ISOLATION_REPORT"

// finding is one case, what it proves, and whether it ended as it must.
type finding struct {
	name, proves, must string
	held               bool
}

// must says how a case has to end.
func must(ends []End) string {
	texts := make([]string, len(ends))
	for i, e := range ends {
		texts[i] = e.String()
	}
	return strings.Join(texts, ", or ")
}

// String says how a run ended, short results included.
func (e End) String() string {
	text := string(e.Status)
	if e.ExitCode != 0 {
		text += fmt.Sprintf(", exit code %d", e.ExitCode)
	}
	if e.ErrorCode != "" {
		text += ", " + e.ErrorCode
	}
	if e.Value != "" && e.Value != anything && len(e.Value) <= 40 {
		text += ", result " + e.Value
	}
	return text
}
