//go:build linux

package spawn

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticraft/node/sandbox/jail/cgroup"
)

// The watchdog holds what no control group holds: the memory of all processes
// of the jail together, and their share of the CPU.
const (
	tick   = 10 * time.Millisecond
	window = 100 * time.Millisecond // over which CPU time is shared out
)

func (j *jail) needsWatchdog() bool {
	h := j.server.host
	return h.Mechanism(cgroup.Memory) == "" || h.Mechanism(cgroup.CPU) == ""
}

// watchdog runs until stop is closed.
func (j *jail) watchdog(stop <-chan struct{}) {
	h := j.server.host
	t := time.NewTicker(tick)
	defer t.Stop()
	var w cpuWindow
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		pids := j.tree()
		if h.Mechanism(cgroup.Memory) == "" {
			j.checkMemory(pids)
		}
		if h.Mechanism(cgroup.CPU) == "" {
			w.check(j, pids)
		}
	}
}

// tree lists every process of the jail but init. Orphans become init's
// children, so all of them are below it.
func (j *jail) tree() []int {
	var out []int
	todo := []int{j.pid}
	for len(todo) > 0 {
		kids, err := children(todo[0])
		if err != nil {
			break
		}
		todo = append(todo[1:], kids...)
		out = append(out, kids...)
	}
	return out
}

func (j *jail) checkMemory(pids []int) {
	var sum int64
	for _, pid := range pids {
		sum += private(pid)
	}
	if sum > j.peak.Load() {
		j.peak.Store(sum)
	}
	if sum > j.limits.Load().Memory && !j.wasKilled() {
		j.overMemory.Store(true)
		j.kill()
	}
}

// private is the memory of a process that is not shared with files, in bytes.
func private(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0 // ended
	}
	var size, resident, shared int64
	if _, err := fmt.Sscan(string(b), &size, &resident, &shared); err != nil {
		return 0
	}
	return (resident - shared) * int64(os.Getpagesize())
}

// cpuWindow stops the processes of a jail for the rest of a window in which
// they have used up their share.
type cpuWindow struct {
	began   time.Time
	used    map[int]time.Duration // at the last look
	spent   time.Duration         // in this window
	stopped bool
}

func (w *cpuWindow) check(j *jail, pids []int) {
	now := time.Now()
	used := make(map[int]time.Duration, len(pids))
	for _, pid := range pids {
		used[pid] = cpuTime(pid)
		// A process not seen before brings all that it used.
		more := max(0, used[pid]-w.used[pid])
		w.spent += more
		j.cpu.Add(int64(more))
	}
	w.used = used
	if j.limits.Load().CPUPercent >= 100*runtime.NumCPU() {
		return // only counted
	}
	budget := window * time.Duration(j.limits.Load().CPUPercent) / 100
	if now.Sub(w.began) >= window {
		// What was used too much is owed by the windows that follow.
		passed := now.Sub(w.began) / window
		w.spent = max(0, w.spent-budget*passed)
		w.began = now
	}
	over := w.spent >= budget
	switch {
	case over:
		// Again at every look: what was forked meanwhile stops as well.
		signalAll(pids, unix.SIGSTOP)
		w.stopped = true
	case w.stopped:
		signalAll(pids, unix.SIGCONT)
		w.stopped = false
	}
}

func signalAll(pids []int, sig unix.Signal) {
	for _, pid := range pids {
		// Their init reaps these processes and the numbers are taken moments
		// ago; one that ended meanwhile is no matter.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
		_ = unix.Close(fd)
	}
}

// cpuTime is what a process has used, from its own CPU clock: clock_getcpuclockid(3).
func cpuTime(pid int) time.Duration {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
