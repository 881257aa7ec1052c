package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// hangs is a writer that takes nothing until it is let go.
type hangs struct {
	printout
	free chan struct{}
}

func (h *hangs) Write(p []byte) (int, error) {
	<-h.free
	return h.printout.Write(p)
}

// Whoever logs does not wait for a log that hangs; when it goes on it has the
// lines in order, and says how many are lost.
func TestTheLogMayHang(t *testing.T) {
	out := &hangs{free: make(chan struct{})}
	w := newLogWriter(out)
	for i := range 2 * maxLogLines {
		if n, err := fmt.Fprintf(w, "line %d\n", i); n == 0 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	w.flush(time.Millisecond) // gives up
	close(out.free)
	w.flush(time.Minute)
	text := out.String()
	if !strings.HasPrefix(text, "line 0\n") || !strings.Contains(text, "\nline 1\n") || !strings.Contains(text, " lines=") {
		t.Errorf("the log is %.200q", text)
	}
}
