package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"go.starlark.net/starlark"
)

var errTooLarge = errors.New("result is too large")

// encodeResult writes the value of "result" as JSON of at most limit bytes:
// exactly or not at all. Integers of any size are written in full, floats keep
// a point or exponent, dicts keep their order.
func encodeResult(v starlark.Value, limit int64) ([]byte, error) {
	e := &encoder{limit: limit}
	if err := e.encode(v, 0); err != nil {
		return nil, err
	}
	return e.out.Bytes(), nil
}

type encoder struct {
	out   bytes.Buffer
	limit int64
}

func (e *encoder) encode(v starlark.Value, depth int) error {
	switch v := v.(type) {
	case starlark.NoneType:
		e.out.WriteString("null")
	case starlark.Bool:
		e.out.WriteString(strconv.FormatBool(bool(v)))
	case starlark.Int:
		// A digit needs more than 3 bits; the conversion itself is dear.
		if int64(v.BigInt().BitLen())/4 > e.limit {
			return e.tooLarge()
		}
		e.out.WriteString(v.String())
	case starlark.Float:
		text, err := formatFloat(float64(v))
		if err != nil {
			return err
		}
		e.out.WriteString(text)
	case starlark.String:
		return e.text(string(v))
	case *starlark.Dict:
		return e.dict(v, depth)
	case *starlark.List, starlark.Tuple:
		return e.list(v.(starlark.Indexable), depth)
	case *starlark.Set:
		return errors.New("result contains a set, which JSON has not; use list(...)")
	case starlark.Bytes:
		return errors.New("result contains bytes, which JSON has not; use str(...)")
	case *starlark.Function, *starlark.Builtin:
		return errors.New("result contains a function, which JSON has not; call it")
	case starlark.Indexable: // a range
		return e.list(v, depth)
	default:
		return fmt.Errorf("result contains a value of type %s, which JSON has not", v.Type())
	}
	return e.check()
}

// maxDepth is sandbox.MaxValueDepth, whose package is too heavy for this helper.
const maxDepth = 64

// errTooDeep also ends what contains itself.
var errTooDeep = fmt.Errorf("result contains itself or is nested deeper than %d levels", maxDepth)

// list writes v, around which there are depth lists and dicts.
func (e *encoder) list(v starlark.Indexable, depth int) error {
	if depth == maxDepth {
		return errTooDeep
	}
	e.out.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			e.out.WriteByte(',')
		}
		if err := e.encode(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	e.out.WriteByte(']')
	return e.check()
}

func (e *encoder) dict(d *starlark.Dict, depth int) error {
	if depth == maxDepth {
		return errTooDeep
	}
	seen := make(map[string]bool, d.Len())
	e.out.WriteByte('{')
	for i, item := range d.Items() {
		if i > 0 {
			e.out.WriteByte(',')
		}
		key, err := keyText(item[0])
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("result has a dict with two keys that JSON writes as %.40q", key)
		}
		seen[key] = true
		if err := e.text(key); err != nil {
			return err
		}
		e.out.WriteByte(':')
		if err := e.encode(item[1], depth+1); err != nil {
			return err
		}
	}
	e.out.WriteByte('}')
	return e.check()
}

// keyText writes a key as Python's json does.
func keyText(k starlark.Value) (string, error) {
	switch k := k.(type) {
	case starlark.String:
		return string(k), nil
	case starlark.Int:
		const most = 4096 // bits
		if k.BigInt().BitLen() > most {
			return "", fmt.Errorf("result has a dict with a key of more than %d bits", most)
		}
		return k.String(), nil
	case starlark.Bool:
		return strconv.FormatBool(bool(k)), nil
	case starlark.NoneType:
		return "null", nil
	case starlark.Float:
		return formatFloat(float64(k))
	}
	return "", fmt.Errorf("result has a dict with a key of type %s, which JSON has not", k.Type())
}

func (e *encoder) text(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("result contains a string that is not valid UTF-8")
	}
	if int64(len(s)) > e.limit-int64(e.out.Len()) {
		return e.tooLarge()
	}
	enc := json.NewEncoder(&e.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	e.out.Truncate(e.out.Len() - 1) // the newline
	return e.check()
}

func (e *encoder) check() error {
	if int64(e.out.Len()) > e.limit {
		return e.tooLarge()
	}
	return nil
}

func (e *encoder) tooLarge() error {
	return fmt.Errorf("%w: its JSON has more than %d bytes", errTooLarge, e.limit)
}

// formatFloat writes a float so that it stays one: 30.0, not 30.
func formatFloat(f float64) (string, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "", fmt.Errorf("result contains %v, which JSON has not", starlark.Float(f))
	}
	text := strconv.FormatFloat(f, 'g', -1, 64)
	if bytes.ContainsAny([]byte(text), ".e") {
		return text, nil
	}
	return text + ".0", nil
}
