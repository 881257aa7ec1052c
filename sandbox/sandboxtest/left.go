package sandboxtest

import (
	"testing"
	"time"
)

// Left is what was there at some moment: processes, control groups, mounts and
// descriptors of this process and those below it.
type Left struct{ before traces }

// Before takes what is there now.
func Before(t *testing.T) Left {
	t.Helper()
	return Left{take(t)}
}

// NothingBeyond fails the test if more is there than was, residents processes and
// what belongs to them excepted. It gives what is ending a little time.
func (l Left) NothingBeyond(t *testing.T, residents int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		left := take(t).beyond(l.before, residents)
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind: %s", left)
			return
		}
		time.Sleep(10 * time.Millisecond) // nothing tells when a process is gone
	}
}
