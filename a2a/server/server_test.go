package server_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/identity"
)

const cluster = "test"

// fakePath verifies signatures for real and runs what the test says.
type fakePath struct {
	run   func(ctx context.Context, e a2a.Execution, out server.Updates) a2a.Report
	final func(e a2a.Execution) *a2a.Report
	fetch func(task string, caller identity.Principal) (*sdk.Task, error)
	seen  func(in server.Inbound)
	// forgets, if there, answers who cancels.
	forgets func() error

	mu     sync.Mutex
	digest map[string]string // task -> digest
	cancel map[string]context.CancelFunc
}

func (p *fakePath) Submit(_ context.Context, in server.Inbound) (server.Admitted, error) {
	if p.seen != nil {
		p.seen(in)
	}
	signed, err := a2a.Verify(in.Request, a2a.VerifyOptions{Audiences: []string{a2a.Audience(cluster)}})
	if err != nil {
		return server.Admitted{}, err
	}
	e, err := a2a.DecodeExecution(in.Request)
	if err != nil {
		return server.Admitted{}, err
	}
	id := signed.Task()
	out := server.Admitted{Task: id, Owner: agent(signed.Issuer).String()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if digest, ok := p.digest[id]; ok {
		if digest != signed.Digest {
			return server.Admitted{}, a2a.Errorf(a2a.CodeConflict, "the same jti with another request")
		}
		out.Existing = true
		return out, nil
	}
	if p.digest == nil {
		p.digest, p.cancel = make(map[string]string), make(map[string]context.CancelFunc)
	}
	if p.final != nil {
		if out.Final = p.final(e); out.Final != nil {
			return out, nil
		}
	}
	p.digest[id] = signed.Digest
	out.Run = func(ctx context.Context, updates server.Updates) a2a.Report {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		p.mu.Lock()
		p.cancel[id] = cancel
		p.mu.Unlock()
		report := p.run(ctx, e, updates)
		report.Task = id
		return report
	}
	return out, nil
}

func (p *fakePath) Cancel(_ context.Context, task string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.forgets != nil {
		return p.forgets()
	}
	if cancel := p.cancel[task]; cancel != nil {
		cancel()
	}
	return nil
}

func (p *fakePath) Fetch(_ context.Context, task string, caller identity.Principal) (*sdk.Task, error) {
	if p.fetch != nil {
		return p.fetch(task, caller)
	}
	return nil, a2a.Errorf(a2a.CodeNotFound, "no node has it")
}

func agent(id identity.ID) identity.Principal {
	return identity.Principal{Kind: identity.Agent, Name: id.DID()}
}

func hello(_ context.Context, _ a2a.Execution, out server.Updates) a2a.Report {
	out.Output("stdout", 0, []byte("hello "))
	out.Output("stdout", 6, []byte("world\n"))
	return a2a.Report{Status: a2a.Succeeded, Result: []byte("42"), Stdout: "hello world\n", Sandbox: "fake"}
}

// untilCancelled runs until it is asked to stop.
func untilCancelled(started chan<- struct{}) func(context.Context, a2a.Execution, server.Updates) a2a.Report {
	return func(ctx context.Context, _ a2a.Execution, out server.Updates) a2a.Report {
		out.Output("stdout", 0, []byte("begun\n"))
		if started != nil {
			started <- struct{}{}
		}
		<-ctx.Done()
		return a2a.Report{Status: a2a.Cancelled, ExitCode: 130, Error: &a2a.ReportError{Code: "cancelled", Message: "cancelled by the caller"}}
	}
}

// house is a handler behind a real HTTP server.
type house struct {
	*server.Handler
	store *taskstore.Store
	http  *httptest.Server
	path  *fakePath
	door  string
}

func open(t testing.TB, path *fakePath) *house { return openIn(t, path, t.TempDir()) }

func openIn(t testing.TB, path *fakePath, dir string) *house {
	t.Helper()
	w := openPath(t, path, dir)
	w.path = path
	return w
}

func openPath(t testing.TB, path server.Path, dir string) *house {
	t.Helper()
	return openWith(t, dir, func(cfg *server.Config) { cfg.Path = path })
}

func openWith(t testing.TB, dir string, more func(*server.Config)) *house {
	t.Helper()
	store, err := taskstore.Open(taskstore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	cfg := server.Config{Store: store, Log: log}
	more(&cfg)
	h, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &house{Handler: h, store: store, door: server.DoorHTTP}
	binding := server.HTTP(server.HTTPConfig{Handler: h, Log: log, WriteTimeout: time.Second})
	w.http = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		binding.ServeHTTP(rw, r.WithContext(server.WithCaller(r.Context(), w.caller(r))))
	}))
	t.Cleanup(w.close)
	return w
}

// caller is a door: it proves bearer tokens, and takes API keys as names.
func (w *house) caller(r *http.Request) server.Caller {
	c := server.Caller{Door: w.door}
	bearer := r.Header.Get("Authorization")
	const scheme = "Bearer "
	if len(bearer) <= len(scheme) {
		return c
	}
	bearer = bearer[len(scheme):]
	if !a2a.IsToken(bearer) {
		c.Principal = identity.Principal{Kind: identity.Service, Name: bearer, Roles: []string{bearer}}
		return c
	}
	if token, err := a2a.VerifyToken(bearer, a2a.VerifyOptions{Audiences: []string{a2a.Audience(cluster)}}); err == nil {
		c.Principal = agent(token.Issuer)
	}
	return c
}

func (w *house) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	w.Close(ctx)
	w.http.CloseClientConnections()
	w.http.Close()
	w.store.Close()
}

func (w *house) client(t testing.TB, key *identity.Key) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{URL: w.http.URL, HTTPClient: w.http.Client(), Key: key, Audience: a2a.Audience(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(p []byte) (int, error) { return len(p), nil }

func newKey(t testing.TB) *identity.Key {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(t testing.TB) *sdk.SendMessageRequest {
	t.Helper()
	req, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "result = 42"})
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	e, ok := errors.AsType[*a2a.Error](err)
	if !ok || e.Code != code {
		t.Errorf("error = %v (%+v), want code %s", err, e, code)
	}
}

func TestSendRunsAndReports(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	c := w.client(t, newKey(t))
	task, err := c.Send(t.Context(), request(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if task.Status.State != sdk.TaskStateCompleted {
		t.Errorf("state = %s", task.Status.State)
	}
	report, err := a2a.ReportOf(task)
	if err != nil || string(report.Result) != "42" || report.Stdout != "hello world\n" || report.Task != string(task.ID) {
		t.Errorf("report = %+v, %v", report, err)
	}
	got, err := c.Get(t.Context(), string(task.ID), nil)
	if err != nil || got.Status.State != sdk.TaskStateCompleted || len(got.History) != 1 {
		t.Errorf("Get = %+v, %v", got, err)
	}
}

func TestStreamYieldsTaskOutputReportEnd(t *testing.T) {
	w := open(t, &fakePath{run: hello})
	var stdout string
	var kinds []string
	for e, err := range w.client(t, newKey(t)).Stream(t.Context(), request(t), nil) {
		if err != nil {
			t.Fatal(err)
		}
		switch e := e.(type) {
		case *sdk.Task:
			kinds = append(kinds, "task")
			for _, a := range e.Artifacts {
				if a.ID == "stdout" {
					stdout += a.Parts[0].Text()
				}
			}
		case *sdk.TaskArtifactUpdateEvent:
			if e.Artifact.ID == "stdout" {
				stdout += e.Artifact.Parts[0].Text()
				continue
			}
			kinds = append(kinds, string(e.Artifact.ID))
		case *sdk.TaskStatusUpdateEvent:
			kinds = append(kinds, string(e.Status.State))
		}
	}
	if want := []string{"task", "report", "TASK_STATE_COMPLETED"}; len(kinds) != 3 || kinds[0] != want[0] || kinds[1] != want[1] || kinds[2] != want[2] || stdout != "hello world\n" {
		t.Errorf("events = %v, stdout = %q", kinds, stdout)
	}
}
