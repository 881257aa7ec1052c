package agent

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/sandbox"
)

// Exit codes of the command line's contract for programs that ran.
const (
	exitFailed    = a2a.ExitFailed
	exitLost      = a2a.ExitFailed
	exitTimedOut  = 124
	exitCancelled = 130
	exitMemory    = 137
)

// endings maps how a sandbox run ended to the words of the contract.
var endings = map[sandbox.Status]struct {
	status a2a.Status
	exit   int // 0: the program's own
	code   string
}{
	sandbox.OK:          {status: a2a.Succeeded},
	sandbox.Error:       {status: a2a.Failed, code: "program_failed"},
	sandbox.Timeout:     {a2a.TimedOut, exitTimedOut, "timed_out"},
	sandbox.OutOfMemory: {a2a.Failed, exitMemory, "out_of_memory"},
	sandbox.OutputLimit: {a2a.Failed, exitFailed, "output_limit"},
	sandbox.Killed:      {status: a2a.Failed, code: "killed"},
	sandbox.Cancelled:   {a2a.Cancelled, exitCancelled, "cancelled"},
	sandbox.Internal:    {a2a.Failed, exitFailed, "internal"},
}

// report turns a sandbox result into the report that the caller gets.
func (a *Agent) report(req *request, res sandbox.Result, err error) a2a.Report {
	if err != nil {
		res = sandbox.Result{Status: sandbox.Internal, Message: "the sandbox failed"}
		if errors.Is(err, context.Canceled) {
			res = sandbox.Result{Status: sandbox.Cancelled}
		}
		a.log.Error("sandbox failed", "task", req.task, "err", err)
	}
	end, known := endings[res.Status]
	if !known {
		end = endings[sandbox.Internal]
	}
	rep := a.blank(req)
	rep.Status, rep.ExitCode = end.status, end.exit
	if end.exit == 0 {
		rep.ExitCode = res.ExitCode
	}
	rep.Result = res.Value
	rep.Stdout, rep.Stderr = text(res.Stdout), text(res.Stderr)
	if res.StdoutTruncated {
		rep.Truncated = append(rep.Truncated, "stdout")
	}
	if res.StderrTruncated {
		rep.Truncated = append(rep.Truncated, "stderr")
	}
	if res.FilesTruncated {
		rep.Truncated = append(rep.Truncated, "files")
	}
	for _, f := range res.Files {
		rep.Files = append(rep.Files, a2a.OutFile{Path: f.Path, MediaType: mediaType(f.Path, f.Content), Content: f.Content})
	}
	rep.Tier, rep.Runtime = res.Tier, res.Runtime
	if res.Enforced != nil {
		rep.Enforced = res.Enforced
	}
	rep.Usage = a2a.Usage{
		WallMS: milliseconds(res.Usage.Wall), CPUMS: milliseconds(res.Usage.CPU), PeakMemoryBytes: res.Usage.PeakMemory,
	}
	rep.Intent = req.intent
	if end.status != a2a.Succeeded {
		rep.Error = &a2a.ReportError{Code: end.code, Message: explain(end.code, res)}
		if res.ErrorCode != "" {
			rep.Error.Code = res.ErrorCode
		}
	}
	return rep
}

// explain is the sentence for people; a backend's own is better than ours.
func explain(code string, res sandbox.Result) string {
	if res.Message != "" && res.Message != code {
		return res.Message
	}
	return map[string]string{
		"program_failed": "the program ended with a non-zero exit code",
		"timed_out":      "the time limit was reached",
		"out_of_memory":  "the memory limit was reached",
		"output_limit":   "the program wrote more than the output limit allows",
		"killed":         "the program was killed",
		"cancelled":      "the execution was cancelled",
	}[code]
}

// notRun is the report of a request whose code was never put into a jail.
func (a *Agent) notRun(ctx context.Context, req *request, err error) (rep a2a.Report, again bool) {
	switch refusal := new(audit.Refusal); {
	case errors.Is(err, errExists):
		return a.adopt(context.WithoutCancel(ctx), req), false
	case errors.Is(err, audit.ErrConflict):
		return a.failedReport(req, errConflict.Code, errConflict.Message), false
	case errors.As(err, &refusal) && refusal.Code == codeSpent:
		req.decision.Reasons = []authz.Reason{{Code: codeSpent, Message: refusal.Message}}
		return *a.deniedReport(req), false
	case errors.As(err, &refusal):
		return a.failedReport(req, a2a.CodeUnauthenticated, "the cluster refused the request: "+refusal.Code), false
	case errors.Is(context.Cause(ctx), errCancelled):
		rep = a.failedReport(req, "cancelled", "the execution was cancelled before it began")
		rep.Status, rep.ExitCode = a2a.Cancelled, exitCancelled
		return rep, false
	case errors.Is(err, sandbox.ErrBusy):
		return a.failedReport(req, a2a.CodeBusy, err.Error()), true
	case errors.Is(err, sandbox.ErrUnenforceable):
		return a.failedReport(req, a2a.CodeUnenforceable, err.Error()), true
	case errors.Is(err, sandbox.ErrUnavailable):
		return a.failedReport(req, a2a.CodeUnavailable, err.Error()), true
	case errors.Is(err, sandbox.ErrSpec):
		return a.failedReport(req, a2a.CodeInvalidRequest, err.Error()), false
	case errors.Is(err, audit.ErrUnavailable), errors.Is(err, errUnavailable), errors.Is(err, context.DeadlineExceeded):
		a.log.WarnContext(ctx, "intent not durable", "task", req.task, "err", err)
		return a.failedReport(req, a2a.CodeUnavailable, "no quorum of keepers could record the request, so nothing ran; try again later"), false
	default:
		a.log.ErrorContext(ctx, "execution failed before it began", "task", req.task, "err", err)
		return a.failedReport(req, a2a.CodeInternal, "the execution failed before it began; the node's log has the cause under this task's id"), false
	}
}

func (a *Agent) deniedReport(req *request) *a2a.Report {
	var reasons []string
	for _, r := range req.decision.Reasons {
		reasons = append(reasons, r.Message)
	}
	rep := a.failedReport(req, a2a.CodeDenied, strings.Join(reasons, "; "))
	if len(req.decision.Reasons) > 0 {
		rep.Error.Code = req.decision.Reasons[0].Code
	}
	rep.Status = a2a.Denied
	rep.ExitCode = a2a.ExitDenied
	return &rep
}

func (a *Agent) failedReport(req *request, code, message string) a2a.Report {
	rep := a.blank(req)
	rep.Status, rep.ExitCode = a2a.Failed, a2a.ExitCode(code)
	rep.Error = &a2a.ReportError{Code: code, Message: message}
	return rep
}

func (a *Agent) blank(req *request) a2a.Report {
	return a2a.Report{
		Task: req.task, Node: a.cfg.Key.ID(), Sandbox: req.backend,
		Result: json.RawMessage("null"), Files: []a2a.OutFile{}, Enforced: map[string]string{},
	}
}

// text makes valid UTF-8 of what a program wrote.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
