package main

import (
	"encoding/binary"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/agenticraft/node/a2a"
)

// oddGRPC sends what no gRPC library would.
func (d *oddDoors) oddGRPC(t *testing.T) {
	frame := func(text string) string {
		return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text)))) + text
	}
	packed := func(m proto.Message) string {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return frame(string(raw))
	}
	const unimplemented, invalid, notFound, exhausted, precondition, unauthenticated = "12", "3", "5", "8", "9", "16"
	for name, tc := range map[string]struct {
		method, body string
		header       map[string]string
		want         string // grpc-status; "": any but those that are faults of the node
	}{
		"no such method":      {"Explode", frame(""), nil, unimplemented},
		"garbage":             {"GetTask", frame("\xff\xff\xff\xff"), nil, invalid},
		"no UTF-8":            {"GetTask", frame("\x12\x02\xff\xfe"), nil, invalid},
		"a length beyond":     {"GetTask", frame("\x12\x7fabc"), nil, invalid},
		"garbage streamed":    {"SendStreamingMessage", frame("\xff\xff\xff\xff"), nil, invalid},
		"a version in lines":  {"GetTask", frame(""), map[string]string{"A2A-Version": "1.0\n0.3"}, precondition},
		"two credentials":     {"GetTask", frame(""), map[string]string{"Authorization": "Bearer " + d.key + "\nBearer " + d.key}, unauthenticated},
		"over the cap":        {"GetTask", packed(&a2apb.GetTaskRequest{Id: strings.Repeat("x", a2a.MaxRequestBytes)}), nil, exhausted},
		"a huge length":       {"GetTask", "\x00\xff\xff\xff\xffx", nil, exhausted},
		"half a frame":        {"GetTask", "\x00\x00\x00\x00\x09abc", nil, ""},
		"no frame":            {"GetTask", "", nil, ""},
		"two frames":          {"GetTask", frame("") + frame(""), nil, ""},
		"said to be packed":   {"GetTask", "\x01" + frame("")[1:], nil, ""},
		"packed unknown":      {"GetTask", "\x01" + frame("")[1:], map[string]string{"Grpc-Encoding": "zip"}, unimplemented},
		"another message":     {"GetTask", packed(&a2apb.ListTasksRequest{PageSize: proto.Int32(7)}), nil, ""},
		"no message":          {"SendMessage", packed(&a2apb.SendMessageRequest{}), nil, invalid},
		"no content":          {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: a2apb.Role_ROLE_USER, Parts: []*a2apb.Part{{}}}}), nil, invalid},
		"no role":             {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Parts: []*a2apb.Part{{Content: &a2apb.Part_Text{Text: "x"}}}}}), nil, invalid},
		"a role 99":           {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: 99, Parts: []*a2apb.Part{{Content: &a2apb.Part_Text{Text: "x"}}}}}), nil, invalid},
		"many parts":          {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: a2apb.Role_ROLE_USER, Parts: make([]*a2apb.Part, 20_000)}}), nil, exhausted},
		"many parts streamed": {"SendStreamingMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: a2apb.Role_ROLE_USER, Parts: make([]*a2apb.Part, 20_000)}}), nil, exhausted},
		"wide data":           {"SendMessage", packed(&a2apb.SendMessageRequest{Message: &a2apb.Message{MessageId: "m", Role: a2apb.Role_ROLE_USER, Parts: []*a2apb.Part{{Content: &a2apb.Part_Data{Data: structpb.NewListValue(&structpb.ListValue{Values: slices.Repeat([]*structpb.Value{structpb.NewNullValue()}, 200_000)})}}}}}), nil, exhausted},
		"history -1":          {"GetTask", packed(&a2apb.GetTaskRequest{Id: "x", HistoryLength: proto.Int32(-1)}), nil, invalid},
		"page -1":             {"ListTasks", packed(&a2apb.ListTasksRequest{PageSize: proto.Int32(-1)}), nil, invalid},
		"page 2^31-1":         {"ListTasks", packed(&a2apb.ListTasksRequest{PageSize: proto.Int32(1<<31 - 1)}), nil, invalid},
		"state 99":            {"ListTasks", packed(&a2apb.ListTasksRequest{Status: 99}), nil, invalid},
		"no page token":       {"ListTasks", packed(&a2apb.ListTasksRequest{PageToken: "!"}), nil, invalid},
		"a path as task":      {"GetTask", packed(&a2apb.GetTaskRequest{Id: "../../x"}), nil, notFound},
		"no version":          {"GetTask", frame(""), map[string]string{"A2A-Version": ""}, precondition},
		"a broken credential": {"GetTask", frame(""), map[string]string{"Authorization": "Bearer a.b."}, unauthenticated},
		"no time":             {"GetTask", frame(""), map[string]string{"Grpc-Timeout": "x"}, ""},
		"another type":        {"GetTask", "{}", map[string]string{"Content-Type": "application/grpc+json"}, ""},
		"the web's type":      {"GetTask", frame(""), map[string]string{"Content-Type": "application/grpc-web"}, ""},
	} {
		header := map[string]string{"Content-Type": "application/grpc", "Te": "trailers"}
		maps.Copy(header, tc.header)
		got, err := d.ask(d.two, http.MethodPost, "/lf.a2a.v1.A2AService/"+tc.method, tc.body, header)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		status := got.header.Get("Grpc-Status")
		if tc.want != "" && status != tc.want || tc.want == "" && (status == "2" || status == "15") || got.status >= 500 {
			t.Errorf("%s: HTTP %d, gRPC status %s (%s), want %s", name, got.status, status, got.header.Get("Grpc-Message"), tc.want)
		}
	}
}
