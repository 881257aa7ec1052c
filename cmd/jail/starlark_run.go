package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"go.starlark.net/lib/json"
	"go.starlark.net/lib/math"
	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// dialect lets ordinary Python-like programs run: loops and conditions at the
// top, while, recursion, assigning a global twice, sets.
var dialect = &syntax.FileOptions{Set: true, While: true, TopLevelControl: true, GlobalReassign: true, Recursion: true}

// programName is what tracebacks call the program.
const programName = "program"

// Caps of what is said about an error, in bytes.
const (
	maxTrace   = 32 << 10
	maxMessage = 1 << 10
)

// Why the program was stopped, if it was.
const (
	running int32 = iota
	stoppedByTime
	stoppedBySteps
	stoppedByFlood
)

// runStarlark runs one program. The value is nil unless the program ended well
// and had set "result"; the trace is meant for standard error.
func runStarlark(q protocol.Request, out *output) (report protocol.Report, value []byte, trace string) {
	thread := &starlark.Thread{Name: programName}
	var stopped atomic.Int32
	stop := func(why int32, text string) {
		if stopped.CompareAndSwap(running, why) {
			thread.Cancel(text)
		}
	}
	if q.Order.Steps > 0 {
		thread.SetMaxExecutionSteps(q.Order.Steps)
		thread.OnMaxSteps = func(*starlark.Thread) { stop(stoppedBySteps, "too many steps") }
	}
	if q.Order.Wall > 0 {
		timer := time.AfterFunc(q.Order.Wall, func() { stop(stoppedByTime, "time limit reached") })
		defer timer.Stop()
	}
	printed := func(text string) {
		out.print(text)
		if out.flooded(q.Order.Output) {
			stop(stoppedByFlood, "too much output")
		}
	}
	// An editor may have put the mark of Unicode text before it.
	code := bytes.TrimPrefix(q.Code, []byte("\ufeff"))
	globals, err := starlark.ExecFileOptions(dialect, thread, programName, code, predeclared(q, printed))
	// A program that ends by itself before it is stopped is believed, unless it flooded.
	if why := stopped.Load(); why == stoppedByFlood || why != running && err != nil {
		if err != nil {
			trace = cut(describe(err, q.Code), maxTrace)
		}
		return stoppedReport(why), nil, trace
	}
	var exit *exitRequest
	switch {
	case errors.As(err, &exit):
		report = protocol.Report{Status: "ok", ExitCode: exit.code}
		if exit.code != 0 {
			report.Status = "error"
		}
		trace = exit.text
	case err != nil:
		text := describe(err, q.Code)
		return protocol.Report{Status: "error", ExitCode: 1, ErrorCode: "language_error", Message: cut(lastLine(text), maxMessage)}, nil, cut(text, maxTrace)
	default:
		report = protocol.Report{Status: "ok"}
	}
	result, isSet := globals["result"]
	if !isSet {
		return report, nil, trace
	}
	value, err = encodeResult(result, q.Order.Result)
	if err != nil {
		report = protocol.Report{Status: "error", ExitCode: 1, ErrorCode: "result_not_json", Message: cut(err.Error(), maxMessage)}
		if errors.Is(err, errTooLarge) {
			report.ErrorCode = "result_too_large"
		}
		return report, nil, trace + "Error: " + cut(err.Error(), maxMessage) + "\n"
	}
	return report, value, trace
}

func stoppedReport(why int32) protocol.Report {
	switch why {
	case stoppedByFlood:
		return protocol.Report{Status: "output_limit", ExitCode: 1, ErrorCode: "output_limit", Message: "the program printed far more than its output limit"}
	case stoppedBySteps:
		return protocol.Report{Status: "timeout", ExitCode: 124, Message: "the program took more steps than allowed"}
	}
	return protocol.Report{Status: "timeout", ExitCode: 124, Message: "the program reached its time limit"}
}

// describe is the traceback of a runtime error, or the list of what cannot be
// parsed, each with its place and, where there is one, advice.
func describe(err error, code []byte) string {
	var text strings.Builder
	line := func(pos syntax.Position, message, advice string) {
		fmt.Fprintf(&text, "%s: %s\n", pos, message)
		if advice != "" {
			fmt.Fprintf(&text, "  %s\n", advice)
		}
	}
	var bad syntax.Error
	var unresolved resolve.ErrorList
	var failed *starlark.EvalError
	switch {
	case errors.As(err, &bad):
		line(bad.Pos, "syntax error: "+bad.Msg, syntaxAdvice(bad, code))
	case errors.As(err, &unresolved):
		const most = 10
		for _, e := range unresolved[:min(len(unresolved), most)] {
			line(e.Pos, e.Msg, nameAdvice(e.Msg))
		}
	case errors.As(err, &failed):
		text.WriteString(cut(failed.Backtrace(), maxTrace))
		text.WriteByte('\n')
	default:
		text.WriteString(err.Error() + "\n")
	}
	return text.String()
}

// lastLine is what a reader of one line should see: the error itself.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if strings.HasPrefix(lines[0], "Traceback") {
		for i, line := range slices.Backward(lines) {
			if strings.HasPrefix(line, "Error") {
				place := ""
				if i > 0 {
					place, _, _ = strings.Cut(strings.TrimSpace(lines[i-1]), ": in ")
				}
				return place + ": " + strings.Join(lines[i:], " ")
			}
		}
	}
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines[:min(len(lines), 2)], "; ")
}

// predeclared is what a program finds without defining it, beside the
// language's own: nothing of it reaches outside, tells the time or is random.
func predeclared(q protocol.Request, printed func(string)) starlark.StringDict {
	files := starlark.NewDict(len(q.Files))
	for _, f := range q.Files {
		var content starlark.Value = starlark.Bytes(f.Content)
		if utf8.Valid(f.Content) {
			content = starlark.String(f.Content)
		}
		_ = files.SetKey(starlark.String(f.Path), content) // a string is hashable and the dict not frozen
	}
	files.Freeze()
	env := starlark.StringDict{
		"json":  json.Module,
		"math":  math.Module,
		"stdin": starlark.String(q.Stdin),
		"files": files,
		"print": starlark.NewBuiltin("print", printer(printed)),
	}
	for name, fn := range builtins {
		env[name] = starlark.NewBuiltin(name, fn)
	}
	return env
}

// cut shortens s to at most n bytes, keeping its beginning.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "… (cut)\n"
	s = s[:n-len(mark)]
	for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) && !utf8.RuneStart(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s + mark
}
