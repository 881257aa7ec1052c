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
	begun chan struct{} // has room for one: it was given something
	free  chan struct{}
}

func (h *hangs) Write(p []byte) (int, error) {
	select {
	case h.begun <- struct{}{}:
	default:
	}
	<-h.free
	return h.printout.Write(p)
}

// Whoever logs does not wait for a log that hangs; when it goes on it has the
// lines in order, and says how many are lost.
func TestTheLogMayHang(t *testing.T) {
	out := &hangs{begun: make(chan struct{}, 1), free: make(chan struct{})}
	w := newLogWriter(out)
	for i := range 2 * maxLogLines {
		if n, err := fmt.Fprintf(w, "line %d\n", i); n == 0 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if i == 0 {
			<-out.begun // else nothing is being written when all the others are lost
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
