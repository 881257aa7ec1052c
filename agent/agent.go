// Package agent is the path that every request takes: verify, decide, place,
// intent, run, outcome, reply. Doors hand requests to it and decide nothing;
// policy, log, sandbox and mesh do not know each other and meet only here.
//
// Read path.go from top to bottom to follow one request.
package agent

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/authz/mandate"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/recent"
	"github.com/agenticraft/node/sandbox"
)

// Authorizer answers whether a verified request may do what it asks. An error
// means no.
type Authorizer interface {
	Decide(ctx context.Context, q authz.Query) (authz.Decision, error)
}

// Directory is what the cluster agreed on about who exists.
type Directory interface {
	// Agent is the registered agent with this key, if it is in force.
	Agent(id identity.ID) (identity.Principal, bool)
	// Principal is the principal of this name ("service:k3x…"), if it is in force.
	Principal(name string) (identity.Principal, bool)
	// Member reports whether the node belongs to the cluster.
	Member(id identity.ID) bool
	// Suspended reports whether the tenant is barred from everything.
	Suspended(tenant string) bool
	// Ceiling is the most that the tenant's people may be allowed to run.
	Ceiling(tenant string) authz.Ceiling
	// MayVouch reports whether a node may speak for people of the tenant who have
	// no key.
	MayVouch(node identity.ID, tenant string) bool
	// MandateRevoked reports whether a block of a mandate was revoked.
	MandateRevoked(id string) bool
}

// Recorder writes to the replicated log; it returns when the entry is durable
// on a quorum.
type Recorder interface {
	Record(ctx context.Context, e audit.Entry) (audit.Ack, error)
}

// Log is what the agent reads of the replicated log.
type Log interface {
	Task(id string) (audit.TaskRecord, error)
	Entry(index uint64) (audit.Entry, []byte, error)
	Once(key string) (index uint64, digest string, err error)
	OpenIntents() ([]audit.Indexed, error)
}

// Runner runs programs in sandboxes.
type Runner interface {
	Run(ctx context.Context, backend string, spec sandbox.Spec, ready func(context.Context) error) (sandbox.Result, error)
	Resolve(backend, language, runtime string) (string, error)
	Describe() []sandbox.Description
	Load() sandbox.Load
}

// Peers are the other nodes' A2A doors.
type Peers interface {
	// Send hands a signed request to another node verbatim, relays its output
	// and returns the task when it has ended. An error that wraps
	// [ErrUnreachable] means that the peer never saw the request.
	Send(ctx context.Context, to identity.ID, req *sdk.SendMessageRequest, delegation []byte, out Output) (*sdk.Task, error)
	Task(ctx context.Context, at identity.ID, task string) (*sdk.Task, error)
	Cancel(ctx context.Context, at identity.ID, task string) error
	// Follow streams a task from the node that runs it, after an event if after
	// is not nil.
	Follow(ctx context.Context, at identity.ID, task string, after *uint64) iter.Seq2[server.Numbered, error]
	// Relay hands a message that came through a door here on to the node that
	// holds its task, and streams what that node says.
	Relay(ctx context.Context, at identity.ID, req *sdk.SendMessageRequest, door string) iter.Seq2[server.Numbered, error]
	// List asks a node for tasks of its store.
	List(ctx context.Context, at identity.ID, q server.Query) (server.Page, error)
	// Pushes are the push configurations that a node keeps of its door's tasks.
	Pushes(at identity.ID) (server.Pushes, error)
	// Receipt fetches the receipt of a task from the node that ran it.
	Receipt(ctx context.Context, at identity.ID, task string) ([]byte, error)
	// Evidence fetches what the node that ran a task keeps of it, and
	// EraseEvidence has it erased for a principal; see [Agent.OwnEvidence].
	Evidence(ctx context.Context, at identity.ID, task string, by identity.Principal) ([]byte, error)
	EraseEvidence(ctx context.Context, at identity.ID, task string, by identity.Principal) (uint64, error)
	// Others are the members besides this node; FindEvidence asks one what it keeps
	// with a digest, for a principal; see [Agent.FindOwnEvidence].
	Others() []identity.ID
	FindEvidence(ctx context.Context, at identity.ID, digest string, by identity.Principal) ([]FoundEvidence, error)
	// Connected reports whether the node can be reached right now.
	Connected(id identity.ID) bool
	// Adverts are what the connected members say of themselves.
	Adverts() map[identity.ID][]byte
}

// Output receives what a running program writes, as it comes.
type Output interface {
	Output(stream string, offset int64, data []byte)
	// Kept says that the report is on disk but for the index of its outcome, so
	// that it need not be stored before somebody learns of it.
	Kept()
}

// ProgressOf is how out is told of what takes long before a program starts, such
// as an image that is pulled: by its method Progress, if it has one. It is nil
// for an out that does not care.
func ProgressOf(out Output) func(line string) {
	if p, ok := out.(interface{ Progress(line string) }); ok {
		return p.Progress
	}
	return nil
}

// ErrUnreachable is wrapped by errors of [Peers] that happened before the peer
// could have seen the request.
var ErrUnreachable = errors.New("peer unreachable")

// Config of an [Agent]. Every field but the last four is needed.
type Config struct {
	Key       *identity.Key
	Audience  string // the cluster's, as requests name it in "aud"
	Policy    Authorizer
	Directory Directory
	Recorder  Recorder
	Log       Log
	Runner    Runner
	Peers     Peers
	Evidence  *Evidence
	// BuildReceipt makes a receipt of what the log and extra say.
	BuildReceipt func(ctx context.Context, task string, extra audit.ReceiptExtra) ([]byte, error)
	// Reported is told of each outcome that a caller learns of, here or from a
	// peer; Catchup waits until Log holds all of them. Nil: nothing.
	Reported func(index uint64)
	Catchup  func(ctx context.Context)
	// Lead reports whether this node leads the keepers, whose task it is to
	// end the executions of nodes that died. Nil: never.
	Lead func() bool
	// Defaults are the limits of a run that asked for none and met no ceiling.
	Defaults sandbox.Limits
	// Retention is how long a tenant's evidence is kept; nil: [DefaultRetention].
	Retention func(tenant string) time.Duration
	// EvidenceBytes is how much evidence is kept in all; 0: [DefaultEvidenceBytes].
	EvidenceBytes int64
	// NoRun forbids executions on this node; it still delegates.
	NoRun bool
	// Closed says why this node takes no requests at all, not even to pass
	// them on; its error is the caller's answer. Nil, or nil returned: it does.
	Closed func() error
	// QuorumWait bounds how long a request waits for its intent to be durable;
	// default 4 s.
	QuorumWait time.Duration
	Logger     *slog.Logger
}

// Agent carries requests down the path. It may be used concurrently.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	denials *denials
	// adverts are those of peers that were read before, by their text: every
	// request that may leave this node asks for all of them.
	adverts recent.Map[string, Advert]

	// stopping is done when Run ends.
	stopping context.Context
	stop     context.CancelFunc

	mu      sync.Mutex // guards running
	running map[string]*run
}

// run is one execution that this node started or delegated.
type run struct {
	digest  string
	inForce func() bool             // whoever stands behind it still may
	cancel  context.CancelCauseFunc // nil until Run was called
	stopped bool                    // cancelled before it began
}

// New makes an agent; [Agent.Run] must run while it is used.
func New(cfg Config) *Agent {
	if cfg.QuorumWait == 0 {
		cfg.QuorumWait = 4 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Reported == nil {
		cfg.Reported = func(uint64) {}
	}
	if cfg.Retention == nil {
		cfg.Retention = func(string) time.Duration { return DefaultRetention }
	}
	if cfg.EvidenceBytes == 0 {
		cfg.EvidenceBytes = DefaultEvidenceBytes
	}
	if cfg.Closed == nil {
		cfg.Closed = func() error { return nil }
	}
	if cfg.Catchup == nil {
		cfg.Catchup = func(context.Context) {}
	}
	if cfg.Lead == nil {
		cfg.Lead = func() bool { return false }
	}
	stopping, stop := context.WithCancel(context.Background())
	return &Agent{
		cfg:     cfg,
		log:     cfg.Logger,
		denials: newDenials(cfg.Recorder, cfg.Logger),
		adverts: recent.Map[string, Advert]{Half: 256}, // as many peers as few clusters have
		running: map[string]*run{}, stopping: stopping, stop: stop,
	}
}

// Run writes denials to the log, and gives an end to the tasks that a crash
// here or elsewhere left without one, until ctx is done.
// It may be called once.
func (a *Agent) Run(ctx context.Context, tasks Tasks) error {
	defer a.stop()
	var work sync.WaitGroup
	work.Go(func() { a.denials.run(ctx) })
	work.Go(func() { a.sweep(ctx, tasks) })
	work.Go(func() { a.retain(ctx) })
	work.Wait()
	return nil
}

// Cancel asks a running execution to stop, here or at the peer that runs it.
// Its task then ends as usual.
func (a *Agent) Cancel(ctx context.Context, task string) error {
	a.mu.Lock()
	r, ok := a.running[task]
	if ok {
		r.stopped = true
		if r.cancel != nil {
			r.cancel(errCancelled)
		}
	}
	a.mu.Unlock()
	if ok {
		return nil
	}
	executor, _, err := a.whereabouts(task)
	if errors.Is(err, audit.ErrNotFound) { // it may wait for its owner
		executor, _, err = a.holder(ctx, task)
	}
	if err != nil || executor == a.cfg.Key.ID() {
		return &a2a.Error{Code: a2a.CodeNotFound, Message: "no such task is running"}
	}
	return a.cfg.Peers.Cancel(ctx, executor, task)
}

// Recheck stops the executions behind which somebody stands who is in force no
// more: revoked, expired, or of a suspended tenant. It is called whenever the
// registry has changed.
func (a *Agent) Recheck() {
	a.mu.Lock()
	running := maps.Clone(a.running)
	a.mu.Unlock()
	for task, r := range running {
		if r.inForce() { // reads the registry, so not under the lock
			continue
		}
		a.mu.Lock()
		r.stopped = true
		if r.cancel != nil {
			r.cancel(errCancelled)
		}
		a.mu.Unlock()
		a.log.Info("execution stopped: its authority has ended", "task", task)
	}
}

// inForce reports whether everybody behind a request still may.
func (a *Agent) inForce(req *request) bool {
	if a.cfg.Directory.Suspended(req.principal.Tenant) {
		return false
	}
	if _, ok := a.cfg.Directory.Principal(req.principal.String()); !ok && req.principal.Kind != identity.User {
		return false
	}
	return req.behalf == nil || !slices.ContainsFunc(req.behalf.mandate.Chain, func(l mandate.Link) bool {
		_, ok := a.cfg.Directory.Agent(l.By)
		return !ok || a.cfg.Directory.MandateRevoked(l.ID)
	})
}

// errCancelled is the cause of a context that the caller cancelled.
var errCancelled = errors.New("cancelled by the caller")

// begin claims a task id for this process. It returns false if the same
// request is on its way already, and a conflict if another one is.
func (a *Agent) begin(req *request) (bool, error) {
	task, digest := req.task, req.facts.Digest
	a.mu.Lock()
	defer a.mu.Unlock()
	if r, ok := a.running[task]; ok {
		if r.digest != digest {
			return false, errConflict
		}
		return false, nil
	}
	a.running[task] = &run{digest: digest, inForce: func() bool { return a.inForce(req) }}
	return true, nil
}

// start gives a claimed task its context, already cancelled if somebody asked
// for that meanwhile.
func (a *Agent) start(ctx context.Context, task string) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.running[task]
	r.cancel = cancel
	if r.stopped {
		cancel(errCancelled)
	}
	return ctx, cancel
}

func (a *Agent) end(task string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, task)
}
