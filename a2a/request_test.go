package a2a_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/a2a"
)

func data(t testing.TB, text string) *sdk.SendMessageRequest {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewDataPart(v))}
}

func text(s string) *sdk.SendMessageRequest {
	return &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewTextPart(s))}
}

func TestExecutionRoundTrip(t *testing.T) {
	want := a2a.Execution{
		Language: "python", Code: "print('é\u2028')", Stdin: "in", Sandbox: "process", Network: "allow=example.org:443", On: "local",
		Files:   []a2a.File{{Path: "dir/a.txt", Content: []byte("a")}, {Path: "b", Content: []byte{0, 255}}},
		Limits:  a2a.Limits{MemoryBytes: 1 << 28, CPUPercent: 50, TimeoutMS: 30000, OutputBytes: 1, FileSizeBytes: 2, Processes: 3},
		Require: []string{"memory", "network"},
	}
	req, err := a2a.NewRequest(want)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := a2a.MarshalRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	back, err := a2a.ParseRequest(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, err := a2a.DecodeExecution(back)
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("DecodeExecution: %v %s", err, cmp.Diff(want, got))
	}
}

func TestExecutionFromText(t *testing.T) {
	for input, want := range map[string]a2a.Execution{
		"```python\nx = 1\n```":                              {Language: "python", Code: "x = 1\n"},
		"Please run:\n\n```py\nx = 1\n\ny\n```  \nThank you": {Language: "python", Code: "x = 1\n\ny\n"},
		"```Starlark title=x\r\nresult = 1\r\n```\r\n":       {Language: "starlark", Code: "result = 1\r\n"},
	} {
		got, err := a2a.DecodeExecution(text(input))
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("DecodeExecution(%q): %v %s", input, err, cmp.Diff(want, got))
		}
	}
	for _, input := range []string{"", "run x = 1", "```\nx\n```", "```python\nx", "```python\n```", "```python\n1\n```\n```python\n2\n```", "```rm -rf\n```", "````python\n1\n", "```python\n1\x00\n```"} {
		_, err := a2a.DecodeExecution(text(input))
		wantCode(t, err, a2a.CodeInvalidRequest)
	}
}

func TestExecutionRefuses(t *testing.T) {
	for _, c := range []struct{ name, data, says string }{
		{"no language", `{"code":"x"}`, "language"},
		{"language with path", `{"language":"../sh","code":"x"}`, "language"},
		{"no code", `{"language":"python"}`, "no code"},
		{"unknown member", `{"language":"python","code":"x","timeout":1}`, "timeout"},
		{"misspelt limit", `{"language":"python","code":"x","limits":{"memory_byts":1}}`, "limits.memory_byts"},
		{"other case", `{"language":"python","Code":"x"}`, "Code"},
		{"negative limit", `{"language":"python","code":"x","limits":{"processes":-1}}`, "processes"},
		{"fraction", `{"language":"python","code":"x","limits":{"processes":1.5}}`, "processes"},
		{"huge number", `{"language":"python","code":"x","limits":{"memory_bytes":1e300}}`, "memory_bytes"},
		{"too much CPU", `{"language":"python","code":"x","limits":{"cpu_percent":100001}}`, "cpu_percent"},
		{"unknown requirement", `{"language":"python","code":"x","require":["luck"]}`, "luck"},
		{"absolute path", `{"language":"python","code":"x","files":[{"path":"/etc/passwd","content":""}]}`, "/etc/passwd"},
		{"path upwards", `{"language":"python","code":"x","files":[{"path":"a/../../b","content":""}]}`, "a/../../b"},
		{"path unclean", `{"language":"python","code":"x","files":[{"path":"a//b","content":""}]}`, "a//b"},
		{"path dot", `{"language":"python","code":"x","files":[{"path":".","content":""}]}`, "empty"},
		{"path NUL", `{"language":"python","code":"x","files":[{"path":"a\u0000b","content":""}]}`, "character"},
		{"code NUL", `{"language":"python","code":"x = 1\u0000"}`, "code holds a NUL"},
		{"path backslash", `{"language":"python","code":"x","files":[{"path":"a\\b","content":""}]}`, "character"},
		{"path twice", `{"language":"python","code":"x","files":[{"path":"a","content":""},{"path":"a","content":""}]}`, "twice"},
		{"file and folder", `{"language":"python","code":"x","files":[{"path":"a/b","content":""},{"path":"a","content":""}]}`, "both"},
		{"long name", `{"language":"python","code":"x","files":[{"path":"` + strings.Repeat("a", 256) + `","content":""}]}`, "longer"},
		{"not base64", `{"language":"python","code":"x","files":[{"path":"a","content":"?"}]}`, "base64"},
		{"network", `{"language":"python","code":"x","network":"all"}`, "network"},
		{"on", `{"language":"python","code":"x","on":"somewhere"}`, "on must be"},
		{"list", `[1]`, "execution"},
		{"code number", `{"language":"python","code":1}`, "execution"},
	} {
		got, err := a2a.DecodeExecution(data(t, c.data))
		wantCode(t, err, a2a.CodeInvalidRequest)
		if err == nil || !strings.Contains(err.Error(), c.says) || !cmp.Equal(got, a2a.Execution{}) {
			t.Errorf("%s: DecodeExecution = %+v, %v; want an error about %q", c.name, got, err, c.says)
		}
	}
	for _, req := range []*sdk.SendMessageRequest{
		nil,
		{},
		{Message: sdk.NewMessage(sdk.MessageRoleUser)},
		{Message: sdk.NewMessage(sdk.MessageRoleUser, nil)},
		{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewTextPart("a"), sdk.NewTextPart("b"))},
		{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewRawPart([]byte("x")))},
	} {
		_, err := a2a.DecodeExecution(req)
		wantCode(t, err, a2a.CodeInvalidRequest)
	}
}

func TestExecutionCaps(t *testing.T) {
	for name, e := range map[string]a2a.Execution{
		"code":  {Language: "python", Code: strings.Repeat("x", a2a.MaxCodeBytes+1)},
		"stdin": {Language: "python", Code: "x", Stdin: strings.Repeat("x", a2a.MaxStdinBytes+1)},
		"files": {Language: "python", Code: "x", Files: []a2a.File{{Path: "a", Content: make([]byte, a2a.MaxFilesBytes+1)}}},
		"many":  {Language: "python", Code: "x", Files: make([]a2a.File, a2a.MaxFiles+1)},
	} {
		_, err := a2a.NewRequest(e)
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		wantCode(t, err, a2a.CodeTooLarge)
	}
	if _, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "\xff"}); err == nil {
		t.Error("code that is not UTF-8 accepted")
	}
	all := a2a.Execution{Language: "python", Code: strings.Repeat("x", a2a.MaxCodeBytes), Files: []a2a.File{{Path: "a", Content: make([]byte, a2a.MaxFilesBytes)}}}
	req, err := a2a.NewRequest(all)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a2a.Sign(newKey(t), req, a2a.SignOptions{Audience: audience}); err != nil {
		t.Errorf("the largest code and files together cannot be signed: %v", err)
	}
}

// The schema and the Go type must name the same members.
func TestSchemaMatchesExecution(t *testing.T) {
	var schema struct {
		Properties map[string]struct {
			Properties map[string]any
			Items      struct{ Properties map[string]any }
		}
		AdditionalProperties *bool
	}
	if err := json.Unmarshal([]byte(a2a.ExecutionSchema()), &schema); err != nil {
		t.Fatal(err)
	}
	if schema.AdditionalProperties == nil || *schema.AdditionalProperties {
		t.Error("the schema admits unknown members")
	}
	compare := func(name string, got []string, v any) {
		var want []string
		for f := range reflect.TypeOf(v).Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			want = append(want, tag)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: schema has %v, the type %v", name, got, want)
		}
	}
	compare("execution", keys(schema.Properties), a2a.Execution{})
	compare("limits", keys(schema.Properties["limits"].Properties), a2a.Limits{})
	compare("file", keys(schema.Properties["files"].Items.Properties), a2a.File{})
}

func keys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	return out
}

func FuzzDecodeExecution(f *testing.F) {
	f.Add([]byte(`{"language":"python","code":"x","files":[{"path":"a","content":"AA=="}],"limits":{"processes":1},"require":["memory"]}`))
	f.Add([]byte("```python\nx\n```"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		reqs := []*sdk.SendMessageRequest{text(string(raw))}
		var v any
		if json.Unmarshal(raw, &v) == nil {
			reqs = append(reqs, &sdk.SendMessageRequest{Message: sdk.NewMessage(sdk.MessageRoleUser, sdk.NewDataPart(v))})
		}
		for _, req := range reqs {
			e, err := a2a.DecodeExecution(req)
			if err != nil {
				if !cmp.Equal(e, a2a.Execution{}) {
					t.Fatalf("an error with a value: %+v, %v", e, err)
				}
				continue
			}
			again, err := a2a.NewRequest(e)
			if err != nil {
				continue // text that is not UTF-8
			}
			back, err := a2a.DecodeExecution(again)
			if a, b := mustJSON(t, e), mustJSON(t, back); err != nil || a != b {
				t.Fatalf("decoded again: %v\n%s\n%s", err, a, b)
			}
		}
	})
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
