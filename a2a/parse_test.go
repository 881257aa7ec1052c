package a2a_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
)

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
