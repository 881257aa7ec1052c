package sandboxtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/process"
	"github.com/agenticraft/node/sandbox/sandboxtest"
)

// resident is the memory of this process, in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skipf("this machine does not tell the memory of a process: %v", err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// soakLimits are those of every run, and so of the jails that wait.
func soakLimits() sandbox.Limits {
	limits := sandboxtest.Limits()
	limits.Wall = 30 * time.Second
	return limits
}

// soakSpec is a run that leaves all that a run can leave: files, children that
// do not end, output on both streams.
func soakSpec(owner string, i int) sandbox.Spec {
	return sandbox.Spec{
		Owner: owner, Language: process.Python, Limits: soakLimits(),
		Code: []byte("import os, sys, time\nopen('f', 'w').write('x' * 1000)\nprint('out')\nprint('err', file=sys.stderr)\nif os.fork() == 0:\n  time.sleep(1000)\nresult = " + strconv.Itoa(i)),
	}
}

// Many runs in a row, then many at once: nothing is left of them, memory stays
// flat, each owner gets his share, and who is refused is told when to come back.
func TestSoak(t *testing.T) {
	b := open(t, process.Config{Warm: 1, WarmLimits: soakLimits()})
	m, err := sandbox.NewManager(sandbox.ManagerConfig{Backends: map[string]sandbox.Backend{"process": b}, Slots: 4, Queue: 64, Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	run := func(owner string, i int) error {
		r, err := m.Run(context.Background(), "process", soakSpec(owner, i), nil)
		if err == nil && (r.Status != sandbox.OK || string(r.Value) != strconv.Itoa(i) || string(r.Stdout) != "out\n" || len(r.Files) != 1) {
			return fmt.Errorf("run %d: %+v", i, r)
		}
		return err
	}
	for i := range soakWarmUp { // until caches and stacks have their size
		if err := run("row", i); err != nil {
			t.Fatal(err)
		}
	}
	before, memory := sandboxtest.Before(t), resident(t)
	for i := range soakInARow {
		if err := run("row", i); err != nil {
			t.Fatal(err)
		}
	}
	const growth = 32 << 20 // bytes, far below one run's leavings times their number
	now := resident(t)
	if now > memory+growth {
		t.Errorf("memory grew from %d to %d bytes over %d runs", memory, now, soakInARow)
	}
	t.Logf("%d runs in a row; memory %d, then %d bytes", soakInARow, memory, now)

	// One owner floods, three others ask for little.
	var mu sync.Mutex
	done, refused := map[string]int{}, map[string]int{}
	var wg sync.WaitGroup
	submit := func(owner string, i int) {
		wg.Go(func() {
			err := run(owner, i)
			mu.Lock()
			defer mu.Unlock()
			busy := new(sandbox.BusyError)
			switch {
			case err == nil:
				done[owner]++
			case errors.As(err, &busy) && busy.RetryAfter > 0:
				refused[owner]++
			default:
				t.Error(err)
			}
		})
	}
	const few = 5
	for i := range soakAtOnce - 3*few {
		submit("flood", i)
	}
	for i := range few {
		for _, owner := range []string{"a", "b", "c"} {
			submit(owner, i)
		}
	}
	wg.Wait()
	t.Logf("%d runs at once: done %v, refused with a hint %v", soakAtOnce, done, refused)
	for _, owner := range []string{"a", "b", "c"} {
		if done[owner] != few {
			t.Errorf("%s got %d of %d runs beside a flood, was refused %d", owner, done[owner], few, refused[owner])
		}
	}
	if done["flood"] == 0 || soakAtOnce > 200 && refused["flood"] == 0 {
		t.Errorf("the flood got %d runs and was refused %d", done["flood"], refused["flood"])
	}
	// What waits may have changed; everything else is as before.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.AwaitWarm(ctx); err != nil {
		t.Fatal(err)
	}
	before.NothingBeyond(t, 4)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
