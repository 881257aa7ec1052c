package http

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
)

func TestIdempotencyKey(t *testing.T) {
	for _, tc := range []struct {
		values []string
		want   string
		ok     bool
	}{
		{nil, "", true},
		{[]string{`"8e03978e-40d5-43dd-bc93-6894a57f9324"`}, "8e03978e-40d5-43dd-bc93-6894a57f9324", true},
		{[]string{"\t \"a b\" "}, "a b", true},
		{[]string{`"a\"b\\c"`}, `a"b\c`, true},
		{[]string{`"` + strings.Repeat("x", 255) + `"`}, strings.Repeat("x", 255), true},
		{[]string{`"` + strings.Repeat("x", 256) + `"`}, "", false},
		{[]string{`"` + strings.Repeat("x", 60_000) + `"`}, "", false},
		{[]string{`8e03978e-40d5-43dd-bc93-6894a57f9324`}, "", false},
		{[]string{`""`}, "", false},
		{[]string{`"`}, "", false},
		{[]string{``}, "", false},
		{[]string{`"a" "b"`}, "", false},
		{[]string{`"a";q=1`}, "", false},
		{[]string{`"a\"`}, "", false},
		{[]string{`"a\n"`}, "", false},
		{[]string{"\"a\x00b\""}, "", false},
		{[]string{`"ключ"`}, "", false},
		{[]string{`"a"`, `"a"`}, "", false},
	} {
		got, err := idempotencyKey(http.Header{IdempotencyHeader: tc.values})
		known, ours := errors.AsType[*a2a.Error](err)
		if got != tc.want || (err == nil) != tc.ok || err != nil && (!ours || known.Code != a2a.CodeInvalidRequest) {
			t.Errorf("%.40q: %q, %v", tc.values, got, err)
		}
	}
}

// What is read as a key is written back as the string it came as.
func FuzzIdempotencyKey(f *testing.F) {
	f.Add(`"8e03978e"`)
	f.Add(`"a\"b\\c"`)
	f.Add(`"a\"`)
	f.Fuzz(func(t *testing.T, value string) {
		key, err := idempotencyKey(http.Header{IdempotencyHeader: {value}})
		if err != nil {
			if key != "" {
				t.Errorf("%q: %q beside an error", value, key)
			}
			return
		}
		if again := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`; again != strings.Trim(value, " \t") || len(key) > maxIdempotencyKey {
			t.Errorf("%q was read as %q", value, key)
		}
	})
}
