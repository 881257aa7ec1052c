package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/agenticraft/node/a2a"
)

// still is a node that answers everything and does nothing.
type still struct{}

func (still) Do(_ context.Context, _, path string, _, into any) error {
	if raw, ok := into.(*json.RawMessage); ok {
		*raw = json.RawMessage(`{}`)
	}
	if len(path) < len("/v1/") || path[:4] != "/v1/" {
		return errors.New("a tool asks for something else than the /v1 interface: " + path)
	}
	return nil
}

func (still) Run(_ context.Context, e a2a.Execution, _ bool, said func(string)) (a2a.Report, error) {
	said("hello")
	_, err := a2a.NewRequest(e)
	return a2a.Report{Status: a2a.Succeeded, Result: json.RawMessage("null")}, err
}

func (still) Find(context.Context, string) (any, error) { return []any{}, nil }

func (still) Verify(_, _ json.RawMessage) (bool, any, error) { return true, nil, nil }

// Of two arguments with one name, or in another case, none is heeded.
func TestToolsRefuseTwins(t *testing.T) {
	for _, args := range []string{
		`{"language":"starlark","code":"a","code":"b"}`, `{"language":"starlark","Code":"b","code":"a"}`,
		`{"language":"starlark","code":"a","limits":{"memory_bytes":1,"memory_bytes":2}}`,
	} {
		if got, err := run(t.Context(), still{}, json.RawMessage(args), func(string) {}); err == nil {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if _, err := run(t.Context(), still{}, json.RawMessage(`{"language":"starlark","code":"a"}`), func(string) {}); err != nil {
		t.Error(err)
	}
}

// Whatever a client sends as arguments, each tool answers with JSON, and words a
// refusal for the caller.
func FuzzTools(f *testing.F) {
	for _, args := range []string{
		`{"language":"starlark","code":"x = 1","detach":true}`, `{"language":"python","code":"1","limits":{"memory_bytes":1},"files":[{"path":"a","content":"aGk="}]}`,
		`{"task":"0123456789abcdef0123456789abcdef"}`, `{"task":"../keys"}`, `{"receipt":{},"trust":{}}`, `{"language":null}`, `{}`, `[]`, `null`, `{"a":`, `{"task":"x","task":"y"}`, `{} {}`, "\xff", ``,
	} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		for _, tool := range tools() {
			got, err := tool.do(t.Context(), still{}, json.RawMessage(args), func(string) {})
			if err != nil {
				if _, ok := errors.AsType[*a2a.Error](err); !ok {
					t.Errorf("%s(%s): %v", tool.name, args, err)
				}
				got = failure(err)
			}
			if _, err := json.Marshal(got.value); err != nil {
				t.Errorf("%s(%s): %v", tool.name, args, err)
			}
		}
	})
}
