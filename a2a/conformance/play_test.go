package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
)

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
