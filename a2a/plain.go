package a2a

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// Call is a JSON-RPC request of the method SendMessage.
type Call struct {
	ID      []byte // as it was written
	Request *sdk.SendMessageRequest
}

// Bounds of what [ReadCall] reads. What is beyond them has no haste.
const (
	maxPlainDepth  = 32
	maxPlainValues = 1000
	maxPlainParts  = 16
)

// ReadCall reads a JSON-RPC request as nearly all clients write one: SendMessage,
// in JSON with the members of the specification by their own names, none of them
// null, and an id that needs no escapes. Of any other, wrong ones included, it says
// false: [Normalize] and the SDK's codec read all, and give the same request
// (FuzzReadCall holds it to that), in four walks over it where here is one.
func ReadCall(body []byte) (Call, bool) {
	v, ok := parsePlain(body)
	if !ok {
		return Call{}, false
	}
	var call Call
	var version, method string
	r := plainReader{}
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "jsonrpc":
			version = r.text(v)
		case "method":
			method = r.text(v)
		case "id":
			call.ID = r.id(v)
		case "params":
			call.Request = r.request(v)
		default:
			return false
		}
		return true
	})
	return call, !r.odd && version == "2.0" && method == "SendMessage" && call.ID != nil && call.Request != nil
}

// parsePlain takes one JSON value apart, unless its canonical form would differ from
// it in more than its writing.
func parsePlain(raw []byte) (canonicalParsed, bool) {
	p := canonicalParser{rest: raw}
	v, err := p.value(0)
	p.space()
	return v, err == nil && len(p.rest) == 0 && !p.negativeZero
}

// plainReader makes the SDK's types of parsed JSON. odd says that there was
// something else than it knows.
type plainReader struct {
	odd    bool
	values int
}

// object calls fn for each member, which says whether it knows it.
func (r *plainReader) object(v canonicalParsed, fn func(name string, v canonicalParsed) bool) {
	if v.kind != '{' {
		r.odd = true
	}
	for _, m := range v.members {
		if r.odd || !fn(string(m.name), m.value) {
			r.odd = true
			return
		}
	}
}

// many reads a list.
func many[T any](r *plainReader, v canonicalParsed, one func(canonicalParsed) T) []T {
	if v.kind != '[' {
		r.odd = true
	}
	out := make([]T, 0, len(v.items))
	for _, item := range v.items {
		if r.odd {
			break
		}
		out = append(out, one(item))
	}
	return out
}

func (r *plainReader) text(v canonicalParsed) string {
	if v.kind != 0 || v.text[0] != '"' {
		r.odd = true
		return ""
	}
	body := v.text[1 : len(v.text)-1]
	at := bytes.IndexByte(body, '\\')
	if at < 0 {
		return string(body)
	}
	meant := make([]byte, 0, len(body))
	for at >= 0 {
		var err error
		if meant, body, err = unescape(append(meant, body[:at]...), body[at+1:]); err != nil {
			r.odd = true // cannot be: it was written canonically
			return ""
		}
		at = bytes.IndexByte(body, '\\')
	}
	return string(append(meant, body...))
}

// id is that of a call: a text that stands for itself, or a small natural number.
func (r *plainReader) id(v canonicalParsed) []byte {
	const exact = 15 // digits that are kept as they were written
	integer, _ := numberForm(v.text)
	switch {
	case v.kind != 0:
	case v.text[0] == '"' && bytes.IndexByte(v.text, '\\') < 0:
		return v.text
	case integer && v.text[0] != '-' && len(v.text) <= exact:
		return v.text
	}
	r.odd = true
	return nil
}

func (r *plainReader) flag(v canonicalParsed) bool {
	is := v.kind == 0 && string(v.text) == "true"
	r.odd = r.odd || !is && (v.kind != 0 || string(v.text) != "false")
	return is
}

func (r *plainReader) request(v canonicalParsed) *sdk.SendMessageRequest {
	req := new(sdk.SendMessageRequest)
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "tenant":
			req.Tenant = r.text(v)
		case "metadata":
			req.Metadata = r.metadata(v)
		case "configuration":
			req.Config = r.configuration(v)
		case "message":
			req.Message = r.message(v)
		default:
			return false
		}
		return true
	})
	r.odd = r.odd || req.Message == nil
	return req
}

func (r *plainReader) configuration(v canonicalParsed) *sdk.SendMessageConfig {
	c := new(sdk.SendMessageConfig)
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "returnImmediately":
			c.ReturnImmediately = r.flag(v)
		case "acceptedOutputModes":
			c.AcceptedOutputModes = texts[string](r, v)
		case "historyLength":
			n, err := strconv.ParseInt(string(v.text), 10, 32)
			r.odd = r.odd || v.kind != 0 || err != nil || n < 0
			length := int(n)
			c.HistoryLength = &length
		default:
			return false
		}
		return true
	})
	return c
}

func (r *plainReader) message(v canonicalParsed) *sdk.Message {
	m := new(sdk.Message)
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "messageId":
			m.ID = r.text(v)
		case "contextId":
			m.ContextID = r.text(v)
		case "taskId":
			m.TaskID = sdk.TaskID(r.text(v))
		case "role":
			m.Role = sdk.MessageRole(r.text(v))
		case "metadata":
			m.Metadata = r.metadata(v)
		case "extensions":
			m.Extensions = texts[string](r, v)
		case "referenceTaskIds":
			m.ReferenceTasks = texts[sdk.TaskID](r, v)
		case "parts":
			m.Parts = many(r, v, r.part)
		default:
			return false
		}
		return true
	})
	r.odd = r.odd || m.Role != sdk.MessageRoleUser && m.Role != sdk.MessageRoleAgent || len(m.Parts) == 0 || len(m.Parts) > maxPlainParts
	return m
}

func (r *plainReader) part(v canonicalParsed) *sdk.Part {
	p := new(sdk.Part)
	contents := 0
	r.object(v, func(name string, v canonicalParsed) bool {
		switch name {
		case "filename":
			p.Filename = r.text(v)
			return true
		case "mediaType":
			p.MediaType = r.text(v)
			return true
		case "metadata":
			p.Metadata = r.metadata(v)
			return true
		case "text":
			p.Content = sdk.Text(r.text(v))
		case "url":
			url := r.text(v)
			p.Content = sdk.URL(url)
			r.odd = r.odd || url == ""
		case "raw":
			p.Content = r.raw(v)
		case "data":
			value := r.loose(v, 0)
			p.Content = sdk.Data{Value: value}
			r.odd = r.odd || value == nil
		default:
			return false
		}
		contents++
		return true
	})
	r.odd = r.odd || contents != 1
	return p
}

// raw are bytes in base64, as most write it.
func (r *plainReader) raw(v canonicalParsed) sdk.Raw {
	text := r.text(v)
	out, err := base64.StdEncoding.Strict().DecodeString(text)
	r.odd = r.odd || err != nil || base64.StdEncoding.EncodedLen(len(out)) != len(text) // line breaks
	return out
}

func (r *plainReader) metadata(v canonicalParsed) map[string]any {
	m, _ := r.loose(v, 0).(map[string]any)
	r.odd = r.odd || v.kind != '{'
	return m
}

// loose is any JSON value.
func (r *plainReader) loose(v canonicalParsed, depth int) any {
	if r.values++; r.values > maxPlainValues || depth > maxPlainDepth {
		r.odd = true
	}
	switch {
	case r.odd:
		return nil
	case v.kind == '{':
		m := make(map[string]any, len(v.members))
		for _, member := range v.members {
			m[string(member.name)] = r.loose(member.value, depth+1)
		}
		return m
	case v.kind == '[':
		items := make([]any, len(v.items))
		for i, item := range v.items {
			items[i] = r.loose(item, depth+1)
		}
		return items
	case v.text[0] == '"':
		return r.text(v)
	case v.text[0] == 'n':
		return nil
	case v.text[0] == 't', v.text[0] == 'f':
		return r.flag(v)
	}
	n, err := strconv.ParseFloat(string(v.text), 64)
	r.odd = r.odd || err != nil || math.IsInf(n, 0)
	return n
}

// texts is a list of texts; nil if it is empty.
func texts[T ~string](r *plainReader, v canonicalParsed) []T {
	r.values += len(v.items)
	if r.odd = r.odd || r.values > maxPlainValues; r.odd || len(v.items) == 0 && v.kind == '[' {
		return nil
	}
	return many(r, v, func(item canonicalParsed) T { return T(r.text(item)) })
}
