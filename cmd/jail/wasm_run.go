//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/sys"

	"github.com/agenticraft/node/sandbox/jail/wire"
	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// resultFile is the file whose content is the result of a program that has no
// variables to look at.
const resultFile = "result.json"

// What of a run's files is kept, like those of any other sandbox.
const (
	maxLeft      = 256
	maxLeftBytes = 8 << 20
)

// errFlooded: the instance was stopped because of that.
var errFlooded = errors.New("too much output")

// answer runs the module once and tells all about it, the report last.
func (e *engine) answer(control io.Writer, q protocol.Request) error {
	before := cpuTime()
	stdout := &output{kind: protocol.Stdout, control: control, left: q.Order.Output}
	stderr := &output{kind: protocol.Stderr, control: control, left: q.Order.Output}
	disk := newFiles(q.Files, q.Order, int64(e.budget/2))
	mem := &memory{most: e.budget}
	report := e.run(q, disk, mem, stdout, stderr)
	if report.Status == "ok" || report.Status == "error" {
		if err := leave(control, disk, q.Order, &report); err != nil {
			return err
		}
	}
	if err := errors.Join(stdout.finish(), stderr.finish()); err != nil {
		return err
	}
	report.Truncated, report.TruncatedErr = stdout.truncated, stderr.truncated
	report.CPU, report.Memory = cpuTime()-before, heldMemory()
	payload, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return protocol.Write(control, protocol.Done, payload)
}

// run instantiates the module, which runs it, and says how it ended.
func (e *engine) run(q protocol.Request, disk *files, mem *memory, stdout, stderr *output) (report protocol.Report) {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	if q.Order.Wall > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.Order.Wall)
		defer cancel()
	}
	to := func(o *output) io.Writer {
		return writer(func(p []byte) {
			o.print(string(p))
			if o.flooded(q.Order.Output) {
				stop(errFlooded)
			}
		})
	}
	cfg := wazero.NewModuleConfig().WithName("").
		WithArgs(q.Order.Args...).WithEnv("HOME", "/").WithEnv("PWD", "/").WithEnv("TMPDIR", "/"+scratchDir).
		WithStdin(bytes.NewReader(q.Stdin)).WithStdout(to(stdout)).WithStderr(to(stderr)).
		WithFSConfig(wazero.NewFSConfig().(sysfs.FSConfig).WithSysFSMount(disk, "/")).
		WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime().
		WithNanosleep(func(ns int64) { sleep(ctx, time.Duration(ns)) })
	err := e.instantiate(experimental.WithMemoryAllocator(ctx, mem), cfg)
	exit := new(sys.ExitError)
	exited := errors.As(err, &exit)
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errFlooded):
		return protocol.Report{Status: "output_limit", ExitCode: 1, ErrorCode: "output_limit", Message: "the program printed far more than its output limit"}
	case cause != nil:
		return protocol.Report{Status: "timeout", ExitCode: 124, Message: "the program reached its time limit"}
	case err == nil, exited && exit.ExitCode() == 0:
		return protocol.Report{Status: "ok"}
	case mem.denied:
		// However it took that: a trap, an exit code, or never having begun.
		return protocol.Report{Status: "oom", ExitCode: 137, Message: fmt.Sprintf("the program asked for more linear memory than %d bytes", e.budget)}
	case exited:
		return protocol.Report{Status: "error", ExitCode: exitCode(exit.ExitCode())}
	}
	text := err.Error()
	stderr.print(cut(text, maxTrace) + "\n")
	first, _, _ := strings.Cut(text, "\n")
	return protocol.Report{Status: "error", ExitCode: 1, ErrorCode: "language_error", Message: cut(first, maxMessage)}
}

// instantiate runs the module; that the engine gives up on a module is an error
// like any other.
func (e *engine) instantiate(ctx context.Context, cfg wazero.ModuleConfig) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the module could not be started: %v", r)
		}
	}()
	instance, err := e.runtime.InstantiateModule(ctx, e.module, cfg)
	if instance != nil {
		err = errors.Join(err, instance.Close(context.WithoutCancel(ctx)))
	}
	return err
}

// exitCode is what of a module's 32 bits an exit code has room for.
func exitCode(code uint32) int {
	if code&0xff == 0 {
		return 1 // it is no success
	}
	return int(code & 0xff)
}

// leave sends the result and the files that the program left.
func leave(control io.Writer, disk *files, order protocol.Order, report *protocol.Report) error {
	if e, errno := disk.find(resultFile); errno == 0 && e.names == nil && e.given == nil {
		value, code, why := checkResult(e.content, order.Result)
		switch {
		case code == "":
			if err := protocol.Write(control, protocol.Value, value); err != nil {
				return err
			}
		case report.Status == "ok":
			*report = protocol.Report{Status: "error", ExitCode: 1, ErrorCode: code, Message: why}
		}
	}
	room := int64(maxLeftBytes)
	n, lost := 0, false
	for _, f := range disk.left(resultFile) {
		switch {
		case !wire.OutputPath(f.Path):
			lost = true
		case n == maxLeft || int64(len(f.Content)) > room:
			lost = true
		default:
			n++
			room -= int64(len(f.Content))
			if err := protocol.Write(control, protocol.Left, append(append([]byte(f.Path), 0), f.Content...)); err != nil {
				return err
			}
		}
	}
	report.TruncatedFiles = lost
	if lost && report.Message == "" {
		report.Message = "not every output file was kept: there are too many, too large ones, or unsafe names"
	}
	return nil
}

// checkResult is the result as compact JSON, or what is wrong with it.
func checkResult(content []byte, limit int64) (value []byte, code, why string) {
	if int64(len(content)) > limit {
		return nil, "result_too_large", fmt.Sprintf("%s has more than %d bytes", resultFile, limit)
	}
	if nesting(content) > maxDepth {
		return nil, "result_not_json", fmt.Sprintf("%s is nested deeper than %d levels", resultFile, maxDepth)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, content); err != nil {
		return nil, "result_not_json", cut(resultFile+" is not JSON: "+err.Error(), maxMessage)
	}
	return out.Bytes(), "", ""
}

// nesting is how deep arrays and objects nest in text that may be JSON.
func nesting(text []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			now++
			deepest = max(deepest, now)
		case c == ']' || c == '}':
			now--
		}
	}
	return deepest
}

// writer is a function that takes what is written.
type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
