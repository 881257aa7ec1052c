package agent

import (
	"context"
	"errors"
	"strings"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/authz/destination"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
)

// request is one request on its way down the path; each stage adds to it.
type request struct {
	signed    *sdk.SendMessageRequest // as the issuer signed it
	facts     a2a.Signed
	exec      a2a.Execution
	principal identity.Principal // who asks, resolved in the cluster's registry
	via       string             // the door it came through
	vouched   bool               // a node signed for a principal without a key
	behalf    *behalf            // set when the issuer shows a mandate
	unclear   *a2a.Unclear       // set when it names no program
	noted     bool               // its refusal is in the log under the name of who is to blame
	lacks     string             // what authority its sender could get, if that is all that is wrong
	task      string
	mandate   *delegation // set when another node placed the request here

	query    authz.Query    // what policy is asked, once it is
	door     authz.Decision // the decision of the node that took the request in
	decision authz.Decision // this node's
	backend  string
	intent   *uint64
}

// Submit walks the first half of the path: verify, decide, place. What it
// admits is owed a run, which the handler starts by calling Admitted.Run.
func (a *Agent) Submit(ctx context.Context, in server.Inbound) (server.Admitted, error) {
	if err := a.cfg.Closed(); err != nil {
		return server.Admitted{}, err
	}
	req, err := a.verify(in)
	if err != nil {
		a.noteRefused(req, err)
		return server.Admitted{}, err
	}
	if req.unclear != nil {
		return a.askFor(req)
	}
	if known, err := a.known(req); err != nil || known {
		a.noteRepeated(req, err)
		return server.Admitted{Task: req.task, Owner: req.principal.String(), Asker: req.principal, Existing: known}, err
	}
	if err := a.decide(ctx, req); err != nil {
		a.noteDenied(req)
		return server.Admitted{Task: req.task, Owner: req.principal.String(), Final: a.deniedReport(req)}, nil
	}
	executors, err := a.place(req)
	if err != nil {
		return server.Admitted{}, err
	}
	fresh, err := a.begin(req)
	if err != nil || !fresh {
		return server.Admitted{Task: req.task, Owner: req.principal.String(), Asker: req.principal, Existing: err == nil}, err
	}
	return server.Admitted{
		Task:  req.task,
		Owner: req.principal.String(),
		Run: func(ctx context.Context, out server.Updates) a2a.Report {
			defer a.end(req.task)
			ctx, cancel := a.start(ctx, req.task)
			defer cancel(nil)
			return a.carry(ctx, req, executors, out)
		},
	}, nil
}

// verify proves who sent the request and that this is what was sent: size and
// syntax were checked by the door, here come signature, audience, time, and
// the principal behind the key.
//
// INVARIANT: I3, a signature covers what was received.
func (a *Agent) verify(in server.Inbound) (*request, error) {
	req := &request{signed: in.Request, via: in.Caller.Door}
	if !a2a.IsSigned(in.Request) {
		if err := a.vouch(req, in.Caller, in.Once); err != nil {
			return req, err
		}
	}
	facts, err := a2a.Verify(req.signed, a2a.VerifyOptions{Audiences: []string{a.cfg.Audience, a.cfg.Key.ID().DID()}})
	if err != nil {
		return req, err
	}
	req.facts = facts
	req.task = facts.Task()
	if err := a2a.CheckModes(req.signed); err != nil {
		return req, err
	}
	req.exec, err = a2a.DecodeExecution(req.signed)
	if unclear, ok := errors.AsType[*a2a.Unclear](err); ok && in.Caller.Door != server.DoorMesh {
		req.unclear = unclear // its sender can be asked, once it is known who that is
	} else if err != nil {
		return req, err
	}
	if _, err := destination.Parse(req.exec.Network); err != nil {
		return req, a2a.Errorf(a2a.CodeInvalidRequest, "network: %s", err)
	}
	if _, err := sandbox.ParseNetwork(req.exec.Network); err != nil {
		return req, a2a.Errorf(a2a.CodeInvalidRequest, "network: %v", err)
	}
	if req.principal, req.vouched, err = a.principal(facts); err != nil {
		req.noted = a.noteForged(facts, in.Caller.Door)
		return req, err
	}
	if req.behalf, err = a.behalf(req); err != nil {
		return req, err
	}
	if in.Caller.Door != server.DoorMesh {
		return req, nil
	}
	req.mandate, err = a.openDelegation(in.Delegation, in.Caller.Peer, req.task)
	return req, err
}

// vouch signs for a caller who proved a credential but has no key of its own;
// the mandate names the caller, and what makes his request the same through
// another node.
func (a *Agent) vouch(req *request, caller server.Caller, once string) error {
	block := a2a.MandateBlock{Subject: caller.Principal.String(), Tenant: caller.Principal.Tenant, Via: a.cfg.Key.ID().DID(), Once: once}
	switch caller.Principal.Kind {
	case identity.Service:
	case identity.User:
		block.Roles = caller.Principal.Roles
	default:
		return &a2a.Error{Code: a2a.CodeSignatureMissing, Message: "the request is not signed", Hint: "sign it with an agent's key, or send an API key"}
	}
	if !a.cfg.Directory.MayVouch(a.cfg.Key.ID(), block.Tenant) {
		a.NoteDenial(caller.Principal, authz.ExecRun, codeVouch, caller.Door, authz.Decision{})
		req.noted = true
		return errMayNotVouch
	}
	signed, err := a2a.Sign(a.cfg.Key, req.signed, a2a.SignOptions{
		Audience: a.cfg.Audience,
		Mandate:  []a2a.MandateBlock{block},
	})
	if err != nil {
		return err
	}
	req.signed = signed
	return nil
}

// principal resolves who stands behind the signature in the registry. The
// answer is one for every failure, since it depends on the cluster's state.
//
// INVARIANT: I9, authority only narrows along a chain: a vouching node gives
// the named principal's rights as the registry has them, never its own. A user's
// are those that the node read from his token: there it is believed, as far as
// the cluster lets nodes vouch at all.
func (a *Agent) principal(facts a2a.Signed) (identity.Principal, bool, error) {
	if len(facts.Claims.Mandate) == 0 {
		p, ok := a.cfg.Directory.Agent(facts.Issuer)
		if !ok {
			return identity.Principal{}, false, errCredentials
		}
		return p, false, nil
	}
	block := facts.Claims.Mandate[0]
	// A node that speaks for whom it may not is refused like one that nobody knows.
	if block.Via != facts.Issuer.DID() || !a.cfg.Directory.Member(facts.Issuer) || !a.cfg.Directory.MayVouch(facts.Issuer, block.Tenant) {
		return identity.Principal{}, false, errCredentials
	}
	if name, ok := strings.CutPrefix(block.Subject, string(identity.User)+":"); ok && name != "" && block.Tenant != "" {
		return identity.Principal{Kind: identity.User, Name: name, Tenant: block.Tenant, Roles: block.Roles}, true, nil
	}
	p, ok := a.cfg.Directory.Principal(block.Subject)
	if !ok || p.Kind == identity.Agent || p.Tenant != block.Tenant {
		return identity.Principal{}, false, errCredentials
	}
	return p, true, nil
}

// known reports whether this very request was admitted before, on any node.
func (a *Agent) known(req *request) (bool, error) {
	_, digest, err := a.cfg.Log.Once(onceKey(req.task))
	switch {
	case errors.Is(err, audit.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case digest == barred(req.task):
		return true, nil // whatever it asked for: its task has ended without a run
	case digest != req.facts.Digest:
		return false, errConflict
	}
	return true, nil
}

// decide asks policy, on verified facts only.
func (a *Agent) decide(ctx context.Context, req *request) error {
	req.query = a.query(req)
	dec, err := a.ask(ctx, req)
	if err != nil {
		// No answer is a no; the cause is the operator's to see, not the caller's.
		a.log.ErrorContext(ctx, "policy decision failed", "task", req.task, "err", err)
		dec = authz.Decision{Reasons: []authz.Reason{{Code: "policy_error", Message: "the policy gave no answer"}}, Policy: dec.Policy}
	}
	req.decision = dec
	if req.mandate == nil {
		req.door = dec
	} else {
		req.door = req.mandate.Decision
	}
	if !dec.Allow {
		return errDenied
	}
	return nil
}

// carry takes an admitted request through the second half of the path, here
// or on a peer.
func (a *Agent) carry(ctx context.Context, req *request, executors []identity.ID, out Output) a2a.Report {
	began := time.Now()
	var rep a2a.Report
	for i, executor := range executors {
		var again bool
		if executor == a.cfg.Key.ID() {
			rep, again = a.execute(ctx, req, out)
		} else {
			rep, again = a.delegate(ctx, req, executor, out)
		}
		if !again || i == len(executors)-1 {
			break
		}
		a.log.InfoContext(ctx, "executor refused, trying the next", "task", req.task, "executor", executor, "code", rep.Error.Code)
	}
	if rep.Outcome != nil {
		a.cfg.Reported(*rep.Outcome)
	}
	rep.Task = req.task
	rep.Duration = milliseconds(time.Since(began))
	return rep
}

// execute runs the request on this node: intent, run, outcome. The second
// value says that nothing was written or run, so another node may be asked.
func (a *Agent) execute(ctx context.Context, req *request, out Output) (a2a.Report, bool) {
	ev := newEvidence(req)
	spec := a.spec(req, out)
	conns := a.connections(req)
	spec.Connected = conns.over
	res, err := a.cfg.Runner.Run(ctx, req.backend, spec, func(ctx context.Context) error {
		// INVARIANT: I1, nothing runs before its intent is durable on a quorum.
		// The jail is complete by now; the code enters it only if this returns nil.
		return a.intend(ctx, req, spec, ev)
	})
	if req.intent == nil {
		return a.notRun(ctx, req, err)
	}
	conns.wait() // no outcome before what the program did
	rep := a.report(req, res, err)
	ev.hold(res)
	// The outcome is owed even to a caller who has gone, and to a cancelled run.
	ctx, cancel := a.owed(ctx)
	defer cancel()
	entry := a.outcomeEntry(req, ev, &rep) // draws the last salts: evidence is whole from here on
	ev.end(rep)
	saved := make(chan error, 1)
	go func() { saved <- a.cfg.Evidence.Put(req.task, ev) }()
	a.conclude(ctx, req, entry, &rep)
	switch err := <-saved; {
	case err != nil:
		a.log.ErrorContext(ctx, "evidence not kept", "task", req.task, "err", err)
	case rep.Outcome != nil && rep.Status != a2a.Lost:
		out.Kept()
	}
	return rep, false
}

// intend commits the intent. Its key makes it at-most-once cluster-wide.
//
// INVARIANT: I8, at most one run per (issuer, jti, attempt).
func (a *Agent) intend(ctx context.Context, req *request, spec sandbox.Spec, ev *evidence) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // nothing was proposed
	}
	// Once proposed it is awaited, although the caller goes meanwhile: who gave
	// up here would leave an intent without knowing that it stands.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.QuorumWait)
	defer cancel()
	entry := a.intentEntry(req, spec, ev)
	ack, err := a.cfg.Recorder.Record(ctx, entry)
	if err == nil && ack.Existing {
		err = a.ours(ctx, ack.Index, entry.ID)
	}
	switch {
	case err == nil:
		req.intent = &ack.Index
		return nil
	case errors.Is(err, audit.ErrUnknown):
		// It may yet be committed: the sweep ends it as lost, for nothing runs.
		return errors.Join(errUnavailable, err)
	default:
		return err
	}
}

// ours is nil if the intent that stands in the log is the one we proposed: a
// recorder that proposes again after an unknown commit finds its own entry
// there. Nobody else knows its id, so nobody else runs by it.
func (a *Agent) ours(ctx context.Context, index uint64, id string) error {
	if err := a.waitEntry(ctx, index); err != nil {
		return errors.Join(errUnavailable, err) // the sweep ends it as lost
	}
	standing, _, err := a.cfg.Log.Entry(index)
	if err != nil {
		return err
	}
	if standing.ID != id || standing.Author != a.cfg.Key.ID() {
		return errExists
	}
	return nil
}

// conclude commits the outcome and writes its index into the report.
//
// INVARIANT: I2, every intent gets exactly one outcome; a late result is kept.
func (a *Agent) conclude(ctx context.Context, req *request, entry audit.Entry, rep *a2a.Report) {
	for {
		ack, err := a.cfg.Recorder.Record(ctx, entry)
		if err == nil {
			rep.Outcome = &ack.Index
			if ack.Existing {
				a.late(ctx, req, entry, rep, ack.Index)
			}
			return
		}
		if final(ctx, err) {
			a.log.ErrorContext(ctx, "outcome not recorded; the keepers end this task as lost", "task", req.task, "err", err)
			return
		}
		a.log.WarnContext(ctx, "outcome waits for a quorum", "task", req.task, "err", err)
		sleep(ctx, outcomeRetry)
	}
}

// final says that recording again would change nothing, or that there is no
// time for it.
func final(ctx context.Context, err error) bool {
	refusal := new(audit.Refusal)
	return errors.As(err, &refusal) || ctx.Err() != nil
}

// owed is a context for what must be done although the caller has gone. Once
// the node stops it ends soon: what is still owed then, the keepers give, or
// this node after its next start.
func (a *Agent) owed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeWait)
	unhook := context.AfterFunc(a.stopping, func() {
		sleep(ctx, stopGrace)
		cancel()
	})
	return ctx, func() { unhook(); cancel() }
}

// late keeps a result that came after somebody else had ended the task. The
// first outcome stands, and the report says so.
func (a *Agent) late(ctx context.Context, req *request, entry audit.Entry, rep *a2a.Report, first uint64) {
	standing, _, err := a.cfg.Log.Entry(first)
	if err == nil && standing.Author == a.cfg.Key.ID() {
		return // our own, from before a retry
	}
	entry.Kind, entry.ID = audit.KindLate, audit.NewID(time.Now())
	if _, err := a.cfg.Recorder.Record(ctx, entry); err != nil {
		a.log.ErrorContext(ctx, "late result not recorded", "task", req.task, "err", err)
	}
	rep.Status, rep.ExitCode = a2a.Lost, exitLost
	rep.Error = &a2a.ReportError{Code: "lost", Message: "the execution was given up before its result came; the result is kept in the log as late"}
}

const (
	outcomeWait  = 60 * time.Second
	outcomeRetry = 100 * time.Millisecond
	stopGrace    = 5 * time.Second
)

// The refusals of the path itself.
var (
	errDenied      = errors.New("denied by policy")
	errExists      = errors.New("the request was admitted elsewhere meanwhile")
	errUnavailable = errors.New("no quorum")
	errMayNotVouch = &a2a.Error{Code: a2a.CodeDenied, Message: "this node may not speak for callers of that tenant", Hint: "sign the request with an agent's key: --agent-key; or ask a node that may"}
	errCredentials = &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "the credentials were refused"}
	errConflict    = &a2a.Error{Code: a2a.CodeConflict, Message: "this request id was used before for another request", Hint: "use a new jti for each request"}
)

// spec is the run that the decision allows: what was asked for, narrowed.
//
// INVARIANT: I6, a limit that cannot be enforced refuses the run.
func (a *Agent) spec(req *request, out Output) sandbox.Spec {
	ask, ceil, def := req.exec.Limits, req.decision.Obligations, a.cfg.Defaults
	spec := sandbox.Spec{
		ID:       req.task,
		Owner:    req.principal.String(),
		Language: req.exec.Language,
		Runtime:  req.exec.Runtime,
		Code:     []byte(req.exec.Code),
		Args:     req.exec.Args,
		Stdin:    []byte(req.exec.Stdin),
		Limits: sandbox.Limits{
			Memory:     narrow(ask.MemoryBytes, def.Memory, ceil.MemoryBytes),
			CPUPercent: int(narrow(int64(ask.CPUPercent), int64(def.CPUPercent), int64(ceil.CPUPercent))),
			Wall:       time.Duration(narrow(ask.TimeoutMS, def.Wall.Milliseconds(), ceil.TimeoutMS)) * time.Millisecond,
			Output:     narrow(ask.OutputBytes, def.Output, ceil.OutputBytes),
			FileSize:   narrow(ask.FileSizeBytes, def.FileSize, ceil.FileSizeBytes),
			Processes:  int(narrow(int64(ask.Processes), int64(def.Processes), int64(ceil.Processes))),
		},
		Network:  destinations(req),
		Required: required(req),
		Progress: ProgressOf(out),
		Output:   out.Output,
	}
	for _, f := range req.exec.Files {
		spec.Files = append(spec.Files, sandbox.File{Path: f.Path, Content: f.Content})
	}
	return spec
}

// narrow is what was asked for, or the default, at most the ceiling. Zero is no
// ceiling, never no limit.
func narrow(ask, otherwise, ceiling int64) int64 {
	if ask == 0 {
		ask = otherwise
	}
	if ceiling == 0 {
		return ask
	}
	return min(ask, ceiling)
}

// required names every limit that the caller or policy named: those must hold
// or the run is refused, while a default is best effort and reported.
func required(req *request) []string {
	named := map[string]bool{sandbox.LimitNetwork: true}
	for _, list := range [][]string{req.exec.Require, req.decision.Obligations.Required} {
		for _, name := range list {
			named[name] = true
		}
	}
	ask := req.exec.Limits
	for name, asked := range map[string]bool{
		sandbox.LimitMemory:     ask.MemoryBytes != 0,
		sandbox.LimitCPUPercent: ask.CPUPercent != 0,
		sandbox.LimitWall:       ask.TimeoutMS != 0,
		sandbox.LimitOutput:     ask.OutputBytes != 0,
		sandbox.LimitFileSize:   ask.FileSizeBytes != 0,
		sandbox.LimitProcesses:  ask.Processes != 0,
	} {
		if asked {
			named[name] = true
		}
	}
	return sorted(named)
}
