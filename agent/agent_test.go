package agent_test

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
	"github.com/agenticraft/node/sandbox"
)

// world is a cluster's log with real entries, admission and policy, and an
// agent on it whose recorder, runner and peers can be made to fail.
type world struct {
	evidence  string // folder
	store     *agent.Evidence
	retention time.Duration
	space     int64
	t         *testing.T
	node      *identity.Key // the agent under test
	peer      *identity.Key // another member
	caller    *identity.Key // a registered agent that may run
	viewer    *identity.Key // a registered agent that may not
	log       *audittest.Log
	record    *recorder
	runner    *runner
	peers     *peers
	policy    agent.Authorizer
	agent     *agent.Agent
}

const clusterName = "test"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, node: newKey(t), peer: newKey(t), caller: newKey(t), viewer: newKey(t)}
	leaf, err := registry.GenesisLeaf(registry.Genesis{
		Cluster: clusterName, Time: time.Unix(1_800_000_000, 0), Vouch: true, Tenants: []string{"acme"},
		Members: []registry.MemberBody{
			{ID: w.node.ID(), Role: registry.Keeper, Name: "one"}, {ID: w.peer.ID(), Role: registry.Keeper, Name: "two"},
		},
		Agents: []registry.AgentBody{
			{ID: w.caller.ID(), Name: "caller", Tenant: "acme", Roles: []string{"runner"}},
			{ID: w.viewer.ID(), Name: "viewer", Tenant: "acme", Roles: []string{"viewer"}},
		},
		Keys: []registry.KeyBody{{ID: serviceID, Name: "svc", Hash: hex.EncodeToString(make([]byte, 32)), Tenant: "acme", Roles: []string{"admin"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.log = audittest.New(t, leaf, registry.Admission{})
	w.record = &recorder{next: w.log.Recorder(w.node)}
	w.runner = &runner{w: w}
	w.peers = &peers{}
	policy, err := authz.NewPolicy(authz.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := policy.Close(); err != nil {
			t.Error(err)
		}
	})
	w.policy = policy
	w.build()
	return w
}

const serviceID = "aaaaaaaaaa"

// file is a task's evidence in a file of its own.
func (w *world) file(task string) string {
	w.t.Helper()
	name, err := w.store.InFile(task)
	if err != nil {
		w.t.Fatal(err)
	}
	return name
}

func (w *world) build() {
	w.t.Helper()
	if w.retention == 0 {
		w.retention = agent.DefaultRetention
	}
	w.evidence = w.t.TempDir()
	var err error
	if w.store, err = agent.OpenEvidence(w.evidence); err != nil {
		w.t.Fatal(err)
	}
	w.agent = agent.New(agent.Config{
		Key: w.node, Audience: a2a.Audience(clusterName), Policy: w.policy,
		Directory: directory{registry.New(w.log.Store)}, Recorder: w.record, Log: w.log.Store,
		Runner: w.runner, Peers: w.peers, Evidence: w.store,
		BuildReceipt: func(ctx context.Context, task string, extra audit.ReceiptExtra) ([]byte, error) {
			return audit.BuildReceipt(ctx, w.log.Store, task, extra)
		},
		Lead:      func() bool { return true },
		Defaults:  sandbox.DefaultLimits(),
		Retention: func(string) time.Duration { return w.retention }, EvidenceBytes: w.space,
	})
}

func newKey(t *testing.T) *identity.Key {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signed is a request by key, changed as the test wants.
func (w *world) signed(key *identity.Key, change func(*a2a.Execution)) *sdk.SendMessageRequest {
	w.t.Helper()
	exec := a2a.Execution{Language: "python", Code: "result = 1"}
	if change != nil {
		change(&exec)
	}
	req, err := a2a.NewRequest(exec)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := a2a.Sign(key, req, a2a.SignOptions{Audience: a2a.Audience(clusterName)})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// submit sends a request through the HTTP door.
func (w *world) submit(req *sdk.SendMessageRequest) (server.Admitted, error) {
	return w.agent.Submit(w.t.Context(), server.Inbound{Request: req, Caller: server.Caller{Door: server.DoorHTTP}})
}

// run submits a request that must be admitted, and runs it to its end.
func (w *world) run(req *sdk.SendMessageRequest) a2a.Report {
	w.t.Helper()
	adm, err := w.submit(req)
	if err != nil || adm.Run == nil {
		w.t.Fatalf("Submit = %+v, %v", adm, err)
	}
	return adm.Run(w.t.Context(), quiet{})
}

// entries are the log's entries of these kinds, in order.
func (w *world) entries(kinds ...audit.Kind) []audit.Entry {
	w.t.Helper()
	page, err := w.log.Store.Query(w.t.Context(), audit.Filter{Kinds: kinds, Limit: audit.MaxLimit})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []audit.Entry
	for _, e := range page.Entries {
		out = append(out, e.Entry)
	}
	return out
}

// sweep runs the agent's background work until is comes true.
func (w *world) sweep(tasks agent.Tasks, is func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.agent.Run(ctx, tasks) }()
	for !is() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	met := is()
	cancel()
	if err := <-done; err != nil {
		w.t.Errorf("Run = %v", err)
	}
	if !met {
		w.t.Fatal("the background work did not do it in time")
	}
}

type quiet struct{}

func (quiet) Output(string, int64, []byte) {}
func (quiet) Kept()                        {}

type directory struct{ *registry.Registry }

func (d directory) Suspended(tenant string) bool {
	t, err := d.Tenant(tenant)
	return err != nil || t.Suspended
}

func (d directory) Ceiling(tenant string) authz.Ceiling {
	t, err := d.Tenant(tenant)
	if err != nil || t.Ceiling == nil {
		return authz.Ceiling{}
	}
	return authz.Ceiling(*t.Ceiling)
}

// recorder fails as told, before or after the entry is in the log.
type recorder struct {
	next agent.Recorder

	twice bool // propose everything again, as after an unknown commit

	mu   sync.Mutex
	fail func(audit.Entry) (before, after error)
}

func (r *recorder) failing(f func(audit.Entry) (before, after error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = f
}

func (r *recorder) Record(ctx context.Context, e audit.Entry) (audit.Ack, error) {
	r.mu.Lock()
	fail := r.fail
	r.mu.Unlock()
	if r.twice {
		if _, err := r.next.Record(ctx, e); err != nil {
			return audit.Ack{}, err
		}
	}
	if fail == nil {
		return r.next.Record(ctx, e)
	}
	before, after := fail(e)
	if before != nil {
		return audit.Ack{}, before
	}
	ack, err := r.next.Record(ctx, e)
	return ack, errors.Join(err, after)
}

// runner stands in for the sandbox: the real one is tested by processes.
type runner struct {
	w *world

	mu     sync.Mutex
	ran    []sandbox.Spec
	before error // instead of calling ready
	during func()
	opens  []sandbox.Connection
	load   sandbox.Load
	tier   string // "": T1
}

func (r *runner) Run(ctx context.Context, _ string, spec sandbox.Spec, ready func(context.Context) error) (sandbox.Result, error) {
	if r.before != nil {
		return sandbox.Result{}, r.before
	}
	if err := ready(ctx); err != nil {
		return sandbox.Result{}, err
	}
	// INVARIANT: I1, nothing runs before its intent is durable on a quorum.
	if rec, err := r.w.log.Store.Task(spec.ID); err != nil || rec.Intent == nil {
		r.w.t.Errorf("the code of %s runs, and the log has no intent (%v)", spec.ID, err)
	}
	r.mu.Lock()
	r.ran = append(r.ran, spec)
	r.mu.Unlock()
	if r.during != nil {
		r.during()
	}
	for _, c := range r.opens {
		spec.Connected(c)
	}
	if ctx.Err() != nil {
		return sandbox.Result{Status: sandbox.Cancelled, ExitCode: 130}, nil
	}
	return sandbox.Result{
		Status: sandbox.OK, Value: json.RawMessage("1"), Stdout: []byte("out"),
		Enforced: map[string]string{sandbox.LimitMemory: "test"},
	}, nil
}

func (r *runner) runs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ran)
}

func (r *runner) Resolve(_, language, _ string) (string, error) {
	if language != "python" {
		return "", fmt.Errorf("%w: %s", sandbox.ErrUnavailable, language)
	}
	return "process", nil
}

func (r *runner) Describe() []sandbox.Description {
	return []sandbox.Description{{Name: "process", Available: true, Tier: cmp.Or(r.tier, "T1"), Languages: []string{"python"}}}
}

func (r *runner) Load() sandbox.Load {
	load := r.load
	load.Slots = max(load.Slots, 1)
	return load
}

// peers stand in for the other nodes.
type peers struct {
	send      func(to identity.ID, req *sdk.SendMessageRequest, delegation []byte) (*sdk.Task, error)
	task      func(task string) (*sdk.Task, error)
	adverts   map[identity.ID][]byte
	connected bool
	others    []identity.ID
	find      func(at identity.ID, digest string, by identity.Principal) ([]agent.FoundEvidence, error)
}

func (p *peers) Send(_ context.Context, to identity.ID, req *sdk.SendMessageRequest, delegation []byte, _ agent.Output) (*sdk.Task, error) {
	return p.send(to, req, delegation)
}

func (p *peers) Task(_ context.Context, _ identity.ID, task string) (*sdk.Task, error) {
	if p.task == nil {
		return nil, errors.New("no answer")
	}
	return p.task(task)
}

func (p *peers) Cancel(context.Context, identity.ID, string) error { return nil }

func (p *peers) Follow(context.Context, identity.ID, string, *uint64) iter.Seq2[server.Numbered, error] {
	return func(yield func(server.Numbered, error) bool) {
		yield(server.Numbered{}, errors.New("no answer"))
	}
}

func (p *peers) Relay(context.Context, identity.ID, *sdk.SendMessageRequest, string) iter.Seq2[server.Numbered, error] {
	return p.Follow(context.Background(), "", "", nil)
}

func (p *peers) List(context.Context, identity.ID, server.Query) (server.Page, error) {
	return server.Page{}, errors.New("no answer")
}

func (p *peers) Pushes(identity.ID) (server.Pushes, error) { return nil, errors.New("no answer") }

func (p *peers) Evidence(context.Context, identity.ID, string, identity.Principal) ([]byte, error) {
	return nil, errors.New("no answer")
}

func (p *peers) Others() []identity.ID { return p.others }

func (p *peers) FindEvidence(_ context.Context, at identity.ID, digest string, by identity.Principal) ([]agent.FoundEvidence, error) {
	if p.find == nil {
		return nil, agent.ErrUnreachable
	}
	return p.find(at, digest, by)
}

func (p *peers) EraseEvidence(context.Context, identity.ID, string, identity.Principal) (uint64, error) {
	return 0, errors.New("no answer")
}

func (p *peers) Receipt(context.Context, identity.ID, string) ([]byte, error) {
	return nil, errors.New("no answer")
}
func (p *peers) Connected(identity.ID) bool      { return p.connected }
func (p *peers) Adverts() map[identity.ID][]byte { return p.adverts }

// tasks are a door's interrupted tasks.
type tasks struct {
	mu   sync.Mutex
	open []string
	ends map[string]a2a.Report
}

func (t *tasks) Unfinished() []server.Unfinished {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []server.Unfinished
	for _, id := range t.open {
		out = append(out, server.Unfinished{Task: id, Execution: id})
	}
	return out
}

func (t *tasks) Finish(_ context.Context, task string, rep a2a.Report) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = slices.DeleteFunc(t.open, func(s string) bool { return s == task })
	if t.ends == nil {
		t.ends = map[string]a2a.Report{}
	}
	t.ends[task] = rep
	return nil
}

func (t *tasks) end(task string) (a2a.Report, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rep, ok := t.ends[task]
	return rep, ok
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	known := new(a2a.Error)
	if !errors.As(err, &known) || known.Code != code {
		t.Errorf("error is %v, want code %s", err, code)
	}
}

func contains(texts []string, part string) bool {
	return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, part) })
}
