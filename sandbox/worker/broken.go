package worker

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// isBroken says that the other end of the control channel is gone.
func isBroken(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed)
}
