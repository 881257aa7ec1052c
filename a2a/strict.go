package a2a

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// canonicalJSON is RFC 8785; it refuses duplicate members and lone surrogates.
func canonicalJSON(raw []byte) ([]byte, error) {
	out, err := canonicalize(raw)
	if err != nil {
		return nil, Errorf(CodeInvalidRequest, "not valid JSON: %s", Clip(err.Error()))
	}
	return out, nil
}

// decodeExactly decodes canonical JSON into the struct that out points to, as
// [decodeLoose] does.
func decodeExactly(canonical []byte, out any) error {
	var v any
	if err := json.Unmarshal(canonical, &v); err != nil {
		return err
	}
	return decodeLoose(v, out)
}

// errNotLoose is the error of a Go value that encoding/json would not have made.
var errNotLoose = errors.New("not a loose JSON value")

// decodeLoose reads a loose JSON value, such as encoding/json makes and the SDK
// holds, into the struct that out points to: what encoding/json would do with its
// text (FuzzDecodeLoose holds it to that), but without the text, and refusing
// unknown members and members that differ from the known in case only. The fields
// are texts, integers, bytes, structs and lists of those; tags name them all.
func decodeLoose(v, out any) error {
	return setLoose(reflect.ValueOf(out).Elem(), v, "")
}

func setLoose(to reflect.Value, v any, path string) error {
	kind := to.Kind()
	switch v := v.(type) {
	case nil:
		return nil // as encoding/json
	case string:
		switch {
		case !utf8.ValidString(v):
			return errNotLoose
		case kind == reflect.String:
			to.SetString(v)
			return nil
		case kind == reflect.Slice && to.Type().Elem().Kind() == reflect.Uint8:
			content, err := base64.StdEncoding.DecodeString(v)
			if err != nil {
				return fmt.Errorf("%s is not base64: %w", where(path), err)
			}
			to.SetBytes(content)
			return nil
		}
	case float64:
		if to.CanInt() {
			if v != math.Trunc(v) || math.Abs(v) > maxSafeInteger || to.OverflowInt(int64(v)) {
				return fmt.Errorf("%s is not an integer in range", where(path))
			}
			to.SetInt(int64(v))
			return nil
		}
	case bool:
	case []any:
		if kind == reflect.Slice && to.Type().Elem().Kind() != reflect.Uint8 {
			return setList(to, v, path)
		}
	case map[string]any:
		if kind == reflect.Struct {
			return setMembers(to, v, path)
		}
	default:
		return errNotLoose
	}
	return fmt.Errorf("%s is not %s", where(path), wanted(to))
}

func setList(to reflect.Value, items []any, path string) error {
	to.Set(reflect.MakeSlice(to.Type(), len(items), len(items)))
	for i, item := range items {
		if err := setLoose(to.Index(i), item, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

func setMembers(to reflect.Value, members map[string]any, path string) error {
	fields := fieldsOf(to.Type())
	for name, v := range members {
		field, ok := fields[name]
		at := name
		if path != "" {
			at = path + "." + name
		}
		if !ok {
			known := make([]string, 0, len(fields))
			for k := range fields {
				known = append(known, k)
			}
			slices.Sort(known)
			return fmt.Errorf("unknown member %.60q (known: %s)", at, strings.Join(known, ", "))
		}
		if err := setLoose(to.Field(field), v, at); err != nil {
			return err
		}
	}
	return nil
}

func where(path string) string {
	if path == "" {
		return "the value"
	}
	return fmt.Sprintf("%.60q", path)
}

func wanted(to reflect.Value) string {
	switch {
	case to.CanInt():
		return "an integer"
	case to.Kind() == reflect.Slice && to.Type().Elem().Kind() != reflect.Uint8:
		return "a list"
	case to.Kind() == reflect.Struct:
		return "an object"
	}
	return "a text"
}

// fieldsByType remembers, for each struct type, which field a member is: a
// map[string]int.
var fieldsByType sync.Map

func fieldsOf(t reflect.Type) map[string]int {
	if fields, ok := fieldsByType.Load(t); ok {
		return fields.(map[string]int)
	}
	fields := make(map[string]int, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[name] = i
	}
	fieldsByType.Store(t, fields)
	return fields
}
