package a2a

// The exit codes of the command line's contract; a report has them, too, where no
// program ended by itself.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitDenied      = 3
	ExitUnavailable = 4
	ExitUnverified  = 5
)

// ExitCode is the exit code of what was not done, by the code of its [Error].
func ExitCode(code string) int {
	switch code {
	case CodeInvalidRequest, CodeTooLarge:
		return ExitUsage
	case CodeDenied, CodeUnauthenticated, CodeSignatureMissing, CodeSignatureInvalid, CodeWrongAudience, CodeExpired, CodeNotYetValid:
		return ExitDenied
	case CodeUnavailable, CodeBusy:
		return ExitUnavailable
	}
	return ExitFailed
}
