package main

import (
	"fmt"
	"io"
	"sync"
)

// output is what commands print to. It remembers whether something could not be
// printed: an answer that never reached its file is none. It may be used
// concurrently if to may be.
type output struct {
	to io.Writer

	mu  sync.Mutex // guards err
	err error      // the first
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

// finish is the exit code of a command that ended with code, now that all is
// printed; said is whether it has told an error to somebody.
func (o *output) finish(code int, said bool, stderr io.Writer) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil || said {
		return code
	}
	fmt.Fprintf(stderr, "agenticraft: error: the answer could not be printed: %v\n", o.err)
	if code == exitOK {
		return exitFailed
	}
	return code
}
