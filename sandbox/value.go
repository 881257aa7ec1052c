package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxValueDepth is how deep arrays and objects may nest in the value of a
// program: what every parser stands.
const MaxValueDepth = 64

// What [CheckValue] finds wrong with a value.
var (
	ErrValueTooLarge = errors.New("result is too large")
	ErrValueTooDeep  = fmt.Errorf("result is nested deeper than %d", MaxValueDepth)
	ErrValueText     = errors.New("result cannot be JSON: a string of it is not Unicode text (half of a surrogate pair, or not UTF-8)")
	ErrValueNotJSON  = errors.New("result is not JSON")
)

// CheckValue takes what a program left as its result, all of it hostile, and
// gives it back without white space if it is one JSON value of at most limit
// bytes that every parser reads alike. A value that some parsers would change
// on the way, such as half of a surrogate pair (RFC 8259, section 8.2), is
// refused: nobody may get another value than the program gave.
func CheckValue(data []byte, limit int64) ([]byte, error) {
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: it takes more than %d bytes as JSON", ErrValueTooLarge, limit)
	}
	// Depth first: the decoder's own limit is far higher.
	if depth(data) > MaxValueDepth {
		return nil, ErrValueTooDeep
	}
	if !utf8.Valid(data) {
		return nil, ErrValueText
	}
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil {
		return nil, ErrValueNotJSON
	}
	if halfPair(out.Bytes()) {
		return nil, ErrValueText
	}
	return out.Bytes(), nil
}

// depth is how deep arrays and objects nest in text that may be JSON.
func depth(b []byte) int {
	deepest, now, inString := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			now++
			deepest = max(deepest, now)
		case c == ']' || c == '}':
			now--
		}
	}
	return deepest
}

// halfPair reports whether valid JSON escapes one half of a surrogate pair
// without the other.
func halfPair(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return false
		}
		first, isEscape := escaped(b[i:])
		switch {
		case !isEscape:
			b = b[i+2:] // a short escape, such as \\ or \n
			continue
		case utf16.IsSurrogate(first):
			second, _ := escaped(b[i+6:])
			if utf16.DecodeRune(first, second) == utf8.RuneError {
				return true
			}
			i += 6
		}
		b = b[i+6:]
	}
}

// escaped is the code unit that valid JSON escapes as \uXXXX where b begins.
func escaped(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}
