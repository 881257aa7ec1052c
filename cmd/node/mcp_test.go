package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/agenticraft/node/a2a"
)

// keyed sends an API key with every request.
type keyed string

func (b keyed) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(req)
}

// said are the progress messages of a session.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// mcpSession connects the official SDK's client.
func mcpSession(t *testing.T, transport mcp.Transport) (*mcp.ClientSession, *said) {
	t.Helper()
	heard := new(said)
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, req *mcp.ProgressNotificationClientRequest) {
			heard.mu.Lock()
			defer heard.mu.Unlock()
			heard.text.WriteString(req.Params.Message)
		},
	})
	s, err := client.Connect(t.Context(), transport, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the process may have been asked to end by then
	return s, heard
}

// call calls a tool and reads its answer.
func call(t *testing.T, s *mcp.ClientSession, name string, args map[string]any, into any) (bad bool) {
	t.Helper()
	params := &mcp.CallToolParams{Name: name, Arguments: args}
	params.SetProgressToken(name)
	res, err := s.CallTool(t.Context(), params)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	text, err := json.Marshal(res.StructuredContent)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s answered %s: %v", name, text, err)
	}
	// Older clients read the text.
	shown, ok := res.Content[0].(*mcp.TextContent)
	var of any
	if !ok || json.Unmarshal([]byte(shown.Text), &of) != nil {
		t.Errorf("%s: content %+v", name, res.Content)
	}
	return res.IsError
}

type toolError struct {
	Error struct{ Code, Message, Hint string } `json:"error"`
}

// The official SDK's client uses every tool, over HTTP and through the command.
func TestMCP(t *testing.T) {
	c := startCluster(t, 1)
	c.json(new(any), "key", "create", "--name", "looker", "--role", "viewer")
	endpoint := c.Nodes[0].HTTP + "/mcp"
	command := exec.Command(testBinary, "mcp")
	command.Env = c.env()
	for name, transport := range map[string]mcp.Transport{
		"http":  &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: &http.Client{Transport: keyed(c.APIKey)}},
		"stdio": &mcp.CommandTransport{Command: command},
	} {
		t.Run(name, func(t *testing.T) {
			s, heard := mcpSession(t, transport)
			offered, err := s.ListTools(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, tool := range offered.Tools {
				names = append(names, tool.Name)
			}
			slices.Sort(names)
			if want := []string{"cancel_task", "find_peers", "list_runtimes", "run_code", "task_receipt", "task_result", "task_status", "verify_receipt"}; !slices.Equal(names, want) {
				t.Errorf("tools %v, want %v", names, want)
			}

			var rep a2a.Report
			if bad := call(t, s, "run_code", map[string]any{"language": "starlark", "code": "print('hello')\nresult = 6 * 7"}, &rep); bad || string(rep.Result) != "42" || rep.Intent == nil || rep.Outcome == nil {
				t.Errorf("run_code = %+v, bad %v", rep, bad)
			}
			// The client handles it beside the answer.
			c.await("the progress to be told", func() bool { return strings.Contains(heard.String(), "hello") })
			var intent struct {
				Entry struct {
					Body struct {
						Asked struct {
							Via string `json:"via"`
						} `json:"asked"`
					} `json:"body"`
				} `json:"entry"`
			}
			c.json(&intent, "audit", "show", strconv.FormatUint(*rep.Intent, 10))
			if want := map[string]string{"http": "mcp", "stdio": "http"}[name]; intent.Entry.Body.Asked.Via != want {
				t.Errorf("the log says that it came through %q, want %q", intent.Entry.Body.Asked.Via, want)
			}

			var failed a2a.Report
			if bad := call(t, s, "run_code", map[string]any{"language": "starlark", "code": "result = 1 // 0"}, &failed); !bad || failed.Error == nil || failed.Error.Code != "language_error" {
				t.Errorf("a program that fails: %+v, bad %v", failed, bad)
			}
			var how struct {
				Task, Status string
				ExitCode     int `json:"exit_code"`
			}
			if bad := call(t, s, "task_status", map[string]any{"task": failed.Task}, &how); bad || how.Status != "failed" || how.ExitCode != 1 {
				t.Errorf("task_status = %+v, bad %v", how, bad)
			}
			var again a2a.Report
			if bad := call(t, s, "task_result", map[string]any{"task": rep.Task}, &again); bad || string(again.Result) != "42" || again.Stdout != "hello\n" {
				t.Errorf("task_result = %+v, bad %v", again, bad)
			}

			var receipt map[string]any
			if bad := call(t, s, "task_receipt", map[string]any{"task": rep.Task}, &receipt); bad {
				t.Errorf("task_receipt = %v", receipt)
			}
			var verdict struct {
				Verified bool
				Checks   []any
			}
			if bad := call(t, s, "verify_receipt", map[string]any{"receipt": receipt}, &verdict); bad || !verdict.Verified || len(verdict.Checks) == 0 {
				t.Errorf("verify_receipt = %+v, bad %v", verdict, bad)
			}
			for _, forged := range []map[string]any{{"v": 1}, {"stdout": "forged"}} {
				for name, value := range receipt {
					if _, ok := forged[name]; !ok && forged["stdout"] != nil {
						forged[name] = value
					}
				}
				if bad := call(t, s, "verify_receipt", map[string]any{"receipt": forged}, &verdict); !bad || verdict.Verified {
					t.Errorf("a forged receipt is verified: %+v", verdict)
				}
			}

			var begun a2a.Report
			if bad := call(t, s, "run_code", map[string]any{"language": "starlark", "detach": true, "code": "def f():\n    for i in range(1 << 30):\n        pass\nf()"}, &begun); bad || begun.Status != a2a.Running {
				t.Fatalf("detached: %+v, bad %v", begun, bad)
			}
			var ended a2a.Report
			if bad := call(t, s, "cancel_task", map[string]any{"task": begun.Task}, &ended); bad || ended.Status != a2a.Cancelled {
				t.Errorf("cancel_task = %+v, bad %v", ended, bad)
			}

			var offers struct {
				Sandboxes []struct{ Name string } `json:"sandboxes"`
			}
			if bad := call(t, s, "list_runtimes", nil, &offers); bad || len(offers.Sandboxes) == 0 {
				t.Errorf("list_runtimes = %+v, bad %v", offers, bad)
			}
			var peers struct {
				Nodes []nodeView `json:"nodes"`
			}
			if bad := call(t, s, "find_peers", map[string]any{"language": "starlark"}, &peers); bad || len(peers.Nodes) != 1 || peers.Nodes[0].ID != c.Nodes[0].ID {
				t.Errorf("find_peers = %+v, bad %v", peers, bad)
			}

			for what, tc := range map[string]struct {
				tool string
				args map[string]any
				code string
			}{
				"no code":          {"run_code", map[string]any{"language": "starlark"}, "invalid_request"},
				"unknown member":   {"run_code", map[string]any{"language": "starlark", "code": "1", "frob": 1}, "invalid_request"},
				"wrong type":       {"run_code", map[string]any{"language": 7, "code": "1"}, "invalid_request"},
				"unknown language": {"run_code", map[string]any{"language": "cobol", "code": "1"}, "language_not_allowed"},
				"no such task":     {"task_result", map[string]any{"task": strings.Repeat("0", 32)}, "not_found"},
				"no task id":       {"task_result", map[string]any{"task": "../keys"}, "invalid_request"},
				"no receipt":       {"verify_receipt", map[string]any{}, "invalid_request"},
				"bad trust":        {"verify_receipt", map[string]any{"receipt": receipt, "trust": map[string]any{"v": 9}}, "invalid_request"},
				"no language":      {"find_peers", map[string]any{}, "invalid_request"},
			} {
				var why toolError
				if bad := call(t, s, tc.tool, tc.args, &why); !bad || why.Error.Code != tc.code || why.Error.Message == "" {
					t.Errorf("%s: %+v, bad %v; want %s", what, why, bad, tc.code)
				}
			}
			if _, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: "rm_rf"}); err == nil {
				t.Error("a tool that does not exist was called")
			}
		})
	}
}

// Policy decides for MCP's callers as for all others, and who has no credential
// sees no tool. The command ends with its input.
func TestMCPCallers(t *testing.T) {
	c := startCluster(t, 1)
	var viewer struct{ Key string }
	c.json(&viewer, "key", "create", "--name", "looker", "--role", "viewer")
	endpoint := c.Nodes[0].HTTP + "/mcp"
	s, _ := mcpSession(t, &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: &http.Client{Transport: keyed(viewer.Key)}})
	var rep a2a.Report
	if bad := call(t, s, "run_code", map[string]any{"language": "starlark", "code": "result = 1"}, &rep); !bad || rep.Status != a2a.Denied || rep.Intent != nil {
		t.Errorf("a viewer's run: %+v, bad %v", rep, bad)
	}
	hello := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`
	post := func(body, key string, header map[string]string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		for name, value := range header {
			req.Header.Set(name, value)
		}
		res, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	for what, tc := range map[string]struct {
		body, key string
		header    map[string]string
		status    int
	}{
		"no credential":    {hello, "", nil, http.StatusUnauthorized},
		"wrong credential": {hello, c.APIKey[:len(c.APIKey)-1] + "!", nil, http.StatusUnauthorized},
		"right":            {hello, c.APIKey, nil, http.StatusOK},
		"garbage":          {"{", c.APIKey, nil, http.StatusBadRequest},
		"nothing":          {"", c.APIKey, nil, http.StatusBadRequest},
		"another site":     {hello, c.APIKey, map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, http.StatusForbidden},
		"too long":         {`{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"` + strings.Repeat("x", 12<<20) + `"}}`, c.APIKey, nil, http.StatusRequestEntityTooLarge},
	} {
		if status, text := post(tc.body, tc.key, tc.header); status != tc.status {
			t.Errorf("%s: %d %.200s, want %d", what, status, text, tc.status)
		}
	}

	// The command says nothing but MCP, and ends with its input.
	if r := c.runWith(nil, "no json\n", "mcp"); strings.TrimSpace(r.stdout) != "" && !json.Valid([]byte(strings.TrimSpace(r.stdout))) {
		t.Errorf("exit %d, said %q", r.code, r.stdout)
	}
	if r := c.runWith(nil, "", "mcp"); r.code != exitOK || r.stdout != "" {
		t.Errorf("without input: exit %d, said %q, %q", r.code, r.stdout, r.stderr)
	}
}
