package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
)

// frame is one event of a stream as it came.
type frame struct {
	id   uint64
	kind string // task, output, report, status
	text string // of output, or the state
}

// subscribe reads a stream of a task over HTTP+JSON until its end, or until
// enough says so.
func subscribe(t *testing.T, s *httptest.Server, task, token, last string, enough func(frame) bool) []frame {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/tasks/"+task+":subscribe", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("A2A-Version", "1.0")
	req.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	return frames(t, res.Body, enough)
}

// frames reads the whole events of a stream until its end, or until enough says so.
func frames(t *testing.T, r io.Reader, enough func(frame) bool) []frame {
	t.Helper()
	var out []frame
	var id uint64
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return out // what is left was cut off
		}
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "id: "); ok {
			if id, err = strconv.ParseUint(text, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		text, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var e sdk.StreamResponse
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		f := frame{id: id}
		switch e := e.Event.(type) {
		case *sdk.Task:
			f.kind, f.text = "task", string(e.Status.State)
			for _, a := range e.Artifacts {
				if a.ID == "stdout" {
					f.text += " " + a.Parts[0].Text()
				}
			}
		case *sdk.TaskArtifactUpdateEvent:
			f.kind, f.text = "output", e.Artifact.Parts[0].Text()
			if e.Artifact.ID == a2a.ReportArtifact {
				f.kind = "report"
			}
		case *sdk.TaskStatusUpdateEvent:
			f.kind, f.text = "status", string(e.Status.State)
		}
		if out = append(out, f); enough != nil && enough(f) {
			return out
		}
	}
}

func kinds(frames []frame) (all, text string) {
	for _, f := range frames {
		if all += f.kind + " "; f.kind == "output" {
			text += f.text
			all = strings.TrimSuffix(all, "output ") // any number of pieces
		}
	}
	return strings.TrimSpace(all), text
}

// A reader who comes back with the id of the last event that he saw misses
// nothing and gets nothing twice: while the task runs, after it, and after a
// restart.
func TestReaderResumesWhereHeLeftOff(t *testing.T) {
	const whole = "zero one two three "
	parts := []string{"zero ", "one ", "two ", "three "}
	wrote, more := make(chan struct{}), make(chan struct{})
	w := open(t, &fakePath{run: func(ctx context.Context, _ a2a.Execution, out server.Updates) a2a.Report {
		at := int64(0)
		for i, part := range parts {
			out.Output("stdout", at, []byte(part))
			at += int64(len(part))
			if i == 1 {
				close(wrote)
				<-more
			}
		}
		return a2a.Report{Status: a2a.Succeeded, Stdout: whole}
	}})
	s := openREST(t, w)
	key := newKey(t)
	token, err := a2a.SignToken(key, a2a.SignOptions{Audience: a2a.Audience(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	req := request(t)
	req.Config = &sdk.SendMessageConfig{ReturnImmediately: true}
	sent, err := w.client(t, key).Send(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	task := string(sent.ID)
	<-wrote
	// He has the first half and loses the connection.
	first := subscribe(t, s, task, token, "", func(f frame) bool { return true })
	if len(first) != 1 || first[0].id != 9 || first[0].text != "TASK_STATE_WORKING zero one " {
		t.Fatalf("first = %+v", first)
	}
	got := subscribe(t, s, task, token, "4", func(f frame) bool { // in the middle of a piece
		if f.kind == "task" {
			close(more)
		}
		return false
	})
	if all, text := kinds(got); all != "task report status" || text != whole[4:] || got[0].id != 4 {
		t.Errorf("live = %+v", got)
	}
	if !slices.IsSortedFunc(got, func(a, b frame) int { return int(a.id) - int(b.id) }) {
		t.Errorf("ids do not rise: %+v", got)
	}
	// After its end, from every place, on this handler and on one that opens the
	// same store.
	end := uint64(len(whole))
	check := func(s *httptest.Server) {
		t.Helper()
		for last := uint64(0); last <= end+2; last++ {
			got := subscribe(t, s, task, token, fmt.Sprint(last), nil)
			want := "report status"
			if last > end {
				want = "status"
			}
			if all, text := kinds(got); all != want || text != whole[min(last, end):] || got[len(got)-1].id != end+2 {
				t.Errorf("after %d: %+v", last, got)
			}
		}
		if got := subscribe(t, s, task, token, "999", nil); len(got) != 1 || got[0].kind != "task" {
			t.Errorf("after an unknown id: %+v", got)
		}
	}
	check(s)
	for name, value := range map[string]string{"text": "abc", "negative": "-1", "huge": "99999999999999999999"} {
		resp, answer := w.post(t, `{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{"id":"`+task+`"}}`, func(r *http.Request) {
			r.Header.Set("Last-Event-ID", value)
			r.Header.Set("Authorization", "Bearer "+token)
		})
		if answer.Error == nil || answer.Error.Code != -32602 {
			t.Errorf("%s: %d %+v", name, resp.StatusCode, answer.Error)
		}
	}
	second, err := server.New(server.Config{Path: w.path, Store: w.store})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close(t.Context())
	check(openREST(t, &house{Handler: second, door: server.DoorHTTP}))
}

// waiting is a house whose one task is at work, its reader's token, and what ends
// the task.
func waiting(t *testing.T, out func(server.Updates)) (w *house, task, token string, end func()) {
	t.Helper()
	wrote, ended := make(chan struct{}), make(chan struct{})
	w = open(t, &fakePath{run: func(_ context.Context, _ a2a.Execution, to server.Updates) a2a.Report {
		out(to)
		close(wrote)
		<-ended
		return a2a.Report{Status: a2a.Succeeded}
	}})
	end = sync.OnceFunc(func() { close(ended) })
	t.Cleanup(end)
	key := newKey(t)
	token, err := a2a.SignToken(key, a2a.SignOptions{Audience: a2a.Audience(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	req := request(t)
	req.Config = &sdk.SendMessageConfig{ReturnImmediately: true}
	sent, err := w.client(t, key).Send(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-wrote
	return w, string(sent.ID), token, end
}

// serveAs serves the HTTP+JSON binding of a house with settings of its own.
func serveAs(t *testing.T, w *house, cfg server.HTTPConfig) *httptest.Server {
	t.Helper()
	cfg.Handler = w.Handler
	binding := server.REST(cfg)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		binding.ServeHTTP(rw, r.WithContext(server.WithCaller(r.Context(), w.caller(r))))
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// Issue 5: a stream on which nothing happens gives signs of life, on both bindings
// of HTTP.
func TestIdleStreamsGiveSignsOfLife(t *testing.T) {
	w, task, token, end := waiting(t, func(server.Updates) {})
	defer end()
	cfg := server.HTTPConfig{KeepAlive: 5 * time.Millisecond}
	s := serveAs(t, w, cfg)
	s.Start()
	cfg.Handler = w.Handler
	rpc := server.HTTP(cfg)
	both := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rpc.ServeHTTP(rw, r.WithContext(server.WithCaller(r.Context(), w.caller(r))))
	}))
	defer both.Close()
	defer both.CloseClientConnections()
	for name, ask := range map[string]func(ctx context.Context) (*http.Request, error){
		"HTTP+JSON": func(ctx context.Context) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/tasks/"+task+":subscribe", nil)
		},
		"JSON-RPC": func(ctx context.Context) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodPost, both.URL, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{"id":"`+task+`"}}`))
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		req, err := ask(ctx)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"A2a-Version": {"1.0"}, "Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		signs := 0
		for lines := bufio.NewScanner(res.Body); signs < 3 && lines.Scan(); {
			if strings.HasPrefix(lines.Text(), ":") {
				signs++
			}
		}
		if signs < 3 {
			t.Errorf("%s: %d signs of life", name, signs)
		}
		cancel()
		res.Body.Close()
	}
}

// Issue 5: a reader who takes nothing is cut off, while the run goes on, and may go
// on after the last event that he has.
func TestASlowReaderIsCutOffAndResumes(t *testing.T) {
	const pieces, size = 64, 32 << 10 // more than the sockets of this test hold
	piece := func(n int) string { return strings.Repeat(string(rune('a'+n%26)), size) }
	w, task, token, end := waiting(t, func(out server.Updates) {
		for n := range pieces {
			out.Output("stdout", int64(n*size), []byte(piece(n)))
		}
	})
	s := serveAs(t, w, server.HTTPConfig{WriteTimeout: 2 * time.Second})
	cut := make(chan struct{})
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(cut)
		}
	}
	s.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if err := conn.(*net.TCPConn).SetWriteBuffer(64 << 10); err != nil {
			t.Error(err)
		}
		return ctx
	}
	s.Start()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /tasks/%s:subscribe HTTP/1.1\r\nHost: x\r\nA2A-Version: 1.0\r\nLast-Event-ID: 0\r\nAuthorization: Bearer %s\r\n\r\n", task, token)
	select {
	case <-cut:
	case <-time.After(time.Minute):
		t.Fatal("a reader who takes nothing is not cut off")
	}
	s.Config.ConnState = nil
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	had := frames(t, res.Body, nil) // what was on its way
	all, first := kinds(had)
	if all != "task" || first == "" || len(first) >= pieces*size {
		t.Fatalf("before he was cut off he had %q and %d bytes", all, len(first))
	}
	patient := serveAs(t, w, server.HTTPConfig{})
	patient.Start()
	all, rest := kinds(subscribe(t, patient, task, token, fmt.Sprint(had[len(had)-1].id), func(f frame) bool {
		if f.kind == "task" {
			end() // of an ended task less is kept
		}
		return false
	}))
	var want strings.Builder
	for n := range pieces {
		want.WriteString(piece(n))
	}
	if first+rest != want.String() || !strings.HasSuffix(all, "report status") {
		t.Errorf("after %d bytes: %q and %d bytes, want %d in all", len(first), all, len(rest), want.Len())
	}
}
