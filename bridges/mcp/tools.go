package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/agenticraft/node/a2a"
)

// tool is one tool: what it is for, what it takes, and what it does.
type tool struct {
	name, title, description string
	schema                   json.RawMessage
	reads                    bool // changes nothing
	do                       func(ctx context.Context, n Node, args json.RawMessage, said func(string)) (answer, error)
}

// answer is what a tool gives back: a JSON object, and whether it is bad news.
type answer struct {
	value any
	bad   bool
}

// tools are all that there are, made once.
var tools = sync.OnceValue(func() []tool {
	return []tool{
		{
			name: "run_code", title: "Run code", schema: runSchema(), do: run,
			description: "Run a program in a sandbox and wait for its end. The value of its variable result, as JSON, is the result. " +
				"The answer says how it ended, what it printed, which limits held it and by what, and where it is on record.",
		},
		{
			name: "task_status", title: "Status of a task", schema: ofTask(), reads: true, do: status,
			description: "How a task is: running, succeeded, failed, denied, cancelled, timed_out or lost.",
		},
		{
			name: "task_result", title: "Result of a task", schema: ofTask(), reads: true, do: report,
			description: "The whole report of a task: result, output, files, limits, place in the log.",
		},
		{
			name: "cancel_task", title: "Cancel a task", schema: ofTask(), do: cancel,
			description: "Cancel a running task, and wait for its end.",
		},
		{
			name: "list_runtimes", title: "List runtimes", schema: object(`{}`), reads: true, do: runtimes,
			description: "The node's sandboxes, the languages each runs, and what enforces each limit there.",
		},
		{
			name: "find_peers", title: "Find nodes", reads: true, do: peers,
			schema: object(`{"language":{"type":"string","description":"python, javascript, sh, starlark or wasm"}}`, "language"),
			description: "The connected nodes that can run a language now, the least busy first. " +
				"The id of one may be given to run_code as on.",
		},
		{
			name: "task_receipt", title: "Receipt of a task", schema: ofTask(), reads: true, do: receipt,
			description: "The receipt of a task that has ended: what was asked for, allowed and done, provable to others without this cluster.",
		},
		{
			name: "verify_receipt", title: "Verify a receipt", reads: true, do: verify,
			schema: object(`{"receipt":{"type":"object","description":"as task_receipt gives it"},`+
				`"trust":{"type":"object","description":"whom to trust, as agenticraft trust export prints it; absent: whom the node says, which proves nothing against that node"}}`, "receipt"),
			description: "Check a receipt: signatures, proofs, and that the log was signed by a quorum of its keepers.",
		},
	}
})

func (t tool) describe() *sdk.Tool {
	closed := false
	return &sdk.Tool{
		Name: t.name, Title: t.title, Description: t.description, InputSchema: t.schema,
		Annotations: &sdk.ToolAnnotations{Title: t.title, ReadOnlyHint: t.reads, DestructiveHint: &closed, OpenWorldHint: &closed},
	}
}

// handler answers every fault within the tool's result, where a model sees it.
func (t tool) handler(n Node) sdk.ToolHandler {
	return func(ctx context.Context, req *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		args := req.Params.Arguments
		if len(args) == 0 {
			args = json.RawMessage(`{}`)
		}
		got, err := t.do(ctx, n, args, progress(ctx, req))
		if err != nil {
			got = failure(err)
		}
		text, err := json.Marshal(got.value)
		if err != nil {
			return nil, errors.New("internal error: the answer does not marshal")
		}
		return &sdk.CallToolResult{
			Content: []sdk.Content{&sdk.TextContent{Text: string(text)}}, StructuredContent: json.RawMessage(text), IsError: got.bad,
		}, nil
	}
}

// progress tells a caller who asked for it what is said meanwhile.
func progress(ctx context.Context, req *sdk.CallToolRequest) func(string) {
	token := req.Params.GetProgressToken()
	if token == nil {
		return func(string) {}
	}
	n := 0.0
	return func(text string) {
		n++
		// A caller who is gone is noticed by the answer.
		_ = req.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{ProgressToken: token, Progress: n, Message: text})
	}
}

// failure words an error as the command line does.
func failure(err error) answer {
	known, ok := errors.AsType[*a2a.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		known = &a2a.Error{Code: "cancelled", Message: "the call was cancelled"}
	default:
		known = &a2a.Error{Code: "failed", Message: err.Error()}
	}
	return answer{map[string]any{"error": map[string]string{"code": known.Code, "message": known.Message, "hint": known.Hint}}, true}
}

// read reads a tool's arguments, as strictly as [a2a.Decode].
func read(args json.RawMessage, into any) error {
	if err := a2a.Decode(args, into); err != nil {
		return a2a.Errorf(a2a.CodeInvalidRequest, "arguments: %s", err)
	}
	return nil
}

// required says which of the named arguments is missing.
func required(args json.RawMessage, names ...string) error {
	var in map[string]json.RawMessage
	if err := json.Unmarshal(args, &in); err != nil {
		return a2a.Errorf(a2a.CodeInvalidRequest, "arguments: not a JSON object")
	}
	for _, name := range names {
		if given := in[name]; given == nil || string(given) == "null" {
			return a2a.Errorf(a2a.CodeInvalidRequest, "arguments: %s is missing", name)
		}
	}
	return nil
}

// taskOf reads the one argument of the tools about a task.
func taskOf(args json.RawMessage) (string, error) {
	var in struct {
		Task string `json:"task"`
	}
	if err := read(args, &in); err != nil {
		return "", err
	}
	if !a2a.ValidTaskID(in.Task) {
		return "", a2a.Errorf(a2a.CodeInvalidRequest, "task: not the ID of a task")
	}
	return "/v1/tasks/" + in.Task, nil
}
