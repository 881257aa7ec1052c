package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2asrv"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/identity"
)

// taskServerArgument makes this program an A2A server that does nothing but
// keep tasks: our handler over its store on disk, or the SDK's in memory.
const (
	taskServerArgument = "task-server"
	ourTasks           = "ours"
	sdkTasks           = "sdk"
)

// serveTasks prints its address and serves until its input ends. For each line of
// it, it gives up the memory that it does not need, and prints the line.
func serveTasks(ctx context.Context, which, dir string, in io.Reader, out io.Writer) (err error) {
	var h http.Handler
	switch which {
	case ourTasks:
		store, err := taskstore.Open(taskstore.Config{Dir: dir})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		handler, err := server.New(server.Config{Path: nothing{}, Store: store})
		if err != nil {
			return err
		}
		defer func() {
			end, cancel := context.WithCancel(context.WithoutCancel(ctx))
			cancel() // a task may wait for just that
			err = errors.Join(err, handler.Close(end))
		}()
		binding := server.HTTP(server.HTTPConfig{Handler: handler})
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			binding.ServeHTTP(w, r.WithContext(server.WithCaller(r.Context(), server.Caller{Principal: bencher, Door: server.DoorHTTP})))
		})
	case sdkTasks:
		h = a2asrv.NewJSONRPCHandler(a2asrv.NewHandler(idle{}))
	default:
		return fmt.Errorf("no task server %q", which)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: startWait}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	fmt.Fprintln(out, l.Addr())
	for lines := bufio.NewScanner(in); lines.Scan(); { // ends with whoever started us
		runtime.GC()
		debug.FreeOSMemory()
		fmt.Fprintln(out, lines.Text())
	}
	err = s.Close()
	if serving := <-done; !errors.Is(serving, http.ErrServerClosed) {
		err = errors.Join(err, serving)
	}
	return err
}

// nothing is the same trivial work for both: submitted, working, a report,
// completed. It is the path of our handler; idle is the SDK's executor.
type (
	nothing struct{}
	idle    struct{}
)

func report() a2a.Report {
	return a2a.Report{Status: a2a.Succeeded, Result: []byte("42"), Stdout: "hello world\n"}
}

func (nothing) Submit(_ context.Context, in server.Inbound) (server.Admitted, error) {
	task := a2a.NewJTI()
	return server.Admitted{Task: task, Owner: bencher.String(), Run: func(ctx context.Context, _ server.Updates) a2a.Report {
		r := report()
		r.Task = task
		if in.Request.Message.ID == waitingMessage {
			<-ctx.Done() // readers have an idle stream until then
		}
		return r
	}}, nil
}

// bencher is who asks our handler, and waitingMessage the id of a message whose
// task does not end.
var bencher = identity.Principal{Kind: identity.Service, Name: "bench"}

const waitingMessage = "wait"

func (nothing) Fetch(context.Context, string, identity.Principal) (*sdk.Task, error) {
	return nil, a2a.ErrNoTask
}

func (nothing) Cancel(context.Context, string) error { return nil }

func (idle) Cancel(context.Context, *a2asrv.ExecutorContext) iter.Seq2[sdk.Event, error] {
	return func(func(sdk.Event, error) bool) {}
}

func (idle) Execute(_ context.Context, e *a2asrv.ExecutorContext) iter.Seq2[sdk.Event, error] {
	return func(yield func(sdk.Event, error) bool) {
		artifact, err := report().Artifact()
		if err != nil {
			yield(nil, err)
			return
		}
		_ = yield(sdk.NewSubmittedTask(e, e.Message), nil) &&
			yield(sdk.NewStatusUpdateEvent(e, sdk.TaskStateWorking, nil), nil) &&
			yield(&sdk.TaskArtifactUpdateEvent{TaskID: e.TaskID, ContextID: e.ContextID, Artifact: artifact}, nil) &&
			yield(sdk.NewStatusUpdateEvent(e, sdk.TaskStateCompleted, nil), nil)
	}
}

// taskClients is how many ask at the same time.
const taskClients = 64

// measureTasks measures our handler beside the SDK's, each in a process of its
// own with the runtime's defaults, and what a signature costs.
func (l *lab) measureTasks(ctx context.Context, t *Table, each time.Duration) (err error) {
	var both [2]*contender
	var cpu [2]time.Duration
	for i, which := range []string{ourTasks, sdkTasks} {
		served, err := l.startTasks(ctx, which)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, served.stop()) }()
		both[i] = served.contender(&cpu[i])
	}
	if err := interleave(ctx, rounds, max(each/rounds, 200*time.Millisecond), both[:]); err != nil {
		return err
	}
	g := Group{Name: fmt.Sprintf("A2A tasks over JSON-RPC, %d at the same time, trivial work", taskClients)}
	var perTask [2]float64
	for i, c := range both {
		row := c.row()
		perTask[i] = milliseconds(cpu[i]) / float64(max(row.N, 1))
		row.Note = fmt.Sprintf("%s ms of CPU each", number(perTask[i]))
		if i == 0 {
			row.Peers = []Ratio{{Peer: both[1].name, Times: rates(c, both[1]), Of: "rate"}}
		}
		g.Rows = append(g.Rows, row)
	}
	verify, curve, err := verifies()
	if err != nil {
		return err
	}
	signed := []*contender{{name: "verifying a signed request", run: verify}, {name: "Ed25519 alone", run: curve}}
	if err := interleave(ctx, rounds, max(each/rounds/4, 50*time.Millisecond), signed); err != nil {
		return err
	}
	row := signed[0].row()
	row.compare(signed[0], signed[1])
	g.Rows = append(g.Rows, row, signed[1].row())
	t.Sections = append(t.Sections, g)
	t.Targets = append(t.Targets,
		Target{Name: "tasks of the SDK's handler for each of ours", Unit: "x", Most: 0.25, Got: rates(both[1], both[0])},
		Target{Name: "CPU of a task through our handler, of the SDK's", Unit: "x", Most: 0.4, Got: perTask[0] / perTask[1]},
		Target{Name: "verifying a signed request", Unit: "ms", Most: 0.1, Got: row.P50},
		against("verifying a signed request, p50", "Ed25519 alone", 100, referenceEd25519, times(signed[0], signed[1])),
	)
	return l.measureStreams(ctx, t)
}

// taskServer is this program as an A2A server, in a process of its own with the
// runtime's defaults.
type taskServer struct {
	which, url string
	p          *process
	in         io.WriteCloser
	out        *bufio.Reader
}

func (l *lab) startTasks(ctx context.Context, which string) (*taskServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, "tasks-"+which)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, taskServerArgument, which, dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	t := &taskServer{which: which, in: in, out: bufio.NewReader(out)}
	if t.p, err = startProcess(ctx, cmd); err != nil {
		return nil, err
	}
	addr, err := t.out.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("task server %s: %w", which, err), t.stop())
	}
	t.url = "http://" + strings.TrimSpace(addr) + "/"
	return t, nil
}

func (t *taskServer) stop() error { return errors.Join(t.in.Close(), t.p.wait()) }

// settle has the server give up the memory that it does not need, and gives what
// is left, in bytes.
func (t *taskServer) settle() (float64, error) {
	if _, err := io.WriteString(t.in, "settle\n"); err != nil {
		return 0, err
	}
	if _, err := t.out.ReadString('\n'); err != nil {
		return 0, err
	}
	u, err := usage(t.p.cmd.Process.Pid)
	return u.rss * (1 << 20), err
}

// contender is the server asked by many at a time; what it consumes is added to cpu.
func (t *taskServer) contender(cpu *time.Duration) *contender {
	ask := asker(t.url)
	return &contender{
		name: map[string]string{ourTasks: "our handler, tasks on disk", sdkTasks: "the SDK's handler, tasks in memory"}[t.which],
		run: func(ctx context.Context, d time.Duration) (slice, error) {
			_, before, err := stat(t.p.cmd.Process.Pid)
			if err != nil {
				return slice{}, err
			}
			s, err := crowd(ctx, d, ask)
			_, after, statErr := stat(t.p.cmd.Process.Pid)
			*cpu += after - before
			return s, errors.Join(err, statErr)
		},
	}
}

// asker sends a message to an A2A server and sees that its task is completed.
func asker(url string) func(context.Context) error {
	hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: taskClients}}
	return func(ctx context.Context) error {
		body := `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"` + a2a.NewJTI() + `","role":"ROLE_USER","parts":[{"text":"hello"}]}}}`
		res, err := call(ctx, hc, url, body)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte(sdk.TaskStateCompleted)) {
			return fmt.Errorf("no completed task, but %.200q", text)
		}
		return nil
	}
}

// crowd has many do something over and over for about d, each at least once.
func crowd(ctx context.Context, d time.Duration, once func(context.Context) error) (slice, error) {
	var mu sync.Mutex
	var all slice
	var faults []error
	var work sync.WaitGroup
	begun := time.Now()
	for range taskClients {
		work.Go(func() {
			s, err := repeated(once)(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			all.Each = append(all.Each, s.Each...)
			if err != nil {
				faults = append(faults, err)
			}
		})
	}
	work.Wait()
	all.Elapsed = time.Since(begun)
	return all, errors.Join(faults...)
}

// verifies checks one signed request over and over, and of that the curve alone.
func verifies() (request, curve func(context.Context, time.Duration) (slice, error), err error) {
	key, err := identity.Generate()
	if err != nil {
		return nil, nil, err
	}
	req, err := a2a.NewRequest(a2a.Execution{Language: "starlark", Code: "result = 6 * 7"})
	if err != nil {
		return nil, nil, err
	}
	signed, err := a2a.Sign(key, req, a2a.SignOptions{Audience: a2a.Audience("bench"), TTL: 5 * time.Minute})
	if err != nil {
		return nil, nil, err
	}
	plain, err := plainEd25519(key)
	if err != nil {
		return nil, nil, err
	}
	return repeated(func(context.Context) error {
		_, err := a2a.Verify(signed, a2a.VerifyOptions{Audiences: []string{a2a.Audience("bench")}})
		return err
	}), repeated(func(context.Context) error { return plain() }), nil
}
