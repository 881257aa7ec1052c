package process

import (
	"bytes"
	"strings"
	"testing"

	"github.com/agenticraft/node/sandbox"
)

func frame(kind byte, payload string) []byte {
	b := []byte{0, 0, 0, 0, kind}
	n := len(payload) + 1
	b[0], b[1], b[2], b[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return append(b, payload...)
}

func TestReadReplyBelievesOnlyOneGoodFrame(t *testing.T) {
	for _, c := range []struct {
		name  string
		in    []byte
		value string
		code  string
	}{
		{"value", frame('R', `{"a": [1, 2]}`), `{"a":[1,2]}`, ""},
		{"second frame", append(frame('R', "1"), frame('R', "2")...), "1", ""},
		{"nothing", nil, "", ""},
		{"cut", frame('R', "12345")[:7], "", ""},
		{"no payload", frame('R', ""), "", codeForged},
		{"not JSON", frame('R', "{"), "", codeForged},
		{"two values", frame('R', "1 2"), "", codeForged},
		{"too large", frame('R', strings.Repeat("1", 5000)), "", codeTooLarge},
		{"within the frame, over the limit", frame('R', strings.Repeat("1", 1500)), "", codeTooLarge},
		{"empty frame", []byte{0, 0, 0, 0, 'R'}, "", codeForged},
		{"huge", []byte{255, 255, 255, 255, 'X'}, "", codeForged},
		{"deep", frame('R', strings.Repeat("[", 70)+strings.Repeat("]", 70)), "", codeNotJSON},
		{"brackets in a string", frame('R', `"`+strings.Repeat("[", 70)+`\""`), `"` + strings.Repeat("[", 70) + `\""`, ""},
		{"half of a surrogate pair", frame('R', `"\ud800"`), "", codeNotJSON},
		{"error", frame('E', "language_error\nTypeError: no"), "", codeLanguage},
		{"unknown error", frame('E', "internal\nno"), "", codeForged},
		{"unknown kind", frame('Z', "x"), "", codeForged},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := readReply(bytes.NewReader(c.in), 1000)
			if string(got.value) != c.value || got.code != c.code {
				t.Errorf("readReply = %s, %q (%s), want %s, %q", got.value, got.code, got.text, c.value, c.code)
			}
		})
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add(frame('R', `{"a":[1,"\"["]}`))
	f.Add(frame('E', "language_error\n\x1b[31mred"))
	f.Add([]byte{255, 255, 255, 255, 'R'})
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 1000
		got := readReply(bytes.NewReader(in), limit)
		if len(got.value) > limit || len(got.text) > 2*maxText {
			t.Errorf("kept %d and %d bytes", len(got.value), len(got.text))
		}
		if _, err := sandbox.CheckValue(got.value, limit); got.value != nil && (err != nil || got.code != "") {
			t.Errorf("believed %q with code %q", got.value, got.code)
		}
		if strings.ContainsAny(got.text, "\x1b\n\r\x00") {
			t.Errorf("text is %q", got.text)
		}
	})
}
