package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	httpdoor "github.com/agenticraft/node/bridges/http"
)

func (d *oddDoors) oddHeaders(t *testing.T) {
	list := oddCall("ListTasks", `{"pageSize":1}`)
	const ok, version, kind, params = 0, -32009, -32005, -32602
	for name, tc := range map[string]struct {
		header map[string]string
		want   int
	}{
		"UTF-8":                {map[string]string{"Content-Type": "application/json; charset=UTF-8"}, ok},
		"UTF-16":               {map[string]string{"Content-Type": "application/json; charset=utf-16"}, kind},
		"a broken type":        {map[string]string{"Content-Type": "application/json; ;;;"}, kind},
		"two types":            {map[string]string{"Content-Type": "application/json, text/plain"}, kind},
		"text":                 {map[string]string{"Content-Type": "text/plain"}, kind},
		"compressed":           {map[string]string{"Content-Encoding": "br"}, kind},
		"version 0":            {map[string]string{"A2A-Version": "0"}, version},
		"version 2.0":          {map[string]string{"A2A-Version": "2.0"}, version},
		"version 1.0.":         {map[string]string{"A2A-Version": "1.0."}, version},
		"version 1.0.99":       {map[string]string{"A2A-Version": "1.0.99"}, ok},
		"two versions":         {map[string]string{"A2A-Version": "1.0, 0.3"}, version},
		"a long version":       {map[string]string{"A2A-Version": strings.Repeat("1", 10_000)}, version},
		"the version twice":    {map[string]string{"A2A-Version": "1.0\n1.0"}, version},
		"versions in lines":    {map[string]string{"A2A-Version": "1.0\n0.3"}, version},
		"types in lines":       {map[string]string{"Content-Type": "application/json\ntext/plain"}, kind},
		"events in lines":      {map[string]string{"Last-Event-ID": "1\n2"}, params},
		"extensions in lines":  {map[string]string{"A2A-Extensions": "x\ny,z"}, ok},
		"a version of no text": {map[string]string{"A2A-Version": "1.0\xff"}, version},
		"many extensions":      {map[string]string{"A2A-Extensions": strings.Repeat("x,", 10_000)}, ok},
		"an event of -1":       {map[string]string{"Last-Event-ID": "-1"}, params},
		"an event beyond":      {map[string]string{"Last-Event-ID": "99999999999999999999"}, params},
		"a node's header":      {map[string]string{"Agenticraft-Delegation": "e30"}, params},
		"an image wanted":      {map[string]string{"Accept": "image/png"}, ok},
		"a broken trace":       {map[string]string{"Traceparent": "zzz"}, ok},
	} {
		for over, hc := range map[string]*http.Client{"HTTP/1.1": d.one, "HTTP/2": d.two} {
			got, err := d.ask(hc, http.MethodPost, httpdoor.JSONRPCPath, list, tc.header)
			if err != nil || got.status != http.StatusOK {
				t.Errorf("%s over %s: %d, %v", name, over, got.status, err)
				continue
			}
			d.wantRPC(t, name+" over "+over, got.body, tc.want)
			if !strings.HasPrefix(got.body, `{"jsonrpc":"2.0","id":7,`) {
				t.Errorf("%s over %s: the answer lacks the request's id: %.200s", name, over, got.body)
			}
		}
	}
	for name, credential := range map[string]string{
		"another scheme": "Basic eDp5", "no credential": "Bearer", "a long one": "Bearer " + strings.Repeat("a.", 20_000), "no text": "Bearer \xff\xfe",
		"two of them": "Bearer " + d.key + "\nBearer " + d.key, "another behind it": "Bearer " + d.key + "\nBasic eDp5", "an unsigned token": "Bearer eyJhbGciOiJub25lIn0.e30.", "half a token": "Bearer a.b.", "a token of nothing": "Bearer ..",
	} {
		for path, body := range map[string]string{httpdoor.JSONRPCPath: list, httpdoor.RESTPath + "/message:send": "{}", "/v1/runs": "{}"} {
			got, err := d.ask(d.one, http.MethodPost, path, body, map[string]string{"Authorization": credential})
			if err != nil || got.status != http.StatusUnauthorized || !json.Valid([]byte(got.body)) {
				t.Errorf("%s at %s: %d %.200s, %v", name, path, got.status, got.body, err)
			}
			if path == httpdoor.JSONRPCPath && !strings.HasPrefix(got.body, `{"jsonrpc":"2.0","id":7,`) {
				t.Errorf("%s: the answer lacks the request's id: %.200s", name, got.body)
			}
		}
	}
}

func (d *oddDoors) oddREST(t *testing.T) {
	id := "/tasks/" + strings.Repeat("0", 32)
	for _, tc := range []struct {
		line   string
		status int
	}{
		{"GET /tasks?pageSize=0", 200},
		{"GET /tasks?pageSize=1000000000", 400},
		{"GET /tasks?pageSize=-1", 400},
		{"GET /tasks?pageSize=abc", 400},
		{"GET /tasks?pageSize=99999999999999999999", 400},
		{"GET /tasks?pageToken=!!!", 400},
		{"GET /tasks?status=BOGUS", 400},
		{"GET /tasks?status=TASK_STATE_UNSPECIFIED", 200},
		{"GET /tasks?historyLength=-1", 400},
		{"GET /tasks?statusTimestampAfter=x", 400},
		{"GET /tasks?statusTimestampAfter=99999-01-01T00:00:00Z", 400},
		{"GET /tasks?includeArtifacts=perhaps", 400},
		{"GET /tasks?contextId=%zz", 400},
		{"GET /tasks?a;b", 400},
		{"GET /tasks?pageSize=1&pageSize=2", 400},
		{"GET /tasks?contextId=a&contextId=a", 400},
		{"GET /tasks?historyLength=10000000000", 400},
		{"GET " + id + "?historyLength=-10000000000", 400},
		{"GET /tasks?contextId=%00%ff", 200},
		{"GET /..%2ftasks", 404},
		{"GET /%2e%2e/tasks", 404},
		{"GET /%2e%2e%2f%2e%2e/tasks", 404},
		{"GET /a%2fb/tasks", 404},
		{"GET /%00/tasks", 404},
		{"GET /%ff/tasks", 404},
		{"GET /ä/tasks", 200},
		{"GET /%E2%98%83/tasks", 200},
		{"GET /" + strings.Repeat("x", 200) + "/tasks", 404},
		{"GET /a/b/tasks", 404},
		{"GET /tasks/", 404},
		{"GET /tasks/%2e%2e", 404},
		{"GET /tasks/..%2f..%2fx", 404},
		{"GET /tasks/%00", 404},
		{"GET /tasks/" + strings.Repeat("x", 10_000), 404},
		{"GET " + id, 404},
		{"GET " + id + ":subscribe", 404},
		{"GET " + id + ":cancel", 405},
		{"POST " + id + ":cancel {}", 404},
		{"POST " + id + ":cancel \x00", 400},
		{"POST " + id + ":cancel [", 400},
		{"POST " + id + `:cancel {"id":1,"id":2}`, 400},
		{"POST " + id + ":subscribe \x00", 400},
		{"POST " + id + ":explode {}", 404},
		{"GET " + id + "/pushNotificationConfigs", 404},
		{"GET " + id + "/pushNotificationConfigs?pageSize=-1", 400},
		{"POST " + id + "/pushNotificationConfigs [", 400},
		{"GET " + id + "/pushNotificationConfigs/%2e%2e", 404},
		{"GET " + id + "?historyLength=99999999999999999999", 400},
		{"PUT /tasks {}", 405},
		{"TRACE /tasks", 405},
		{"BREW /tasks", 405},
		{"POST /message:send", 400},
		{"POST /message:send \x00", 400},
		{`POST /message:send {"message":{},"message":{}}`, 400},
		{"POST /message:stream [", 400},
		{"POST /message:send " + strings.Repeat("[", 20_000), 400},
		{"POST /message:send " + `{"message":{"messageId":"m","role":"ROLE_USER","parts":[` + strings.Repeat(`{"text":"x"},`, 999) + `{"text":"x"}]}}`, 413},
	} {
		method, rest, _ := strings.Cut(tc.line, " ")
		path, body, _ := strings.Cut(rest, " ")
		for over, hc := range map[string]*http.Client{"HTTP/1.1": d.one, "HTTP/2": d.two} {
			got, err := d.ask(hc, method, httpdoor.RESTPath+path, body, nil)
			switch {
			case err != nil || got.status != tc.status || !json.Valid([]byte(got.body)):
				t.Errorf("%.80q over %s: %d %.200s, %v, want %d", tc.line, over, got.status, got.body, err, tc.status)
			case got.status >= 400 && !strings.Contains(got.body, `"code":"`):
				t.Errorf("%.80q over %s: no ErrorInfo in %s", tc.line, over, got.body)
			}
		}
	}
}

// oddV1 asks every route of /v1 for what is not there, with bodies that are none.
func (d *oddDoors) oddV1(t *testing.T) {
	id := strings.Repeat("0", 32)
	bodies := []string{"", "null", "[]", "\x00", strings.Repeat("[", 50_000), `{"name":"\u0000"}`, `{"name":".."}`, `{"name":"a","name":"b"}`, `{"Name":"c"}`, `{"id":"\u0000","principal":"\u0000","role":"\u0000","tenant":"\u0000"}`, `{"language":"starlark","code":"","limits":{"memory_bytes":1e400}}`}
	for _, line := range []string{
		"GET /v1/tasks?limit=-1", "GET /v1/tasks?limit=x", "GET /v1/tasks?cursor=!!!", "GET /v1/tasks/..%2f..%2fx", "GET /v1/tasks/%00", "GET /v1/tasks/" + id, "GET /v1/tasks/" + id + "/receipt", "POST /v1/tasks/" + id + "/cancel",
		"GET /v1/audit/entries?limit=-1", "GET /v1/audit/entries?since=x", "GET /v1/audit/entries?cursor=!", "GET /v1/audit/entries/-1", "GET /v1/audit/entries/18446744073709551615", "GET /v1/audit/entries?actor=%ff", "GET /v1/audit/entries?task=%00",
		"GET /v1/audit/proof/x", "GET /v1/audit/proof/18446744073709551615", "GET /v1/audit/tasks/%00", "GET /v1/audit/state?at=999999999", "GET /v1/audit/export?format=x", "GET /v1/audit/follow?from=x",
		"GET /v1/evidence", "GET /v1/evidence?sha256=../../x", "GET /v1/evidence?sha256=%00", "GET /v1/evidence?sha256=" + strings.Repeat("0", 64) + "&sha256=0", "GET /v1/evidence?sha256=" + strings.Repeat("A", 64), "GET /v1/evidence/%00", "GET /v1/evidence/..%2f..%2fnode.key", "DELETE /v1/evidence/..%2fx", "GET /v1/evidence/" + id + "/part?name=../../x",
		"POST /v1/keys/..%2f/rotate", "DELETE /v1/keys/%00", "DELETE /v1/agents/%00", "DELETE /v1/nodes/%00", "PATCH /v1/tenants/%00", "POST /v1/roles/grant", "POST /v1/roles/revoke", "POST /v1/tenants", "POST /v1/keys", "POST /v1/agents",
		"POST /v1/changes", "POST /v1/policy", "POST /v1/policy/replay", "POST /v1/runs", "GET /log/tile/0/x", "GET /log/tile/99/000", "GET /log/..%2f..%2fnode.key", "GET /v1/nothing", "PUT /v1/status", "GET /..%2f..%2fetc/passwd", "GET /%2e%2e/%2e%2e/node.key",
	} {
		method, path, _ := strings.Cut(line, " ")
		for _, body := range bodies {
			if method == http.MethodGet && body != "" {
				continue
			}
			got, err := d.ask(d.one, method, path, body, nil)
			if err != nil || got.status < 400 || got.status >= 500 || strings.Contains(got.body, "PRIVATE") {
				t.Errorf("%s with %.40q: %d %.200s, %v", line, body, got.status, got.body, err)
			}
		}
	}
	for line, allow := range map[string]string{
		"PUT /v1/status": "GET, HEAD", "OPTIONS /v1/tasks": "GET, HEAD", "DELETE /.well-known/agent-card.json": "GET, HEAD", "TRACE /healthz": "GET, HEAD",
		"GET /v1/runs": "POST", "PATCH /v1/keys": "GET, HEAD, POST", "BREW /v1/tenants/x": "PATCH", "GET /v1/nothing": "", "OPTIONS /nothing": "",
	} {
		method, path, _ := strings.Cut(line, " ")
		got, err := d.ask(d.one, method, path, "", nil)
		want := http.StatusMethodNotAllowed
		if allow == "" {
			want = http.StatusNotFound
		}
		if err != nil || got.status != want || got.header.Get("Allow") != allow || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d, Allow %q, %.200s, %v, want %d, %q", line, got.status, got.header.Get("Allow"), got.body, err, want, allow)
		}
	}
}
