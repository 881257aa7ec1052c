package a2a

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1/pbconv"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// byProto is the canonical form by the book: the SDK's proto, ProtoJSON of it,
// JCS of that.
func byProto(req *sdk.SendMessageRequest, without string) ([]byte, error) {
	if req == nil || req.Message == nil || req.Message.Role != sdk.MessageRoleUser && req.Message.Role != sdk.MessageRoleAgent {
		return nil, errors.New("no message with a valid role")
	}
	for _, part := range req.Message.Parts {
		if part == nil || part.Content == nil {
			return nil, errors.New("empty part")
		}
	}
	if c := req.Config; c != nil && c.HistoryLength != nil && (*c.HistoryLength < 0 || *c.HistoryLength > math.MaxInt32) {
		return nil, errors.New("historyLength is out of range")
	}
	p, err := pbconv.ToProtoSendMessageRequest(req)
	if err != nil {
		return nil, err
	}
	if without != "" {
		delete(p.GetMessage().GetMetadata().GetFields(), without)
	}
	structs := []**structpb.Struct{&p.Metadata, &p.Message.Metadata}
	for _, part := range p.GetMessage().GetParts() {
		structs = append(structs, &part.Metadata)
		if err := safeNumbers(part.GetData(), 0); err != nil {
			return nil, err
		}
	}
	for _, s := range structs {
		if len((*s).GetFields()) == 0 {
			*s = nil
		}
		for _, v := range (*s).GetFields() {
			if err := safeNumbers(v, 0); err != nil {
				return nil, err
			}
		}
	}
	raw, err := protojson.Marshal(p)
	if err != nil {
		return nil, err
	}
	return canonicalize(raw)
}

func safeNumbers(v *structpb.Value, depth int) error {
	if n := v.GetNumberValue(); depth > maxNesting || math.IsNaN(n) || math.Abs(n) > maxSafeInteger {
		return errors.New("nested too deep, or a number beyond 2^53-1")
	}
	for _, item := range v.GetListValue().GetValues() {
		if err := safeNumbers(item, depth+1); err != nil {
			return err
		}
	}
	for _, item := range v.GetStructValue().GetFields() {
		if err := safeNumbers(item, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// sameForm holds the canonical form to that of [byProto].
func sameForm(t *testing.T, req *sdk.SendMessageRequest) {
	t.Helper()
	for _, without := range []string{"", SignedMessageURI} {
		before, _ := json.Marshal(req)
		got, err := canonicalRequest([]byte("before"), req, without)
		want, wantErr := byProto(req, without)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("canonicalRequest: %v, want %v\n%s", err, wantErr, before)
		}
		if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Code != CodeInvalidRequest || got != nil) {
			t.Fatalf("canonicalRequest = %q, %v", got, err)
		}
		if err == nil && string(got) != "before"+string(want) {
			t.Fatalf("canonicalRequest = %s\nwant %s", got, want)
		}
		if after, _ := json.Marshal(req); !bytes.Equal(before, after) {
			t.Fatalf("the request was changed:\n%s\n%s", before, after)
		}
	}
}

func TestCanonicalFormOfARequest(t *testing.T) {
	length, negative, huge := 0, -1, math.MaxInt32+1
	part := func(p sdk.Part) *sdk.SendMessageRequest {
		return &sdk.SendMessageRequest{Message: &sdk.Message{ID: "m", Role: sdk.MessageRoleUser, Parts: sdk.ContentParts{&p}}}
	}
	data := func(v any) *sdk.SendMessageRequest { return part(sdk.Part{Content: sdk.Data{Value: v}}) }
	deep := func(n int) map[string]any {
		v := any("x")
		for range n {
			v = []any{v}
		}
		return map[string]any{"a": v}
	}
	full := fullRequest()
	full.Message.SetMeta(SignedMessageURI, map[string]any{"claims": map[string]any{}})
	reqs := []*sdk.SendMessageRequest{
		nil,
		{},
		{Message: &sdk.Message{}},
		{Message: &sdk.Message{Role: sdk.MessageRoleAgent}},
		{Message: &sdk.Message{Role: "ROLE_KING"}},
		full, fullRequest(),
		{Message: &sdk.Message{Role: sdk.MessageRoleUser, Metadata: map[string]any{}, Extensions: []string{}, ReferenceTasks: []sdk.TaskID{""}}, Metadata: map[string]any{}, Config: &sdk.SendMessageConfig{}},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser, Metadata: map[string]any{SignedMessageURI: 1.0}}},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser, Metadata: map[string]any{"": nil}}},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser, Parts: sdk.ContentParts{nil}}},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser, ContextID: "\xff"}},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser}, Metadata: deep(maxNesting)},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser}, Metadata: deep(maxNesting + 1)},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser}, Config: &sdk.SendMessageConfig{HistoryLength: &length, ReturnImmediately: true, PushConfig: &sdk.PushConfig{Auth: &sdk.PushAuthInfo{}}}},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser}, Config: &sdk.SendMessageConfig{HistoryLength: &negative}},
		{Message: &sdk.Message{Role: sdk.MessageRoleUser}, Config: &sdk.SendMessageConfig{HistoryLength: &huge}},
		part(sdk.Part{}), part(sdk.Part{Content: sdk.Text("")}), part(sdk.Part{Content: sdk.Text("\xed\xa0\x80")}), part(sdk.Part{Content: sdk.Raw(nil)}), part(sdk.Part{Content: sdk.Raw{0xfb, 0xff}}), part(sdk.Part{Content: sdk.URL("u")}),
		part(sdk.Part{Content: sdk.Text("\u2028\x7f\x00\"\\\n</é\U0001f980"), Filename: "f", MediaType: "m", Metadata: map[string]any{"\U0001f980": true, "\ufb33": false}}),
		data(nil), data("text"), data([]any{1.0}), data(map[string]any(nil)), data(map[string]any{}), data(deep(maxNesting - 1)), data(deep(maxNesting)), data(deep(maxNesting + 1)),
		data(map[string]any{"i": 1, "i8": int8(-8), "u64": uint64(1 << 53), "f32": float32(0.1)}), data(map[string]any{"u64": uint64(1<<53 - 1), "f32": float32(0.1), "b": []byte{1}, "n": json.Number("1e2")}),
		data(map[string]any{"m": map[string]any(nil), "l": []any(nil)}), data(map[string]any{"m": map[string]string{}}), data(map[string]any{"n": json.Number("x")}),
		data(map[string]any{"\xff": 1.0}), data(map[string]any{"a": "\xff"}), data(map[string]any{"a": math.NaN()}), data(map[string]any{"a": math.Inf(-1)}),
		data(map[string]any{"a": math.Copysign(0, -1), "b": 1e-7, "c": 123456.75, "d": -maxSafeInteger, "e": 5e-324, "f": 4.5e15, "g": 1e15 + 0.5}),
		data(map[string]any{"a": maxSafeInteger + 1}),
	}
	for _, req := range reqs {
		sameForm(t, req)
	}
	wide := map[string]any{}
	for name := range strings.FieldsSeq("q w e r t y u i o p a s d f g h j k l z x c v b n m Q W") {
		wide[name] = name
	}
	sameForm(t, data(wide))
}

// What comes over gRPC is not made by our reader of JSON.
func FuzzCanonicalRequest(f *testing.F) {
	for _, v := range makeVectors(f) {
		f.Add([]byte(v.Raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var loose sdk.SendMessageRequest
		if json.Unmarshal(raw, &loose) == nil {
			sameForm(t, &loose)
		}
		var p a2apb.SendMessageRequest
		if (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, &p) != nil {
			return
		}
		if req, err := pbconv.FromProtoSendMessageRequest(&p); err == nil {
			sameForm(t, req)
		}
	})
}
