package durable

import (
	"errors"
	"syscall"
)

// NoSpace reports whether a write failed because the disk, the quota or the
// limit on the size of files is full: it may succeed later.
func NoSpace(err error) bool {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}
