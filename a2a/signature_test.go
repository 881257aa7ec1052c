package a2a_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2apb/v1/pbconv"
	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

const cluster = "test"

var audience = a2a.Audience(cluster)

func newKey(t testing.TB) *identity.Key {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRequest(t testing.TB) *sdk.SendMessageRequest {
	t.Helper()
	req, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "result = '\u2028é'", Files: []a2a.File{{Path: "a/b", Content: []byte{0, 255}}}})
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	e, ok := errors.AsType[*a2a.Error](err)
	if !ok || e.Code != code {
		t.Errorf("error = %v, want code %s", err, code)
	}
}

func TestSignatureSurvivesEveryBinding(t *testing.T) {
	key := newKey(t)
	req := newRequest(t)
	req.Config = &sdk.SendMessageConfig{ReturnImmediately: true, PushConfig: &sdk.PushConfig{URL: "https://example.org"}}
	req.Metadata = map[string]any{}
	signed, err := a2a.Sign(key, req, a2a.SignOptions{Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	if a2a.IsSigned(req) || req.Message.Extensions != nil {
		t.Error("Sign changed the original")
	}
	raw, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	var overJSON sdk.SendMessageRequest
	if err := json.Unmarshal(raw, &overJSON); err != nil {
		t.Fatal(err)
	}
	p, err := pbconv.ToProtoSendMessageRequest(signed)
	if err != nil {
		t.Fatal(err)
	}
	overGRPC, err := pbconv.FromProtoSendMessageRequest(p)
	if err != nil {
		t.Fatal(err)
	}
	evidence, err := a2a.MarshalRequest(signed)
	if err != nil {
		t.Fatal(err)
	}
	fromEvidence, err := a2a.ParseRequest(evidence)
	if err != nil {
		t.Fatal(err)
	}
	want, err := a2a.Verify(signed, a2a.VerifyOptions{Audiences: []string{audience}})
	if err != nil {
		t.Fatal(err)
	}
	if want.Issuer != key.ID() {
		t.Errorf("issuer = %s, want %s", want.Issuer, key.ID())
	}
	for name, r := range map[string]*sdk.SendMessageRequest{"JSON": &overJSON, "gRPC": overGRPC, "evidence": fromEvidence} {
		got, err := a2a.Verify(r, a2a.VerifyOptions{Audiences: []string{audience}})
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("over %s: %v %s", name, err, cmp.Diff(want, got))
		}
		again, err := a2a.MarshalRequest(r)
		if err != nil || !bytes.Equal(again, evidence) {
			t.Errorf("over %s: canonical form differs: %v", name, err)
		}
	}
	if s, err := a2a.VerifyRaw(evidence); err != nil || s.Digest != want.Digest {
		t.Errorf("VerifyRaw = %+v, %v", s, err)
	}
	_, err = a2a.VerifyRaw(evidence, a2a.Audience("other"))
	wantCode(t, err, a2a.CodeWrongAudience)
}

func TestVerifyRawHoldsYearsLater(t *testing.T) {
	signed, err := a2a.Sign(newKey(t), newRequest(t), a2a.SignOptions{Audience: audience, Now: time.Unix(1_000_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = a2a.Verify(signed, a2a.VerifyOptions{Audiences: []string{audience}})
	wantCode(t, err, a2a.CodeExpired)
	raw, err := a2a.MarshalRequest(signed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a2a.VerifyRaw(raw, audience); err != nil {
		t.Error(err)
	}
}

func TestSignedAgainIsTheSameTaskAndDigest(t *testing.T) {
	key, req := newKey(t), newRequest(t)
	jti := a2a.NewJTI()
	var first a2a.Signed
	for i, o := range []a2a.SignOptions{
		{Audience: audience, JTI: jti, Now: time.Now()},
		{Audience: newKey(t).ID().DID(), JTI: jti, Now: time.Now().Add(-time.Minute), TTL: 5 * time.Minute},
	} {
		signed, err := a2a.Sign(key, req, o)
		if err != nil {
			t.Fatal(err)
		}
		s, err := a2a.Verify(signed, a2a.VerifyOptions{Audiences: []string{o.Audience}})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = s
		} else if s.Digest != first.Digest || s.Task() != first.Task() {
			t.Errorf("signed again: %+v, want the digest and task of %+v", s, first)
		}
	}
	other, err := a2a.Sign(newKey(t), req, a2a.SignOptions{Audience: audience, JTI: jti})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := a2a.Verify(other, a2a.VerifyOptions{Audiences: []string{audience}}); err != nil || s.Task() == first.Task() {
		t.Errorf("another's task has the same id: %+v, %v", s, err)
	}
}

func TestTaskIDVector(t *testing.T) {
	key, err := identity.FromSeed(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	const want = "36331fb3541e21d1051ed5c74691d98b"
	if got := a2a.TaskID(key.ID(), "000102030405060708090a0b0c0d0e0f"); got != want || !a2a.ValidTaskID(got) {
		t.Errorf("TaskID = %s, want %s", got, want)
	}
	for _, s := range []string{"", want[1:], want + "0", strings.ToUpper(want), strings.Repeat("g", 32)} {
		if a2a.ValidTaskID(s) {
			t.Errorf("ValidTaskID(%q)", s)
		}
	}
}

func TestZeroVerifyOptionsRefuse(t *testing.T) {
	signed, err := a2a.Sign(newKey(t), newRequest(t), a2a.SignOptions{Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	for _, audiences := range [][]string{nil, {""}, {"other"}} {
		_, err = a2a.Verify(signed, a2a.VerifyOptions{Audiences: audiences})
		wantCode(t, err, a2a.CodeWrongAudience)
	}
}

func TestSignRefusesWhatCannotBeSignedExactly(t *testing.T) {
	key := newKey(t)
	with := func(change func(*sdk.SendMessageRequest)) *sdk.SendMessageRequest {
		req := newRequest(t)
		change(req)
		return req
	}
	huge, negative := math.MaxInt, -1
	for name, req := range map[string]*sdk.SendMessageRequest{
		"nothing":          nil,
		"no message":       {},
		"2^53+1":           with(func(r *sdk.SendMessageRequest) { r.Metadata = map[string]any{"n": int64(1)<<53 + 1} }),
		"NaN":              with(func(r *sdk.SendMessageRequest) { r.Metadata = map[string]any{"n": math.NaN()} }),
		"not UTF-8":        with(func(r *sdk.SendMessageRequest) { r.Tenant = "\xff" }),
		"not JSON":         with(func(r *sdk.SendMessageRequest) { r.Metadata = map[string]any{"n": func() {}} }),
		"bogus role":       with(func(r *sdk.SendMessageRequest) { r.Message.Role = "ROLE_KING" }),
		"nil part":         with(func(r *sdk.SendMessageRequest) { r.Message.Parts = append(r.Message.Parts, nil) }),
		"empty part":       with(func(r *sdk.SendMessageRequest) { r.Message.Parts = append(r.Message.Parts, &sdk.Part{}) }),
		"list data":        with(func(r *sdk.SendMessageRequest) { r.Message.Parts = sdk.ContentParts{sdk.NewDataPart([]any{1})} }),
		"huge history":     with(func(r *sdk.SendMessageRequest) { r.Config = &sdk.SendMessageConfig{HistoryLength: &huge} }),
		"negative history": with(func(r *sdk.SendMessageRequest) { r.Config = &sdk.SendMessageConfig{HistoryLength: &negative} }),
	} {
		if signed, err := a2a.Sign(key, req, a2a.SignOptions{Audience: audience}); err == nil {
			t.Errorf("%s: signed as %+v", name, signed)
		} else {
			wantCode(t, err, a2a.CodeInvalidRequest)
		}
	}
	_, err := a2a.Sign(key, with(func(r *sdk.SendMessageRequest) {
		r.Message.Parts = sdk.ContentParts{sdk.NewTextPart(strings.Repeat("x", a2a.MaxRequestBytes+1))}
	}), a2a.SignOptions{Audience: audience})
	wantCode(t, err, a2a.CodeTooLarge)
	for _, o := range []a2a.SignOptions{{}, {Audience: audience, TTL: time.Hour}, {Audience: audience, JTI: "short"}, {Audience: audience, TTL: -time.Second}} {
		_, err := a2a.Sign(key, newRequest(t), o)
		wantCode(t, err, a2a.CodeInvalidRequest)
	}
}

func TestTokens(t *testing.T) {
	key := newKey(t)
	good := a2a.VerifyOptions{Audiences: []string{audience}}
	token, err := a2a.SignToken(key, a2a.SignOptions{Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a2a.VerifyToken(token, good)
	if err != nil || got.Issuer != key.ID() || !a2a.IsToken(token) {
		t.Fatalf("VerifyToken = %+v, %v", got, err)
	}
	if a2a.IsToken("ac_abc_def") {
		t.Error("an API key is taken for a token")
	}
	parts := strings.Split(token, ".")
	_, err = a2a.VerifyToken(token, a2a.VerifyOptions{Audiences: []string{"other"}})
	wantCode(t, err, a2a.CodeWrongAudience)
	_, err = a2a.VerifyToken(token, a2a.VerifyOptions{Audiences: []string{audience}, Now: time.Now().Add(time.Hour)})
	wantCode(t, err, a2a.CodeExpired)
	_, err = a2a.VerifyToken(token, a2a.VerifyOptions{Audiences: []string{audience}, Now: time.Now().Add(-time.Hour)})
	wantCode(t, err, a2a.CodeNotYetValid)
	_, err = a2a.VerifyToken(parts[0]+"."+parts[1]+"."+strings.Repeat("A", 86), good)
	wantCode(t, err, a2a.CodeSignatureInvalid)
	_, err = a2a.VerifyToken("eyJhbGciOiJub25lIn0."+parts[1]+".", good)
	wantCode(t, err, a2a.CodeSignatureInvalid)
	_, err = a2a.VerifyToken(strings.Repeat("a", 1<<20), good)
	wantCode(t, err, a2a.CodeTooLarge)
	for _, s := range []string{"", "..", "a.b", "a.b.c.d", "!.!.!"} {
		if _, err := a2a.VerifyToken(s, good); err == nil {
			t.Errorf("VerifyToken(%q) succeeded", s)
		}
	}
}

func seedVectors(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var v struct{ Raw string }
		if err := json.Unmarshal(raw, &v); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(v.Raw))
	}
}

// What parses must have one canonical form, and an error must prove nothing.
func FuzzVerify(f *testing.F) {
	seedVectors(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		req, err := a2a.ParseRequest(raw)
		if err != nil {
			if _, ok := errors.AsType[*a2a.Error](err); !ok {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		s, err := a2a.VerifyRaw(raw)
		if err != nil {
			if _, ok := errors.AsType[*a2a.Error](err); !ok || !cmp.Equal(s, a2a.Signed{}) {
				t.Fatalf("VerifyRaw = %+v, %v", s, err)
			}
		}
		canonical, err := a2a.MarshalRequest(req)
		if err != nil {
			return
		}
		again, err := a2a.ParseRequest(canonical)
		if err != nil {
			t.Fatalf("the canonical form does not parse: %v", err)
		}
		twice, err := a2a.MarshalRequest(again)
		if err != nil || !bytes.Equal(twice, canonical) {
			t.Fatalf("two canonical forms: %s\n%s", canonical, twice)
		}
	})
}

// Nobody can make a token that verifies but the one who holds the key.
func FuzzVerifyToken(f *testing.F) {
	key, err := identity.FromSeed(make([]byte, 32)) // the fuzzer's workers must agree
	if err != nil {
		f.Fatal(err)
	}
	at := time.Unix(1_790_000_000, 0)
	token, err := a2a.SignToken(key, a2a.SignOptions{Audience: audience, Now: at, JTI: "000102030405060708090a0b0c0d0e0f"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := a2a.VerifyToken(s, a2a.VerifyOptions{Audiences: []string{audience}, Now: at})
		if err == nil && s != token && got.Issuer == key.ID() {
			t.Fatalf("VerifyToken(%q) = %+v", s, got)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(byteSize(size), func(b *testing.B) {
			req, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: strings.Repeat("x = 1\n", size/6)})
			if err != nil {
				b.Fatal(err)
			}
			signed, err := a2a.Sign(newKey(b), req, a2a.SignOptions{Audience: audience})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a2a.Verify(signed, a2a.VerifyOptions{Audiences: []string{audience}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func byteSize(n int) string {
	switch {
	case n >= 1<<20:
		return "1MiB"
	case n >= 64<<10:
		return "64KiB"
	}
	return "1KiB"
}
