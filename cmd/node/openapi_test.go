package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/bridges/http/console"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
	"github.com/agenticraft/node/sandbox"
)

var updateOpenAPI = flag.Bool("update-openapi", false, "write bridges/http/openapi.json anew")

const openAPIFile = "../../bridges/http/openapi.json"

// operation is one route as the OpenAPI document describes it.
type operation struct {
	tag, summary string
	query        string // names of its query parameters, see parameterKinds
	header       string // likewise
	body         any    // a value of the request's type; nil: none
	optional     bool   // the body may be absent
	answer       any    // likewise of the answer; nil: 204
	media        string // of the answer, if it is not application/json; or several
	open         bool   // needs no credential
	more         map[string]string
}

type jsonObject = map[string]any

// The answers that are no types elsewhere.
type (
	nodesAnswer struct {
		Nodes []nodeView `json:"nodes"`
	}
	sandboxesAnswer struct {
		Sandboxes []sandbox.Description `json:"sandboxes"`
	}
	tasksAnswer struct {
		Tasks []httpdoor.TaskSummary `json:"tasks"`
		Next  string                 `json:"next"`
	}
	entriesAnswer struct {
		Entries []httpdoor.LogEntry `json:"entries"`
		Next    string              `json:"next"`
		After   string              `json:"after,omitempty"`
	}
	keysAnswer struct {
		Keys []keyView `json:"keys"`
	}
	agentsAnswer struct {
		Agents []registry.Agent `json:"agents"`
	}
	rolesAnswer struct {
		Roles []roleView `json:"roles"`
	}
	tenantsAnswer struct {
		Tenants []registry.Tenant `json:"tenants"`
	}
	addedAgent struct {
		ID     string `json:"id"`
		DID    string `json:"did"`
		Name   string `json:"name"`
		Role   string `json:"role"`
		Tenant string `json:"tenant"`
	}
	erasedAnswer struct {
		Task  string `json:"task"`
		Entry uint64 `json:"entry"`
	}
)

const (
	selectQuery = "actor on_behalf task decision resource policy since until kind"
	filterQuery = selectQuery + " cursor limit order"
	ndjson      = "application/x-ndjson"
	text        = "text/plain"
	octets      = "application/octet-stream"
)

// operations are all routes that the document describes.
func operations() map[string]operation {
	return map[string]operation{
		"GET /healthz":          {tag: "health", summary: "The process answers", answer: "", media: text, open: true},
		"GET /readyz":           {tag: "health", summary: "The node can take requests (503: not now)", answer: "", media: text, open: true},
		"GET /metrics":          {tag: "health", summary: "Metrics in the text format of Prometheus", answer: "", media: text},
		"GET /log/{path}":       {tag: "log", summary: "The tiled log (C2SP tlog-tiles): checkpoint, tile/…", answer: "", media: text + " " + octets},
		"GET /v1/openapi.json":  {tag: "about", summary: "This document", answer: jsonObject{}, open: true},
		"GET /v1/login":         {tag: "about", summary: "Where users log in (404: nowhere)", answer: httpdoor.Login{}, open: true},
		"GET /v1/whoami":        {tag: "about", summary: "Whom the node takes the caller for", answer: identity.Principal{}},
		"GET /v1/status":        {tag: "cluster", summary: "How the node and its cluster are", answer: statusView{}},
		"GET /v1/nodes":         {tag: "cluster", summary: "The cluster's nodes", answer: nodesAnswer{}},
		"DELETE /v1/nodes/{id}": {tag: "cluster", summary: "Take a node out of the cluster", answer: httpdoor.Removal{}},
		"POST /v1/invites":      {tag: "cluster", summary: "Invite a node: a token for one use", body: httpdoor.InviteRequest{}, answer: httpdoor.Invitation{}},
		"GET /v1/sandboxes":     {tag: "cluster", summary: "The node's sandboxes, and what enforces each limit", answer: sandboxesAnswer{}},
		"GET /v1/trust":         {tag: "cluster", summary: "Whom an offline verifier has to trust", answer: audit.Trust{}},

		"POST /v1/runs": {
			tag: "tasks", summary: "Run a program and wait for its end", header: "Idempotency-Key", body: a2a.Execution{}, answer: a2a.Report{},
			more: map[string]string{"422": "The Idempotency-Key was used before for another request"},
		},
		"GET /v1/tasks":              {tag: "tasks", summary: "The caller's tasks, the newest first", query: "limit cursor", answer: tasksAnswer{}},
		"GET /v1/tasks/{id}":         {tag: "tasks", summary: "A task's report", answer: a2a.Report{}},
		"POST /v1/tasks/{id}/cancel": {tag: "tasks", summary: "Cancel a task, and wait for its end", answer: a2a.Report{}},
		"GET /v1/tasks/{id}/receipt": {tag: "tasks", summary: "A task's receipt, to be verified offline", answer: audit.Receipt{}},

		"GET /v1/audit/entries":         {tag: "audit", summary: "Entries of the log, page by page", query: filterQuery, answer: entriesAnswer{}},
		"GET /v1/audit/entries/{index}": {tag: "audit", summary: "One entry", answer: httpdoor.LogEntry{}},
		"GET /v1/audit/proof/{index}":   {tag: "audit", summary: "Proof that an entry is in the log, under a quorum's checkpoint", answer: entryProof{}},
		"GET /v1/audit/tasks/{id}":      {tag: "audit", summary: "Everything that the log has of a task", answer: audit.Story{}},
		"GET /v1/audit/state":           {tag: "audit", summary: "Who could do what at a moment", query: "at", answer: stateView{}},
		"GET /v1/audit/follow": {
			tag: "audit", summary: "Entries as they come: one a line, or server-sent events with Accept: text/event-stream, whose ids are the indexes",
			query: selectQuery + " from", header: "Last-Event-ID", answer: httpdoor.LogEntry{}, media: ndjson,
		},
		"GET /v1/audit/export": {tag: "audit", summary: "All entries that fit; written down before it is given", query: selectQuery + " cursor limit format proof", answer: httpdoor.LogEntry{}, media: ndjson},
		"POST /v1/audit/check": {tag: "audit", summary: "Recompute the node's copy of the log: progress, then the report, one a line", answer: httpdoor.CheckLine{}, media: ndjson},

		"GET /v1/evidence":           {tag: "evidence", summary: "Where content with a digest is kept", query: "sha256", answer: agent.EvidenceSearch{}},
		"GET /v1/evidence/{id}":      {tag: "evidence", summary: "What is kept of a task beyond the log", answer: agent.EvidenceView{}},
		"GET /v1/evidence/{id}/part": {tag: "evidence", summary: "One part of it", query: "part", answer: "", media: octets},
		"DELETE /v1/evidence/{id}":   {tag: "evidence", summary: "Erase it", answer: erasedAnswer{}},

		"GET /v1/policy":          {tag: "policy", summary: "The policy in force", answer: policyView{}},
		"POST /v1/policy":         {tag: "policy", summary: "Put a policy in force", body: httpdoor.PolicyRequest{}, answer: policyChange{}},
		"GET /v1/policy/before":   {tag: "policy", summary: "What a rollback would put in force", query: "layer", answer: policyBefore{}},
		"POST /v1/policy/explain": {tag: "policy", summary: "Why something would be allowed or denied", body: httpdoor.ExplainRequest{}, answer: authz.Explanation{}},
		"POST /v1/policy/replay":  {tag: "policy", summary: "Decide logged requests again under a candidate", body: httpdoor.PolicyRequest{}, answer: replayView{}},

		"GET /v1/keys":              {tag: "access", summary: "API keys", answer: keysAnswer{}},
		"POST /v1/keys":             {tag: "access", summary: "Make an API key; it is shown this once", body: httpdoor.KeyRequest{}, answer: httpdoor.CreatedKey{}},
		"POST /v1/keys/{id}/rotate": {tag: "access", summary: "Give an API key a new secret", body: httpdoor.RotateRequest{}, optional: true, answer: httpdoor.CreatedKey{}},
		"DELETE /v1/keys/{id}":      {tag: "access", summary: "Revoke an API key, by ID or name"},
		"GET /v1/agents":            {tag: "access", summary: "Agents", answer: agentsAnswer{}},
		"POST /v1/agents":           {tag: "access", summary: "Register an agent", body: httpdoor.AgentRequest{}, answer: addedAgent{}},
		"DELETE /v1/agents/{id}":    {tag: "access", summary: "Revoke an agent, by ID or name"},
		"GET /v1/roles":             {tag: "access", summary: "Who holds a role", answer: rolesAnswer{}},
		"POST /v1/roles/grant":      {tag: "access", summary: "Give a role", body: httpdoor.RoleRequest{}, answer: roleView{}},
		"POST /v1/roles/revoke":     {tag: "access", summary: "Take a role away", body: httpdoor.RoleRequest{}, answer: roleView{}},
		"GET /v1/tenants":           {tag: "access", summary: "Tenants", answer: tenantsAnswer{}},
		"POST /v1/tenants":          {tag: "access", summary: "Make a tenant", body: httpdoor.TenantRequest{}, answer: registry.Tenant{}},
		"PATCH /v1/tenants/{name}":  {tag: "access", summary: "Change a tenant", body: httpdoor.TenantRequest{}, answer: registry.Tenant{}},
		"POST /v1/changes":          {tag: "access", summary: "Make a change that the caller has worded himself, and signed", body: httpdoor.ChangeRequest{}, answer: changed{}},
	}
}

// parameterKinds are the schemas and meanings of parameters by name.
var parameterKinds = map[string][2]string{
	"actor": {`{"type":"string"}`, "who acted, such as service:ID"}, "on_behalf": {`{"type":"string"}`, "for whom"},
	"task": {`{"type":"string"}`, "the ID of a task"}, "decision": {`{"type":"string"}`, "allow or deny"},
	"resource": {`{"type":"string"}`, "what was acted on"}, "policy": {`{"type":"string"}`, "the digest of a policy"},
	"cursor": {`{"type":"string"}`, "next or after of an earlier page"}, "order": {`{"type":"string","enum":["oldest","newest"]}`, "default: oldest"},
	"since": {`{"type":"string","format":"date-time"}`, "from this time on"}, "until": {`{"type":"string","format":"date-time"}`, "before this time"},
	"kind": {`{"type":"string"}`, "kinds of entries, comma-separated"}, "limit": {`{"type":"integer","minimum":1,"maximum":1000}`, "entries of a page; of an export, all"},
	"from": {`{"type":"integer","minimum":0}`, "the first index"}, "at": {`{"type":"string"}`, "an index or a time; default: now"},
	"format": {`{"type":"string","enum":["jsonl","ocsf","cef","csv"]}`, "default: jsonl"}, "proof": {`{"type":"string","enum":["1"]}`, "1: the proof of the export in place of it"},
	"sha256": {`{"type":"string","pattern":"^[0-9a-f]{64}$"}`, "of the content, in hex"},
	"part":   {`{"type":"string"}`, "its name or its SHA-256"}, "layer": {`{"type":"string","enum":["","additions"]}`, "default: the base"},
	"Idempotency-Key": {`{"type":"string","pattern":"^\".{1,510}\"$"}`, "a text of 1 to 255 characters in double quotes: the same again is the same task, through every node and for good"},
	"Last-Event-ID":   {`{"type":"integer","minimum":0}`, "the last index that came: goes on behind it"},
	"id":              {`{"type":"string"}`, "an ID, or where it says so a name"}, "name": {`{"type":"string"}`, "a name"},
	"index": {`{"type":"integer","minimum":0}`, "the place in the log, from 0"}, "path": {`{"type":"string"}`, "checkpoint, or a tile's"},
}

// elsewhere are the routes that other documents describe: A2A's specification and
// card, RFC 7517, and MCP's specification; and the console, which is for people.
var elsewhere = []string{httpdoor.JSONRPCPath, httpdoor.RESTPath + "/", "GET " + a2a.CardPath, "GET " + a2a.KeysPath, httpdoor.MCPPath, "GET " + console.Path}

var inPath = regexp.MustCompile(`\{(\w+)\}`)

// schemaOf is the JSON Schema of what encoding/json writes of a type. Nothing but
// what the type has may be there.
func schemaOf(t testing.TB, of reflect.Type) *jsonschema.Schema {
	t.Helper()
	if of == reflect.TypeFor[a2a.Execution]() {
		var s jsonschema.Schema
		if err := json.Unmarshal([]byte(a2a.ExecutionSchema()), &s); err != nil {
			t.Fatal(err)
		}
		s.Schema, s.ID = "", ""
		return &s
	}
	words := &jsonschema.Schema{Type: "string"}
	s, err := jsonschema.ForType(of, &jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[json.RawMessage](): {}, reflect.TypeFor[audit.Hash](): words,
		reflect.TypeFor[[]byte](): {Types: []string{"string", "null"}, ContentEncoding: "base64"},
	}})
	if err != nil {
		t.Fatalf("%v: %v", of, err)
	}
	return s
}

// loosened is a schema that also takes what later versions add.
func loosened(t testing.TB, s *jsonschema.Schema) any {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var loosen func(any)
	loosen = func(v any) {
		switch v := v.(type) {
		case jsonObject:
			if v["properties"] != nil {
				delete(v, "additionalProperties")
			}
			for _, inner := range v {
				loosen(inner)
			}
		case []any:
			for _, inner := range v {
				loosen(inner)
			}
		}
	}
	loosen(v)
	return v
}

func typeName(of reflect.Type) string {
	name := of.Name()
	return strings.ToUpper(name[:1]) + strings.TrimSuffix(name[1:], "View")
}

// makeOpenAPI makes the document.
func makeOpenAPI(t testing.TB) []byte {
	t.Helper()
	schemas, paths := jsonObject{"Problem": loosened(t, schemaOf(t, reflect.TypeFor[httpdoor.Problem]()))}, map[string]jsonObject{}
	content := func(media string, v any, answer bool) jsonObject {
		one := func(schema jsonObject) jsonObject {
			out := jsonObject{}
			for m := range strings.FieldsSeq(media) {
				out[m] = jsonObject{"schema": schema}
			}
			return out
		}
		of := reflect.TypeOf(v)
		if of.Kind() != reflect.Struct {
			kind := "string"
			if of.Kind() == reflect.Map {
				kind = "object"
			}
			return one(jsonObject{"type": kind})
		}
		name, s := typeName(of), schemaOf(t, of)
		made := any(s)
		if answer {
			made = loosened(t, s)
		}
		schemas[name] = made
		return one(jsonObject{"$ref": "#/components/schemas/" + name})
	}
	parameter := func(name, in string) jsonObject {
		kind, ok := parameterKinds[name]
		if !ok {
			t.Fatalf("no kind of parameter %s", name)
		}
		return jsonObject{"name": name, "in": in, "required": in == "path", "description": kind[1], "schema": json.RawMessage(kind[0])}
	}
	for route, op := range operations() {
		method, path, _ := strings.Cut(route, " ")
		var parameters []any
		for _, m := range inPath.FindAllStringSubmatch(path, -1) {
			parameters = append(parameters, parameter(m[1], "path"))
		}
		for name := range strings.FieldsSeq(op.query) {
			parameters = append(parameters, parameter(name, "query"))
		}
		for name := range strings.FieldsSeq(op.header) {
			parameters = append(parameters, parameter(name, "header"))
		}
		problem := jsonObject{"$ref": "#/components/responses/Problem"}
		responses := jsonObject{"default": problem}
		if op.answer == nil {
			responses["204"] = jsonObject{"description": "Done"}
		} else {
			media := cmp.Or(op.media, "application/json")
			responses["200"] = jsonObject{"description": op.summary, "content": content(media, op.answer, true)}
		}
		for status, why := range op.more {
			responses[status] = jsonObject{"description": why, "content": jsonObject{"application/problem+json": jsonObject{"schema": jsonObject{"$ref": "#/components/schemas/Problem"}}}}
		}
		id := strings.ToLower(method) + strings.NewReplacer("/v1/", "_", "/", "_", "{", "", "}", "", ".", "_").Replace(path)
		described := jsonObject{"operationId": id, "summary": op.summary, "tags": []string{op.tag}, "responses": responses}
		if parameters != nil {
			described["parameters"] = parameters
		}
		if op.body != nil {
			described["requestBody"] = jsonObject{"required": !op.optional, "content": content("application/json", op.body, false)}
		}
		if op.open {
			described["security"] = []any{}
		}
		if paths[path] == nil {
			paths[path] = jsonObject{}
		}
		paths[path][strings.ToLower(method)] = described
	}
	out, err := json.MarshalIndent(jsonObject{
		"openapi": "3.1.0",
		"info": jsonObject{
			"title": "AgentiCraft node", "version": "1",
			"description": "The HTTP interface of a node. Bodies have at most 1 MiB. Errors are problems (RFC 9457) with a code. A2A (/a2a/…) and MCP (/mcp) have documents of their own.",
		},
		"security": []any{jsonObject{"bearer": []any{}}, jsonObject{"certificate": []any{}}},
		"paths":    paths,
		"components": jsonObject{
			"schemas": schemas,
			"responses": jsonObject{"Problem": jsonObject{
				"description": "What went wrong (RFC 9457)",
				"content":     jsonObject{"application/problem+json": jsonObject{"schema": jsonObject{"$ref": "#/components/schemas/Problem"}}},
			}},
			"securitySchemes": jsonObject{
				"bearer":      jsonObject{"type": "http", "scheme": "bearer", "description": "An API key (ac_…), a token of the cluster's OpenID provider, or a token that an agent signed."},
				"certificate": jsonObject{"type": "mutualTLS", "description": "A client certificate, where the node is set up for them."},
			},
		},
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// Every route is described and nothing else, by the types that it reads and answers.
func TestOpenAPIDescribesTheRoutes(t *testing.T) {
	made := makeOpenAPI(t)
	if *updateOpenAPI {
		if err := os.WriteFile(openAPIFile, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(openAPIFile)
	if err != nil || !bytes.Equal(kept, made) {
		t.Errorf("bridges/http/openapi.json is not what the types say (%v); run: go test ./cmd/node -run TestOpenAPIDescribesTheRoutes -update-openapi", err)
	}
	described := slices.Concat(elsewhere, slices.Collect(maps.Keys(operations())))
	for i, route := range described {
		if strings.HasPrefix(route, "GET /log/") {
			described[i] = "GET /log/" // a pattern of all below
		}
	}
	slices.Sort(described)
	if routes := httpdoor.Patterns(); !slices.Equal(described, routes) {
		t.Errorf("described %v\nroutes %v", described, routes)
	}
}
