package a2a_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

const hook = "https://example.com/hook?of=anna"

func TestNotificationSignature(t *testing.T) {
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	body := []byte(`{"statusUpdate":{}}`)
	sent := a2a.Notification{URL: hook, Task: "0123", JTI: a2a.NewJTI()}
	token, err := a2a.SignNotification(key, sent, body, now)
	if err != nil {
		t.Fatal(err)
	}
	mine := a2a.VerifyOptions{Audiences: []string{hook}}
	sent.Issuer = key.ID()
	if got, err := a2a.VerifyNotification(token, body, mine); err != nil || got != sent {
		t.Errorf("VerifyNotification = %+v, %v", got, err)
	}
	parts := strings.Split(token, ".")
	other, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := a2a.SignNotification(other, sent, body, now)
	if err != nil {
		t.Fatal(err)
	}
	bearer, err := a2a.SignToken(key, a2a.SignOptions{Audience: hook})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]struct {
		token string
		body  string
		o     a2a.VerifyOptions
		code  string
	}{
		"another body":         {token, `{"statusUpdate":{} }`, mine, a2a.CodeSignatureInvalid},
		"another receiver":     {token, string(body), a2a.VerifyOptions{Audiences: []string{"https://example.org/"}}, a2a.CodeWrongAudience},
		"no audience":          {token, string(body), a2a.VerifyOptions{}, a2a.CodeWrongAudience},
		"too late":             {token, string(body), a2a.VerifyOptions{Audiences: mine.Audiences, Now: now.Add(6 * time.Minute)}, a2a.CodeExpired},
		"too early":            {token, string(body), a2a.VerifyOptions{Audiences: mine.Audiences, Now: now.Add(-time.Minute)}, a2a.CodeNotYetValid},
		"another's signature":  {parts[0] + "." + parts[1] + "." + strings.Split(theirs, ".")[2], string(body), mine, a2a.CodeSignatureInvalid},
		"another's header":     {strings.Split(theirs, ".")[0] + "." + parts[1] + "." + parts[2], string(body), mine, a2a.CodeSignatureInvalid},
		"a token for requests": {bearer, string(body), mine, a2a.CodeSignatureInvalid},
		"unsigned":             {parts[0] + "." + parts[1] + ".", string(body), mine, a2a.CodeSignatureInvalid},
		"nothing":              {"", string(body), mine, a2a.CodeSignatureInvalid},
		"endless":              {strings.Repeat("x", 1<<20), string(body), mine, a2a.CodeTooLarge},
	} {
		_, err := a2a.VerifyNotification(bad.token, []byte(bad.body), bad.o)
		if e, ok := errors.AsType[*a2a.Error](err); !ok || e.Code != bad.code {
			t.Errorf("%s: %v, want %s", name, err, bad.code)
		}
	}
	// What is signed for receivers opens no door.
	if _, err := a2a.VerifyToken(token, mine); err == nil {
		t.Error("a notification's signature is taken for a credential")
	}
}

func FuzzVerifyNotification(f *testing.F) {
	key, err := identity.Generate()
	if err != nil {
		f.Fatal(err)
	}
	token, err := a2a.SignNotification(key, a2a.Notification{URL: hook, Task: "t", JTI: "j"}, []byte("body"), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token, []byte("body"))
	f.Add("..", []byte{})
	f.Add("e30.e30.AA", []byte(nil))
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		n, err := a2a.VerifyNotification(text, body, a2a.VerifyOptions{Audiences: []string{hook}})
		if err != nil && n != (a2a.Notification{}) {
			t.Errorf("%+v with %v", n, err)
		}
		if err == nil && (text != token || string(body) != "body") {
			t.Errorf("%q verifies", text)
		}
	})
}
