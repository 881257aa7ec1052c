package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// starlarkWorker runs Starlark programs, one after the other, as the control
// descriptor asks. All programs of one worker belong to one owner; nothing of
// one is visible to the next.
func starlarkWorker(_ []string, closeOff func() error) error {
	if err := closeOff(); err != nil {
		return err
	}
	// What a program prints goes over the control descriptor, where it cannot be
	// mistaken for another run's. Standard error is left to the Go runtime, whose
	// last words tell why it gave up.
	return serveStarlark(os.NewFile(3, "control"))
}

// serveStarlark answers requests until the other side hangs up.
func serveStarlark(control io.ReadWriter) error {
	if err := protocol.Write(control, protocol.Hello, []byte(starlarkVersion())); err != nil {
		return err
	}
	for {
		q, err := protocol.ReadRequest(control)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answer(control, q); err != nil {
			return err
		}
		reclaim()
	}
}

// starlarkVersion names the interpreter, as results do.
func starlarkVersion() string { return moduleVersion("go.starlark.net") }

// answer runs one program and tells all about it, the report last.
func answer(control io.Writer, q protocol.Request) error {
	if q.Order.Stack > 0 {
		debug.SetMaxStack(q.Order.Stack)
	}
	before := cpuTime()
	out := &output{kind: protocol.Stdout, control: control, left: q.Order.Output}
	report, value, trace := runStarlark(q, out)
	if err := out.finish(); err != nil {
		return err
	}
	for chunk := []byte(trace); len(chunk) > 0; {
		n := min(len(chunk), protocol.MaxChunk)
		if err := protocol.Write(control, protocol.Stderr, chunk[:n]); err != nil {
			return err
		}
		chunk = chunk[n:]
	}
	if value != nil {
		if err := protocol.Write(control, protocol.Value, value); err != nil {
			return err
		}
	}
	report.Truncated = out.truncated
	report.CPU = cpuTime() - before
	report.Memory = heldMemory()
	payload, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return protocol.Write(control, protocol.Done, payload)
}
