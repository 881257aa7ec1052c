package http

import (
	"errors"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
)

func TestParametersAreKnown(t *testing.T) {
	for query, want := range map[string]string{
		"":                         "",
		"actor=a&limit=2":          "",
		"actor=":                   "",
		"acter=a":                  `no parameter "acter"`,
		"Actor=a":                  `no parameter "Actor"`,
		"actor=a&actor=b":          "more than once",
		"actor=%zz":                "malformed",
		"actor=a;limit=2":          "malformed",
		strings.Repeat("x", 1<<10): "no parameter",
	} {
		q, err := parameters(httptest.NewRequest("GET", "/v1/audit/entries?"+query, nil), filterNames...)
		if want == "" {
			if err != nil {
				t.Errorf("%.40q: %v", query, err)
			}
			continue
		}
		known := new(a2a.Error)
		if q != nil || !errors.As(err, &known) || known.Code != a2a.CodeInvalidRequest || !strings.Contains(known.Message, want) || len(known.Message) > 400 {
			t.Errorf("%.40q: %v, want %q", query, err, want)
		}
	}
}

// Every parameter that a filter reads is known.
func TestFilterNames(t *testing.T) {
	for _, name := range filterNames {
		value := map[string]string{"since": "2026-01-02T03:04:05Z", "until": "2026-01-02T03:04:05Z", "limit": "7", "order": "newest"}[name]
		if value == "" {
			value = "x"
		}
		q, err := parameters(httptest.NewRequest("GET", "/?"+name+"="+value, nil), filterNames...)
		if err != nil {
			t.Fatal(err)
		}
		f, err := filter(q)
		empty, _ := filter(nil)
		if err != nil || reflect.DeepEqual(f, empty) {
			t.Errorf("filter does not read %s: %v", name, err)
		}
	}
	if _, err := filter(map[string][]string{"order": {"sideways"}}); err == nil {
		t.Error("an order that is none is passed over")
	}
}
