package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
)

// described is a running node and what it says of itself.
type described struct {
	c       *testCluster
	doc     jsonObject
	checked map[string]bool // routes of which a good answer was held against the document
}

// ask sends a request and gives the answer, whose body is read.
func (d *described) ask(credential, method, path, body string) (*http.Response, []byte) {
	d.c.t.Helper()
	req, err := http.NewRequestWithContext(d.c.t.Context(), method, d.c.Nodes[0].HTTP+path, strings.NewReader(body))
	if err != nil {
		d.c.t.Fatal(err)
	}
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		d.c.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		d.c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res, text
}

// at goes down the document by member names.
func at(v any, names ...string) any {
	for _, name := range names {
		inside, _ := v.(jsonObject)
		v = inside[name]
	}
	return v
}

// fits holds a JSON text against a schema of the document.
func (d *described) fits(what string, schema any, body []byte) {
	d.c.t.Helper()
	if ref, ok := at(schema, "$ref").(string); ok {
		schema = at(d.doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	raw, err := json.Marshal(schema)
	if err != nil || schema == nil {
		d.c.t.Errorf("%s: the document has no schema (%v)", what, err)
		return
	}
	// Go's regular expressions count no further than 1000, ECMAScript's do.
	raw = bytes.ReplaceAll(raw, []byte("{1,1018}"), []byte("+"))
	var s jsonschema.Schema
	if err := json.Unmarshal(raw, &s); err != nil {
		d.c.t.Fatal(err)
	}
	d.valid(what, &s, body)
}

func (d *described) valid(what string, s *jsonschema.Schema, body []byte) {
	d.c.t.Helper()
	resolved, err := s.Resolve(nil)
	if err != nil {
		d.c.t.Fatalf("%s: %v", what, err)
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		d.c.t.Errorf("%s: %v in %.300s", what, err, body)
		return
	}
	if err := resolved.Validate(v); err != nil {
		d.c.t.Errorf("%s: %v\n%.600s", what, err, body)
	}
}

// good asks for a route and holds the answer, which must not be an error, against
// the document. path is the route's with everything filled in.
func (d *described) good(route, path, body string) []byte {
	d.c.t.Helper()
	op, ok := operations()[route]
	if !ok {
		d.c.t.Fatalf("no route %s", route)
	}
	method, pattern, _ := strings.Cut(route, " ")
	credential := d.c.APIKey
	if op.open {
		credential = ""
	}
	if body != "" {
		d.fits("request of "+route, at(d.doc, "paths", pattern, strings.ToLower(method), "requestBody", "content", "application/json", "schema"), []byte(body))
	}
	res, text := d.ask(credential, method, path, body)
	d.checked[route] = true
	if op.answer == nil {
		if res.StatusCode != http.StatusNoContent || len(text) > 0 {
			d.c.t.Errorf("%s: %d %s", route, res.StatusCode, text)
		}
		return nil
	}
	media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	schema := at(d.doc, "paths", pattern, strings.ToLower(method), "responses", "200", "content", media, "schema")
	if res.StatusCode != http.StatusOK || schema == nil {
		d.c.t.Errorf("%s: %d, %s is not described: %.300s", route, res.StatusCode, media, text)
		return text
	}
	of := reflect.TypeOf(op.answer)
	if of.Kind() != reflect.Struct {
		return text
	}
	for line := range bytes.Lines(text) {
		if media != ndjson {
			line = text
		}
		d.fits(route, schema, line)
		d.valid(route+" without more than its type has", schemaOf(d.c.t, of), line)
		if media != ndjson {
			break
		}
	}
	return text
}

// The document that a node serves is true: real requests and answers of every
// route fit it, errors are the problems that it says, and its parameters are those
// that the routes take.
func TestOpenAPIIsTrue(t *testing.T) {
	c := startCluster(t, 1)
	d := &described{c: c, checked: map[string]bool{}}
	_, text := d.ask("", http.MethodGet, httpdoor.OpenAPIPath, "")
	if err := json.Unmarshal(text, &d.doc); err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	var rep a2a.Report
	if err := json.Unmarshal(d.good("POST /v1/runs", "/v1/runs", `{"language":"starlark","code":"print(1)\nresult = {\"a\": [1, None]}"}`), &rep); err != nil || rep.Intent == nil {
		t.Fatalf("run: %+v, %v", rep, err)
	}
	d.good("POST /v1/runs", "/v1/runs", `{"language":"starlark","code":"fail(1)"}`)
	for route := range operations() {
		if method, path, _ := strings.Cut(route, " "); method == http.MethodGet && !inPath.MatchString(path) &&
			!slices.Contains([]string{"/v1/login", "/v1/audit/follow", "/v1/policy/before", "/v1/evidence"}, path) {
			d.good(route, path, "")
		}
	}
	task := "/v1/tasks/" + rep.Task
	d.good("GET /v1/tasks/{id}", task, "")
	d.good("POST /v1/tasks/{id}/cancel", "/v1/tasks/"+d.sleeping()+"/cancel", "")
	d.good("GET /v1/tasks/{id}/receipt", task+"/receipt", "")
	d.good("GET /v1/audit/entries/{index}", "/v1/audit/entries/0", "")
	d.good("GET /v1/audit/proof/{index}", "/v1/audit/proof/0", "")
	d.good("GET /v1/audit/tasks/{id}", "/v1/audit/tasks/"+rep.Task, "")
	d.good("POST /v1/audit/check", "/v1/audit/check", "")
	d.good("GET /log/{path}", "/log/checkpoint", "")
	sum := sha256.Sum256([]byte("1\n")) // what it printed
	d.good("GET /v1/evidence", "/v1/evidence?sha256="+hex.EncodeToString(sum[:]), "")
	d.good("GET /v1/evidence/{id}", "/v1/evidence/"+rep.Task, "")
	d.good("GET /v1/evidence/{id}/part", "/v1/evidence/"+rep.Task+"/part?part=code", "")
	d.good("DELETE /v1/evidence/{id}", "/v1/evidence/"+rep.Task, "")

	d.good("POST /v1/tenants", "/v1/tenants", `{"name":"described"}`)
	d.good("PATCH /v1/tenants/{name}", "/v1/tenants/described", `{"suspended":false,"ceiling":{"memory_bytes":67108864}}`)
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	d.good("POST /v1/agents", "/v1/agents", `{"id":"`+key.ID().DID()+`","name":"described","role":"runner","labels":{"a":"b"}}`)
	d.good("POST /v1/roles/grant", "/v1/roles/grant", `{"principal":"described","role":"viewer"}`)
	d.good("POST /v1/roles/revoke", "/v1/roles/revoke", `{"principal":"described","role":"viewer"}`)
	d.good("DELETE /v1/agents/{id}", "/v1/agents/described", "")
	d.good("POST /v1/keys", "/v1/keys", `{"name":"described","role":"viewer","expires":"720h"}`)
	d.good("POST /v1/keys/{id}/rotate", "/v1/keys/described/rotate", "")
	d.good("DELETE /v1/keys/{id}", "/v1/keys/described", "")
	d.good("POST /v1/invites", "/v1/invites", `{"role":"worker"}`)
	d.good("POST /v1/policy/explain", "/v1/policy/explain", `{"question":{"action":"exec.run","kind":"agent","roles":["runner"],"language":"python"}}`)
	var policy policyView
	if err := json.Unmarshal(d.good("GET /v1/policy", "/v1/policy", ""), &policy); err != nil {
		t.Fatal(err)
	}
	modules, err := json.Marshal(policy.Modules)
	if err != nil {
		t.Fatal(err)
	}
	d.good("POST /v1/policy/replay", "/v1/policy/replay", `{"last":5,"modules":`+string(modules)+`}`)
	// After all that, what they list is there.
	for _, what := range []string{"keys", "agents", "roles", "tenants", "audit/state", "audit/entries"} {
		d.good("GET /v1/"+what, "/v1/"+what, "")
	}
	for _, route := range []string{"GET /v1/login", "GET /v1/audit/follow", "GET /v1/policy/before", "DELETE /v1/nodes/{id}", "POST /v1/policy", "POST /v1/changes"} {
		d.checked[route] = true // they need an OpenID provider, a second node, another policy, or do not end: see their own tests
	}
	for route, op := range operations() {
		if !d.checked[route] {
			t.Errorf("%s was not asked for", route)
		}
		method, pattern, _ := strings.Cut(route, " ")
		path := inPath.ReplaceAllString(pattern, "0")
		if op.open {
			continue
		}
		res, text := d.ask("", method, path, "{}")
		if res.StatusCode != http.StatusUnauthorized || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s without a credential: %d %s", route, res.StatusCode, text)
		}
		d.fits(route+" without a credential", at(d.doc, "components", "schemas", "Problem"), text)
		d.parameters(op, method, path)
	}
}

var knownParameters = regexp.MustCompile(`known are: ([a-z0-9_, ]*)`)

// parameters holds a route's query parameters against what the door says of them.
func (d *described) parameters(op operation, method, path string) {
	d.c.t.Helper()
	if op.query == "" {
		return
	}
	_, text := d.ask(d.c.APIKey, method, path+"?nonsense=1", "")
	d.fits(path+" with an unknown parameter", at(d.doc, "components", "schemas", "Problem"), text)
	var p httpdoor.Problem
	m := []string(nil)
	if json.Unmarshal(text, &p) == nil {
		m = knownParameters.FindStringSubmatch(p.Message)
	}
	if m == nil || !slices.Equal(slices.Sorted(slices.Values(strings.Split(m[1], ", "))), slices.Sorted(slices.Values(strings.Fields(op.query)))) {
		d.c.t.Errorf("%s: described %s, but %s", path, op.query, text)
	}
}

// sleeping begins a task that does not end by itself.
func (d *described) sleeping() string {
	d.c.t.Helper()
	r := d.c.run("exec", "--detach", "--lang", "starlark", "--timeout", "300s", "-c", "def f():\n    for x in range(1000000000):\n        for y in range(1000000000):\n            pass\nf()")
	if r.code != exitOK {
		d.c.t.Fatalf("exec --detach: %d %s%s", r.code, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}
