package a2a

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/gowebpki/jcs"
)

const (
	maxNesting     = 100 // levels of lists and objects in outside JSON
	maxEnvelope    = 8   // levels of a request around its data
	maxSafeInteger = float64(1<<53) - 1
)

// MarshalRequest gives the canonical JSON (RFC 8785 over ProtoJSON) of a
// request, its signature included: the bytes that evidence and receipts keep.
func MarshalRequest(req *sdk.SendMessageRequest) ([]byte, error) {
	return canonicalRequest(nil, req, "")
}

// canonicalRequest appends the canonical form of a request to out, without the
// message's metadata named without. It is what protojson and then [canonicalize]
// would give (FuzzCanonicalRequest holds it to that), in one walk over the
// request. What that form would lose or change is refused: what is signed must be
// what is read.
func canonicalRequest(out []byte, req *sdk.SendMessageRequest, without string) ([]byte, error) {
	w := canonicalWriter{out: out}
	w.request(req, without)
	if w.err != nil {
		return nil, w.err
	}
	if size := len(w.out) - len(out); size > MaxRequestBytes {
		return nil, Errorf(CodeTooLarge, "request has %d bytes, at most %d are accepted", size, MaxRequestBytes)
	}
	return w.out, nil
}

// canonicalLoose appends the canonical form of a loose JSON value to out.
func canonicalLoose(out []byte, v any) ([]byte, error) {
	w := canonicalWriter{out: out}
	if w.value(v, 0); w.err != nil {
		return nil, w.err
	}
	return w.out, nil
}

// canonicalWriter writes values in their canonical form, the members of an object
// in the order of RFC 8785. Its first error stays.
type canonicalWriter struct {
	out    []byte
	err    error
	signed bool // zero has a sign, which the canonical form takes away: it fails
}

func (w *canonicalWriter) fail(format string, args ...any) {
	if w.err == nil {
		w.err = Errorf(CodeInvalidRequest, format, args...)
	}
}

func (w *canonicalWriter) request(req *sdk.SendMessageRequest, without string) {
	if req == nil || req.Message == nil {
		w.fail("request has no message")
		return
	}
	w.put('{')
	if req.Config != nil {
		w.configuration(req.Config)
	}
	w.name("message")
	w.message(req.Message, without)
	w.metadata(req.Metadata, "")
	w.member("tenant", req.Tenant)
	w.put('}')
}

func (w *canonicalWriter) configuration(c *sdk.SendMessageConfig) {
	w.name("configuration")
	w.put('{')
	list(w, "acceptedOutputModes", c.AcceptedOutputModes)
	if c.HistoryLength != nil {
		if *c.HistoryLength < 0 || *c.HistoryLength > math.MaxInt32 {
			w.fail("historyLength is out of range")
		}
		w.name("historyLength")
		w.out = strconv.AppendInt(w.out, int64(*c.HistoryLength), 10)
	}
	if c.ReturnImmediately {
		w.name("returnImmediately")
		w.out = append(w.out, "true"...)
	}
	if push := c.PushConfig; push != nil {
		w.name("taskPushNotificationConfig")
		w.put('{')
		if push.Auth != nil {
			w.name("authentication")
			w.put('{')
			w.member("credentials", push.Auth.Credentials)
			w.member("scheme", push.Auth.Scheme)
			w.put('}')
		}
		w.member("id", push.ID)
		w.member("taskId", string(push.TaskID))
		w.member("tenant", push.Tenant)
		w.member("token", push.Token)
		w.member("url", push.URL)
		w.put('}')
	}
	w.put('}')
}

func (w *canonicalWriter) message(m *sdk.Message, without string) {
	if m.Role != sdk.MessageRoleUser && m.Role != sdk.MessageRoleAgent {
		w.fail("message has no valid role")
	}
	w.put('{')
	w.member("contextId", m.ContextID)
	list(w, "extensions", m.Extensions)
	w.member("messageId", m.ID)
	w.metadata(m.Metadata, without)
	array(w, "parts", m.Parts, w.part)
	list(w, "referenceTaskIds", m.ReferenceTasks)
	w.member("role", string(m.Role))
	w.member("taskId", string(m.TaskID))
	w.put('}')
}

func (w *canonicalWriter) part(p *sdk.Part) {
	if p == nil || p.Content == nil {
		w.fail("message has an empty part")
		return
	}
	w.put('{')
	if data, ok := p.Content.(sdk.Data); ok {
		object, ok := data.Value.(map[string]any)
		if !ok {
			w.fail("the value of a data part is not an object")
		}
		w.name("data")
		w.value(object, 0)
	}
	w.member("filename", p.Filename)
	w.member("mediaType", p.MediaType)
	w.metadata(p.Metadata, "")
	switch content := p.Content.(type) {
	case sdk.Data:
	case sdk.Raw:
		w.name("raw")
		w.base64(content)
	case sdk.Text:
		w.name("text")
		w.text(string(content))
	case sdk.URL:
		w.name("url")
		w.text(string(content))
	default:
		w.fail("a part is of no known kind")
	}
	w.put('}')
}

// metadata is left out if it has no members: the SDK's JSON omits it, its proto
// keeps it, and a signature must survive both.
func (w *canonicalWriter) metadata(m map[string]any, without string) {
	n := len(m)
	if _, ok := m[without]; ok && without != "" {
		n--
	}
	if n > 0 {
		w.name("metadata")
		w.members(m, without, 0)
	}
}

// value writes a loose JSON value, or another Go value that structpb takes for one.
func (w *canonicalWriter) value(v any, depth int) {
	if depth > maxNesting {
		w.fail("data is nested deeper than %d levels", maxNesting)
	}
	if w.err != nil {
		return
	}
	switch v := v.(type) {
	case nil:
		w.out = append(w.out, "null"...)
	case bool:
		w.out = strconv.AppendBool(w.out, v)
	case float64:
		w.number(v)
	case string:
		w.text(v)
	case map[string]any:
		w.members(v, "", depth+1)
	case []any:
		w.put('[')
		for i, item := range v {
			if i > 0 {
				w.put(',')
			}
			w.value(item, depth+1)
		}
		w.put(']')
	case json.Number:
		n, err := v.Float64()
		if err != nil {
			w.fail("number %.40q is out of range", string(v))
		}
		w.number(n)
	case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32:
		w.number(reflect.ValueOf(v).Convert(reflect.TypeFor[float64]()).Float())
	case []byte:
		w.base64(v)
	default:
		w.fail("%T is no JSON value", v)
	}
}

func (w *canonicalWriter) members(m map[string]any, without string, depth int) {
	var few [16]string // most objects have fewer members
	names := few[:0]
	for name := range m {
		if name != without || without == "" {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, compareUTF16[string])
	w.put('{')
	for i, name := range names {
		if i > 0 {
			w.put(',')
		}
		w.text(name)
		w.put(':')
		w.value(m[name], depth)
	}
	w.put('}')
}

// number refuses what not every reader would see alike: beyond 2^53-1 a double no
// longer tells neighbouring integers apart.
func (w *canonicalWriter) number(n float64) {
	switch {
	case math.IsNaN(n) || math.Abs(n) > maxSafeInteger:
		w.fail("number beyond 2^53-1; send it as a string")
	case w.signed && n == 0 && math.Signbit(n):
		w.fail("zero below zero")
	case n == math.Trunc(n):
		w.out = strconv.AppendInt(w.out, int64(n), 10)
	default:
		text, err := jcs.NumberToJSON(n)
		if err != nil {
			w.fail("number: %v", err)
		}
		w.out = append(w.out, text...)
	}
}

func (w *canonicalWriter) text(s string) {
	if !utf8.ValidString(s) {
		w.fail("text is not UTF-8")
		return
	}
	w.out = appendQuoted(w.out, s)
}

func (w *canonicalWriter) base64(b []byte) {
	w.put('"')
	w.out = base64.StdEncoding.AppendEncode(w.out, b)
	w.put('"')
}

func (w *canonicalWriter) put(c byte) { w.out = append(w.out, c) }

// name begins a member of an object: no value ends as an object begins.
func (w *canonicalWriter) name(name string) {
	if w.out[len(w.out)-1] != '{' {
		w.put(',')
	}
	w.out = append(append(append(w.out, '"'), name...), '"', ':')
}

// member is a text that is left out if it is empty, as ProtoJSON does.
func (w *canonicalWriter) member(name, value string) {
	if value != "" {
		w.name(name)
		w.text(value)
	}
}

// list is a list of texts that is left out if it is empty.
func list[T ~string](w *canonicalWriter, name string, items []T) {
	array(w, name, items, func(item T) { w.text(string(item)) })
}

// array is a list that is left out if it is empty.
func array[T any](w *canonicalWriter, name string, items []T, one func(T)) {
	if len(items) == 0 {
		return
	}
	w.name(name)
	w.put('[')
	for i, item := range items {
		if i > 0 {
			w.put(',')
		}
		one(item)
	}
	w.put(']')
}
