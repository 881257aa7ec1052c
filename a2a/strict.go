package a2a

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// canonicalJSON is RFC 8785; it refuses duplicate members and lone surrogates.
func canonicalJSON(raw []byte) ([]byte, error) {
	out, err := canonicalize(raw)
	if err != nil {
		return nil, Errorf(CodeInvalidRequest, "not valid JSON: %s", clip(err.Error()))
	}
	return out, nil
}

// decodeExactly decodes JSON into the struct that out points to, refusing
// unknown members and members that differ from the known in case only, which
// encoding/json would take. The caller has refused duplicates.
func decodeExactly(raw []byte, out any) error {
	var loose any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&loose); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the value")
	}
	if err := knownMembers(loose, reflect.TypeOf(out).Elem(), ""); err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

var (
	rawMessageType  = reflect.TypeFor[json.RawMessage]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// knownMembers checks that every object in v has only members that t has.
func knownMembers(v any, t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == rawMessageType || reflect.PointerTo(t).Implements(textUnmarshaler) {
		return nil
	}
	switch v := v.(type) {
	case []any:
		if t.Kind() != reflect.Slice {
			return nil // json.Unmarshal will say what is wrong
		}
		for i, item := range v {
			if err := knownMembers(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return nil
		}
		fields := memberTypes(t)
		for name, item := range v {
			field, ok := fields[name]
			where := strings.TrimPrefix(path+"."+name, ".")
			if !ok {
				known := make([]string, 0, len(fields))
				for k := range fields {
					known = append(known, k)
				}
				slices.Sort(known)
				return fmt.Errorf("unknown member %.60q (known: %s)", where, strings.Join(known, ", "))
			}
			if err := knownMembers(item, field, where); err != nil {
				return err
			}
		}
	}
	return nil
}

func memberTypes(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
	}
	return fields
}
