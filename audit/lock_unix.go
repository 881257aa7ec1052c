//go:build unix

package audit

import (
	"errors"
	"os"
	"syscall"
)

// inUse reports whether another process (or a store in this one) has the file
// open for writing, as bbolt marks it.
func inUse(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
