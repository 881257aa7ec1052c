package main

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// logWriter passes lines on to a writer that may hang, as a file on a disk that
// does: nothing in a node waits for its log to be written. When too many lines
// wait, those that come are lost, and counted. It may be used concurrently; its
// goroutine ends with the process.
type logWriter struct {
	lines chan logLine
	lost  atomic.Int64
}

// logLine is a line on its way, or a question whether all before it was written.
type logLine struct {
	text    []byte
	written chan<- struct{}
}

const maxLogLines = 4096 // that wait

func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{lines: make(chan logLine, maxLogLines)}
	go func() {
		for one := range w.lines {
			if n := w.lost.Swap(0); n > 0 {
				_, _ = fmt.Fprintf(out, "time=%s level=WARN msg=\"lines of this log are lost: they could not be written in time\" lines=%d\n",
					time.Now().UTC().Format(time.RFC3339Nano), n)
			}
			if one.written != nil {
				close(one.written)
				continue
			}
			_, _ = out.Write(one.text) // there is nobody to tell
		}
	}()
	return w
}

// Write takes a line and never fails.
func (w *logWriter) Write(p []byte) (int, error) {
	select {
	case w.lines <- logLine{text: bytes.Clone(p)}:
	default:
		w.lost.Add(1)
	}
	return len(p), nil
}

// flush waits until what was written is, but not for long.
func (w *logWriter) flush(wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	written := make(chan struct{})
	select {
	case w.lines <- logLine{written: written}:
	case <-timer.C:
		return
	}
	select {
	case <-written:
	case <-timer.C:
	}
}
