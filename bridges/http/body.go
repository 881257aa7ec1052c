package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/agenticraft/node/a2a"
)

// decode reads one JSON document, strictly: a member that nobody knows would be a
// wish that nobody heeds, and of two with one name (RFC 7493, 2.3) or with names
// that differ in case only another reader may heed the other one.
func decode(body io.Reader, into any) error {
	raw, err := io.ReadAll(body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &unread{a2a.Errorf(a2a.CodeTooLarge, "the request body is over %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return &unread{a2a.Errorf(a2a.CodeInvalidRequest, "the body ended early")}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return &unread{a2a.Errorf(a2a.CodeInvalidRequest, "the body is not what is expected here: %s", fault(err))}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return &unread{a2a.Errorf(a2a.CodeInvalidRequest, "the body holds more than one JSON document")}
	}
	// It is valid JSON, and no deeper than encoding/json reads.
	if err := checkMembers(json.NewDecoder(bytes.NewReader(raw)), reflect.TypeOf(into), ""); err != nil {
		return &unread{a2a.Errorf(a2a.CodeInvalidRequest, "the body is not what is expected here: %s", err)}
	}
	return nil
}

// checkMembers reads one value, and refuses members that are there twice and,
// where it is read into a struct, such as are not written as its tags write them.
func checkMembers(d *json.Decoder, t reflect.Type, at string) error {
	token, err := d.Token()
	open, ok := token.(json.Delim)
	if err != nil || !ok {
		return err
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	fields, seen := membersOf(t), map[string]bool{}
	for d.More() {
		of, inside := at, elementOf(t)
		if open == '{' {
			token, err := d.Token()
			name, ok := token.(string)
			if err != nil || !ok {
				return errors.New("a member has no name") // cannot be: it is valid JSON
			}
			if of = strings.TrimPrefix(at+"."+name, "."); seen[name] {
				return fmt.Errorf("member %.60q is there twice", of)
			}
			if seen[name] = true; fields != nil {
				if inside, ok = fields[name]; !ok {
					return fmt.Errorf("unknown field %.60q", of)
				}
			}
		}
		if err := checkMembers(d, inside, of); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// membersOf are the members of a struct by the names of its tags, else nil.
func membersOf(t reflect.Type) map[string]reflect.Type {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	out := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out[name] = f.Type
	}
	return out
}

// elementOf is the type of what a map or a list holds, else nil.
func elementOf(t reflect.Type) reflect.Type {
	if t == nil || t.Kind() != reflect.Map && t.Kind() != reflect.Slice {
		return nil
	}
	return t.Elem()
}

// fault says what is wrong with JSON, without the names of our types.
func fault(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return "it is no object, but a JSON " + wrong.Value
		}
		return "member " + strconv.Quote(wrong.Field) + " cannot be a JSON " + wrong.Value
	}
	if errors.Is(err, io.EOF) {
		return "it is empty"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// unread is why a body could not be read.
type unread struct{ why *a2a.Error }

func (u *unread) Error() string { return u.why.Error() }
func (u *unread) Unwrap() error { return u.why }
