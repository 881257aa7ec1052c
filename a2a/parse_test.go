package a2a_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// Data may be as deep in JSON as in the proto, which has no levels around it.
func TestDepthOfData(t *testing.T) {
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	nested := func(depth int) string { return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth) }
	for where, request := range map[string]func(depth int) string{
		"metadata of the request": func(d int) string {
			return `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}]},"metadata":` + nested(d) + `}`
		},
		"metadata of the message": func(d int) string {
			return `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}],"metadata":` + nested(d) + `}}`
		},
		"metadata of a part": func(d int) string {
			return `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x","metadata":` + nested(d) + `}]}}`
		},
		"data": func(d int) string {
			return `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"data":` + nested(d) + `}]}}`
		},
	} {
		for depth, taken := range map[int]bool{100: true, 102: false, 200: false} {
			req, err := a2a.ParseRequest([]byte(request(depth)))
			if err == nil {
				_, err = a2a.Sign(key, req, a2a.SignOptions{Audience: "agenticraft:x"})
			}
			e, _ := errors.AsType[*a2a.Error](err)
			if taken != (err == nil) || !taken && (e == nil || e.Code != a2a.CodeInvalidRequest) {
				t.Errorf("%s, %d deep: %v", where, depth, err)
			}
		}
	}
}

// What is in a text costs nothing.
func TestARequestHoldsSoManyValues(t *testing.T) {
	request := func(metadata string) string {
		return `{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"` + strings.Repeat(`,[{\"`, 2*a2a.MaxValues) + `"}],"metadata":{"a":` + metadata + `}}}`
	}
	list := func(n int) string { return "[" + strings.Repeat("0,", n-1) + "0]" }
	if _, err := a2a.ParseRequest([]byte(request(list(a2a.MaxValues - 10)))); err != nil {
		t.Errorf("nearly as many as may be: %v", err)
	}
	for name, metadata := range map[string]string{
		"items": list(a2a.MaxValues + 1), "members": `{"x":` + strings.Repeat(`0,"x":`, a2a.MaxValues) + `0}`, "empty lists": "[" + strings.Repeat("[],", a2a.MaxValues) + "[]]",
	} {
		_, err := a2a.ParseRequest([]byte(request(metadata)))
		if e, ok := errors.AsType[*a2a.Error](err); !ok || e.Code != a2a.CodeTooLarge {
			t.Errorf("%s: %v, want %s", name, err, a2a.CodeTooLarge)
		}
	}
}
