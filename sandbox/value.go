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

// maxValueDigits is how many digits a number may have: Python reads no more of an
// integer (sys.int_info.default_max_str_digits), and a reader that fails on one
// number loses the whole document.
const maxValueDigits = 4300

// What [CheckValue] finds wrong with a value.
var (
	ErrValueTooLarge = errors.New("result is too large")
	ErrValueTooDeep  = fmt.Errorf("result is nested deeper than %d", MaxValueDepth)
	ErrValueText     = errors.New("result cannot be JSON: a string of it is not Unicode text (half of a surrogate pair, or not UTF-8)")
	ErrValueNumber   = fmt.Errorf("result cannot be JSON: a number of it has more than %d digits, or a fraction or exponent and is beyond what 64 bits of floating point hold; give it as text", maxValueDigits)
	ErrValueNotJSON  = errors.New("result is not JSON")
)

// CheckValue takes what a program left as its result, all of it hostile, and
// gives it back without white space if it is one JSON value of at most limit
// bytes that every parser reads alike. A value that some parsers would change
// on the way, such as half of a surrogate pair or 1e400 (RFC 8259, sections 8.2 and
// 6), is refused: nobody may get another value than the program gave. Integers
// stay exact, which readers that know floating point only must see to.
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
	if endlessNumber(out.Bytes()) {
		return nil, ErrValueNumber
	}
	return out.Bytes(), nil
}

// endlessNumber reports whether valid JSON without white space has a number that
// readers refuse or take for infinity.
func endlessNumber(b []byte) bool {
	inString := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString || c != '-' && (c < '0' || c > '9'):
		default:
			n := bytes.IndexAny(b[i:], ",]}")
			if n < 0 {
				n = len(b) - i
			}
			number := b[i : i+n]
			if n > maxValueDigits+len("-") {
				return true
			}
			if bytes.ContainsAny(number, ".eE") {
				if _, err := strconv.ParseFloat(string(number), 64); err != nil {
					return true
				}
			} else if number[0] != '-' && n > maxValueDigits {
				return true
			}
			i += n - 1
		}
	}
	return false
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
