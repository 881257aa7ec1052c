package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

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
	var out []frame
	var id uint64
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			if id, err = strconv.ParseUint(text, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
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
			break
		}
	}
	return out
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
