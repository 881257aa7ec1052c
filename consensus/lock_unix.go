//go:build unix

package consensus

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lock holds the file against other processes until it is closed.
func lock(f *os.File) error {
	for begin := time.Now(); ; time.Sleep(lockPoll) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		case time.Since(begin) > lockTimeout:
			return fmt.Errorf("%s: another process holds it", f.Name())
		}
	}
}
