package a2a

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/identity"
)

var addVectors = flag.Bool("add", false, "write the vectors that have no file yet; existing files are never changed")

const vectorsDir = "testdata/vectors"

// vector is one file: language-neutral, so that any implementation of the
// extension can be held against it.
type vector struct {
	Comment   string   `json:"comment"`
	Raw       string   `json:"raw"`       // the ProtoJSON of a SendMessageRequest, as it came
	Now       int64    `json:"now"`       // the verifier's clock, seconds since 1970
	Audiences []string `json:"audiences"` // the names the verifier answers to
	Want      want     `json:"want"`
}

type want struct {
	Code   string `json:"code,omitempty"` // of the error; empty: the signature holds
	Issuer string `json:"issuer,omitempty"`
	JTI    string `json:"jti,omitempty"`
	Digest string `json:"digest,omitempty"` // hex SHA-256 of the canonical request without the signature
	Task   string `json:"task,omitempty"`
}

func (v vector) check() want {
	req, err := ParseRequest([]byte(v.Raw))
	if err != nil {
		return want{Code: FromWire(err).Code}
	}
	s, err := Verify(req, VerifyOptions{Audiences: v.Audiences, Now: time.Unix(v.Now, 0)})
	if err != nil {
		return want{Code: FromWire(err).Code}
	}
	return want{Issuer: s.Issuer.DID(), JTI: s.JTI, Digest: s.Digest, Task: s.Task()}
}

// INVARIANT: I3, a signature covers what was received.
func TestVectorsASignatureCoversWhatWasReceived(t *testing.T) {
	if *addVectors {
		writeVectors(t)
	}
	files, err := filepath.Glob(filepath.Join(vectorsDir, "*.json"))
	if err != nil || len(files) < len(makeVectors(t)) {
		t.Fatalf("%d vectors, %v; run go test -run Vectors -add", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var v vector
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(filepath.Base(file), "good-") != (v.Want.Code == "") {
				t.Fatalf("the file's name does not say what it wants: %+v", v.Want)
			}
			if got := v.check(); got != v.Want {
				t.Errorf("got %+v, want %+v (%s)", got, v.Want, v.Comment)
			}
		})
	}
}

// What this version makes of the cases must be what the files hold.
func TestVectorsAreWhatWeMake(t *testing.T) {
	for name, made := range makeVectors(t) {
		raw, err := os.ReadFile(filepath.Join(vectorsDir, name+".json"))
		if err != nil {
			t.Errorf("%v; run go test -run Vectors -add", err)
			continue
		}
		var v vector
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		if v.Raw != made.Raw || v.Now != made.Now {
			t.Errorf("%s: made now %q, file has %q", name, made.Raw, v.Raw)
		}
	}
}

func writeVectors(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(vectorsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, v := range makeVectors(t) {
		file := filepath.Join(vectorsDir, name+".json")
		if _, err := os.Stat(file); err == nil {
			continue
		}
		got := v.check()
		if got.Code != v.Want.Code {
			t.Errorf("%s: got %+v, want code %q; not written", name, got, v.Want.Code)
			continue
		}
		v.Want = got
		raw, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	vectorNow = 1_790_000_000
	vectorJTI = "000102030405060708090a0b0c0d0e0f"
)

func vectorKey(t testing.TB, seed byte) *identity.Key {
	t.Helper()
	b := make([]byte, 32)
	b[0] = seed
	key, err := identity.FromSeed(b)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fullRequest has a value in every field that a request can have.
func fullRequest() *sdk.SendMessageRequest {
	five := 5
	part := sdk.NewDataPart(map[string]any{"language": "python", "code": "result = 1", "limits": map[string]any{"timeout_ms": 1000.0}})
	part.Filename, part.MediaType, part.Metadata = "main.json", "application/json", map[string]any{"part": "meta"}
	return &sdk.SendMessageRequest{
		Tenant: "acme",
		Config: &sdk.SendMessageConfig{
			AcceptedOutputModes: []string{"application/json"},
			HistoryLength:       &five,
			PushConfig:          &sdk.PushConfig{URL: "https://example.org/hook", Token: "t", ID: "p", Auth: &sdk.PushAuthInfo{Scheme: "Bearer", Credentials: "c"}},
		},
		Message: &sdk.Message{
			ID: "m-1", ContextID: "c-1", TaskID: "t-1", Role: sdk.MessageRoleUser,
			Extensions:     []string{"https://example.org/ext"},
			Metadata:       map[string]any{"https://example.org/ext": map[string]any{"a": 1.0}},
			ReferenceTasks: []sdk.TaskID{"r-1"},
			Parts:          sdk.ContentParts{part},
		},
		Metadata: map[string]any{"trace": "00-1"},
	}
}

func plainRequest(data map[string]any) *sdk.SendMessageRequest {
	return &sdk.SendMessageRequest{Message: &sdk.Message{ID: "m-1", Role: sdk.MessageRoleUser, Parts: sdk.ContentParts{sdk.NewDataPart(data)}}}
}

// forge signs with any header and any claims, as an attacker who holds a key
// could. sign may replace the signature.
func forge(t testing.TB, key *identity.Key, req *sdk.SendMessageRequest, header, claims string, sign func(input []byte) []byte) string {
	t.Helper()
	canonical, err := canonicalJSON([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	var said any
	if err := json.Unmarshal(canonical, &said); err != nil {
		t.Fatal(err)
	}
	message := *req.Message
	message.Extensions = append(slices.Clone(message.Extensions), SignedMessageURI)
	message.Metadata = maps.Clone(message.Metadata)
	out := *req
	out.Message = &message
	payload, _, err := messagePayload(said, &out)
	if err != nil {
		t.Fatal(err)
	}
	protected := b64.EncodeToString([]byte(header))
	if sign == nil {
		sign = key.SignRaw
	}
	message.SetMeta(SignedMessageURI, map[string]any{
		"claims":     said,
		"signatures": []any{map[string]any{"protected": protected, "signature": b64.EncodeToString(sign(signingInput(protected, payload)))}},
	})
	raw, err := MarshalRequest(&out)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// makeVectors makes every case, the same on every run.
func makeVectors(t testing.TB) map[string]vector {
	t.Helper()
	key, other := vectorKey(t, 1), vectorKey(t, 2)
	aud := Audience("vectors")
	out := make(map[string]vector)
	add := func(name, raw, code, comment string) {
		if _, ok := out[name]; ok {
			t.Fatalf("two vectors are named %s", name)
		}
		out[name] = vector{Comment: comment, Raw: raw, Now: vectorNow, Audiences: []string{aud, other.ID().DID()}, Want: want{Code: code}}
	}
	at := func(name string, now int64) {
		v := out[name]
		v.Now = now
		out[name] = v
	}
	sign := func(req *sdk.SendMessageRequest, o SignOptions) string {
		if o.Audience == "" {
			o.Audience = aud
		}
		if o.JTI == "" {
			o.JTI = vectorJTI
		}
		o.Now = time.Unix(vectorNow, 0)
		signed, err := Sign(key, req, o)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := MarshalRequest(signed)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	simple := map[string]any{"language": "python", "code": "result = 1"}
	plain, full := sign(plainRequest(simple), SignOptions{}), sign(fullRequest(), SignOptions{Mandate: []MandateBlock{{Subject: "service:k1", Tenant: "acme", Via: key.ID().DID()}}})

	add("good-plain", plain, "", "one data part")
	add("good-full", full, "", "a value in every field, and a mandate")
	once := MandateBlock{Subject: "service:k1", Tenant: "acme", Via: key.ID().DID(), Once: OnceOf("8e03978e-40d5-43dd-bc93-6894a57f9324")}
	add("good-mandate-once", sign(plainRequest(simple), SignOptions{Mandate: []MandateBlock{once}}), "", "a mandate whose principal repeats his request by a key: the task is his, not the node's")
	add("good-audience-node", sign(plainRequest(simple), SignOptions{Audience: other.ID().DID()}), "", "signed for one node")
	add("good-jti-base64url", sign(plainRequest(simple), SignOptions{JTI: "AAECAwQFBgcICQoLDA0ODw"}), "", "a jti in base64url")
	add("good-unicode", sign(plainRequest(map[string]any{"language": "python", "code": "s = '\u2028\u2029 \U0001F980 e\u0301 \u00e9 </script>\\'", "\U0001F980": 1.0, "\uFB33": 2.0}), SignOptions{}), "", "U+2028, astral keys (sorted by UTF-16 units), no normalisation")
	add("good-numbers", sign(plainRequest(map[string]any{"a": 0.1, "b": 1e-7, "c": 0.0, "d": 9007199254740991.0, "e": 5e-324, "f": 333333333.33333329}), SignOptions{}), "", "doubles in every form, up to 2^53-1")
	add("good-text", sign(&sdk.SendMessageRequest{Message: &sdk.Message{ID: "m-1", Role: sdk.MessageRoleUser, Parts: sdk.ContentParts{sdk.NewTextPart("```python\n1\n```")}}}, SignOptions{}), "", "a text part")
	add("good-raw-and-url", sign(&sdk.SendMessageRequest{Message: &sdk.Message{ID: "m-1", Role: sdk.MessageRoleUser, Parts: sdk.ContentParts{sdk.NewRawPart([]byte{0, 255}), sdk.NewFileURLPart("https://example.org/f", "text/plain")}}}, SignOptions{}), "", "bytes and a URL")
	add("good-key-order", reorder(t, full), "", "members in another order, with white space")
	add("good-snake-case", strings.NewReplacer(`"messageId"`, `"message_id"`, `"contextId"`, `"context_id"`, `"historyLength"`, `"history_length"`).Replace(full), "", "ProtoJSON also accepts the proto's own names")
	add("good-number-forms", strings.NewReplacer(`"timeout_ms":1000`, `"timeout_ms":1.0e3`, `"iat":1790000000`, `"iat":1.79E9`).Replace(full), "", "the same numbers written otherwise")
	add("good-escapes", strings.Replace(plain, `"python"`, `"\u0070ython"`, 1), "", "the same string written with an escape")
	add("good-unknown-member", strings.Replace(plain, `{"message"`, `{"unheardOf":{"x":1},"message"`, 1), "", "unknown members of A2A messages are dropped before anything is read")

	header := fmt.Sprintf(`{"alg":"EdDSA","typ":"a2a-msg+jws","kid":%q}`, key.ID().KeyURL())
	claims := fmt.Sprintf(`{"iss":%q,"aud":%q,"iat":%d,"exp":%d,"jti":%q,"op":"SendMessage"}`, key.ID().DID(), aud, vectorNow, vectorNow+120, vectorJTI)
	with := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("%q is not in %q", old, s)
		}
		return strings.Replace(s, old, new, 1)
	}
	forged := func(header, claims string) string { return forge(t, key, plainRequest(simple), header, claims, nil) }
	add("good-forged-as-made", forged(header, claims), "", "the base of the cases below, made by hand")
	add("good-alg-ed25519", forged(with(header, `"EdDSA"`, `"Ed25519"`), claims), "", "RFC 9864 name of the algorithm")
	add("good-exp-at-most", forged(header, with(claims, fmt.Sprint(vectorNow+120), fmt.Sprint(vectorNow+300))), "", "valid for five minutes")

	for name, change := range map[string][2]string{
		"code":               {`"code":"result = 1"`, `"code":"result = 2"`},
		"limit":              {`"timeout_ms":1000`, `"timeout_ms":1001`},
		"part-filename":      {`"main.json"`, `"main2.json"`},
		"part-media-type":    {`"mediaType":"application/json"`, `"mediaType":"text/plain"`},
		"part-metadata":      {`"part":"meta"`, `"part":"beta"`},
		"message-id":         {`"messageId":"m-1"`, `"messageId":"m-2"`},
		"context-id":         {`"contextId":"c-1"`, `"contextId":"c-2"`},
		"task-id":            {`"taskId":"t-1"`, `"taskId":"t-2"`},
		"role":               {`"ROLE_USER"`, `"ROLE_AGENT"`},
		"reference-task":     {`"r-1"`, `"r-2"`},
		"extensions":         {`"extensions":["https://example.org/ext",`, `"extensions":["https://example.org/ex",`},
		"message-metadata":   {`"https://example.org/ext":{"a":1}`, `"https://example.org/ext":{"a":2}`},
		"request-metadata":   {`"trace":"00-1"`, `"trace":"00-2"`},
		"tenant":             {`"tenant":"acme"}`, `"tenant":"evil"}`},
		"config-output":      {`"acceptedOutputModes":["application/json"]`, `"acceptedOutputModes":["text/plain"]`},
		"config-history":     {`"historyLength":5`, `"historyLength":6`},
		"config-immediately": {`"historyLength":5`, `"historyLength":5,"returnImmediately":true`},
		"config-push-url":    {`https://example.org/hook`, `https://evil.example/hook`},
		"config-push-token":  {`"token":"t"`, `"token":"u"`},
		"config-push-auth":   {`"credentials":"c"`, `"credentials":"d"`},
		"claim-aud":          {`"aud":"agenticraft:vectors"`, `"aud":"` + other.ID().DID() + `"`},
		"claim-iat":          {`"iat":1790000000`, `"iat":1790000001`},
		"claim-exp":          {`"exp":1790000120`, `"exp":1790000121`},
		"claim-jti":          {vectorJTI, "100102030405060708090a0b0c0d0e0f"},
		"claim-op":           {`"op":"SendMessage"`, `"op":"CancelTask"`},
		"claim-iss":          {`"iss":"` + key.ID().DID(), `"iss":"` + other.ID().DID()},
		"mandate-sub":        {`"sub":"service:k1"`, `"sub":"service:k2"`},
		"mandate-tenant":     {`"tenant":"acme","via"`, `"tenant":"evil","via"`},
		"signature":          {`"signature":"`, `"signature":"AAAA`},
		"unicode-normalised": {`"part":"meta"`, `"part":"meta\u0301"`},
	} {
		add("bad-tampered-"+name, with(full, change[0], change[1]), CodeSignatureInvalid, "one value changed after signing")
	}
	add("bad-configuration-swapped", with(plain, `{"message"`, `{"configuration":{"taskPushNotificationConfig":{"url":"https://evil.example/"}},"message"`), CodeSignatureInvalid, "a bridge added a push webhook")
	add("bad-mandate-removed", with(full, `"mandate":[{"sub":"service:k1","tenant":"acme","via":"`+key.ID().DID()+`"}]`, `"mandate":[]`), CodeSignatureInvalid, "the mandate was taken away")
	add("bad-part-added", with(plain, `"parts":[`, `"parts":[{"text":"x"},`), CodeSignatureInvalid, "a part was added")

	add("bad-wrong-audience", sign(plainRequest(simple), SignOptions{Audience: Audience("other")}), CodeWrongAudience, "signed for another cluster")
	add("bad-expired", plain, CodeExpired, "one second beyond exp and the allowed skew")
	at("bad-expired", vectorNow+120+30+1)
	add("good-expired-within-skew", plain, "", "at exp and the allowed skew")
	at("good-expired-within-skew", vectorNow+120+30)
	add("bad-future", plain, CodeNotYetValid, "one second before iat less the allowed skew")
	at("bad-future", vectorNow-30-1)
	add("good-future-within-skew", plain, "", "at iat less the allowed skew")
	at("good-future-within-skew", vectorNow-30)
	add("bad-exp-too-far", forged(header, with(claims, fmt.Sprint(vectorNow+120), fmt.Sprint(vectorNow+301))), CodeInvalidRequest, "valid for more than five minutes")
	add("bad-exp-before-iat", forged(header, with(claims, fmt.Sprint(vectorNow+120), fmt.Sprint(vectorNow))), CodeInvalidRequest, "exp is iat")
	add("bad-op", forged(header, with(claims, `"SendMessage"`, `"CancelTask"`)), CodeInvalidRequest, "signed for another operation")
	add("bad-claim-unknown", forged(header, with(claims, `"op"`, `"narrow":1,"op"`)), CodeInvalidRequest, "a claim that we do not know may narrow the request")
	add("bad-claim-case", forged(header, with(claims, `"aud"`, `"Aud"`)), CodeInvalidRequest, "names are exact")
	add("bad-claim-fraction", forged(header, with(claims, `"iat":1790000000`, `"iat":1790000000.5`)), CodeInvalidRequest, "times are whole seconds")
	add("bad-claim-jti-short", forged(header, with(claims, vectorJTI, "0001")), CodeInvalidRequest, "less than 128 bits")
	add("bad-claim-aud-list", forged(header, with(claims, `"`+aud+`"`, `["`+aud+`"]`)), CodeInvalidRequest, "the audience is one text")
	add("bad-mandate-once", forged(header, with(claims, `"op"`, `"mandate":[{"once":"8e03978e-40d5-43dd-bc93-6894a57f9324","sub":"a","via":"b"}],"op"`)), CodeInvalidRequest, "once is 128 bits in hex")
	add("bad-mandate-two", forged(header, with(claims, `"op"`, `"mandate":[{"sub":"a","via":"b"},{"sub":"a","via":"b"}],"op"`)), CodeInvalidRequest, "version 1 has at most one mandate block")

	add("bad-alg-none", forge(t, key, plainRequest(simple), with(header, `"EdDSA"`, `"none"`), claims, func([]byte) []byte { return nil }), CodeSignatureInvalid, "alg none, no signature")
	add("bad-alg-none-signed", forged(with(header, `"EdDSA"`, `"none"`), claims), CodeSignatureInvalid, "alg none with a good signature")
	public, err := key.ID().PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	add("bad-alg-confusion", forge(t, key, plainRequest(simple), with(header, `"EdDSA"`, `"HS256"`), claims, func(input []byte) []byte {
		mac := hmac.New(sha256.New, public)
		mac.Write(input)
		return mac.Sum(nil)
	}), CodeSignatureInvalid, "HMAC with the public key as its secret")
	add("bad-alg-case", forged(with(header, `"EdDSA"`, `"eddsa"`), claims), CodeSignatureInvalid, "names are exact")
	add("bad-alg-missing", forged(with(header, `"alg":"EdDSA",`, ``), claims), CodeSignatureInvalid, "no alg")
	add("bad-crit", forged(with(header, `"alg"`, `"crit":["exp"],"exp":1,"alg"`), claims), CodeSignatureInvalid, "unknown crit")
	add("bad-b64", forged(with(header, `"alg"`, `"b64":false,"crit":["b64"],"alg"`), claims), CodeSignatureInvalid, "RFC 7797 is not part of the extension")
	add("bad-jwk", forged(with(header, `"alg"`, `"jwk":{"kty":"OKP"},"alg"`), claims), CodeSignatureInvalid, "a key of the sender's choosing")
	add("bad-jku", forged(with(header, `"alg"`, `"jku":"https://evil.example/jwks","alg"`), claims), CodeSignatureInvalid, "a key from an address")
	add("bad-typ-card", forged(with(header, `a2a-msg+jws`, `JOSE`), claims), CodeSignatureInvalid, "a signature made for a card")
	add("bad-typ-token", forged(with(header, `a2a-msg+jws`, `a2a-token+jwt`), claims), CodeSignatureInvalid, "a signature made for a token")
	add("bad-kid-other", forged(with(header, key.ID().KeyURL(), other.ID().KeyURL()), claims), CodeSignatureInvalid, "kid is not the issuer's")
	add("bad-kid-fragment", forged(with(header, key.ID().KeyURL(), key.ID().DID()), claims), CodeSignatureInvalid, "kid without its fragment")
	add("bad-kid-web", forged(with(header, key.ID().KeyURL(), "did:web:example.org#1"), claims), CodeSignatureInvalid, "another DID method")
	add("bad-iss-other", forged(header, with(claims, key.ID().DID(), other.ID().DID())), CodeSignatureInvalid, "in another's name, with one's own key")
	add("bad-kid-and-iss-other", forged(with(header, key.ID().KeyURL(), other.ID().KeyURL()), with(claims, key.ID().DID(), other.ID().DID())), CodeSignatureInvalid, "in another's name")
	add("bad-header-duplicate", forged(with(header, `"alg":"EdDSA"`, `"alg":"none","alg":"EdDSA"`), claims), CodeSignatureInvalid, "duplicate member in the protected header")
	add("bad-header-padding", forge(t, key, plainRequest(simple), header+" ", claims, func(input []byte) []byte { return key.SignRaw(input[1:]) }), CodeSignatureInvalid, "signed something else")

	add("bad-duplicate-member", with(plain, `"message":`, `"tenant":"a","tenant":"b","message":`), CodeInvalidRequest, "duplicate member in the request")
	add("bad-duplicate-data", with(plain, `"language":"python"`, `"language":"sh","language":"python"`), CodeInvalidRequest, "duplicate member in the data part")
	add("bad-duplicate-claim", with(plain, `"aud":`, `"aud":"x","aud":`), CodeInvalidRequest, "duplicate claim")
	add("bad-duplicate-name-forms", with(plain, `"messageId":"m-1"`, `"messageId":"m-1","message_id":"m-2"`), CodeInvalidRequest, "one field under both its names")
	add("bad-number-2-53-plus-1", with(plain, `"language":`, `"n":9007199254740993,"language":`), CodeInvalidRequest, "not a number that every reader sees alike")
	add("bad-number-out-of-range", with(plain, `"language":`, `"n":1e400,"language":`), CodeInvalidRequest, "beyond a double")
	add("bad-lone-surrogate", with(plain, `"python"`, `"\ud800"`), CodeInvalidRequest, "half a character")
	add("bad-null-part", with(plain, `"parts":[`, `"parts":[null,`), CodeInvalidRequest, "a part that is nothing")
	add("bad-role", with(plain, `"ROLE_USER"`, `"ROLE_KING"`), CodeInvalidRequest, "an unknown role")
	add("bad-trailing", plain+`{}`, CodeInvalidRequest, "data after the request")
	add("bad-nesting", with(plain, `"language":`, `"deep":`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`,"language":`), CodeInvalidRequest, "nested too deep")
	add("bad-empty", ``, CodeInvalidRequest, "nothing")
	add("bad-no-message", `{}`, CodeInvalidRequest, "no message")

	unsigned, err := MarshalRequest(plainRequest(simple))
	if err != nil {
		t.Fatal(err)
	}
	add("bad-unsigned", string(unsigned), CodeSignatureMissing, "no signature at all")
	add("bad-extension-not-named", with(plain, `"extensions":["`+SignedMessageURI+`"],`, ``), CodeInvalidRequest, "a signature without its extension")
	add("bad-signatures-none", cut(t, plain, `"signatures":[`, `]`), CodeInvalidRequest, "an empty list of signatures")
	add("bad-signatures-two", with(plain, `"signatures":[{`, `"signatures":[{"protected":"","signature":""},{`), CodeInvalidRequest, "more than one signature")
	add("bad-carrier-text", cutObject(t, plain), CodeInvalidRequest, "the carrier is a text")
	add("bad-carrier-member", with(plain, `"signatures":[`, `"header":{"alg":"none"},"signatures":[`), CodeInvalidRequest, "an unknown member beside claims and signatures")
	return out
}

// cut removes what stands between from and the next to.
func cut(t testing.TB, s, from, to string) string {
	t.Helper()
	head, tail, ok := strings.Cut(s, from)
	if !ok {
		t.Fatalf("%q is not in %q", from, s)
	}
	_, tail, _ = strings.Cut(tail, to)
	return head + from + to + tail
}

func cutObject(t testing.TB, s string) string {
	t.Helper()
	var req map[string]any
	if err := json.Unmarshal([]byte(s), &req); err != nil {
		t.Fatal(err)
	}
	req["message"].(map[string]any)["metadata"].(map[string]any)[SignedMessageURI] = "signed, believe me"
	raw, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// reorder writes the members of every object in falling order, indented.
func reorder(t testing.TB, s string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	backwards(&b, v)
	return b.String()
}

func backwards(b *strings.Builder, v any) {
	switch v := v.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		slices.Reverse(names)
		b.WriteString("{\n")
		for i, name := range names {
			if i > 0 {
				b.WriteString(" ,\t")
			}
			raw, _ := json.Marshal(name)
			b.Write(raw)
			b.WriteString(" : ")
			backwards(b, v[name])
		}
		b.WriteString("\r\n}")
	case []any:
		b.WriteString("[ ")
		for i, item := range v {
			if i > 0 {
				b.WriteString(" , ")
			}
			backwards(b, item)
		}
		b.WriteString(" ]")
	default:
		raw, _ := json.Marshal(v)
		b.Write(raw)
	}
}
