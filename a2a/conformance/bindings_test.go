package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/agenticraft/node/a2a"
)

// answer is what a binding gave: a body or events, or an error.
type answer struct {
	status int
	header http.Header
	body   any
	events []any
	err    map[string]any // code (the A2A name of the error), message, data
}

// caller performs an operation of ACTS over one binding.
type caller interface {
	call(ctx context.Context, operation string, params map[string]any) (answer, error)
}

// errorNames are the A2A names of errors by ErrorInfo reason.
var errorNames = map[string]string{
	"TASK_NOT_FOUND":                     "TaskNotFoundError",
	"TASK_NOT_CANCELABLE":                "TaskNotCancelableError",
	"PUSH_NOTIFICATION_NOT_SUPPORTED":    "PushNotificationNotSupportedError",
	"UNSUPPORTED_OPERATION":              "UnsupportedOperationError",
	"CONTENT_TYPE_NOT_SUPPORTED":         "ContentTypeNotSupportedError",
	"EXTENDED_AGENT_CARD_NOT_CONFIGURED": "ExtendedAgentCardNotConfiguredError",
	"VERSION_NOT_SUPPORTED":              "VersionNotSupportedError",
	"INVALID_PARAMS":                     "InvalidParamsError",
	"INVALID_REQUEST":                    "InvalidRequestError",
}

func named(code any, message any, details []any) map[string]any {
	e := map[string]any{"code": code, "message": message, "data": details}
	for _, d := range details {
		if m, ok := d.(map[string]any); ok {
			if name, ok := errorNames[fmt.Sprint(m["reason"])]; ok {
				e["code"], e["error_type"] = name, name
			}
		}
	}
	return e
}

// methods are the operations of ACTS as the protocol calls them.
var methods = map[string]string{
	"send_message":                    "SendMessage",
	"send_streaming_message":          "SendStreamingMessage",
	"get_task":                        "GetTask",
	"list_tasks":                      "ListTasks",
	"cancel_task":                     "CancelTask",
	"subscribe_to_task":               "SubscribeToTask",
	"set_push_notification_config":    "CreateTaskPushNotificationConfig",
	"get_push_notification_config":    "GetTaskPushNotificationConfig",
	"list_push_notification_configs":  "ListTaskPushNotificationConfigs",
	"delete_push_notification_config": "DeleteTaskPushNotificationConfig",
	"get_agent_card":                  "GetExtendedAgentCard",
}

// jsonrpc is the JSON-RPC binding.
type jsonrpc struct{ base string }

func (c jsonrpc) call(ctx context.Context, operation string, params map[string]any) (answer, error) {
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": methods[operation], "params": params})
	if err != nil {
		return answer{}, err
	}
	out, err := do(ctx, http.MethodPost, c.base+"/", http.Header{"Content-Type": {"application/json"}, "A2a-Version": {a2a.Version}}, body)
	if err != nil {
		return out, err
	}
	for i, e := range out.events {
		m, _ := e.(map[string]any)
		if out.events[i] = m["result"]; m["error"] != nil {
			out.body = m
		}
	}
	m, _ := out.body.(map[string]any)
	if e, ok := m["error"].(map[string]any); ok {
		details, _ := e["data"].([]any)
		out.err = named(e["code"], e["message"], details)
	}
	out.body = m["result"]
	return out, nil
}

// rest is the HTTP+JSON binding.
type rest struct{ base string }

func (c rest) call(ctx context.Context, operation string, params map[string]any) (answer, error) {
	text := func(name string) string {
		s, _ := params[name].(string)
		delete(params, name)
		return url.PathEscape(s)
	}
	method, path, hasBody := http.MethodGet, "", false
	switch operation {
	case "send_message":
		method, path, hasBody = http.MethodPost, "/message:send", true
	case "send_streaming_message":
		method, path, hasBody = http.MethodPost, "/message:stream", true
	case "get_task":
		path = "/tasks/" + text("id")
	case "list_tasks":
		path = "/tasks"
	case "cancel_task":
		method, path = http.MethodPost, "/tasks/"+text("id")+":cancel"
	case "subscribe_to_task":
		path = "/tasks/" + text("id") + ":subscribe"
	case "set_push_notification_config":
		method, path, hasBody = http.MethodPost, "/tasks/"+text("taskId")+"/pushNotificationConfigs", true
	case "get_push_notification_config":
		path = "/tasks/" + text("taskId") + "/pushNotificationConfigs/" + text("id")
	case "list_push_notification_configs":
		path = "/tasks/" + text("taskId") + "/pushNotificationConfigs"
	case "delete_push_notification_config":
		method, path = http.MethodDelete, "/tasks/"+text("taskId")+"/pushNotificationConfigs/"+text("id")
	case "get_agent_card":
		path = "/extendedAgentCard"
	default:
		return answer{}, fmt.Errorf("no operation %s", operation)
	}
	var body []byte
	header := http.Header{"A2a-Version": {a2a.Version}}
	if hasBody {
		header.Set("Content-Type", "application/a2a+json")
		var err error
		if body, err = json.Marshal(params); err != nil {
			return answer{}, err
		}
	} else if len(params) > 0 {
		query := url.Values{}
		for k, v := range params {
			query.Set(k, fmt.Sprint(v))
		}
		path += "?" + query.Encode()
	}
	out, err := do(ctx, method, c.base+"/rest"+path, header, body)
	m, _ := out.body.(map[string]any)
	if e, ok := m["error"].(map[string]any); ok {
		details, _ := e["details"].([]any)
		out.err = named(e["status"], e["message"], details)
	}
	return out, err
}

// rpc is the gRPC binding.
type rpc struct{ conn *grpc.ClientConn }

func (c rpc) call(ctx context.Context, operation string, params map[string]any) (answer, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "a2a-version", a2a.Version)
	client := a2apb.NewA2AServiceClient(c.conn)
	raw, err := json.Marshal(params)
	if err != nil {
		return answer{}, err
	}
	read := func(m proto.Message) error { return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, m) }
	switch operation {
	case "send_message":
		return unary(ctx, read, client.SendMessage)
	case "get_task":
		return unary(ctx, read, client.GetTask)
	case "list_tasks":
		return unary(ctx, read, client.ListTasks)
	case "cancel_task":
		return unary(ctx, read, client.CancelTask)
	case "set_push_notification_config":
		return unary(ctx, read, client.CreateTaskPushNotificationConfig)
	case "get_push_notification_config":
		return unary(ctx, read, client.GetTaskPushNotificationConfig)
	case "list_push_notification_configs":
		return unary(ctx, read, client.ListTaskPushNotificationConfigs)
	case "delete_push_notification_config":
		return unary(ctx, read, client.DeleteTaskPushNotificationConfig)
	case "get_agent_card":
		return unary(ctx, read, client.GetExtendedAgentCard)
	case "send_streaming_message":
		return stream(ctx, read, client.SendStreamingMessage)
	case "subscribe_to_task":
		return stream(ctx, read, client.SubscribeToTask)
	}
	return answer{}, fmt.Errorf("no operation %s", operation)
}

// message is a pointer to a struct that is a proto.Message.
type message[T any] interface {
	*T
	proto.Message
}

func unary[In, Out any, PIn message[In], POut message[Out]](ctx context.Context, read func(proto.Message) error, call func(context.Context, PIn, ...grpc.CallOption) (POut, error)) (answer, error) {
	req := PIn(new(In))
	if err := read(req); err != nil {
		return answer{}, err
	}
	res, err := call(ctx, req)
	if err != nil {
		return rpcFailure(err)
	}
	body, err := plain(res)
	if list, ok := any(res).(*a2apb.ListTasksResponse); ok && err == nil {
		body.(map[string]any)["nextPageToken"] = list.NextPageToken // always there, in a proto
	}
	return answer{status: http.StatusOK, body: body}, err
}

func stream[In any, PIn message[In]](ctx context.Context, read func(proto.Message) error, call func(context.Context, PIn, ...grpc.CallOption) (grpc.ServerStreamingClient[a2apb.StreamResponse], error)) (answer, error) {
	req := PIn(new(In))
	if err := read(req); err != nil {
		return answer{}, err
	}
	s, err := call(ctx, req)
	if err != nil {
		return rpcFailure(err)
	}
	out := answer{status: http.StatusOK}
	for {
		res, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return rpcFailure(err)
		}
		event, err := plain(res)
		if err != nil {
			return out, err
		}
		out.events = append(out.events, event)
	}
}

func rpcFailure(err error) (answer, error) {
	s, ok := status.FromError(err)
	if !ok || s.Code() == codes.DeadlineExceeded || s.Code() == codes.Canceled {
		return answer{}, err
	}
	var details []any
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			details = append(details, map[string]any{"reason": info.Reason, "domain": info.Domain})
		}
	}
	return answer{status: int(s.Code()), err: named(s.Code().String(), s.Message(), details)}, nil
}

func plain(m proto.Message) (any, error) {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var v any
	return v, json.Unmarshal(raw, &v)
}

// do performs an HTTP request and reads the answer, JSON or events.
func do(ctx context.Context, method, at string, header http.Header, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header = header
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	out := answer{status: res.StatusCode, header: res.Header}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			text, ok := strings.CutPrefix(lines.Text(), "data:")
			if !ok {
				continue
			}
			var v any
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				return out, err
			}
			out.events = append(out.events, v)
		}
		return out, lines.Err()
	}
	text, err := io.ReadAll(res.Body)
	if err != nil || len(text) == 0 {
		return out, err
	}
	if err := json.Unmarshal(text, &out.body); err != nil {
		return out, fmt.Errorf("answer %d is no JSON: %w: %.200s", res.StatusCode, err, text)
	}
	return out, nil
}

func TestMatchers(t *testing.T) {
	v := map[string]any{"a": []any{map[string]any{"b": "xyz", "type": "T"}}, "n": 2.0}
	for _, c := range []struct {
		want any
		ok   bool
	}{
		{map[string]any{"n": 2, "a": map[string]any{"count": 1}}, true},
		{map[string]any{"a": map[string]any{"items": map[string]any{"b": map[string]any{"starts_with": "x"}}}}, true},
		{map[string]any{"a": map[string]any{"items": []any{map[string]any{"type": map[string]any{"type": "string"}}}}}, true},
		{map[string]any{"z": map[string]any{"absent": true}}, true},
		{map[string]any{"n": map[string]any{"absent": true}}, false},
		{map[string]any{"n": map[string]any{"one_of": []any{1, 3}}}, false},
		{map[string]any{"a": map[string]any{"count_gte": 2}}, false},
		{map[string]any{"z": map[string]any{"type": "string"}}, false},
	} {
		if err := match(v, c.want, "body"); (err == nil) != c.ok {
			t.Errorf("match(%v) = %v", c.want, err)
		}
	}
	if got := lookUp(v, "a[*].b"); len(got) != 1 || got[0] != "xyz" {
		t.Errorf("lookUp = %v", got)
	}
}
