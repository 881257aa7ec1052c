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
	"path/filepath"
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

// serveTasks prints its address and serves until its input ends.
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
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
			defer cancel()
			err = errors.Join(err, handler.Close(end))
		}()
		h = server.HTTP(server.HTTPConfig{Handler: handler})
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
	_, _ = io.Copy(io.Discard, in) // ends with whoever started us
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

func (nothing) Submit(context.Context, server.Inbound) (server.Admitted, error) {
	task := a2a.NewJTI()
	return server.Admitted{Task: task, Owner: "service:bench", Run: func(context.Context, server.Updates) a2a.Report {
		r := report()
		r.Task = task
		return r
	}}, nil
}

func (nothing) Fetch(context.Context, string, identity.Principal) (*sdk.Task, error) {
	return nil, a2a.Errorf(a2a.CodeNotFound, "there is no such task")
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
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var both [2]*contender
	var cpu [2]time.Duration
	for i, which := range []string{ourTasks, sdkTasks} {
		dir := filepath.Join(l.dir, "tasks-"+which)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		cmd := exec.CommandContext(context.WithoutCancel(ctx), self, taskServerArgument, which, dir)
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		p, err := startProcess(ctx, cmd)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Close(), p.wait()) }()
		addr, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			return fmt.Errorf("task server %s: %w", which, err)
		}
		ask := asker("http://" + strings.TrimSpace(addr) + "/")
		both[i] = &contender{
			name: map[string]string{ourTasks: "our handler, tasks on disk", sdkTasks: "the SDK's handler, tasks in memory"}[which],
			run: func(ctx context.Context, d time.Duration) (slice, error) {
				_, before, err := stat(cmd.Process.Pid)
				if err != nil {
					return slice{}, err
				}
				s, err := crowd(ctx, d, ask)
				_, after, statErr := stat(cmd.Process.Pid)
				cpu[i] += after - before
				return s, errors.Join(err, statErr)
			},
		}
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
	verify, err := verifies()
	if err != nil {
		return err
	}
	one := &contender{name: "verifying a signed request", run: verify}
	if err := interleave(ctx, rounds, max(each/rounds/4, 50*time.Millisecond), []*contender{one}); err != nil {
		return err
	}
	row := one.row()
	g.Rows = append(g.Rows, row)
	t.Sections = append(t.Sections, g)
	t.Targets = append(t.Targets,
		Target{Name: "tasks of the SDK's handler for each of ours", Unit: "x", Most: 0.25, Got: rates(both[1], both[0])},
		Target{Name: "CPU of a task through our handler, of the SDK's", Unit: "x", Most: 0.4, Got: perTask[0] / perTask[1]},
		Target{Name: "verifying a signed request", Unit: "ms", Most: 0.1, Got: row.P50},
	)
	return nil
}

// asker sends a message to an A2A server and sees that its task is completed.
func asker(url string) func(context.Context) error {
	hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: taskClients}}
	return func(ctx context.Context) error {
		body := `{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"` + a2a.NewJTI() + `","role":"ROLE_USER","parts":[{"text":"hello"}]}}}`
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(sdk.SvcParamVersion, a2a.Version)
		res, err := hc.Do(req)
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

// verifies checks one signed request over and over.
func verifies() (func(context.Context, time.Duration) (slice, error), error) {
	key, err := identity.Generate()
	if err != nil {
		return nil, err
	}
	req, err := a2a.NewRequest(a2a.Execution{Language: "starlark", Code: "result = 6 * 7"})
	if err != nil {
		return nil, err
	}
	signed, err := a2a.Sign(key, req, a2a.SignOptions{Audience: a2a.Audience("bench"), TTL: 5 * time.Minute})
	if err != nil {
		return nil, err
	}
	return repeated(func(context.Context) error {
		_, err := a2a.Verify(signed, a2a.VerifyOptions{Audiences: []string{a2a.Audience("bench")}})
		return err
	}), nil
}
