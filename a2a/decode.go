package a2a

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Decode reads the one JSON document that raw is into what into points to,
// strictly: a member that nobody knows would be a wish that nobody heeds, and of
// two with one name (RFC 7493, 2.3) or with names that differ in case only another
// reader may heed the other one. Members of what is kept raw (json.RawMessage) may
// have any name, but not twice. Structs name all their members by tags, in lower case. The error
// is an [*Error] and names none of our types; what into points to is then undefined.
func Decode(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return Errorf(CodeInvalidRequest, "%s", decodeFault(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Errorf(CodeInvalidRequest, "it holds more than one JSON document")
	}
	// It is valid JSON, and no deeper than encoding/json reads.
	if err := checkMembers(json.NewDecoder(bytes.NewReader(raw)), reflect.TypeOf(into), ""); err != nil {
		return Errorf(CodeInvalidRequest, "%s", err)
	}
	return nil
}

// maxPath is how much of the names that lead to a member an error tells.
const maxPath = 60 // characters

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
			if len(at) < maxPath { // else each level of a deep document would copy all names above it
				of = strings.TrimPrefix(at+"."+name, ".")
			}
			if seen[name] {
				return fmt.Errorf("member %.*q is there twice", maxPath, of)
			}
			if seen[name] = true; fields != nil {
				if inside, ok = fields[name]; !ok {
					return fmt.Errorf("unknown field %.*q", maxPath, of)
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

// membersOf are the members of a struct by the names of its tags, with those of
// the structs embedded in it; else nil.
func membersOf(t reflect.Type) map[string]reflect.Type {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	out := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			maps.Copy(out, membersOf(f.Type))
			continue
		}
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

// decodeFault says what is wrong with JSON, without the names of our types.
func decodeFault(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return "it is no object, but a JSON " + wrong.Value
		}
		// encoding/json names embedded structs, too, by their types.
		names := slices.DeleteFunc(strings.Split(wrong.Field, "."), func(name string) bool { return name != "" && unicode.IsUpper(rune(name[0])) })
		return "member " + strconv.Quote(strings.Join(names, ".")) + " cannot be a JSON " + wrong.Value
	}
	if errors.Is(err, io.EOF) {
		return "it is empty"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}
