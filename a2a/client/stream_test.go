package client_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
)

// answering is a server that gives every request the same stream.
type answering []byte

func (a answering) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: -1,
		Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: io.NopCloser(bytes.NewReader(a)),
	}, nil
}

// FuzzStream: whatever a server streams, the reader gets events of the protocol with
// numbers that were there, then at most one error, which is worded; and it ends.
func FuzzStream(f *testing.F) {
	event := `{"jsonrpc":"2.0","id":"1","result":{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}}`
	for _, seed := range []string{
		"id: 7\ndata: " + event + "\n\n", ": keep-alive\n\ndata: " + event + "\n\nid: 8\ndata: " + event + "\n\n", "data: " + event, "data: {}\n\n", "data: null\n\n",
		"data: {\"jsonrpc\":\"2.0\",\ndata: \"id\":\"1\",\"error\":{\"code\":-32001,\"message\":\"x\"}}\n\n", "event: x\r\nid: 1\r\ndata: " + event + "\r\n\r\n",
		`data: {"jsonrpc":"2.0","id":"1","result":{"task":{"id":"t","status":{}},"message":{}}}` + "\n\n", `data: {"jsonrpc":"2.0","id":"1","result":{"artifactUpdate":{"artifact":null}}}` + "\n\n",
		"data: " + event + "\n\ndata: garbage\n\ndata: " + event + "\n\n", "\x00\xff\n\n", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := client.New(client.Config{URL: "http://x/", HTTPClient: &http.Client{Transport: answering(text)}, Resume: -1})
		if err != nil {
			t.Fatal(err)
		}
		failed := false
		for e, err := range c.SubscribeAfter(t.Context(), "t", nil, nil) {
			if failed {
				t.Fatalf("something after the error: %+v, %v", e, err)
			}
			if err != nil {
				failed = true
				_, worded := errors.AsType[*a2a.Error](err)
				if _, cut := errors.AsType[*client.Interrupted](err); !worded && !cut {
					t.Fatalf("an error without a word: %v", err)
				}
				continue
			}
			switch e.Event.(type) {
			case *sdk.Task, *sdk.Message, *sdk.TaskStatusUpdateEvent, *sdk.TaskArtifactUpdateEvent:
			default:
				t.Fatalf("no event: %T", e.Event)
			}
		}
	})
}
