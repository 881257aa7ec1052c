package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/agenticraft/node/a2a"
)

// readQuery reads the query of a URL as the other bindings read JSON: by the names of
// the proto in both spellings, each once, with a value that the field can hold. The
// SDK's codec would drop the rest without a word, which is a filter that does not
// hold. It gives the query as the codec reads it, and the message that it is.
func (r *route) readQuery(req *http.Request) (url.Values, proto.Message, *rpcError) {
	given, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return nil, nil, badQuery("the query of the URL is malformed")
	}
	for name, values := range given {
		if len(values) > 1 {
			return nil, nil, badQuery("the query has %.60q twice", name)
		}
	}
	if r.query == nil || req.Method != http.MethodGet {
		return nil, nil, nil
	}
	m := r.query()
	members := map[string]any{}
	for name, values := range given {
		field := queryField(m, name)
		if field == nil || values[0] == "" {
			continue // unknown, as unknown members are; or not given
		}
		if _, twice := members[field.JSONName()]; twice {
			return nil, nil, badQuery("the query has %q twice", field.JSONName())
		}
		members[field.JSONName()] = queryValue(field, values[0])
	}
	out, failed := asQuery(members, m)
	return out, m, failed
}

func badQuery(format string, args ...any) *rpcError {
	return &rpcError{0, a2a.Errorf(a2a.CodeInvalidRequest, format, args...)}
}

// queryField is the field of m that a parameter of the query names; nil if it names
// none, or one that the path holds.
func queryField(m proto.Message, name string) protoreflect.FieldDescriptor {
	fields := m.ProtoReflect().Descriptor().Fields()
	field := fields.ByJSONName(name)
	if field == nil {
		field = fields.ByTextName(name)
	}
	if field == nil || field.Name() == "id" || field.Name() == "task_id" || field.Name() == "tenant" {
		return nil
	}
	return field
}

// queryValue is a parameter of the query as ProtoJSON writes it; what the field cannot
// hold stays the text that it is, for ProtoJSON to refuse.
func queryValue(field protoreflect.FieldDescriptor, text string) any {
	switch field.Kind() {
	case protoreflect.BoolKind:
		if v, err := strconv.ParseBool(text); err == nil {
			return v
		}
	case protoreflect.EnumKind:
		if v, err := strconv.ParseInt(text, 10, 32); err == nil {
			return v
		}
	}
	return text
}

// asQuery checks members as those of m and gives them as a query.
func asQuery(members map[string]any, m proto.Message) (url.Values, *rpcError) {
	raw, err := json.Marshal(members)
	if err != nil { // texts, numbers and booleans: cannot be
		return nil, badQuery("the query of the URL is malformed")
	}
	normal, failed := normalized(raw, m)
	if failed != nil {
		return nil, failed
	}
	numbers := json.NewDecoder(bytes.NewReader(normal))
	numbers.UseNumber()
	var values map[string]any
	if err := numbers.Decode(&values); err != nil { // ProtoJSON: cannot be
		return nil, badQuery("the query of the URL is malformed")
	}
	out := url.Values{}
	for name, v := range values {
		out.Set(name, fmt.Sprint(v))
	}
	return out, nil
}

// paging is a handler whose lists of push configurations have the pages that the
// query names: the SDK's codec reads neither their size nor their token.
type paging struct{ noting }

// ListTaskPushConfigs implements the SDK's RequestHandler.
func (p paging) ListTaskPushConfigs(ctx context.Context, req *sdk.ListTaskPushConfigRequest) (*sdk.ListTaskPushConfigResponse, error) {
	if page, ok := ctx.Value(queryKey).(*a2apb.ListTaskPushNotificationConfigsRequest); ok {
		req.PageSize, req.PageToken = int(page.GetPageSize()), page.GetPageToken()
	}
	return p.noting.ListTaskPushConfigs(ctx, req)
}
