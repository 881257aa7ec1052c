// Package http is the HTTP door: A2A over JSON-RPC, HTTP+JSON and gRPC, the /v1
// interface that the command line uses, the tiled log under /log/, health and
// metrics.
//
// INVARIANT: I5, a door decides nothing. Each route names the act it performs;
// policy says whether the proved caller may.
package http

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2asrv"

	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
)

// Authenticator proves who sent a credential. The error depends on the
// cluster's state and is one and the same for every failure.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer, source string) (identity.Principal, error)
}

// Gate asks policy about acts that run no code. An error is a no, fit for the
// caller.
type Gate interface {
	Permit(ctx context.Context, p identity.Principal, action string) error
	// Malformed notes a request of a proved caller that is too long or not of its form.
	Malformed(p identity.Principal, action, code string)
}

// Log is what the door serves of the replicated log.
type Log interface {
	Query(ctx context.Context, f audit.Filter) (audit.Page, error)
	Entry(index uint64) (audit.Entry, []byte, error)
	Task(id string) (audit.TaskRecord, error)
	Story(ctx context.Context, task string) (audit.Story, error)
	Streams
}

// Cluster answers questions about this node and its cluster. Every value is
// marshalled to JSON as it is.
type Cluster interface {
	Status(ctx context.Context) any
	Nodes(ctx context.Context) any
	Sandboxes(ctx context.Context) any
	Policy(ctx context.Context) any
	Trust(ctx context.Context) any
	Prove(ctx context.Context, index uint64) (any, error)
	// Check recomputes all of this node's copy of the log, one caller at a time,
	// and tells progress now and then how many entries of how many it has checked.
	Check(ctx context.Context, progress func(checked, size uint64)) (audit.DirReport, error)
	// State is who could do what after the entry at index.
	State(ctx context.Context, index uint64) (any, error)
	Receipt(ctx context.Context, task string, caller identity.Principal) ([]byte, error)
	// Ready is nil when the node can take requests.
	Ready(ctx context.Context) error
}

// Login is what a client needs to log its user in at the cluster's OpenID
// provider. It is no secret.
type Login struct {
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"client_id"`
	Scopes   []string `json:"scopes"`
}

// Admin changes who may do what. Changes are durable on a quorum when it
// returns.
type Admin interface {
	CreateKey(ctx context.Context, by identity.Principal, req KeyRequest) (CreatedKey, error)
	Keys(ctx context.Context) (any, error)
	RevokeKey(ctx context.Context, by identity.Principal, idOrName string) error
	RotateKey(ctx context.Context, by identity.Principal, idOrName string, req RotateRequest) (CreatedKey, error)
	AddAgent(ctx context.Context, by identity.Principal, req AgentRequest) (any, error)
	Agents(ctx context.Context) (any, error)
	RevokeAgent(ctx context.Context, by identity.Principal, idOrName string) error
	GrantRole(ctx context.Context, by identity.Principal, req RoleRequest) (any, error)
	RevokeRole(ctx context.Context, by identity.Principal, req RoleRequest) (any, error)
	Roles(ctx context.Context) (any, error)
	CreateTenant(ctx context.Context, by identity.Principal, name string) (any, error)
	SetTenant(ctx context.Context, by identity.Principal, name string, req TenantRequest) (any, error)
	Tenants(ctx context.Context) (any, error)
	// Act is the action that policy is asked about before a change.
	Act(req ChangeRequest) (string, error)
	Change(ctx context.Context, by identity.Principal, req ChangeRequest) (any, error)
}

// ChangeRequest asks for one change of the registry or the policy, as the entry of
// the log will hold it: an agent has signed it.
type ChangeRequest struct {
	Kind string          `json:"kind"` // agent, key, tenant, role, policy
	Body json.RawMessage `json:"body"` // docs/formats.md
}

// Members lets nodes into the cluster and out of it.
type Members interface {
	Invite(ctx context.Context, by identity.Principal, req InviteRequest) (Invitation, error)
	// Remove takes a node out. It returns before a keeper has left the vote,
	// or what runs on this node has ended.
	Remove(ctx context.Context, by identity.Principal, idOrName string) (Removal, error)
}

// InviteRequest asks for an invitation.
type InviteRequest struct {
	Role    string `json:"role,omitempty"`    // "worker", "keeper" or "auditor"; empty: worker
	Expires string `json:"expires,omitempty"` // as in [KeyRequest]; empty: in a day
}

// Invitation is a new one; its token is shown this once.
type Invitation struct {
	ID      string `json:"id"`
	Role    string `json:"role"`
	Expires string `json:"expires"`
	Token   string `json:"token"`
}

// Removal says how far it is.
type Removal struct {
	ID    identity.ID `json:"id"`
	State string      `json:"state"` // "removed", or "leaving" while it goes on
}

// KeyRequest asks for a new API key.
type KeyRequest struct {
	Name    string   `json:"name"`
	Role    string   `json:"role"`
	Tenant  string   `json:"tenant,omitempty"`
	Scopes  []string `json:"scopes,omitempty"`  // the actions that it is for; empty: all of its role
	Expires string   `json:"expires,omitempty"` // a Go duration such as "720h", or an RFC 3339 time
}

// RotateRequest says how the old secret of a rotated key ends.
type RotateRequest struct {
	Overlap string `json:"overlap,omitempty"` // a Go duration or an RFC 3339 time; empty: it ends now
}

// CreatedKey is a new API key; its text is shown this once.
type CreatedKey struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
	Key  string `json:"key"`
}

// AgentRequest asks to register an agent's public key.
type AgentRequest struct {
	ID     string            `json:"id"` // peer ID or did:key
	Name   string            `json:"name"`
	Role   string            `json:"role"`
	Tenant string            `json:"tenant,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Policies asks about policies and changes the one in force.
type Policies interface {
	Explain(ctx context.Context, by identity.Principal, req ExplainRequest) (any, error)
	Apply(ctx context.Context, by identity.Principal, req PolicyRequest) (any, error)
	Before(ctx context.Context, layer string) (any, error)
	Replay(ctx context.Context, req PolicyRequest) (any, error)
}

// ExplainRequest asks why something would be allowed or denied. Who asks it is a
// registered principal, or what the question says.
type ExplainRequest struct {
	Principal string         `json:"principal,omitempty"` // as in [RoleRequest]; empty: what the question says
	Question  authz.Question `json:"question"`
}

// PolicyRequest carries a policy's files.
type PolicyRequest struct {
	Modules  map[string]string `json:"modules,omitempty"`
	Layer    string            `json:"layer,omitempty"`    // empty: the base; "additions": the operators' to it
	Rollback bool              `json:"rollback,omitempty"` // apply: the policy before the one in force
	Last     int               `json:"last,omitempty"`     // replay: how many logged requests
}

// RoleRequest gives a role to an agent or API key, or takes it away.
type RoleRequest struct {
	Principal string `json:"principal"`        // "agent:did:key:z…", "service:k3x…", an ID, or a name
	Tenant    string `json:"tenant,omitempty"` // where a name is looked up; empty: the caller's own
	Role      string `json:"role"`
}

// TenantRequest changes a tenant, or says the name of a new one.
type TenantRequest struct {
	Name      string         `json:"name,omitempty"`
	Suspended *bool          `json:"suspended,omitempty"`
	Ceiling   *authz.Ceiling `json:"ceiling,omitempty"` // takes the place of the one before
	// EvidenceHours is how long evidence of its tasks is kept; 0: the default.
	EvidenceHours *int `json:"evidence_hours,omitempty"`
}

// Config of the door. Every field is needed but Login, Door, MCP, Console and Logger.
type Config struct {
	Login         *Login       // how users log in; nil: no OpenID provider is configured
	Door          string       // what policy and log call it; default server.DoorHTTP
	A2A           http.Handler // JSON-RPC; expects a server.Caller in the context
	REST          http.Handler // HTTP+JSON; likewise
	GRPC          http.Handler // gRPC on this port; it proves its callers itself
	Tasks         a2asrv.RequestHandler
	MCP           http.Handler // tools for proved callers; nil: none are here
	Console       http.Handler // the web console; nil: none is here
	Card          http.Handler // the agent card, and the keys that sign it
	Tiles         http.Handler // the tiled log, without its /log prefix
	Metrics       http.Handler
	Authenticator Authenticator
	Gate          Gate
	Log           Log
	Reads         Reads
	Evidence      Evidence
	Stopping      context.Context // done when streams of the log are to end
	Cluster       Cluster
	Admin         Admin
	Members       Members
	Policies      Policies
	Logger        *slog.Logger
}

// Limits of the HTTP server, for slow and greedy clients.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 60 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	maxBodyBytes      = 1 << 20 // of /v1 requests; A2A bodies have their own cap
	shutdownWait      = 10 * time.Second
)

type door struct {
	cfg       Config
	log       *slog.Logger
	streaming chan struct{} // one for each open stream of the log
}

// New makes the door's handler.
func New(cfg Config) http.Handler {
	d := &door{cfg: cfg, log: cfg.Logger, streaming: make(chan struct{}, maxStreams)}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.cfg.Door == "" {
		d.cfg.Door = server.DoorHTTP
	}
	mux := http.NewServeMux()
	d.routes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { noRoute(mux, w, r) })
	routed := d.headers(tidy(mux, d.a2a(RESTPath, d.cfg.REST)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			d.cfg.GRPC.ServeHTTP(w, r)
			return
		}
		routed.ServeHTTP(w, r)
	})
}

// Serve answers on l until ctx is done, then lets running requests end.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC, with prior knowledge
	s := &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	return ServeUntil(ctx, s, l, shutdownWait)
}

// ServeUntil has a server answer on l until ctx is done, then lets running
// requests end, for as long as wait; after that they are cut off.
func ServeUntil(ctx context.Context, s *http.Server, l net.Listener, wait time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	err := s.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close()
	}
	if serving := <-done; !errors.Is(serving, http.ErrServerClosed) {
		err = errors.Join(err, serving)
	}
	return err
}

// headers are those that every answer bears.
func (d *door) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}
