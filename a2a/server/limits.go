package server

import (
	"unicode"
	"unicode/utf8"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/agenticraft/node/a2a"
)

// Bounds of what a request names, beside its bytes: each costs more to look at
// than to send.
const (
	maxMessageID  = 256 // bytes
	maxContextID  = 128 // bytes
	maxTenant     = 128 // bytes, in a path
	maxParts      = 256 // of a message
	maxReferences = 256 // of a message to tasks, and to extensions
)

var errState = a2a.Errorf(a2a.CodeInvalidRequest, "status is not a state of tasks")

// checkProto refuses, before anything is done about it, what the codecs would
// drop without a word and what is too much to look at.
func checkProto(m any) *a2a.Error {
	if r, ok := m.(interface{ GetMessage() *a2apb.Message }); ok {
		switch message := r.GetMessage(); {
		case len(message.GetParts()) > maxParts:
			return a2a.Errorf(a2a.CodeTooLarge, "the message has more than %d parts", maxParts)
		case len(message.GetReferenceTaskIds()) > maxReferences || len(message.GetExtensions()) > maxReferences:
			return a2a.Errorf(a2a.CodeTooLarge, "the message names more than %d tasks or extensions", maxReferences)
		case countValues(m) > a2a.MaxValues:
			return a2a.Errorf(a2a.CodeTooLarge, "the request has more than %d values", a2a.MaxValues)
		}
	}
	if r, ok := m.(interface{ GetStatus() a2apb.TaskState }); ok && a2apb.TaskState_name[int32(r.GetStatus())] == "" {
		return errState
	}
	if r, ok := m.(interface {
		GetConfiguration() *a2apb.SendMessageConfiguration
	}); ok {
		m = r.GetConfiguration()
	}
	if r, ok := m.(interface{ GetHistoryLength() int32 }); ok && r.GetHistoryLength() < 0 {
		return errHistory
	}
	if r, ok := m.(interface{ GetPageSize() int32 }); ok && r.GetPageSize() < 0 {
		return a2a.Errorf(a2a.CodeInvalidRequest, "pageSize is negative")
	}
	return nil
}

// countValues is how many values the metadata and the data of a request hold, which
// may have come over gRPC.
func countValues(m any) int {
	n := 0
	var count func(v *structpb.Value)
	members := func(s *structpb.Struct) {
		for _, v := range s.GetFields() {
			count(v)
		}
	}
	count = func(v *structpb.Value) {
		n++
		for _, item := range v.GetListValue().GetValues() {
			count(item)
		}
		members(v.GetStructValue())
	}
	if r, ok := m.(*a2apb.SendMessageRequest); ok {
		members(r.GetMetadata())
		members(r.GetMessage().GetMetadata())
		for _, part := range r.GetMessage().GetParts() {
			members(part.GetMetadata())
			count(part.GetData())
		}
	}
	return n
}

// checkRequest refuses what the specification does not allow. A missing messageId
// it should; but the public suite, and so real clients, send none.
func checkRequest(req *sdk.SendMessageRequest) error {
	switch {
	case req == nil || req.Message == nil:
		return a2a.Errorf(a2a.CodeInvalidRequest, "the request has no message")
	case len(req.Message.ID) > maxMessageID:
		return a2a.Errorf(a2a.CodeInvalidRequest, "messageId is longer than %d bytes", maxMessageID)
	case len(req.Message.ContextID) > maxContextID:
		return a2a.Errorf(a2a.CodeInvalidRequest, "contextId is longer than %d bytes", maxContextID)
	case req.Config != nil && req.Config.HistoryLength != nil && *req.Config.HistoryLength < 0:
		return errHistory
	}
	return nil
}

// knownState reports whether the protocol has a state of this name.
func knownState(name string) bool {
	_, ok := a2apb.TaskState_value[name]
	return ok
}

// validTenant reports whether a path may begin with it.
func validTenant(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > maxTenant || !utf8.ValidString(name) {
		return false
	}
	for _, c := range name {
		if unicode.IsControl(c) || c == '/' {
			return false
		}
	}
	return true
}
