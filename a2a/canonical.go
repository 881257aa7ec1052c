package a2a

import (
	"encoding/json"
	"math"
	"unicode/utf8"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1/pbconv"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	maxNesting     = 100 // levels of lists and objects in outside JSON
	maxSafeInteger = float64(1<<53) - 1
)

// MarshalRequest gives the canonical JSON (RFC 8785 over ProtoJSON) of a
// request, its signature included: the bytes that evidence and receipts keep.
func MarshalRequest(req *sdk.SendMessageRequest) ([]byte, error) {
	p, err := toProto(req)
	if err != nil {
		return nil, err
	}
	return canonicalProto(p)
}

// ParseRequest reads a request from ProtoJSON. Duplicate members, unknown
// enum values and numbers that do not fit are refused; unknown members are
// dropped, as the A2A specification asks.
func ParseRequest(raw []byte) (*sdk.SendMessageRequest, error) {
	if len(raw) > MaxRequestBytes {
		return nil, Errorf(CodeTooLarge, "request has %d bytes, at most %d are accepted", len(raw), MaxRequestBytes)
	}
	var p a2apb.SendMessageRequest
	canonical, err := Normalize(raw, &p)
	if err != nil {
		return nil, err
	}
	var req sdk.SendMessageRequest
	if err := json.Unmarshal(canonical, &req); err != nil {
		return nil, Errorf(CodeInvalidRequest, "request: %v", err)
	}
	if req.Message == nil {
		return nil, Errorf(CodeInvalidRequest, "request has no message")
	}
	return &req, nil
}

// Normalize reads outside ProtoJSON into p and gives it back in the form that
// the SDK's decoders understand (camelCase names, no duplicates, no unknown
// members). An error is an [*Error].
func Normalize(raw []byte, p proto.Message) ([]byte, error) {
	options := protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting}
	if err := options.Unmarshal(raw, p); err != nil {
		return nil, Errorf(CodeInvalidRequest, "not a valid %s: %s", p.ProtoReflect().Descriptor().Name(), clip(err.Error()))
	}
	out, err := protojson.Marshal(p)
	if err != nil {
		return nil, Errorf(CodeInvalidRequest, "not a valid %s: %s", p.ProtoReflect().Descriptor().Name(), clip(err.Error()))
	}
	return out, nil
}

// toProto converts a request, refusing everything that the conversion would
// lose or change: what is signed must be what is read.
func toProto(req *sdk.SendMessageRequest) (*a2apb.SendMessageRequest, error) {
	if req == nil || req.Message == nil {
		return nil, Errorf(CodeInvalidRequest, "request has no message")
	}
	if role := req.Message.Role; role != sdk.MessageRoleUser && role != sdk.MessageRoleAgent {
		return nil, Errorf(CodeInvalidRequest, "message has no valid role")
	}
	for _, part := range req.Message.Parts {
		if part == nil || part.Content == nil {
			return nil, Errorf(CodeInvalidRequest, "message has an empty part")
		}
	}
	if c := req.Config; c != nil && c.HistoryLength != nil && (*c.HistoryLength < 0 || *c.HistoryLength > math.MaxInt32) {
		return nil, Errorf(CodeInvalidRequest, "historyLength is out of range")
	}
	p, err := pbconv.ToProtoSendMessageRequest(req)
	if err != nil {
		return nil, Errorf(CodeInvalidRequest, "request: %s", clip(err.Error()))
	}
	if size := proto.Size(p); size > MaxRequestBytes {
		return nil, Errorf(CodeTooLarge, "request has %d bytes, at most %d are accepted", size, MaxRequestBytes)
	}
	if err := checkNumbers(p); err != nil {
		return nil, err
	}
	dropEmpty(p)
	return p, nil
}

// canonicalProto is JCS over ProtoJSON.
func canonicalProto(p proto.Message) ([]byte, error) {
	raw, err := protojson.Marshal(p)
	if err != nil {
		return nil, Errorf(CodeInvalidRequest, "request: %s", clip(err.Error()))
	}
	canonical, err := canonicalize(raw)
	if err != nil {
		return nil, Errorf(CodeInvalidRequest, "request: %s", clip(err.Error()))
	}
	if len(canonical) > MaxRequestBytes {
		return nil, Errorf(CodeTooLarge, "request has %d bytes, at most %d are accepted", len(canonical), MaxRequestBytes)
	}
	return canonical, nil
}

// dropEmpty removes metadata without members: the SDK's JSON omits it, its
// proto keeps it, and a signature must survive both.
func dropEmpty(p *a2apb.SendMessageRequest) {
	if len(p.GetMetadata().GetFields()) == 0 {
		p.Metadata = nil
	}
	if len(p.GetMessage().GetMetadata().GetFields()) == 0 {
		p.Message.Metadata = nil
	}
	for _, part := range p.GetMessage().GetParts() {
		if len(part.GetMetadata().GetFields()) == 0 {
			part.Metadata = nil
		}
	}
}

// checkNumbers refuses numbers that not every reader would see alike: beyond
// 2^53-1 a double no longer tells neighbouring integers apart.
func checkNumbers(p *a2apb.SendMessageRequest) error {
	roots := []*structpb.Struct{p.GetMetadata(), p.GetMessage().GetMetadata()}
	for _, part := range p.GetMessage().GetParts() {
		roots = append(roots, part.GetMetadata())
		if err := checkValue(part.GetData(), 0); err != nil {
			return err
		}
	}
	for _, root := range roots {
		for _, v := range root.GetFields() {
			if err := checkValue(v, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkValue(v *structpb.Value, depth int) error {
	if depth > maxNesting {
		return Errorf(CodeInvalidRequest, "data is nested deeper than %d levels", maxNesting)
	}
	switch kind := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		if math.IsNaN(kind.NumberValue) || math.Abs(kind.NumberValue) > maxSafeInteger {
			return Errorf(CodeInvalidRequest, "number beyond 2^53-1; send it as a string")
		}
	case *structpb.Value_ListValue:
		for _, item := range kind.ListValue.GetValues() {
			if err := checkValue(item, depth+1); err != nil {
				return err
			}
		}
	case *structpb.Value_StructValue:
		for _, item := range kind.StructValue.GetFields() {
			if err := checkValue(item, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// clip keeps an outside text, quoted back to its sender, short and printable.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most]
		for !utf8.ValidString(s) && len(s) > 0 {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return s
}
