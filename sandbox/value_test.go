package sandbox_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/agenticraft/node/sandbox"
)

func TestCheckValue(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	digits := func(n int) string { return strings.Repeat("9", n) }
	for _, tt := range []struct {
		name, in, want string
		err            error
	}{
		{"compact", " { \"a\" : [ 1 , 2.50, 1e300 ] } ", `{"a":[1,2.50,1e300]}`, nil},
		{"infinity in disguise", `{"a":[1,1e400]}`, "", sandbox.ErrValueNumber},
		{"infinity below", "-1.5E+999999", "", sandbox.ErrValueNumber},
		{"infinity as text", `{"1e400":"1e400,"}`, `{"1e400":"1e400,"}`, nil},
		{"what is too small is nothing to everybody", "[1e-400,-0.0]", "[1e-400,-0.0]", nil},
		{"a large integer stays", "1267650600228229401496703205376", "1267650600228229401496703205376", nil},
		{"as many digits as may be", digits(4300), digits(4300), nil},
		{"and below nothing", "[-" + digits(4300) + "]", "[-" + digits(4300) + "]", nil},
		{"too many digits", `{"a":` + digits(4301) + "}", "", sandbox.ErrValueNumber},
		{"too many behind the point", "0." + digits(4301), "", sandbox.ErrValueNumber},
		{"a pair", `"\ud83d\ude00 \uD83D\uDE00 \\ud800"`, `"\ud83d\ude00 \uD83D\uDE00 \\ud800"`, nil},
		{"short escapes", `"\\\\u\"\n\u00e9"`, `"\\\\u\"\n\u00e9"`, nil},
		{"first half", `"\ud83d"`, "", sandbox.ErrValueText},
		{"second half", `["x\ude00"]`, "", sandbox.ErrValueText},
		{"halves in the wrong order", `"\ude00\ud83d"`, "", sandbox.ErrValueText},
		{"halves apart", `"\ud83d-\ude00"`, "", sandbox.ErrValueText},
		{"two first halves", `"\ud83d\ud83d\ude00"`, "", sandbox.ErrValueText},
		{"half as a key", `{"\udc00":1}`, "", sandbox.ErrValueText},
		{"a half that ends the text", `"\\\ud83d"`, "", sandbox.ErrValueText},
		{"not UTF-8", "\"\xff\"", "", sandbox.ErrValueText},
		{"as deep as may be", deep(sandbox.MaxValueDepth), deep(sandbox.MaxValueDepth), nil},
		{"too deep", deep(sandbox.MaxValueDepth + 1), "", sandbox.ErrValueTooDeep},
		{"too large", `"` + strings.Repeat("x", 4999) + `"`, "", sandbox.ErrValueTooLarge},
		{"nothing", "", "", sandbox.ErrValueNotJSON},
		{"two", "1 2", "", sandbox.ErrValueNotJSON},
		{"NaN", "NaN", "", sandbox.ErrValueNotJSON},
		{"closed only", "]]]]", "", sandbox.ErrValueNotJSON},
	} {
		got, err := sandbox.CheckValue([]byte(tt.in), 5000)
		if !errors.Is(err, tt.err) || string(got) != tt.want {
			t.Errorf("%s: CheckValue(%.60q) = %.60q, %v, want %.60q, %v", tt.name, tt.in, got, err, tt.want, tt.err)
		}
	}
}

// What is accepted means the same after a parser took it apart and wrote it
// again: nothing was replaced on the way.
func FuzzCheckValue(f *testing.F) {
	for _, seed := range []string{`{"a":[1,null,true,"\ud83d\ude00"]}`, `"\ud83d"`, `"\\ud800"`, "\"\xff\"", "[[", `"é"`, `[-1.5e400,12]`, `{"a":1e9}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := sandbox.CheckValue(in, 1<<16)
		if err != nil {
			if got != nil {
				t.Errorf("CheckValue(%q) = %q with error %v", in, got, err)
			}
			return
		}
		if again, err := sandbox.CheckValue(got, 1<<16); err != nil || !bytes.Equal(again, got) {
			t.Errorf("CheckValue(%q) = %q, %v", got, again, err)
		}
		var text string
		if json.Unmarshal(got, &text) == nil && strings.ContainsRune(text, '\uFFFD') &&
			!bytes.ContainsRune(in, '\uFFFD') && !bytes.Contains(bytes.ToLower(in), []byte(`\ufffd`)) {
			t.Errorf("CheckValue(%q) accepts what a parser replaces: %q", in, text)
		}
	})
}
