package http

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/bridges/http/console"
	"github.com/agenticraft/node/identity"
)

// Where the A2A bindings are.
const (
	JSONRPCPath = "/a2a/jsonrpc"
	RESTPath    = "/a2a/rest"
)

// tilesPath is where the tiled log is.
const tilesPath = "/log"

// MCPPath is where MCP clients connect.
const MCPPath = "/mcp"

// act is what a /v1 route does for a caller whom policy permits. What it
// returns is the JSON of the answer; nil is 204.
type act func(ctx context.Context, caller identity.Principal, r *http.Request) (any, error)

// OpenAPIPath is where the description of the routes is.
const OpenAPIPath = "/v1/openapi.json"

// router takes routes: an [http.ServeMux].
type router interface {
	Handle(pattern string, h http.Handler)
}

// routes is the door's map. Every /v1 route is one line: path, the act that
// policy is asked about, and who performs it.
func (d *door) routes(mux router) {
	mux.Handle(JSONRPCPath, d.a2a(JSONRPCPath, d.cfg.A2A))
	mux.Handle(RESTPath+"/", d.a2a(RESTPath, d.cfg.REST))
	mux.Handle("GET "+a2a.CardPath, d.cfg.Card)
	mux.Handle("GET "+a2a.KeysPath, d.cfg.Card)
	mux.Handle("GET /healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, "ok\n") }))
	mux.Handle("GET /readyz", http.HandlerFunc(d.ready))
	mux.Handle("GET /v1/login", http.HandlerFunc(d.login))
	mux.Handle("GET "+OpenAPIPath, http.HandlerFunc(describe))

	for pattern, route := range map[string]struct {
		action string
		do     act
	}{
		"GET /v1/whoami":                {"", d.whoami},
		"GET /v1/status":                {"status.read", d.status},
		"GET /v1/nodes":                 {"node.list", d.nodes},
		"DELETE /v1/nodes/{id}":         {"node.remove", d.removeNode},
		"POST /v1/invites":              {"node.invite", d.invite},
		"GET /v1/sandboxes":             {"sandbox.list", d.sandboxes},
		"GET /v1/policy":                {"policy.read", d.policy},
		"POST /v1/policy":               {"policy.apply", d.applyPolicy},
		"GET /v1/policy/before":         {"policy.read", d.policyBefore},
		"POST /v1/policy/explain":       {"policy.explain", d.explainPolicy},
		"POST /v1/policy/replay":        {"policy.replay", d.replayPolicy},
		"GET /v1/trust":                 {"trust.read", d.trust},
		"POST /v1/runs":                 {"", d.run}, // the path asks policy about what is to be run
		"GET /v1/tasks":                 {"task.list", d.tasks},
		"GET /v1/tasks/{id}":            {"task.read", d.task},
		"POST /v1/tasks/{id}/cancel":    {"exec.cancel", d.cancel},
		"GET /v1/tasks/{id}/receipt":    {"task.read", d.receipt},
		"GET /v1/audit/entries":         {"audit.read", d.entries},
		"GET /v1/audit/entries/{index}": {"audit.read", d.entry},
		"GET /v1/audit/proof/{index}":   {"audit.read", d.proof},
		"GET /v1/audit/tasks/{id}":      {"audit.read", d.story},
		"GET /v1/evidence":              {"evidence.read", d.findEvidence},
		"GET /v1/evidence/{id}":         {"evidence.read", d.showEvidence},
		"DELETE /v1/evidence/{id}":      {"evidence.erase", d.eraseEvidence},
		"GET /v1/audit/state":           {"audit.read", d.state},
		"GET /v1/keys":                  {"key.list", d.keys},
		"POST /v1/keys":                 {"key.create", d.createKey},
		"POST /v1/keys/{id}/rotate":     {"key.create", d.rotateKey},
		"DELETE /v1/keys/{id}":          {"key.revoke", d.revokeKey},
		"GET /v1/agents":                {"agent.list", d.agents},
		"POST /v1/agents":               {"agent.add", d.addAgent},
		"DELETE /v1/agents/{id}":        {"agent.revoke", d.revokeAgent},
		"GET /v1/roles":                 {"role.list", d.roles},
		"POST /v1/roles/grant":          {"role.grant", d.grantRole},
		"POST /v1/roles/revoke":         {"role.revoke", d.revokeRole},
		"GET /v1/tenants":               {"tenant.list", d.tenants},
		"POST /v1/tenants":              {"tenant.create", d.createTenant},
		"PATCH /v1/tenants/{name}":      {"tenant.set", d.setTenant},
		"POST /v1/changes":              {"", d.change}, // asks policy about what is to be changed
	} {
		mux.Handle(pattern, d.perform(route.action, route.do))
	}
	mux.Handle("GET /v1/audit/follow", d.streams("audit.read", d.follow))
	mux.Handle("GET /v1/audit/export", d.streams("audit.read", d.export))
	mux.Handle("POST /v1/audit/check", d.streams("audit.read", d.check))
	mux.Handle("GET /v1/evidence/{id}/part", d.streams("evidence.read", d.evidencePart))
	mux.Handle("GET "+tilesPath+"/", d.permitted("log.read", http.StripPrefix(tilesPath, d.cfg.Tiles)))
	if d.cfg.MCP != nil {
		mux.Handle(MCPPath, d.permitted("", d.cfg.MCP)) // its tools are requests, each of which asks policy
	}
	if d.cfg.Console != nil {
		mux.Handle("GET "+console.Path, d.cfg.Console)
	}
	mux.Handle("GET /metrics", d.permitted("status.read", d.cfg.Metrics))
}

// perform proves the caller, asks policy and answers with what do returns.
func (d *door) perform(action string, do act) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := d.permit(r, action)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		ctx := server.WithCaller(r.Context(), server.Caller{Principal: caller, Door: d.cfg.Door})
		v, err := do(ctx, caller, r)
		if bad, ok := errors.AsType[*unread](err); ok {
			d.cfg.Gate.Malformed(caller, cmp.Or(action, strings.TrimPrefix(r.URL.Path, "/v1/")), bad.why.Code)
		}
		if err != nil {
			d.fail(w, r, err)
			return
		}
		writeJSON(w, v)
	})
}

// permitted guards a handler that writes its own answer.
func (d *door) permitted(action string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := d.permit(r, action)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		if action == "log.read" {
			d.cfg.Reads.Note(audit.Reading{By: caller, Action: audit.ReadTiles})
		}
		next.ServeHTTP(w, r)
	})
}

func (d *door) permit(r *http.Request, action string) (identity.Principal, error) {
	caller, err := d.caller(r)
	if err != nil {
		return identity.Principal{}, err
	}
	if caller.IsZero() {
		return identity.Principal{}, errNoCredential
	}
	if action == "" {
		return caller, nil
	}
	return caller, d.cfg.Gate.Permit(r.Context(), caller, action)
}

func (d *door) ready(w http.ResponseWriter, r *http.Request) {
	if err := d.cfg.Cluster.Ready(r.Context()); err != nil {
		problem(w, &Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", Message: err.Error()})
		return
	}
	writeText(w, "ready\n")
}

// login says where users log in, to anybody.
func (d *door) login(w http.ResponseWriter, _ *http.Request) {
	if d.cfg.Login == nil {
		problem(w, &Problem{Status: http.StatusNotFound, Code: "not_found", Message: "this cluster has no OpenID provider; use an API key or an agent's key"})
		return
	}
	writeJSON(w, d.cfg.Login)
}

func (d *door) whoami(_ context.Context, caller identity.Principal, _ *http.Request) (any, error) {
	return caller, nil
}

func (d *door) status(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Cluster.Status(ctx), nil
}

func (d *door) nodes(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Cluster.Nodes(ctx), nil
}

func (d *door) sandboxes(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Cluster.Sandboxes(ctx), nil
}

func (d *door) policy(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Cluster.Policy(ctx), nil
}

func (d *door) trust(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Cluster.Trust(ctx), nil
}
