package restricted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/jail"
	"github.com/agenticraft/node/sandbox/worker"
	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// imitation is a worker whose behaviour a test writes: these are the workers
// that a program has taken over, and the deaths that are hard to bring about.
type imitation struct {
	serial       int
	node, worker net.Conn
	exit         jail.Exit
	words        string
	once         sync.Once
	done         chan struct{}
}

func (i *imitation) Control() worker.Control           { return i.node }
func (i *imitation) Stderr() io.Reader                 { return &lastWords{i: i} }
func (i *imitation) Enforced() map[string]string       { return map[string]string{"memory": "cgroup1"} }
func (i *imitation) Done() <-chan struct{}             { return i.done }
func (i *imitation) Kill()                             { i.die() }
func (i *imitation) Release()                          { i.die(); i.node.Close() }
func (i *imitation) send(kind protocol.Kind, p string) { _ = protocol.Write(i.worker, kind, []byte(p)) }

func (i *imitation) Wait(ctx context.Context) (jail.Exit, error) {
	select {
	case <-i.done:
		return i.exit, nil
	case <-ctx.Done():
		return jail.Exit{}, ctx.Err()
	}
}

// die ends the worker as its exit and words say.
func (i *imitation) die() {
	i.once.Do(func() {
		close(i.done)
		i.worker.Close()
	})
}

// lastWords is standard error: silent until the end.
type lastWords struct {
	i    *imitation
	said bool
}

func (l *lastWords) Read(p []byte) (int, error) {
	<-l.i.done
	if l.said {
		return 0, io.EOF
	}
	l.said = true
	return copy(p, l.i.words), nil
}

// imitate returns a backend whose workers greet and then behave.
func imitate(t *testing.T, cfg Config, behave func(i *imitation)) (b *Backend, workers func() []*imitation) {
	t.Helper()
	var mu sync.Mutex
	var made []*imitation
	workers = func() []*imitation {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(made)
	}
	var wg sync.WaitGroup
	b, err := newBackend(cfg, jail.Probe{Tier: jail.Tier1}, func(context.Context, string, worker.Class) (worker.Process, error) {
		mu.Lock()
		defer mu.Unlock()
		i := &imitation{serial: len(made) + 1, done: make(chan struct{})}
		i.node, i.worker = net.Pipe()
		made = append(made, i)
		wg.Go(func() {
			i.send(protocol.Hello, "imitation")
			behave(i)
		})
		return i, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for _, i := range workers() {
			select {
			case <-i.done:
			default:
				t.Errorf("worker %d still lives", i.serial)
			}
		}
	})
	return b, workers
}

func done(r protocol.Report) string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(text)
}

var well = done(protocol.Report{Status: "ok"})

// obedient answers each request with the worker's serial number as result.
func obedient(i *imitation) {
	for {
		if _, err := protocol.ReadRequest(i.worker); err != nil {
			return
		}
		i.send(protocol.Value, fmt.Sprint(i.serial))
		i.send(protocol.Done, well)
	}
}

func spec(owner string) sandbox.Spec {
	return sandbox.Spec{ID: "r", Owner: owner, Language: Language, Code: []byte("x = 1"), Limits: sandbox.Limits{Wall: time.Second, Output: 100, Result: 1000}}
}

func TestHostileWorkerIsDestroyed(t *testing.T) {
	big := strings.Repeat("x", 1001)
	for name, tt := range map[string]struct {
		send   func(i *imitation)
		status sandbox.Status
	}{
		"two values":        {func(i *imitation) { i.send(protocol.Value, "1"); i.send(protocol.Value, "2") }, sandbox.Internal},
		"value not JSON":    {func(i *imitation) { i.send(protocol.Value, "{") }, sandbox.Internal},
		"value too deep":    {func(i *imitation) { i.send(protocol.Value, strings.Repeat("[", 80)+strings.Repeat("]", 80)) }, sandbox.Internal},
		"value too large":   {func(i *imitation) { i.send(protocol.Value, `"`+big+`"`) }, sandbox.Internal},
		"hello again":       {func(i *imitation) { i.send(protocol.Hello, "") }, sandbox.Internal},
		"unknown frame":     {func(i *imitation) { i.worker.Write([]byte("?\x00\x00\x00\x00")) }, sandbox.Internal},
		"frame of 4 GiB":    {func(i *imitation) { i.worker.Write([]byte("v\xff\xff\xff\xff")) }, sandbox.Internal},
		"frame of its user": {func(i *imitation) { i.send(protocol.Code, "") }, sandbox.Internal},
		"stdout over limit": {func(i *imitation) { i.send(protocol.Stdout, big) }, sandbox.OutputLimit},
		"endless stderr": {func(i *imitation) {
			for range 200 {
				i.send(protocol.Stderr, big)
			}
		}, sandbox.OutputLimit},
		"report not JSON":    {func(i *imitation) { i.send(protocol.Done, "{") }, sandbox.Internal},
		"unknown status":     {func(i *imitation) { i.send(protocol.Done, done(protocol.Report{Status: "splendid"})) }, sandbox.Internal},
		"ok with exit code":  {func(i *imitation) { i.send(protocol.Done, done(protocol.Report{Status: "ok", ExitCode: 3})) }, sandbox.Internal},
		"error without code": {func(i *imitation) { i.send(protocol.Done, done(protocol.Report{Status: "error"})) }, sandbox.Internal},
		"negative exit code": {func(i *imitation) { i.send(protocol.Done, done(protocol.Report{Status: "error", ExitCode: -1})) }, sandbox.Internal},
		"cancelled by whom":  {func(i *imitation) { i.send(protocol.Done, done(protocol.Report{Status: "cancelled", ExitCode: 130})) }, sandbox.Internal},
		"half a frame":       {func(i *imitation) { i.worker.Write([]byte("d\x00\x00\x00\x09{")); i.die() }, sandbox.Internal},
		"silence":            {func(*imitation) {}, sandbox.Timeout},
		"a byte a second": {func(i *imitation) {
			for range 100 {
				if _, err := i.worker.Write([]byte("o")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, sandbox.Timeout},
		"hangs up":              {func(i *imitation) { i.exit.Code = 4; i.die() }, sandbox.Internal},
		"killed for memory":     {func(i *imitation) { i.exit = jail.Exit{Code: -1, Signal: 9, OOM: true}; i.die() }, sandbox.OutOfMemory},
		"runtime out of memory": {func(i *imitation) { i.exit.Code = 2; i.words = "fatal error: runtime: out of memory\n"; i.die() }, sandbox.OutOfMemory},
		"forbidden system call": {func(i *imitation) { i.exit = jail.Exit{Code: -1, Signal: 31}; i.die() }, sandbox.Killed},
		"processor time":        {func(i *imitation) { i.exit = jail.Exit{Code: -1, Signal: 9, CPULimit: true}; i.die() }, sandbox.Timeout},
		"stack overflow":        {func(i *imitation) { i.exit.Code = 2; i.words = "fatal error: stack overflow\n"; i.die() }, sandbox.Error},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, workers := imitate(t, Config{}, func(i *imitation) {
					if i.serial > 1 {
						obedient(i)
						return
					}
					if _, err := protocol.ReadRequest(i.worker); err == nil {
						tt.send(i)
					}
					<-i.done
				})
				start := time.Now()
				r, err := b.Run(t.Context(), spec("a"), nil)
				if err != nil || r.Status != tt.status || r.Value != nil || r.ExitCode == 0 {
					t.Errorf("Run = %s, exit code %d, value %s, %v, want %s; message %s", r.Status, r.ExitCode, r.Value, err, tt.status, r.Message)
				}
				if took := time.Since(start); took > 4*time.Second {
					t.Errorf("it took %v", took)
				}
				if len(r.Stdout) > 100 || len(r.Stderr) > 100 {
					t.Errorf("%d bytes of stdout, %d of stderr", len(r.Stdout), len(r.Stderr))
				}
				select {
				case <-workers()[0].done:
				default:
					t.Error("the hostile worker lives on")
				}
				if r, err := b.Run(t.Context(), spec("a"), nil); err != nil || r.Status != sandbox.OK {
					t.Errorf("the next run = %s, %v", r.Status, err)
				}
			})
		})
	}
}

// A frame sent after the report would be taken for the next program's.
func TestWorkerThatTalksOutOfTurnIsNotReused(t *testing.T) {
	b, _ := imitate(t, Config{}, func(i *imitation) {
		for {
			if _, err := protocol.ReadRequest(i.worker); err != nil {
				return
			}
			// One write, so that both are there when the first is read.
			var both strings.Builder
			_ = protocol.Write(&both, protocol.Done, []byte(well))
			_ = protocol.Write(&both, protocol.Value, []byte(`"forged"`))
			i.worker.Write([]byte(both.String()))
		}
	})
	for range 3 {
		if r, err := b.Run(t.Context(), spec("a"), nil); err != nil || r.Status == sandbox.OK || r.Value != nil {
			t.Errorf("Run = %s, %s, %v, want internal", r.Status, r.Value, err)
		}
	}
}

func TestWorkersNeverChangeOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := imitate(t, Config{MaxRuns: 3}, obedient)
		seen := make(map[string]string) // worker -> owner
		var order []string
		for _, owner := range []string{"a", "b", "a", "c", "b", "a", "a", "b", "b", ""} {
			r, err := b.Run(t.Context(), spec(owner), nil)
			if err != nil {
				t.Fatal(err)
			}
			w := string(r.Value)
			if before, used := seen[w]; used && before != owner {
				t.Errorf("worker %s ran for %q and then for %q", w, before, owner)
			}
			seen[w] = owner
			order = append(order, owner+w)
			synctest.Wait()
		}
		// a's fourth run is on a new worker, for the first had its three.
		if order[0] != order[2] || order[0] != order[5] || order[6] == order[0] || order[1] != order[4] || order[1] != order[7] || order[8] == order[1] {
			t.Errorf("runs went to %v", order)
		}
	})
}

func TestWorkersOfOtherLimitsAreNotReused(t *testing.T) {
	b, _ := imitate(t, Config{}, obedient)
	small := spec("a")
	small.Limits.Memory = 32 << 20
	var got []string
	for _, s := range []sandbox.Spec{spec("a"), small, spec("a"), small} {
		r, err := b.Run(t.Context(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(r.Value))
	}
	if got[0] != got[2] || got[1] != got[3] || got[0] == got[1] {
		t.Errorf("runs went to workers %v", got)
	}
}

func TestIdleWorkersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, workers := imitate(t, Config{MaxIdle: 2}, obedient)
		living := func() int {
			synctest.Wait()
			n := 0
			for _, i := range workers() {
				select {
				case <-i.done:
				default:
					n++
				}
			}
			return n
		}
		for _, owner := range []string{"a", "b", "c"} {
			if _, err := b.Run(t.Context(), spec(owner), nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := living(); n != 3 {
			t.Errorf("%d workers live, want two idle ones and a spare", n)
		}
		time.Sleep(11 * time.Second)
		if n := living(); n != 1 {
			t.Errorf("after the idle time %d workers live, want the spare", n)
		}
		r, err := b.Run(t.Context(), spec("a"), nil)
		if err != nil || string(r.Value) == "1" {
			t.Errorf("Run = %s, %v, want a fresh worker", r.Value, err)
		}
	})
}

func TestDeadSpareIsNotHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, workers := imitate(t, Config{}, obedient)
		s := spec("a")
		s.Limits.Memory, s.Limits.CPUPercent = sandbox.DefaultLimits().Memory, sandbox.DefaultLimits().CPUPercent
		workers()[0].die()
		synctest.Wait()
		if r, err := b.Run(t.Context(), s, nil); err != nil || r.Status != sandbox.OK || string(r.Value) == "1" {
			t.Errorf("Run = %s, %s, %v", r.Status, r.Value, err)
		}
		if _, err := b.Run(t.Context(), s, nil); err != nil {
			t.Error(err)
		}
		for _, i := range workers() { // the idle one too
			i.die()
		}
		synctest.Wait()
		if r, err := b.Run(t.Context(), s, nil); err != nil || r.Status != sandbox.OK {
			t.Errorf("Run = %s, %v", r.Status, err)
		}
	})
}

func TestRefusedRunLeavesTheWorkerFresh(t *testing.T) {
	b, workers := imitate(t, Config{}, obedient)
	s := spec("a")
	s.Limits.Memory, s.Limits.CPUPercent = sandbox.DefaultLimits().Memory, sandbox.DefaultLimits().CPUPercent
	refused := errors.New("no quorum")
	if _, err := b.Run(t.Context(), s, func(context.Context) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("Run = %v, want the error of ready", err)
	}
	s.Required = []string{"gravity"}
	if _, err := b.Run(t.Context(), s, nil); !errors.Is(err, sandbox.ErrUnenforceable) {
		t.Errorf("Run = %v, want ErrUnenforceable", err)
	}
	for _, i := range workers() {
		select {
		case <-i.done:
		default:
			return
		}
	}
	t.Error("no worker was kept")
}

func TestCloseCancelsRunsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := imitate(t, Config{}, func(i *imitation) {
			_, _ = protocol.ReadRequest(i.worker)
			<-i.done
		})
		ended := make(chan sandbox.Result, 1)
		go func() {
			r, err := b.Run(t.Context(), spec("a"), nil)
			if err != nil {
				t.Error(err)
			}
			ended <- r
		}()
		synctest.Wait()
		for range 2 {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		if r := <-ended; r.Status != sandbox.Cancelled || r.ExitCode != 130 {
			t.Errorf("the run ended as %s", r.Status)
		}
		if _, err := b.Run(t.Context(), spec("a"), nil); !errors.Is(err, sandbox.ErrClosed) {
			t.Errorf("Run after Close = %v, want ErrClosed", err)
		}
	})
}

func TestWorkerThatDoesNotGreetMakesTheBackendUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := newBackend(Config{}, jail.Probe{Tier: jail.Tier1}, func(context.Context, string, worker.Class) (worker.Process, error) {
			i := &imitation{done: make(chan struct{}), words: "no such system call"}
			i.node, i.worker = net.Pipe()
			return i, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if d := b.Describe(); d.Available || !strings.Contains(d.Reason, "no such system call") {
			t.Errorf("Describe() = %+v", d)
		}
		if _, err := b.Run(t.Context(), spec("a"), nil); !errors.Is(err, sandbox.ErrUnavailable) {
			t.Errorf("Run = %v, want ErrUnavailable", err)
		}
	})
}

func TestMachineWithoutJailsIsExplained(t *testing.T) {
	b, err := newBackend(Config{}, jail.Probe{Tier: jail.Tier4, Reason: "no namespaces", Hint: "a kernel with them"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if d := b.Describe(); d.Available || d.Reason != "no namespaces" || d.Hint != "a kernel with them" {
		t.Errorf("Describe() = %+v", d)
	}
}
