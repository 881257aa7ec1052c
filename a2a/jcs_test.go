package a2a

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/gowebpki/jcs"
)

// differ compares our canonical form with that of gowebpki/jcs.
func differ(t *testing.T, text []byte) {
	t.Helper()
	before := bytes.Clone(text)
	got, err := canonicalize(text)
	want, wantErr := jcs.Transform(text)
	if (err == nil) != (wantErr == nil) || !bytes.Equal(got, want) {
		t.Errorf("%.200q:\n%.200q, %v\nwant\n%.200q, %v", text, got, err, want, wantErr)
	}
	if !bytes.Equal(text, before) {
		t.Errorf("%.200q was changed", before)
	}
	if err != nil {
		if got != nil {
			t.Errorf("%.200q: bytes with an error", text)
		}
		return
	}
	if again, err := canonicalize(got); err != nil || !bytes.Equal(again, got) {
		t.Errorf("%.200q is not its own canonical form: %v", got, err)
	}
}

var canonicalSeeds = []string{
	``, ` `, `null`, ` true `, `false x`, `nul`, `"a"`, `"a`, `"\`, `"\u12"`, `"\ud800"`, `"\udc00\ud800"`, `"\ud83d\ude00"`, `"\uD83D\u0041"`, `"\ud800\`, `"\x"`, `"\/\b\f\n\r\t\"\\"`,
	"\"\x00\"", "\"\x7f\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\u2028\U0001f600\"", `"\u0000\u001F\u00e9\u2028\ufffd"`, "\"\ufffd\"", "\"\\n\xff\"",
	`0`, `-0`, `-1`, `01`, `+1`, `.5`, `1.`, `1.0`, `1e0`, `1E+2`, `1e`, `1e400`, `-1e-400`, `0x10`, `1_0`, `Infinity`, `NaN`, `123456789012345`, `1234567890123456`, `9007199254740993`,
	`999999999999999`, `1e21`, `1e-7`, `0.000001`, `123456789012345678901234567890`, `4.35`, `5e-324`, `1.7976931348623157e308`, `-`, `--1`, `1 2`,
	`[]`, `[1,]`, `[,1]`, `[1 2]`, `[1,2`, `[[],[[]]]`, ` [ 1 , "b" , null ] `, `]`, `[}`,
	`{}`, `{"b":1,"a":2}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":1,}`, `{"a"}`, `{"a":}`, `{a:1}`, `{"a":1 "b":2}`, `{"":0}`, `{"a":{"z":[{"y":1,"x":2}],"b":""}}`, `{"a":1`, `{`,
	"{\"\U00010000\":1,\"\ue000\":2,\"\ufffd\":3,\"\ud7ff\":4,\"z\":5,\"zz\":6}", `{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew","1":"One","\ud83d\ude00":"Smiley","\u0080":"Control","\u00f6":"o"}`,
}

func TestCanonicalForm(t *testing.T) {
	for _, text := range canonicalSeeds {
		differ(t, []byte(text))
	}
	for _, depth := range []int{100, maxCanonicalNesting, maxCanonicalNesting + 1} {
		differ(t, []byte(strings.Repeat("[", depth)+strings.Repeat("]", depth)))
		differ(t, []byte(strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth)))
	}
	names, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("vectors: %v, %v", names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		differ(t, text)
	}
	if _, err := canonicalize(nil); err == nil {
		t.Error("nothing has a canonical form")
	}
}

// The order of members is that of UTF-16.
func TestOrderOfMembers(t *testing.T) {
	names := []string{"", "a", "aa", "b", "z", "\x7f", "\u0080", "é", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufb33", "\ufffd", "\uffff", "\U00010000", "\U0001f600", "\U0010ffff", "a\U0001f600", "a\ue000"}
	for _, a := range names {
		for _, b := range names {
			want := slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
			if got := compareUTF16([]byte(a), []byte(b)); (got < 0) != (want < 0) || (got > 0) != (want > 0) {
				t.Errorf("%q and %q compare as %d, want %d", a, b, got, want)
			}
		}
	}
}

func FuzzCanonicalize(f *testing.F) {
	for _, text := range canonicalSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(differ)
}

// BenchmarkCanonicalize is a request with a file of 4 MiB.
func BenchmarkCanonicalize(b *testing.B) {
	text := []byte(`{"message":{"parts":[{"raw":"` + base64.StdEncoding.EncodeToString(make([]byte, 4<<20)) + `"}],"messageId":"m"}}`)
	for name, do := range map[string]func([]byte) ([]byte, error){"ours": canonicalize, "gowebpki": jcs.Transform} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := do(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
