package a2a_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
)

// wishes is a struct as those that doors read.
type wishes struct {
	a2a.Execution                   // embedded, as in a tool's arguments
	Labels        map[string]string `json:"labels"`
	Raw           json.RawMessage   `json:"raw"`
	Ceiling       *struct {
		Memory int64 `json:"memory"`
	} `json:"ceiling"`
	List []struct {
		Name string `json:"name"`
	} `json:"list"`
}

func TestDecodeIsStrict(t *testing.T) {
	for text, says := range map[string]string{
		`{"language":"python","code":"1","limits":{"memory_bytes":1}}`: "",
		`{"labels":{"team":"red","Team":"blue"},"raw":{"A":1,"a":2}}`:  "", // their names are the sender's own
		`{"ceiling":null,"list":null,"labels":null}`:                   "",
		`{"code":"a","code":"b"}`:                                      `member "code" is there twice`,
		`{"Code":"a"}`:                                                 `unknown field "Code"`,
		`{"limits":{"Memory_Bytes":1}}`:                                `unknown field "limits.Memory_Bytes"`,
		`{"limits":{"memory_bytes":1,"memory_bytes":2}}`:               `"limits.memory_bytes" is there twice`,
		`{"labels":{"team":"red","te\u0061m":"blue"}}`:                 `"labels.team" is there twice`,
		`{"raw":{"a":[{"b":1,"b":2}]}}`:                                `"raw.a.b" is there twice`,
		`{"ceiling":{"memory":1,"memory":2}}`:                          `"ceiling.memory" is there twice`,
		`{"ceiling":{"Memory":1}}`:                                     `unknown field "ceiling.Memory"`,
		`{"list":[{"name":"a"},{"name":"b","name":"c"}]}`:              `"list.name" is there twice`,
		`{"list":[{"name":"a"},{"Name":"b"}]}`:                         `unknown field "list.Name"`,
		`{"nom":1}`:                                                    `unknown field "nom"`,
		`{"code":1}`:                                                   `member "code" cannot be a JSON number`,
		`[]`:                                                           "it is no object, but a JSON array",
		``:                                                             "it is empty",
		` {} {}`:                                                       "more than one JSON document",
		`{} x`:                                                         "more than one JSON document",
		`{"raw":` + strings.Repeat(`{"a":`, 20_000):                    "depth",
		`{"raw":` + strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000) + `}`: "",
	} {
		var got wishes
		err := a2a.Decode([]byte(text), &got)
		if err == nil && says != "" || err != nil && (says == "" || !strings.Contains(err.Error(), says)) {
			t.Errorf("%.80s: %v, want %q", text, err, says)
		}
	}
}

// What is read strictly is valid JSON that encoding/json reads alike, and the error of
// what is not is written for its sender, and short.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		`{"language":"starlark","code":"x","limits":{"memory_bytes":1},"files":[{"path":"a","content":"aGk="}]}`,
		`{"code":"a","code":"b"}`, `{"raw":{"a":[{"b":1,"b":2}]}}`, `{} {}`, `[`, "\xff", `{"a\u0000":1}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got, want wishes
		err := a2a.Decode(raw, &got)
		if known, ok := errors.AsType[*a2a.Error](err); err != nil && (!ok || known.Code != a2a.CodeInvalidRequest || len(known.Message) > 1000) {
			t.Fatalf("%q: %v", raw, err)
		}
		if err != nil {
			return
		}
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatalf("%q was read, and encoding/json says %v", raw, err)
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if !bytes.Equal(a, b) {
			t.Fatalf("%q is read as %s, by encoding/json as %s", raw, a, b)
		}
	})
}
