package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// anyone is every caller: the suites send no credentials.
var anyone = identity.Principal{Kind: identity.Service, Name: "anyone"}

// modes are the media types that the agent takes.
var modes = []string{"text/plain", "application/json", "application/octet-stream"}

// longest is how long an agent works that waits to be cancelled.
const longest = time.Minute

// moment is how long it takes to make what a stream tells of.
const moment = 50 * time.Millisecond

// agent is a path that behaves as a suite asks: by the prefix of a message's
// id (the TCK) or of its text (ACTS).
type agent struct{}

var _ server.Conversation = agent{}

// turn is one turn of a behaviour.
type turn struct {
	ctx  context.Context
	task *sdk.Task
	say  func(sdk.Event)
}

// status says a status with a word of explanation.
func (t turn) status(state sdk.TaskState, text string) {
	var m *sdk.Message
	if text != "" {
		m = sdk.NewMessageForTask(sdk.MessageRoleAgent, t.task, sdk.NewTextPart(text))
	}
	t.say(sdk.NewStatusUpdateEvent(t.task, state, m))
}

func (t turn) artifact(id string, grows, last bool, parts ...*sdk.Part) {
	t.say(&sdk.TaskArtifactUpdateEvent{
		TaskID: t.task.ID, ContextID: t.task.ContextID, Append: grows, LastChunk: last,
		Artifact: &sdk.Artifact{ID: sdk.ArtifactID(id), Name: id, Parts: parts},
	})
}

// pause works for a while; false means that it was cancelled.
func (t turn) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		t.status(sdk.TaskStateCanceled, "")
		return false
	}
}

// works is a behaviour that takes d, makes the parts and completes.
func works(d time.Duration, parts ...*sdk.Part) func(turn) {
	return func(t turn) {
		t.status(sdk.TaskStateWorking, "")
		if !t.pause(d) {
			return
		}
		if len(parts) > 0 {
			t.artifact("output", false, true, parts...)
		}
		t.status(sdk.TaskStateCompleted, "")
	}
}

func says(state sdk.TaskState, text string) func(turn) {
	return func(t turn) { t.status(state, text) }
}

// chunked makes an artifact of a chunk for each text.
func chunked(texts ...string) func(turn) {
	return func(t turn) {
		t.status(sdk.TaskStateWorking, "")
		for i, text := range texts {
			if !t.pause(moment) {
				return
			}
			t.artifact("chunks", i > 0, i == len(texts)-1, sdk.NewTextPart(text))
		}
		t.status(sdk.TaskStateCompleted, "")
	}
}

func data() *sdk.Part { return sdk.NewDataPart(map[string]any{"key": "value", "count": 42.0}) }

func file() *sdk.Part {
	p := sdk.NewRawPart([]byte("file content"))
	p.Filename, p.MediaType = "output.txt", "text/plain"
	return p
}

func fileURL() *sdk.Part {
	p := sdk.NewFileURLPart("https://example.com/output.txt", "text/plain")
	p.Filename = "output.txt"
	return p
}

// behaviours are what the prefixes ask for; the longest that fits counts. The
// texts are those that the TCK's scenarios name.
var behaviours = map[string]func(turn){
	"tck-complete-task":           says(sdk.TaskStateCompleted, "Hello from TCK"),
	"tck-artifact-text":           works(0, sdk.NewTextPart("Generated text content")),
	"tck-artifact-file":           works(0, file()),
	"tck-artifact-file-url":       works(0, fileURL()),
	"tck-artifact-data":           works(0, data()),
	"tck-input-required":          says(sdk.TaskStateInputRequired, "What else?"),
	"tck-multi-turn":              says(sdk.TaskStateInputRequired, "Say done when it is."),
	"tck-auth-required":           says(sdk.TaskStateAuthRequired, "This needs an approval."),
	"tck-reject-task":             says(sdk.TaskStateRejected, "rejected"),
	"tck-task-failure":            says(sdk.TaskStateFailed, "It went wrong, as it was asked to."),
	"tck-cancel":                  works(longest),
	"tck-long-running":            works(time.Second, sdk.NewTextPart("It took a while.")),
	"tck-stream-basic":            works(moment, sdk.NewTextPart("Streamed text content")),
	"tck-stream-chunked":          chunked("chunk 1 ", "chunk 2 ", "chunk 3"),
	"tck-stream":                  works(moment, sdk.NewTextPart("Streamed text content")),
	"tck-stream-001":              works(moment, sdk.NewTextPart("Stream hello from TCK")),
	"tck-stream-002":              says(sdk.TaskStateCompleted, ""),
	"tck-stream-003":              works(moment, sdk.NewTextPart("Stream task lifecycle")),
	"tck-stream-artifact-text":    works(moment, sdk.NewTextPart("Streamed text content")),
	"tck-stream-artifact-file":    works(moment, file()),
	"tck-stream-artifact-chunked": chunked("chunk-1 ", "chunk-2"),
	"tck-stream-ordering-001":     works(moment, sdk.NewTextPart("Ordered output")),
	"test-resubscribe-message-id": works(4 * time.Second), // twice the TCK's wait for a stream
}

const messageReply = "tck-message-response"

// prefixOf finds the behaviour that a message asks for, by its id or else by its
// text.
func prefixOf(m *sdk.Message) string {
	return cmp.Or(longestPrefix(m.ID), longestPrefix(textOf(m)), "tck-complete-task")
}

// longestPrefix is that of s which names a behaviour, or "".
func longestPrefix(s string) string {
	if strings.HasPrefix(s, messageReply) {
		return messageReply
	}
	best := ""
	for prefix := range behaviours {
		if strings.HasPrefix(s, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return best
}

func textOf(m *sdk.Message) string {
	var b strings.Builder
	for _, p := range m.Parts {
		b.WriteString(p.Text())
	}
	return b.String()
}

// Submit implements server.Path.
func (agent) Submit(_ context.Context, in server.Inbound) (server.Admitted, error) {
	m := in.Request.Message
	if err := check(m); err != nil {
		return server.Admitted{}, err
	}
	prefix := prefixOf(m)
	if prefix == messageReply {
		return server.Admitted{Reply: sdk.NewMessage(sdk.MessageRoleAgent, sdk.NewTextPart("Direct message response"))}, nil
	}
	return admit(a2a.NewJTI(), behaviours[prefix]), nil
}

// Continue implements server.Conversation.
func (agent) Continue(_ context.Context, in server.Inbound, task *sdk.Task) (server.Admitted, error) {
	m := in.Request.Message
	if err := check(m); err != nil {
		return server.Admitted{}, err
	}
	do := says(sdk.TaskStateCompleted, "Thank you.")
	if asked := behaviours[longestPrefix(m.ID)]; asked != nil {
		do = asked
	} else if prefixOf(task.History[0]) == "tck-multi-turn" && !strings.Contains(textOf(m), "done") {
		do = says(sdk.TaskStateInputRequired, "What else?")
	}
	return admit(string(task.ID), do), nil
}

func admit(task string, do func(turn)) server.Admitted {
	return server.Admitted{Task: task, Owner: anyone.String(), Talk: func(ctx context.Context, task *sdk.Task, say func(sdk.Event)) error {
		do(turn{ctx, task, say})
		return nil
	}}
}

// Cancel implements server.Path: the handler ends talks itself.
func (agent) Cancel(context.Context, string) error { return nil }

// Fetch implements server.Path: there are no other nodes.
func (agent) Fetch(context.Context, string, identity.Principal) (*sdk.Task, error) {
	return nil, a2a.ErrNoTask
}

// check refuses what the agent does not take.
func check(m *sdk.Message) error {
	if len(m.Parts) == 0 {
		return a2a.Errorf(a2a.CodeInvalidRequest, "the message has no parts")
	}
	for i, p := range m.Parts {
		kind := p.MediaType
		if kind == "" {
			kind, _ = p.Metadata["contentType"].(string) // where ACTS puts it
		}
		if kind != "" && !slices.Contains(modes, kind) {
			return a2a.Errorf(a2a.CodeContentType, "part %d: %s", i, fmt.Sprintf("%.80q is not a media type that this agent takes", kind))
		}
	}
	return nil
}
