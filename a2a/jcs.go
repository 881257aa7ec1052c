package a2a

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
)

// canonicalize is RFC 8785, byte for byte what gowebpki/jcs gives
// (FuzzCanonicalize holds it to that) and refusing what that refuses: duplicate
// members, lone surrogates, invalid UTF-8, numbers out of double range. It is
// written anew because a string that needs no change, such as a file of some
// megabytes in base64, is copied here as a whole, and there byte by byte.
func canonicalize(raw []byte) ([]byte, error) {
	p := canonicalParser{rest: raw}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.space(); len(p.rest) > 0 {
		return nil, errors.New("data after the value")
	}
	return v.append(make([]byte, 0, len(raw))), nil
}

// maxCanonicalNesting is that of gowebpki/jcs. Callers have lower limits.
const maxCanonicalNesting = 10000

// canonicalParsed is a parsed value. Text that is canonical already is a part of
// the input.
type canonicalParsed struct {
	kind    byte   // '{', '[', or 0: text
	text    []byte // as it is written
	items   []canonicalParsed
	members []canonicalMember // sorted
}

type canonicalMember struct {
	name  []byte // without quotes and escapes
	text  []byte // as it is written
	value canonicalParsed
}

func (v canonicalParsed) append(out []byte) []byte {
	switch v.kind {
	case '{':
		out = append(out, '{')
		for i, m := range v.members {
			if i > 0 {
				out = append(out, ',')
			}
			out = m.value.append(append(append(out, m.text...), ':'))
		}
		return append(out, '}')
	case '[':
		out = append(out, '[')
		for i, item := range v.items {
			if i > 0 {
				out = append(out, ',')
			}
			out = item.append(out)
		}
		return append(out, ']')
	}
	return append(out, v.text...)
}

type canonicalParser struct {
	rest         []byte
	negativeZero bool // there was one, to which the canonical form gives another sign
}

func (p *canonicalParser) space() {
	for len(p.rest) > 0 && isSpace(p.rest[0]) {
		p.rest = p.rest[1:]
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// take moves past c, if it comes next.
func (p *canonicalParser) take(c byte) bool {
	p.space()
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *canonicalParser) unexpected() error {
	if len(p.rest) == 0 {
		return errors.New("unexpected end")
	}
	return fmt.Errorf("unexpected %q", p.rest[0])
}

func (p *canonicalParser) value(depth int) (canonicalParsed, error) {
	p.space()
	if len(p.rest) == 0 {
		return canonicalParsed{}, p.unexpected()
	}
	switch p.rest[0] {
	case '{', '[':
		if depth == maxCanonicalNesting {
			return canonicalParsed{}, fmt.Errorf("nested deeper than %d levels", maxCanonicalNesting)
		}
		if p.rest[0] == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case '"':
		_, text, err := p.text()
		return canonicalParsed{text: text}, err
	}
	text, err := p.literal()
	return canonicalParsed{text: text}, err
}

func (p *canonicalParser) array(depth int) (canonicalParsed, error) {
	v := canonicalParsed{kind: '['}
	p.rest = p.rest[1:]
	for first := true; !p.take(']'); first = false {
		if !first && !p.take(',') {
			return v, p.unexpected()
		}
		item, err := p.value(depth)
		if err != nil {
			return v, err
		}
		v.items = append(v.items, item)
	}
	return v, nil
}

func (p *canonicalParser) object(depth int) (canonicalParsed, error) {
	v := canonicalParsed{kind: '{'}
	p.rest = p.rest[1:]
	for first := true; !p.take('}'); first = false {
		if !first && !p.take(',') {
			return v, p.unexpected()
		}
		if p.space(); len(p.rest) == 0 || p.rest[0] != '"' {
			return v, p.unexpected()
		}
		var m canonicalMember
		var err error
		if m.name, m.text, err = p.text(); err != nil {
			return v, err
		}
		if !p.take(':') {
			return v, p.unexpected()
		}
		if m.value, err = p.value(depth); err != nil {
			return v, err
		}
		v.members = append(v.members, m)
	}
	slices.SortFunc(v.members, func(a, b canonicalMember) int { return compareUTF16(a.name, b.name) })
	for i := 1; i < len(v.members); i++ {
		if bytes.Equal(v.members[i-1].name, v.members[i].name) {
			return v, fmt.Errorf("duplicate member %.40q", v.members[i].name)
		}
	}
	return v, nil
}

// compareUTF16 orders valid UTF-8 as RFC 8785 asks: by UTF-16 code units. That
// differs from the order of the bytes where one of two characters is beyond
// U+FFFF: its surrogates come before U+E000.
func compareUTF16[T ~string | ~[]byte](a, b T) int {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		const astral, private = 0xf0, 0xee // first bytes of U+10000 and of U+E000
		switch x, y := a[i], b[i]; {
		case x >= astral && y >= private && y < astral:
			return -1
		case y >= astral && x >= private && x < astral:
			return 1
		case x < y:
			return -1
		default:
			return 1
		}
	}
	return len(a) - len(b)
}

// literal is a number, true, false or null.
func (p *canonicalParser) literal() ([]byte, error) {
	end := 0
	for end < len(p.rest) && !isSpace(p.rest[end]) && p.rest[end] != ',' && p.rest[end] != ']' && p.rest[end] != '}' {
		end++
	}
	text := p.rest[:end]
	p.rest = p.rest[end:]
	const exact = 15 // digits that a double always holds
	switch integer, fits := numberForm(text); {
	case string(text) == "true" || string(text) == "false" || string(text) == "null":
		return text, nil
	case !fits:
		return nil, fmt.Errorf("%.40q is no value", text)
	case integer && len(text) <= exact && text[0] != '-':
		return text, nil // written as it is
	}
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return nil, fmt.Errorf("number %.40q is out of range", text)
	}
	p.negativeZero = p.negativeZero || n == 0 && text[0] == '-'
	out, err := jcs.NumberToJSON(n)
	return []byte(out), err
}

// numberForm reports whether text is a number of RFC 8259, and if it is one, an
// integer without exponent.
func numberForm(text []byte) (integer, ok bool) {
	digits := func() bool {
		n := 0
		for n < len(text) && text[n] >= '0' && text[n] <= '9' {
			n++
		}
		text = text[n:]
		return n > 0
	}
	text = bytes.TrimPrefix(text, []byte("-"))
	if len(text) > 0 && text[0] == '0' {
		text = text[1:]
	} else if !digits() {
		return false, false
	}
	integer = true
	if len(text) > 0 && text[0] == '.' {
		integer, text = false, text[1:]
		if !digits() {
			return false, false
		}
	}
	if len(text) > 0 && (text[0] == 'e' || text[0] == 'E') {
		integer, text = false, text[1:]
		if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
			text = text[1:]
		}
		if !digits() {
			return false, false
		}
	}
	return integer, len(text) == 0
}

// text is a string: what it means, and how it is written canonically. Both are
// parts of the input if it has no escapes.
func (p *canonicalParser) text() (meant, written []byte, err error) {
	body := p.rest[1:]
	end := plain(body)
	if end < len(body) && body[end] == '"' {
		if meant = body[:end]; !utf8.Valid(meant) {
			return nil, nil, errors.New("invalid UTF-8")
		}
		written, p.rest = p.rest[:end+2], body[end+1:]
		return meant, written, nil
	}
	for {
		end = plain(body)
		meant = append(meant, body[:end]...)
		if body = body[end:]; len(body) == 0 {
			return nil, nil, errors.New("unexpected end of a string")
		}
		c := body[0]
		body = body[1:]
		switch {
		case c == '"':
			if !utf8.Valid(meant) {
				return nil, nil, errors.New("invalid UTF-8")
			}
			p.rest = body
			return meant, appendQuoted(make([]byte, 0, len(meant)+8), meant), nil
		case c != '\\':
			return nil, nil, errors.New("control character in a string")
		}
		if meant, body, err = unescape(meant, body); err != nil {
			return nil, nil, err
		}
	}
}

// plain is how much of a string's body stands for itself.
func plain[T ~string | ~[]byte](body T) int {
	for i := range len(body) {
		if c := body[i]; c == '"' || c == '\\' || c < ' ' {
			return i
		}
	}
	return len(body)
}

var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unescape appends what an escape means; body begins after its backslash.
func unescape(meant, body []byte) (after, rest []byte, err error) {
	if len(body) == 0 {
		return nil, nil, errors.New("unexpected end of a string")
	}
	if c, ok := escapes[body[0]]; ok {
		return append(meant, c), body[1:], nil
	}
	first, ok := codeUnit(body)
	if !ok {
		return nil, nil, errors.New("bad escape in a string")
	}
	const unit = 5 // uXXXX
	body = body[unit:]
	if !utf16.IsSurrogate(first) {
		return utf8.AppendRune(meant, first), body, nil
	}
	if len(body) == 0 || body[0] != '\\' {
		return nil, nil, errors.New("half a surrogate pair in a string")
	}
	second, ok := codeUnit(body[1:])
	both := utf16.DecodeRune(first, second)
	if !ok || both == utf8.RuneError {
		return nil, nil, errors.New("half a surrogate pair in a string")
	}
	return utf8.AppendRune(meant, both), body[1+unit:], nil
}

func codeUnit(body []byte) (rune, bool) {
	if len(body) < 5 || body[0] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range body[1:5] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// appendQuoted writes a string of valid UTF-8 as RFC 8785 does.
func appendQuoted[T ~string | ~[]byte](out []byte, meant T) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	for {
		n := plain(meant)
		if out = append(out, meant[:n]...); n == len(meant) {
			return append(out, '"')
		}
		c := meant[n]
		meant = meant[n+1:]
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, '\\', 'b')
		case '\f':
			out = append(out, '\\', 'f')
		case '\n':
			out = append(out, '\\', 'n')
		case '\r':
			out = append(out, '\\', 'r')
		case '\t':
			out = append(out, '\\', 't')
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
}
