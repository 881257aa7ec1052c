package process

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
)

// Exit codes of runs that do not end by themselves; the command line's contract.
const (
	exitTimeout   = 124
	exitCancelled = 130
	exitMemory    = 137
	exitSignal    = 128 // plus the signal
)

// result puts together what came of the run. ctx tells who ended it, exit how
// the worker ended; where both happened at once, a worker that ended by itself
// is believed.
func (r *run) result(ctx context.Context, exit jail.Exit, err error) sandbox.Result {
	res := sandbox.Result{
		Stdout: r.stdout.data, StdoutTruncated: r.stdout.truncated,
		Stderr: r.stderr.data, StderrTruncated: r.stderr.truncated,
		Enforced: r.jail.Enforced(), Usage: exit.Usage,
	}
	if err != nil {
		res.Status, res.ExitCode, res.Message = sandbox.Internal, 1, err.Error()
		return res
	}
	cause := context.Cause(ctx)
	switch {
	case exit.Killed && errors.Is(cause, errTimeout):
		res.Status, res.ExitCode = sandbox.Timeout, exitTimeout
		res.Message = fmt.Sprintf("it ran longer than %v", r.spec.Limits.Wall)
	case errors.Is(cause, errFlood): // how fast the end came changes nothing about that
		res.Status, res.ExitCode, res.ErrorCode = sandbox.OutputLimit, 1, "output_limit"
		res.Message = fmt.Sprintf("it printed far more than %d bytes", r.spec.Limits.Output)
	case exit.Killed:
		res.Status, res.ExitCode, res.Message = sandbox.Cancelled, exitCancelled, "cancelled"
	case exit.OOM || r.reply.code == codeMemory || r.dialect.starved != nil && r.dialect.starved(exit, res.Stderr):
		res.Status, res.ExitCode = sandbox.OutOfMemory, exitMemory
		res.Message = fmt.Sprintf("it needed more memory than %d bytes", r.spec.Limits.Memory)
	case exit.CPULimit:
		res.Status, res.ExitCode, res.Message = sandbox.Timeout, exitTimeout, "it used more CPU time than the wall clock allows"
	case exit.Signal != 0:
		res.Status, res.ExitCode = sandbox.Killed, exitSignal+exit.Signal
		res.Message = fmt.Sprintf("signal %d ended it", exit.Signal)
	case r.reply.code != "":
		res.Status, res.ExitCode = sandbox.Error, max(exit.Code, 1)
		res.ErrorCode, res.Message = r.reply.code, r.reply.text
	case exit.Code != 0:
		res.Status, res.ExitCode = sandbox.Error, exit.Code
		res.Value = r.reply.value
	default:
		res.Status, res.Value = sandbox.OK, r.reply.value
	}
	r.collect(&res)
	if r.dialect.resultFile {
		r.readResult(&res)
	}
	return res
}

// collect takes the files that the program left, except those that it was
// given and did not change.
func (r *run) collect(res *sandbox.Result) {
	files, err := r.jail.Collect(jail.CollectLimits{Files: maxOutFiles + len(r.spec.Files), Bytes: maxOutBytes, Depth: maxOutDepth})
	if err != nil {
		res.FilesTruncated = true
		if res.Status == sandbox.Error && res.Message == "" {
			res.Message = "the program ended with a non-zero exit code"
		}
		res.Message = join(res.Message, "not every output file was kept: "+err.Error())
	}
	given := make(map[string]string, len(r.spec.Files))
	for _, f := range r.spec.Files {
		given[f.Path] = string(f.Content)
	}
	for _, f := range files {
		if old, ok := given[f.Path]; ok && old == string(f.Content) {
			continue
		}
		res.Files = append(res.Files, f)
	}
}

// readResult takes the result from the file that the program left it in.
func (r *run) readResult(res *sandbox.Result) {
	i := slices.IndexFunc(res.Files, func(f sandbox.File) bool { return f.Path == resultFile })
	if i < 0 || res.Status != sandbox.OK && res.Status != sandbox.Error {
		return
	}
	content := res.Files[i].Content
	res.Files = slices.Delete(res.Files, i, i+1)
	value, err := sandbox.CheckValue(content, r.spec.Limits.Result)
	switch {
	case err == nil:
		res.Value = value
	case res.Status == sandbox.OK:
		res.Status, res.ExitCode, res.ErrorCode = sandbox.Error, 1, codeNotJSON
		if errors.Is(err, sandbox.ErrValueTooLarge) {
			res.ErrorCode = codeTooLarge
		}
		res.Message = resultFile + ": " + err.Error()
	}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
