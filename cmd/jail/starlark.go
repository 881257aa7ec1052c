package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// starlarkWorker runs Starlark programs, one after the other, as the control
// descriptor asks. All programs of one worker belong to one owner; nothing of
// one is visible to the next.
func starlarkWorker() {
	// What a program prints goes over the control descriptor, where it cannot be
	// mistaken for another run's. Standard error is left to the Go runtime, whose
	// last words tell why it gave up.
	if err := serveStarlark(os.NewFile(3, "control")); err != nil {
		fmt.Fprintln(os.Stderr, "jail: starlark:", err)
		os.Exit(4)
	}
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
func starlarkVersion() string {
	const module = "go.starlark.net"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == module {
				return module + "@" + dep.Version
			}
		}
	}
	return module
}

// answer runs one program and tells all about it, the report last.
func answer(control io.Writer, q protocol.Request) error {
	if q.Order.Stack > 0 {
		debug.SetMaxStack(q.Order.Stack)
	}
	before := cpuTime()
	out := &output{control: control, left: q.Order.Output}
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

// reclaim frees what the last program left, so that the next finds the memory
// limit whole. It runs after the report, when nobody waits.
func reclaim() {
	const worthwhile = 16 << 20 // bytes
	if heldMemory() > worthwhile {
		debug.FreeOSMemory()
	}
}

// heldMemory is what the process holds from the system, in bytes.
func heldMemory() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}

// Output beyond its limit is dropped, and a program that goes on for
// floodFactor times the limit is stopped.
const floodFactor = 4

// output sends what a program prints, in chunks, soon after it was printed.
type output struct {
	control io.Writer

	mu        sync.Mutex // guards the rest, also against the timer
	left      int64      // bytes of the limit
	dropped   int64
	buffer    bytes.Buffer
	timer     *time.Timer
	truncated bool
	err       error
}

// outputDelay is how long printed text may wait for more.
const outputDelay = 20 * time.Millisecond

func (o *output) print(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if keep := min(int64(len(text)), o.left); keep < int64(len(text)) {
		o.truncated = true
		o.dropped += int64(len(text)) - keep
		text = text[:keep]
	}
	o.left -= int64(len(text))
	for len(text) > 0 {
		n := min(len(text), protocol.MaxChunk-o.buffer.Len())
		o.buffer.WriteString(text[:n])
		if text = text[n:]; o.buffer.Len() == protocol.MaxChunk {
			o.flush()
		}
	}
	if o.buffer.Len() > 0 && o.timer == nil {
		o.timer = time.AfterFunc(outputDelay, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.flush()
		})
	}
}

// flooded says whether the program printed floodFactor times too much.
func (o *output) flooded(limit int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped > (floodFactor-1)*max(limit, protocol.MaxChunk)
}

// flush sends the buffer. It is called with mu held.
func (o *output) flush() {
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
	if o.buffer.Len() == 0 {
		return
	}
	if err := protocol.Write(o.control, protocol.Stdout, o.buffer.Bytes()); err != nil && o.err == nil {
		o.err = err
	}
	o.buffer.Reset()
}

func (o *output) finish() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flush()
	return o.err
}
