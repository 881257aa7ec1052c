package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is what this process has used of the processor so far.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0 // only a figure for the report
	}
	return time.Duration(t.Nano())
}
