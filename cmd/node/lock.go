package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockWait = 2 * time.Second
	lockPoll = 20 * time.Millisecond
)

// lockFolder makes sure that one process uses a data folder at a time. The
// lock goes with the process, however it ends.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	// A process that was just killed holds its locks until its last thread is
	// gone, so its successor tries for a moment.
	for until := time.Now().Add(lockWait); ; time.Sleep(lockPoll) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(until) {
			return nil, errors.Join(failed("another process uses the data folder %s (%v)", dir, err), f.Close())
		}
	}
	return func() { _ = f.Close() }, nil // closing gives the lock back
}
