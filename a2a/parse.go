package a2a

import (
	"encoding/json"
	"strings"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

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
	if n := countValues(raw); n > MaxValues {
		return nil, Errorf(CodeTooLarge, "request has more than %d values", MaxValues)
	}
	options := protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting + maxEnvelope}
	if err := options.Unmarshal(raw, p); err != nil {
		return nil, Errorf(CodeInvalidRequest, "not a valid %s: %s", p.ProtoReflect().Descriptor().Name(), Clip(err.Error()))
	}
	out, err := protojson.Marshal(p)
	if err != nil {
		return nil, Errorf(CodeInvalidRequest, "not a valid %s: %s", p.ProtoReflect().Descriptor().Name(), Clip(err.Error()))
	}
	return out, nil
}

// MaxValues is how many members and items a request may have, all its lists and
// objects together: a value of a few bytes costs as much as one of hundreds.
const MaxValues = 20_000

// countValues is how many commas, and openings of lists and objects, JSON has
// outside its strings: not fewer than its members and items.
func countValues(raw []byte) int {
	n := 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case ',', '[', '{':
			n++
		case '"':
			for i++; i < len(raw) && raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		}
	}
	return n
}

// Clip is as much of an outside text as an error repeats to its sender.
func Clip(s string) string {
	const most = 200 // bytes
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
