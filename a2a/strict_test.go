package a2a

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// looselyAs reads v by its text, as encoding/json does, and tells members that it
// would take by another name or drop.
func looselyAs[T any](v any) (T, error) {
	var out, none T
	raw, err := json.Marshal(v)
	if err != nil {
		return none, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		return none, err
	}
	return out, nil
}

// sameLoose holds decodeLoose to encoding/json. What only the latter takes is
// names in another case, lists of numbers for bytes, and integers beyond 2^53-1.
func sameLoose[T any](t *testing.T, v any) {
	t.Helper()
	var got T
	err := decodeLoose(v, &got)
	want, wantErr := looselyAs[T](v)
	if err == nil && (wantErr != nil || !cmp.Equal(got, want)) {
		t.Fatalf("decodeLoose(%v) = %+v\nwant %+v, %v", v, got, want, wantErr)
	}
	stricter := func(say string) bool { return strings.Contains(err.Error(), say) }
	if err != nil && wantErr == nil && !stricter("unknown member") && !stricter("is not a text") && !stricter("in range") {
		t.Fatalf("decodeLoose(%v): %v, want %+v", v, err, want)
	}
}

var looseSeeds = []string{
	`{"language":"python","code":"x","files":[{"path":"a","content":"AA=="}],"limits":{"processes":1},"require":["memory"],"args":[]}`,
	`{"claims":{"iss":"i","aud":"a","iat":1790000000,"exp":1.79e9,"jti":"j","op":"o","mandate":[{"sub":"s","via":"v","roles":["r",null]}]},"signatures":[{"protected":"p","signature":"s"}]}`,
	`{"claims":null,"signatures":null}`, `{"signatures":[null]}`, `{"Signatures":[]}`, `{"claims":{"iat":1.5}}`, `{"claims":{"iat":1e300}}`, `{"claims":{"iat":-9223372036854775808}}`, `{"claims":{"iat":9223372036854775808}}`,
	`{"claims":{"iat":"1"}}`, `{"claims":{"iss":1}}`, `{"claims":[]}`, `{"claims":"x"}`, `{"claims":true}`, `{"unheard":1}`, `{"files":[{"path":"a","content":[65]}]}`, `{"files":[{"content":"?"}]}`, `{"files":[{"content":"A\nA=="}]}`,
	`{"limits":{"cpu_percent":9007199254740991}}`, `{"limits":null,"code":null}`, `[]`, `null`, `1`, `"x"`,
}

func TestDecodeLoose(t *testing.T) {
	for _, text := range looseSeeds {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		sameLoose[carrier](t, v)
		sameLoose[Execution](t, v)
	}
	for _, v := range []any{1, map[string]any{"code": json.Number("1")}, map[string]any{"code": "\xff"}, map[string]any{"files": []string{}}} {
		if err := decodeLoose(v, new(Execution)); !errors.Is(err, errNotLoose) {
			t.Errorf("decodeLoose(%#v): %v, want %v", v, err, errNotLoose)
		}
	}
	for _, c := range []struct{ text, says string }{
		{`{"limits":{"memory_byts":1}}`, `unknown member "limits.memory_byts" (known: cpu_percent,`},
		{`{"files":[{},{"path":1}]}`, `"files[1].path" is not a text`},
		{`{"args":"x"}`, `"args" is not a list`},
		{`{"limits":[]}`, `"limits" is not an object`},
		{`{"limits":{"processes":"1"}}`, `"limits.processes" is not an integer`},
		{`{"limits":{"processes":1.5}}`, `"limits.processes" is not an integer in range`},
		{`[]`, `the value is not an object`},
	} {
		if err := decodeExactly([]byte(c.text), new(Execution)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.text, err, c.says)
		}
	}
}

func FuzzDecodeLoose(f *testing.F) {
	for _, text := range looseSeeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var v any
		if json.Unmarshal(raw, &v) != nil {
			return
		}
		sameLoose[carrier](t, v)
		sameLoose[jwsHeader](t, v)
		sameLoose[tokenClaims](t, v)
		sameLoose[Execution](t, v)
	})
}
