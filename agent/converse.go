package agent

import (
	"context"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// A task that takes more than one message (docs/decisions/0037): a text without a
// program is asked for one, and what only lacks authority is asked for that. What
// runs is the message that completes it, and that walks the whole path: nothing
// that was said before, and no state of a task, authorizes anything.

var (
	_ server.Conversation = (*Agent)(nil)
	_ server.Prover       = (*Agent)(nil)
)

const (
	askForCode = "Send the program in a message to this task: a data part {language, code, …}, or a text with one fenced code block whose opening fence names the language, such as ```python."
	askForMore = "Send the whole request again in a message to this task, with a mandate in force that covers it, or with none."
)

// askFor begins a task that waits for a program.
func (a *Agent) askFor(req *request) (server.Admitted, error) {
	if !a.inForce(req) {
		return server.Admitted{}, errCredentials
	}
	return server.Admitted{
		Task: req.task, Owner: req.principal.String(), Asker: req.principal,
		Talk: waitFor(sdk.TaskStateInputRequired, req.unclear.Err.Message+". "+askForCode),
	}, nil
}

// waitFor is a turn that only asks.
func waitFor(state sdk.TaskState, question string) server.Talk {
	return func(_ context.Context, task *sdk.Task, say func(sdk.Event)) error {
		say(sdk.NewStatusUpdateEvent(task, state, sdk.NewMessageForTask(sdk.MessageRoleAgent, task, sdk.NewTextPart(question))))
		return nil
	}
}

// Prove gives the principal behind a request's signature, else that of its channel.
func (a *Agent) Prove(in server.Inbound) (identity.Principal, error) {
	if !a2a.IsSigned(in.Request) {
		return in.Caller.Principal, nil
	}
	facts, err := a2a.Verify(in.Request, a2a.VerifyOptions{Audiences: []string{a.cfg.Audience, a.cfg.Key.ID().DID()}})
	if err != nil {
		return identity.Principal{}, err
	}
	p, _, err := a.principal(facts)
	return p, err
}

// Continue takes a message to a task that waits for one down the path, as any
// other: verify, decide, place. What it runs is in the log under the id that this
// message makes, not under the task's.
func (a *Agent) Continue(ctx context.Context, in server.Inbound, task *sdk.Task) (server.Admitted, error) {
	if err := a.cfg.Closed(); err != nil {
		return server.Admitted{}, err
	}
	if in.Caller.Door == server.DoorMesh {
		// Another node only handed it on: nobody's request but its signer's, which
		// came through that node's door.
		in.Caller = server.Caller{Door: in.Relayed}
		if in.Relayed == "" {
			return server.Admitted{}, a2a.Errorf(a2a.CodeInvalidRequest, "a node that hands a message on says through which door it came")
		}
	}
	req, err := a.verify(in)
	if req.lacks != "" && req.principal.String() == a2a.OwnerOf(task) {
		a.noteRefused(req, err)
		return server.Admitted{Task: string(task.ID), Owner: a2a.OwnerOf(task), Talk: waitFor(sdk.TaskStateAuthRequired, req.lacks+". "+askForMore)}, nil
	}
	if err != nil {
		a.noteRefused(req, err)
		return server.Admitted{}, err
	}
	out := server.Admitted{Task: req.task, Owner: req.principal.String()}
	if out.Owner != a2a.OwnerOf(task) {
		return server.Admitted{}, a2a.ErrNoTask
	}
	if req.unclear != nil {
		return a.askFor(req)
	}
	if known, err := a.known(req); err != nil || known {
		a.noteRepeated(req, err)
		return server.Admitted{}, errConflict
	}
	if err := a.decide(ctx, req); err != nil {
		a.noteDenied(req)
		if r := req.decision.Reasons; len(r) == 1 && r[0].Code == codeMandate {
			out.Talk = waitFor(sdk.TaskStateAuthRequired, r[0].Message+". "+askForMore)
			return out, nil
		}
		out.Final = a.deniedReport(req)
		return out, nil
	}
	executors, err := a.place(req)
	if err != nil {
		return server.Admitted{}, err
	}
	out.Run = func(ctx context.Context, out server.Updates) a2a.Report {
		if fresh, err := a.begin(req); err != nil {
			return a.failedReport(req, errConflict.Code, errConflict.Message)
		} else if !fresh {
			return a.adopt(context.WithoutCancel(ctx), req)
		}
		defer a.end(req.task)
		run, cancel := a.start(context.WithoutCancel(ctx), req.task)
		defer cancel(nil)
		defer context.AfterFunc(ctx, func() { cancel(errCancelled) })()
		return a.carry(run, req, executors, out)
	}
	return out, nil
}
