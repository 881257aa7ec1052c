package agent

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
)

// delegation goes with a request that one node places on another: which task
// it is, and what the door's policy said. The request itself travels as its
// issuer signed it, so the executor trusts the door for nothing else.
type delegation struct {
	Version  int            `json:"v"`
	Task     string         `json:"task"`
	Door     identity.ID    `json:"door"`
	Executor identity.ID    `json:"executor"`
	Issued   int64          `json:"iat"` // seconds since 1970
	Decision authz.Decision `json:"decision"`
}

// sealedDelegation keeps the bytes that were signed.
type sealedDelegation struct {
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"`
}

const (
	delegationVersion = 1
	delegationDomain  = "agenticraft delegation v1"
	delegationLife    = 2 * time.Minute
	maxDelegation     = 64 << 10 // bytes
	// settleWait is how long a door looks for a peer that stopped answering
	// before it gives the execution up as lost.
	settleWait = 5 * time.Second
	settlePoll = 100 * time.Millisecond
	peerSlack  = 30 * time.Second // queueing and commits, beyond the wall limit
)

func (a *Agent) sealDelegation(req *request, executor identity.ID) ([]byte, error) {
	payload, err := json.Marshal(delegation{
		Version: delegationVersion, Task: req.task, Door: a.cfg.Key.ID(), Executor: executor,
		Issued: time.Now().Unix(), Decision: req.decision,
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(sealedDelegation{Payload: payload, Signature: a.cfg.Key.Sign(delegationDomain, payload)})
}

// openDelegation checks that the node at the other end of the connection
// placed this very task here.
func (a *Agent) openDelegation(text []byte, peer identity.ID, task string) (*delegation, error) {
	bad := func(why string) error {
		return &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "delegation: " + why}
	}
	var sealed sealedDelegation
	if len(text) == 0 || len(text) > maxDelegation || json.Unmarshal(text, &sealed) != nil {
		return nil, bad("missing or malformed")
	}
	if !peer.Verify(delegationDomain, sealed.Payload, sealed.Signature) {
		return nil, bad("not signed by the node that sent it")
	}
	var d delegation
	if json.Unmarshal(sealed.Payload, &d) != nil || d.Version != delegationVersion {
		return nil, bad("malformed payload")
	}
	age := time.Since(time.Unix(d.Issued, 0))
	switch {
	case d.Door != peer || d.Executor != a.cfg.Key.ID():
		return nil, bad("names other nodes")
	case d.Task != task:
		return nil, bad("names another task")
	case age > delegationLife || age < -delegationLife:
		return nil, bad("expired")
	case !d.Decision.Allow:
		return nil, bad("the door's policy did not allow it")
	case !a.cfg.Directory.Member(peer):
		return nil, errCredentials
	}
	return &d, nil
}

// delegate has a peer run the request. The second value says that the peer
// surely did not start it, so another node may be asked.
func (a *Agent) delegate(ctx context.Context, req *request, executor identity.ID, out Output) (a2a.Report, bool) {
	sealed, err := a.sealDelegation(req, executor)
	if err != nil {
		return a.failedReport(req, a2a.CodeInternal, "the delegation could not be written"), false
	}
	// The execution is owed its end even if the caller has gone: a cancellation
	// travels to the peer, and its answer is awaited all the same.
	limit := a.spec(req, out).Limits.Wall + peerSlack
	wait, done := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer done()
	stop := context.AfterFunc(ctx, func() {
		if err := a.cfg.Peers.Cancel(wait, executor, req.task); err != nil {
			a.log.WarnContext(wait, "cancel at peer failed", "task", req.task, "executor", executor, "err", err)
		}
	})
	defer stop()

	task, err := a.cfg.Peers.Send(wait, executor, req.signed, sealed, out)
	if err == nil {
		rep, err := a2a.ReportOf(task)
		if err != nil {
			return a.settle(wait, req, executor), false
		}
		rep.Node = executor
		return rep, rep.Intent == nil && rep.Error != nil && retryable[rep.Error.Code]
	}
	if errors.Is(err, ErrUnreachable) {
		return a.failedReport(req, a2a.CodeUnavailable, "node "+string(executor)+" cannot be reached"), true
	}
	if refusal := new(a2a.Error); errors.As(err, &refusal) {
		rep := a.failedReport(req, refusal.Code, refusal.Message)
		return rep, retryable[refusal.Code]
	}
	a.log.WarnContext(ctx, "peer stopped answering", "task", req.task, "executor", executor, "err", err)
	return a.settle(wait, req, executor), false
}

// retryable are the refusals after which another node may do better.
var retryable = map[string]bool{a2a.CodeBusy: true, a2a.CodeUnavailable: true, a2a.CodeUnenforceable: true}

// settle finds out what became of a request whose executor stopped answering,
// and ends it as lost if nobody can say.
func (a *Agent) settle(ctx context.Context, req *request, executor identity.ID) a2a.Report {
	for deadline := time.Now().Add(settleWait); ; {
		task, err := a.cfg.Peers.Task(ctx, executor, req.task)
		if err == nil && task.Status.State.Terminal() {
			if rep, err := a2a.ReportOf(task); err == nil {
				rep.Node = executor
				return rep
			}
		}
		gone := err != nil && time.Now().After(deadline)
		if gone || ctx.Err() != nil {
			break
		}
		if err == nil {
			deadline = time.Now().Add(settleWait) // it lives, and still works on it
		}
		sleep(ctx, settlePoll)
	}
	ctx, cancel := a.owed(ctx)
	defer cancel()
	return a.abandon(ctx, req, executor)
}

// abandon makes sure that the request never runs, or that its execution has an
// outcome: it claims the request's at-most-once key with a denial. Whichever
// of the two entries comes first in the log decides.
func (a *Agent) abandon(ctx context.Context, req *request, executor identity.ID) a2a.Report {
	const why = "the node that was to run it stopped answering"
	ack, err := a.cfg.Recorder.Record(ctx, a.abandonEntry(req))
	switch {
	case err != nil && !errors.Is(err, audit.ErrConflict):
		rep := a.failedReport(req, a2a.CodeUnavailable, why+", and no quorum could be reached to end it")
		rep.Node = executor
		return rep
	case err == nil && !ack.Existing:
		rep := a.failedReport(req, a2a.CodeUnavailable, why+" before it began; nothing ran")
		rep.Node = executor
		return rep
	}
	rep, err := a.lose(ctx, req.task)
	if err != nil {
		a.log.ErrorContext(ctx, "lost execution not ended", "task", req.task, "err", err)
		rep = a.failedReport(req, "lost", why)
		rep.Status = a2a.Lost
	}
	return rep
}
