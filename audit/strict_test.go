package audit

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/identity"
)

// What the short cut takes, encoding/json takes too, with the same value, and
// writes as the same bytes.
func FuzzStrict(f *testing.F) {
	for _, text := range []string{
		`{"actor":"a","attempt":1,"author":"b","body":{"a":"}\"{"},"decision":{"allow":true,"input":"i","micros":3,"node":"n","policy":"p","reasons":["r","s"]},"id":"i","kind":"denial","on_behalf":"c","once":{"digest":"d","key":"k"},"ref":0,"task":"t","tenant":"u","time":"2026-11-23T12:00:00.005Z","v":1}`,
		`{"decision":{"allow":true,"node":"n","obligations":{"limits":{"a":1,"b":-2},"sandbox":"s","tier":"t"},"policy":"p"},"id":"i","kind":"k","time":"t","v":1}`,
		`{"decision":{"allow":true,"obligations":{}},"id":"i","kind":"k","time":"t","v":1}`, `{"decision":{"allow":true,"obligations":{"limits":{}}},"id":"i","kind":"k","time":"t","v":1}`,
		`{"id":"","kind":"","time":"","v":-9007199254740991}`,
		`{"door":"d","door_decision":{"allow":false},"executor":"e","language":"l","lease_ms":0,"limits":{"a":1,"b":-2},"network":"none","request":"","required":["a"],"runtime":"r","sandbox":"s"}`,
		`{"cpu_ms":1,"enforced":{"a":"","b":"x"},"error_code":"e","exit_code":-1,"output":{"result":"r"},"peak_memory":2,"status":"failed","wall_ms":3}`,
		`{"action":"a","code":"c","count":2,"door":"d"}`,
		`{"asked":{"code_bytes":1,"limits":{"a":1},"via":"http","withheld":["x"]},"code":"c"}`, `{"asked":{},"code":"c"}`, `{"asked":{"via":""},"code":"c"}`,
		`{"code":"<>& "}`, `{"code":"a","count":0}`, `{"code":"a","count":01}`, `{"code":"a","count":-0}`, `{"code":"a","count":9007199254740993}`,
		`{"code":"\u0041"}`, "{\"code\":\"\u007f\"}", `{"code":"a","code":"b"}`, `{"code":"a",}`, `{,"code":"a"}`, ` {"code":"a"}`, `{"code":"a"} `, `null`, `{}`, ``,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		same(t, text, strictEntry)
		if e, ok := strictEntry(text); ok {
			if again, ok := e.write(); !ok || !bytes.Equal(again, text) {
				t.Fatalf("%s is written as %s", text, again)
			}
		}
		same(t, text, strictIntent)
		same(t, text, strictOutcome)
		same(t, text, strictDenial)
	})
}

func same[T any](t *testing.T, text []byte, quick func([]byte) (T, bool)) {
	t.Helper()
	got, ok := quick(text)
	if !ok {
		return
	}
	// Of the body of an entry only the extent is seen.
	if e, is := any(got).(Entry); is && e.Body != nil && !json.Valid(e.Body) {
		return
	}
	var want T
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatalf("%s: taken, but %v", text, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s: %s", text, diff)
	}
	if e, is := any(got).(Entry); is && e.Body != nil {
		return // the body's own bytes are held against its type
	}
	if again, err := marshal(got); err != nil || !bytes.Equal(again, text) {
		t.Fatalf("%s is written as %s (%v)", text, again, err)
	}
}

// The short cut takes what the path writes: else it would be none.
func TestStrictTakesWhatIsWritten(t *testing.T) {
	asked := &Asked{
		CodeBytes: 1, DataClass: "public", Language: "python", Limits: map[string]int64{"wall_ms": 1}, Network: "none",
		Sandbox: "auto", Tier: "T1", Via: "http", Withheld: []string{"network"},
	}
	for name, taken := range map[string]bool{
		"intent": took(t, IntentBody{
			Asked: asked, Door: "d", DoorDecision: &Decision{Allow: true, Obligations: &Obligations{Limits: map[string]int64{"wall_ms": 1, "cpu_percent": 2}, Sandbox: "process", Tier: "T2"}, Reasons: []string{"role"}}, Executor: "e", Language: "python", LeaseMS: 5,
			Limits: map[string]int64{"wall_ms": 1, "cpu_percent": 2}, Network: "none", Request: "r", Required: []string{"network"}, Runtime: "x", Sandbox: "process",
		}, strictIntent),
		"outcome": took(t, OutcomeBody{
			Enforced: map[string]string{"memory": "cgroup v1", "cpu": "x"}, ErrorCode: "e", ExitCode: 1, Output: map[string]string{"stdout": "o", "result": "r"}, Status: StatusFailed,
		}, strictOutcome),
		"denial": took(t, DenialBody{Action: "a", Asked: asked, Code: "c", Count: 3, Door: "d"}, strictDenial),
	} {
		if !taken {
			t.Errorf("the body of %s entries is not taken", name)
		}
	}
	ref := uint64(7)
	leaf, err := marshal(Entry{
		Actor: "a", Attempt: 1, Author: "b", Body: json.RawMessage(`{"code":"c"}`), Decision: &Decision{Reasons: []string{"r"}}, ID: "i", Kind: KindDenial,
		OnBehalf: "o", Once: &Once{Digest: "d", Key: "k"}, Ref: &ref, Task: "t", Tenant: "u", Time: "now", V: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := strictEntry(leaf); !ok {
		t.Errorf("%s is not taken", leaf)
	}
}

// What the short cut writes is what encoding/json writes.
func FuzzStrictWriter(f *testing.F) {
	f.Add("a", "b", "c", 1, int64(2), uint64(3), true, true)
	f.Add(`"`, `\\`, "\u2028\x7f<>&", -1, int64(-1)<<62, uint64(1)<<63, false, true)
	f.Add("", "\xff", " ~", 0, int64(0), uint64(0), true, false)
	f.Fuzz(func(t *testing.T, a, b, c string, n int, long int64, ref uint64, yes, all bool) {
		e := Entry{Actor: a, Attempt: n, ID: b, Kind: Kind(c), Time: c, V: n, Task: b}
		if all {
			e.Author, e.OnBehalf, e.Tenant = identity.ID(b), c, a
			e.Body = json.RawMessage(`{"a":[1,"<"]}`)
			e.Decision = &Decision{Allow: yes, Input: a, Micros: long, Node: identity.ID(a), Policy: c, Reasons: []string{a, b, c}[:n&3]}
			if yes {
				e.Decision.Obligations = &Obligations{Limits: map[string]int64{a: long, b: 1, c: -1}, Sandbox: b, Tier: c}
			}
			e.Once, e.Ref = &Once{Digest: c, Key: a}, &ref
		}
		got, ok := e.write()
		if want, err := marshal(e); err != nil || ok && !bytes.Equal(got, want) {
			t.Fatalf("%s, want %s (%v)", got, want, err)
		}
	})
}

func FuzzFormatTime(f *testing.F) {
	for _, ms := range []int64{0, -1, 1795824000005, 253402300799999, 253402300800000, -62167219200000, -62167219200001, 1 << 53} {
		f.Add(ms)
	}
	f.Fuzz(func(t *testing.T, ms int64) {
		at := time.UnixMilli(ms)
		if got, want := FormatTime(at), at.UTC().Format(timeLayout); got != want {
			t.Errorf("%d: %q, want %q", ms, got, want)
		}
	})
}

func took[T any](t *testing.T, body T, quick func([]byte) (T, bool)) bool {
	t.Helper()
	text, err := MarshalBody(body)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := quick(text)
	return ok && cmp.Equal(got, body)
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{
		"2026-11-23T12:00:00.005Z", "0000-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z", "2024-02-29T00:00:00.000Z", "2023-02-29T00:00:00.000Z",
		"2026-00-10T00:00:00.000Z", "2026-13-10T00:00:00.000Z", "2026-01-00T00:00:00.000Z", "2026-01-01T24:00:00.000Z", "2026-01-01T00:00:60.000Z", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := time.Parse(timeLayout, s)
		ok := err == nil && FormatTime(want) == s
		if got, err := ParseTime(s); (err == nil) != ok || ok && !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v, %v", s, got, err, want, ok)
		}
	})
}

func BenchmarkDecodeEntry(b *testing.B) {
	body, err := MarshalBody(DenialBody{Code: "denied"})
	if err != nil {
		b.Fatal(err)
	}
	leaf, err := Entry{
		V: EntryVersion, Kind: KindDenial, ID: "i", Author: "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", Time: "2026-11-23T12:00:00.005Z",
		Actor: "agent:x", Tenant: "default", Task: "t", Body: body, Decision: &Decision{Reasons: []string{"no"}, Micros: 5},
	}.Encode()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := decodeEntry(leaf); err != nil {
			b.Fatal(err)
		}
	}
}
