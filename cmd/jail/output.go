package main

import (
	"bytes"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// moduleVersion names a library of ours with the version that this binary was
// built with.
func moduleVersion(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == module {
				return module + "@" + dep.Version
			}
		}
	}
	return module
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
	kind    protocol.Kind // Stdout or Stderr
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
	if err := protocol.Write(o.control, o.kind, o.buffer.Bytes()); err != nil && o.err == nil {
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
