package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"gopkg.in/yaml.v3"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"

	"github.com/agenticraft/node/a2a"
)

// The suite's data lies in testdata/acts as it was published; this file runs
// it. testdata/deviations.yaml names the tests that contradict the
// specification, each with the sentence that says so.

type suiteFile struct {
	Variables map[string]string
	Suites    []struct{ Tests []actsTest }
	Include   []string
}

type actsTest struct {
	ID, Name, Level string
	Transport       []string
	Preconditions   struct{ Capabilities map[string]bool }
	Steps           []step
}

type step struct {
	ID             string
	Operation      string
	Params         map[string]any
	Raw            *rawRequest
	ClientResponse *struct {
		Operation   string
		WirePayload any `yaml:"wire_payload"`
	} `yaml:"client_response"`
	Capture      map[string]string
	Expect       map[string]any
	ExpectError  map[string]any `yaml:"expect_error"`
	ExpectParsed map[string]any `yaml:"expect_parsed"`
	ExpectStream *streamWant    `yaml:"expect_stream"`
	Assertions   []struct {
		Source string
		Any    struct {
			Path  string
			Match any
		}
	}
	Repeat *struct {
		Until       string
		MaxAttempts int `yaml:"max_attempts"`
		DelayMS     int `yaml:"delay_ms"`
	}
}

type rawRequest struct {
	Method, Path string
	Headers      map[string]string
	Body         any
	BodyRaw      string `yaml:"body_raw"`
}

type streamWant struct {
	MinCount   int              `yaml:"min_count"`
	Ordering   string           `yaml:"ordering"`
	Events     []map[string]any `yaml:"events"`
	FinalEvent map[string]any   `yaml:"final_event"`
	EachEvent  map[string]any   `yaml:"each_event"`
}

type deviation struct {
	ID       string
	Bindings []string // empty: all
	Reason   string
	Spec     string // the sentence of the specification
}

const testWait = 45 * time.Second

// stand is the agent that the suite talks to.
type stand struct {
	*service
	bindings map[string]caller
}

func newStand(t *testing.T, pushes bool) *stand {
	t.Helper()
	s, err := start(t.Context(), t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", pushes, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &stand{s, map[string]caller{"jsonrpc": jsonrpc{s.url}, "rest": rest{s.url}, "grpc": rpc{conn}}}
}

// capability is what the stand's card says about what preconditions ask.
func (s *stand) capability(name string) (have, known bool) {
	have, known = map[string]bool{"streaming": true, "pushNotifications": s.pushes, "extendedAgentCard": false, "authentication": false}[name]
	return have, known
}

func TestACTS(t *testing.T) {
	// What the card says decides what a test expects: the same agent with push
	// notifications and without.
	with, without := newStand(t, true), newStand(t, false)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(receiver.Close)
	var devs []deviation
	readYAML(t, "testdata/deviations.yaml", &devs)
	table := newTally()
	t.Cleanup(func() { table.log(t) })
	total := 0
	var suite suiteFile
	readYAML(t, "testdata/acts/suite.acts.yaml", &suite)
	for _, name := range suite.Include {
		var file suiteFile
		readYAML(t, filepath.Join("testdata/acts", name), &file)
		for _, group := range file.Suites {
			for _, test := range group.Tests {
				total++
				for _, binding := range slices.Sorted(maps.Keys(with.bindings)) {
					if len(test.Transport) > 0 && !slices.Contains(test.Transport, binding) {
						continue
					}
					if test.Steps[0].ClientResponse != nil && binding != "jsonrpc" {
						continue // the golden answers are JSON-RPC's
					}
					t.Run(test.ID+"/"+binding, func(t *testing.T) {
						t.Parallel()
						s := with
						if on, asked := test.Preconditions.Capabilities["pushNotifications"]; asked && !on {
							s = without
						}
						p := &play{stand: s, base: s.url, binding: binding, via: s.bindings[binding], vars: maps.Clone(file.Variables), answers: map[string]any{}}
						if p.vars == nil {
							p.vars = map[string]string{}
						}
						p.vars["webhookUrl"] = receiver.URL
						table.note(binding, judge(t, p, test, devs))
					})
				}
			}
		}
	}
	if total != 111 {
		t.Errorf("the suite has %d tests, expected 111", total)
	}
	for _, d := range devs {
		if d.ID == "" || d.Reason == "" || d.Spec == "" {
			t.Errorf("deviation %+v is not justified", d)
		}
	}
}

// judge runs a test and says how it went.
func judge(t *testing.T, p *play, test actsTest, devs []deviation) string {
	for name, want := range test.Preconditions.Capabilities {
		if have, known := p.stand.capability(name); !known {
			t.Errorf("unknown precondition %s", name)
		} else if have != want {
			return "not applicable"
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	err := p.run(ctx, test)
	expected := slices.ContainsFunc(devs, func(d deviation) bool {
		return d.ID == test.ID && (len(d.Bindings) == 0 || slices.Contains(d.Bindings, p.binding))
	})
	switch {
	case err == nil && expected:
		t.Errorf("%s passes and is listed as a deviation", test.ID)
		return "failed"
	case err == nil:
		return "passed"
	case expected:
		t.Logf("deviation: %v", err)
		return "deviation"
	}
	t.Errorf("%s (%s, %s): %v", test.ID, test.Level, test.Name, err)
	return "failed"
}

// play is one run of one test over one binding.
type play struct {
	stand         *stand
	base, binding string
	via           caller
	vars          map[string]string // "step.name" -> text
	answers       map[string]any    // step -> body
}

func (p *play) run(ctx context.Context, test actsTest) error {
	for _, s := range test.Steps {
		if err := p.step(ctx, s); err != nil {
			return fmt.Errorf("step %s: %w", s.ID, err)
		}
	}
	return nil
}

func (p *play) step(ctx context.Context, s step) error {
	if s.ClientResponse != nil {
		return parse(ctx, s)
	}
	got, err := p.perform(ctx, s)
	if err != nil {
		return err
	}
	if r := s.Repeat; r != nil {
		const pause = 50 * time.Millisecond
		for end := time.Now().Add(time.Duration(r.MaxAttempts*r.DelayMS) * time.Millisecond); !holds(got.body, r.Until); {
			if time.Now().After(end) {
				return fmt.Errorf("never came true: %s", r.Until)
			}
			time.Sleep(pause)
			if got, err = p.perform(ctx, s); err != nil {
				return err
			}
		}
	}
	p.answers[s.ID] = got.body
	if err := p.expect(s, got); err != nil {
		return err
	}
	for name, path := range s.Capture {
		found := lookUp(got.body, path)
		if len(found) != 1 {
			return fmt.Errorf("nothing to capture at %s", path)
		}
		p.vars[s.ID+"."+name] = fmt.Sprint(found[0])
	}
	for _, a := range s.Assertions {
		source := p.answers[strings.TrimSuffix(strings.Trim(a.Source, "{}"), ".response")]
		last := fmt.Errorf("nothing at %s", a.Any.Path)
		for _, v := range lookUp(source, a.Any.Path) {
			if last = match(v, p.fill(a.Any.Match), a.Any.Path); last == nil {
				break
			}
		}
		if last != nil {
			return last
		}
	}
	return nil
}

func (p *play) perform(ctx context.Context, s step) (answer, error) {
	if s.Raw != nil {
		return p.raw(ctx, s.Raw)
	}
	params, _ := p.fill(s.Params).(map[string]any)
	if params == nil {
		params = map[string]any{}
	}
	switch s.Operation {
	case "send_message", "send_streaming_message":
		m, _ := params["message"].(map[string]any)
		m["messageId"] = a2a.NewJTI()
		for _, name := range []string{"taskId", "contextId"} { // members of the message, in the protocol
			if v, ok := params[name]; ok {
				m[name] = v
				delete(params, name)
			}
		}
	case "set_push_notification_config":
		if config, ok := params["pushNotificationConfig"].(map[string]any); ok {
			delete(params, "pushNotificationConfig")
			maps.Copy(params, config)
		}
	case "get_agent_card":
		if params["extended"] != true {
			return do(ctx, http.MethodGet, p.base+a2a.CardPath, http.Header{}, nil)
		}
		delete(params, "extended")
	}
	return p.via.call(ctx, s.Operation, params)
}

func (p *play) raw(ctx context.Context, r *rawRequest) (answer, error) {
	header := http.Header{}
	for name, value := range r.Headers {
		header.Set(name, p.text(value))
	}
	body := []byte(r.BodyRaw)
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(p.fill(r.Body)); err != nil {
			return answer{}, err
		}
	}
	base := p.base
	if p.binding == "rest" && !strings.HasPrefix(r.Path, "/.well-known/") {
		base += "/rest"
	}
	return do(ctx, r.Method, base+p.text(r.Path), header, body)
}

func (p *play) expect(s step, got answer) error {
	if s.ExpectError != nil {
		if got.err == nil {
			return fmt.Errorf("no error, but %s", show(got.body))
		}
		return match(got.err, p.fill(s.ExpectError), "error")
	}
	want, _ := p.fill(s.Expect).(map[string]any)
	if s.Raw == nil && want != nil && want["status"] != "error" && want["error"] == nil && got.err != nil {
		return fmt.Errorf("error: %v", got.err)
	}
	for name, w := range want {
		var err error
		switch name {
		case "status":
			switch {
			case w != "error":
				err = match(got.status, w, "status")
			case got.err == nil:
				err = errors.New("no error")
			}
		case "body":
			err = match(got.body, w, "body")
		case "error":
			var e any = missing{}
			if got.err != nil {
				e = got.err
			}
			err = match(e, w, "error")
		default: // a member of the body
			err = match(got.body, map[string]any{name: w}, "body")
		}
		if err != nil {
			return err
		}
	}
	if s.ExpectStream != nil {
		return s.ExpectStream.hold(got)
	}
	return nil
}

// order of the states of a task.
var order = map[string]int{"TASK_STATE_SUBMITTED": 1, "TASK_STATE_WORKING": 2, "TASK_STATE_INPUT_REQUIRED": 3, "TASK_STATE_AUTH_REQUIRED": 3}

func (w *streamWant) hold(got answer) error {
	if got.err != nil {
		return fmt.Errorf("error: %v", got.err)
	}
	if len(got.events) < max(w.MinCount, 1) {
		return fmt.Errorf("%d events, want %d", len(got.events), w.MinCount)
	}
	views := make([]any, len(got.events))
	last := 0
	for i, e := range got.events {
		views[i] = view(e)
		if state := lookUp(views[i], "status.state"); len(state) == 1 && w.Ordering == "monotonic_state" {
			rank, ok := order[fmt.Sprint(state[0])]
			if !ok {
				rank = 4
			}
			if rank < last {
				return fmt.Errorf("event %d goes back to %v", i, state[0])
			}
			last = rank
		}
		if w.EachEvent != nil {
			if err := match(views[i], w.EachEvent, fmt.Sprintf("event %d", i)); err != nil {
				return err
			}
		}
	}
	if w.FinalEvent != nil {
		if err := match(views[len(views)-1], w.FinalEvent, "final event"); err != nil {
			return err
		}
	}
	for _, want := range w.Events {
		want = maps.Clone(want)
		index, fixed := want["index"].(int)
		for _, name := range []string{"description", "match", "index"} {
			delete(want, name)
		}
		among := views
		if fixed {
			among = views[index : index+1]
		}
		var err error
		for _, v := range among {
			if err = match(v, want, "event"); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// view is an event with the members of what it wraps beside the wrapper, which
// ACTS names in snake_case.
func view(e any) any {
	m, ok := e.(map[string]any)
	if !ok {
		return e
	}
	out := maps.Clone(m)
	for wrapper, alias := range map[string]string{"task": "task", "message": "message", "statusUpdate": "status_update", "artifactUpdate": "artifact_update"} {
		if inner, ok := m[wrapper].(map[string]any); ok {
			maps.Copy(out, inner)
			out[alias] = inner
		}
	}
	return out
}

// parse gives a golden answer to the client's decoder.
func parse(ctx context.Context, s step) error {
	body, err := json.Marshal(s.ClientResponse.WirePayload)
	if err != nil {
		return err
	}
	var got any
	switch s.ClientResponse.Operation {
	case "get_agent_card", "get_extended_agent_card":
		card := new(sdk.AgentCard)
		err = json.Unmarshal(body, card)
		c := card.Capabilities
		got = map[string]any{"skills": card.Skills, "capabilities": map[string]any{
			"streaming": c.Streaming, "pushNotifications": c.PushNotifications, "extendedAgentCard": c.ExtendedAgentCard,
		}}
	default:
		got, err = parseAnswer(ctx, s.ClientResponse.Operation, body)
	}
	if err != nil {
		return err
	}
	plain, err := json.Marshal(got)
	if err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(plain, &v); err != nil {
		return err
	}
	return match(v, s.ExpectParsed, "parsed")
}

// parseAnswer lets the JSON-RPC transport, which our client signs in, read an
// answer.
func parseAnswer(ctx context.Context, operation string, body []byte) (any, error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct{ ID json.RawMessage }
		var answer map[string]json.RawMessage
		if err := errors.Join(json.NewDecoder(r.Body).Decode(&call), json.Unmarshal(body, &answer)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer["id"] = call.ID
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	via := a2aclient.NewJSONRPCTransport(server.URL, server.Client())
	var got any
	var err error
	switch operation {
	case "send_message":
		var result sdk.SendMessageResult
		result, err = via.SendMessage(ctx, nil, &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser)})
		got = sdk.StreamResponse{Event: result}
	case "get_task":
		got, err = via.GetTask(ctx, nil, &sdk.GetTaskRequest{ID: "x"})
	default:
		return nil, fmt.Errorf("no operation %s", operation)
	}
	if errors.Is(err, sdk.ErrTaskNotFound) {
		return map[string]any{"error": map[string]any{"code": -32001, "message": err.Error()}}, nil
	}
	return got, err
}

var variable = regexp.MustCompile(`{{([^}]+)}}`)

// text fills in the variables of a string.
func (p *play) text(s string) string {
	return variable.ReplaceAllStringFunc(s, func(v string) string {
		if value, ok := p.vars[strings.Trim(v, "{}")]; ok {
			return value
		}
		return v
	})
}

// fill fills in the variables of a value, which it copies.
func (p *play) fill(v any) any {
	switch v := v.(type) {
	case string:
		return p.text(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = p.fill(v[i])
		}
		return out
	case map[string]any:
		if v == nil {
			return nil
		}
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = p.fill(v[k])
		}
		return out
	}
	return v
}

// holds evaluates "path == VALUE" and "path in [A, B]".
func holds(v any, condition string) bool {
	path, values, ok := strings.Cut(condition, " in ")
	if !ok {
		path, values, _ = strings.Cut(condition, " == ")
	}
	found := lookUp(v, strings.TrimSpace(path))
	if len(found) != 1 {
		return false
	}
	for value := range strings.SplitSeq(strings.Trim(strings.TrimSpace(values), "[]"), ",") {
		if fmt.Sprint(found[0]) == strings.Trim(strings.TrimSpace(value), `"'`) {
			return true
		}
	}
	return false
}

func readYAML(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// tally counts how tests went on each binding.
type tally struct {
	mu sync.Mutex
	of map[string]map[string]int
}

func newTally() *tally { return &tally{of: map[string]map[string]int{}} }

func (c *tally) note(binding, how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[binding] == nil {
		c.of[binding] = map[string]int{}
	}
	c.of[binding][how]++
}

func (c *tally) log(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, binding := range slices.Sorted(maps.Keys(c.of)) {
		n := c.of[binding]
		t.Logf("%-8s passed %3d  failed %d  deviations %2d  not applicable %2d", binding, n["passed"], n["failed"], n["deviation"], n["not applicable"])
	}
}
