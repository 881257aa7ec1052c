package sandboxtest

// ReportEnv names a file to which [Test] appends what it found, as Markdown.
const ReportEnv = "AGENTICRAFT_ISOLATION_REPORT"

// finding is one case, what it proves, and whether it ended as it must.
type finding struct {
	name, proves, must string
	held               bool
}
