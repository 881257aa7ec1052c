package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// runBy posts a run to a node with a credential and an Idempotency-Key, "" for none.
func (c *testCluster) runBy(node int, credential, key, body string) (status int, rep a2a.Report, problem httpdoor.Problem) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.Nodes[node].HTTP+"/v1/runs", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+credential)
	if key != "" {
		req.Header.Set(httpdoor.IdempotencyHeader, key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Errorf("run at node %d: %v", node, err)
		return 0, rep, problem
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	var into any = &rep
	if res.StatusCode != http.StatusOK {
		into = &problem
	}
	if err != nil || json.Unmarshal(text, into) != nil {
		c.t.Errorf("run at node %d: %d %s, %v", node, res.StatusCode, text, err)
	}
	return res.StatusCode, rep, problem
}

// A run that is asked for again by the same Idempotency-Key is the same task,
// through every node and after a restart, and runs once.
//
// INVARIANT: I8, at most one run per (issuer, jti, attempt).
func TestIdempotencyKeyThroughEveryNode(t *testing.T) {
	c := startCluster(t, 3)
	const key, body = `"8e03978e-40d5-43dd-bc93-6894a57f9324"`, `{"language":"starlark","code":"print(\"once\")\nresult = 42"}`
	const sameBody = ` { "code":"print(\"once\")\nresult \u003d 42", "language":"starlark" }`

	var all sync.WaitGroup
	tasks := make([]a2a.Report, 9)
	for i := range tasks {
		all.Go(func() { _, tasks[i], _ = c.runBy(i%3, c.APIKey, key, body) })
	}
	all.Wait()
	first := tasks[0]
	same := func(when string, rep a2a.Report) {
		t.Helper()
		if rep.Task != first.Task || rep.Status != a2a.Succeeded || string(rep.Result) != "42" || rep.Stdout != "once\n" ||
			rep.Intent == nil || *rep.Intent != *first.Intent {
			t.Errorf("%s: %+v, first %+v", when, rep, first)
		}
	}
	if first.Intent == nil {
		t.Fatalf("first: %+v\n%s", first, c.logs())
	}
	for _, rep := range tasks {
		same("all at once", rep)
	}
	for node := range c.Nodes {
		_, rep, _ := c.runBy(node, c.APIKey, key, sameBody)
		same("the same in other words", rep)
	}
	var page struct{ Entries []json.RawMessage }
	c.json(&page, "audit", "list", "--task", first.Task, "--kind", "intent")
	if len(page.Entries) != 1 {
		t.Errorf("%d intents", len(page.Entries))
	}

	for node := range c.Nodes {
		if status, rep, p := c.runBy(node, c.APIKey, key, `{"language":"starlark","code":"result = 43"}`); status != http.StatusUnprocessableEntity || p.Code != "idempotency_key_reused" {
			t.Errorf("another request by the same key at node %d: %d %+v %+v", node, status, rep, p)
		}
	}
	// At the same time, too, one of them is the task, and no node has anything else.
	for _, key := range []string{`"race-1"`, `"race-2"`, `"race-3"`} {
		var won a2a.Report
		var refused atomic.Int32
		var mu sync.Mutex
		for node := range c.Nodes {
			all.Go(func() {
				status, rep, p := c.runBy(node, c.APIKey, key, fmt.Sprintf(`{"language":"starlark","code":"result = %d"}`, node))
				switch {
				case status == http.StatusOK && rep.Status == a2a.Succeeded:
					mu.Lock()
					defer mu.Unlock()
					won = rep
				case status == http.StatusUnprocessableEntity && p.Code == "idempotency_key_reused":
					refused.Add(1)
				default:
					t.Errorf("key %s at node %d: %d %+v %+v", key, node, status, rep, p)
				}
			})
		}
		all.Wait()
		if won.Task == "" || int(refused.Load()) != len(c.Nodes)-1 {
			t.Fatalf("key %s: %+v won, %d were refused", key, won, refused.Load())
		}
		for _, n := range c.Nodes {
			var rep a2a.Report
			c.json(&rep, "task", "show", won.Task, "--server", n.HTTP)
			if rep.Status != a2a.Succeeded || string(rep.Result) != string(won.Result) {
				t.Errorf("node %s has %+v, want what won: %+v", n.ID, rep, won)
			}
		}
	}
	var listed struct{ Tasks []httpdoor.TaskSummary }
	c.json(&listed, "task", "list")
	seen := map[string]bool{}
	for _, task := range listed.Tasks {
		if seen[task.Task] || task.Status != a2a.Succeeded {
			t.Errorf("the list has %+v, once more or as what it is not", task)
		}
		seen[task.Task] = true
	}
	if status, _, p := c.runBy(0, c.APIKey, "unquoted", body); status != http.StatusBadRequest || p.Code != a2a.CodeInvalidRequest {
		t.Errorf("a malformed key: %d %+v", status, p)
	}
	var other struct{ Key string }
	c.json(&other, "key", "create", "--name", "other", "--role", "runner")
	if _, rep, _ := c.runBy(0, other.Key, key, body); rep.Task == first.Task || rep.Status != a2a.Succeeded {
		t.Errorf("another principal's run by the same key: %+v", rep)
	}
	if _, rep, _ := c.runBy(0, c.APIKey, "", body); rep.Task == first.Task || rep.Status != a2a.Succeeded {
		t.Errorf("a run without a key: %+v", rep)
	}

	receipt := filepath.Join(c.dir, "receipt.json")
	res, text := c.get(http.MethodGet, "/v1/tasks/"+first.Task+"/receipt", http.Header{"Authorization": {"Bearer " + c.APIKey}})
	if err := os.WriteFile(receipt, text, 0o600); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("receipt: %d %s, %v", res.StatusCode, text, err)
	}
	if r := c.run("verify", receipt, "--trust", c.Trust); r.code != exitOK {
		t.Errorf("verify: %d %s%s", r.code, r.stdout, r.stderr)
	}

	c.kill(1)
	c.restart(1)
	_, rep, _ := c.runBy(1, c.APIKey, key, body)
	same("after a restart", rep)
}
