package server

import (
	"context"
	"crypto/x509"
	"slices"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// Path is what stands behind the doors: it verifies, decides, places and runs.
// Its methods may be called concurrently. Their errors are fit for the caller
// ([a2a.Error]); any other error is answered as internal and logged.
type Path interface {
	// Submit walks verify, decide and place.
	Submit(ctx context.Context, in Inbound) (Admitted, error)
	// Cancel asks a running execution to stop; its task then ends as usual.
	Cancel(ctx context.Context, task string) error
	// Fetch asks other nodes for a task that this node does not hold, as the
	// caller may see it; an error of code not_found if nobody does.
	Fetch(ctx context.Context, task string, caller identity.Principal) (*sdk.Task, error)
}

// Inbound is one request as it came through a door.
type Inbound struct {
	Request    *sdk.SendMessageRequest
	Caller     Caller
	Delegation []byte // from another node; only through the mesh door
	Relayed    string // by another node that had it through this door; likewise
	// Once is [a2a.OnceOf] what a caller without a key of his own repeats the request
	// by; "": by nothing.
	Once string
}

// Caller is whom the door's channel proved. A zero principal is nobody: the
// request's own signature may still prove its sender.
type Caller struct {
	Principal identity.Principal
	Peer      identity.ID // mesh door only
	Door      string      // [DoorHTTP], [DoorMCP], [DoorMesh] or [DoorNATS]
}

// Credential is what the channel of a caller shows of him.
type Credential struct {
	Authorization string // the header of this name; "" is none
	Source        string // the address that guesses are counted by
	// Certificates are the chain of a TLS client. The connection proved that he
	// holds the first one's key, and nothing else.
	Certificates []*x509.Certificate
}

// The doors.
const (
	DoorHTTP = "http"
	DoorMCP  = "mcp"
	DoorMesh = "mesh"
	DoorNATS = "nats"
)

// Admitted is the path's answer to a request.
type Admitted struct {
	Task     string // see [a2a.TaskID]
	Owner    string // the principal who may see the task, as text
	Existing bool   // admitted before: reply with the task that is
	// Asker is whom the request itself proved, if not the channel's caller.
	Asker identity.Principal
	// Final, if not nil, is the end already (policy denied it); nothing is stored.
	Final *a2a.Report
	// Run does the work. It is called exactly once unless Existing or Final is
	// set, in a goroutine of the handler's, with a context that outlives the
	// request and ends only when the handler is closed in a hurry.
	Run func(ctx context.Context, out Updates) a2a.Report
	// Talk, if not nil, does the work instead of Run, which is nil.
	Talk Talk
	// Reply, if not nil, is the whole answer: a message, and no task.
	Reply *sdk.Message
}

// asker is who may see the task by having sent its request.
func (a Admitted) asker(c Caller) identity.Principal {
	if a.Asker.IsZero() {
		return c.Principal
	}
	return a.Asker
}

// Updates takes what a run writes while it runs. Output may be called
// concurrently, keeps no reference to data and never blocks.
type Updates interface {
	Output(stream string, offset int64, data []byte)
	// Kept says that the report, which is about to be returned, could be made anew
	// after a crash: who waits for it is answered while it is being stored.
	Kept()
}

type contextKey int

const (
	callerKey contextKey = iota
	delegationKey
	doorKey
	failureKey
	overdueKey
	numbersKey
	resumeKey
	onceKey
	queryKey
)

// WithCaller notes whom the door proved.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey, c)
}

// WithOnce notes what a caller without a key of his own repeats his request by, see
// [Inbound]. A request that he signed has its own jti for that.
func WithOnce(ctx context.Context, once string) context.Context {
	return context.WithValue(ctx, onceKey, once)
}

// CallerFrom reads what WithCaller noted; without it the caller is nobody.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey).(Caller)
	return c, ok
}

// overseers are the roles that see tasks of others, and handlers those that may
// change them: cancel them, say who is told.
var (
	overseers = []string{"operator", "auditor", "admin"}
	handlers  = []string{"operator", "admin"}
)

// MaySee reports whether a principal may see a task of owner: his own, or any if
// he has a role that oversees all. Nobody may see nothing.
func MaySee(p identity.Principal, owner string) bool { return may(p, owner, overseers) }

// MayHandle reports whether a principal may cancel a task of owner and say who is
// told of it.
func MayHandle(p identity.Principal, owner string) bool { return may(p, owner, handlers) }

func may(p identity.Principal, owner string, roles []string) bool {
	if p.IsZero() {
		return false
	}
	return p.String() == owner || slices.ContainsFunc(p.Roles, func(r string) bool { return slices.Contains(roles, r) })
}

// known is the caller of an operation that needs one.
func known(ctx context.Context) (Caller, error) {
	c, ok := CallerFrom(ctx)
	if !ok || c.Principal.IsZero() {
		return Caller{}, &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "this operation needs credentials", Hint: "send an API key, or a token signed with the agent's key, as a bearer token"}
	}
	return c, nil
}
