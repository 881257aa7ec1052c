package agent

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// The tasks of other nodes, for a caller who came back to another door. The log
// says which node runs a task and which took it in.

var (
	_ server.Relay  = (*Agent)(nil)
	_ server.Lister = (*Agent)(nil)
)

// Follow streams a task from the node that runs it.
func (a *Agent) Follow(ctx context.Context, task string, caller identity.Principal, after *uint64) iter.Seq2[server.Numbered, error] {
	executor, intent, err := a.whereabouts(task)
	owner := intent.Actor
	if errors.Is(err, audit.ErrNotFound) { // it takes several messages, and is in the log under other ids
		executor, owner, err = a.holder(ctx, task)
	}
	switch {
	case err != nil || !server.MaySee(caller, owner):
		return failing(a2a.ErrNoTask)
	case executor == a.cfg.Key.ID():
		return failing(&a2a.Error{Code: a2a.CodeUnavailable, Message: "the task does not run on another node"})
	}
	return a.cfg.Peers.Follow(ctx, executor, task, after)
}

func failing(err error) iter.Seq2[server.Numbered, error] {
	return func(yield func(server.Numbered, error) bool) { yield(server.Numbered{}, err) }
}

// Pushes are the push configurations of a task at its door; nil if that is us.
func (a *Agent) Pushes(ctx context.Context, task string, caller identity.Principal) (server.Pushes, error) {
	a.cfg.Catchup(ctx)
	_, intent, err := a.whereabouts(task)
	if errors.Is(err, audit.ErrNotFound) { // it may wait for its owner, with the node that asked him
		if peer, found := a.firstWith(ctx, task); found != nil && server.Interrupted(found.Status.State) {
			if !server.MayHandle(caller, a2a.OwnerOf(found)) {
				return nil, a2a.ErrNoTask
			}
			return a.cfg.Peers.Pushes(peer)
		}
	}
	for end := time.Now().Add(askWait); errors.Is(err, audit.ErrNotFound) && time.Now().Before(end) && ctx.Err() == nil; {
		sleep(ctx, settlePoll) // our copy of the log is a moment behind
		_, intent, err = a.whereabouts(task)
	}
	if err != nil || !server.MayHandle(caller, intent.Actor) {
		return nil, a2a.ErrNoTask
	}
	body, err := intent.Intent()
	if err != nil {
		return nil, err
	}
	if body.Door == a.cfg.Key.ID() {
		return nil, nil
	}
	return a.cfg.Peers.Pushes(body.Door)
}

// Connected are the nodes that can be asked, and this one.
func (a *Agent) Connected() []string {
	out := []string{string(a.cfg.Key.ID())}
	for peer := range a.cfg.Peers.Adverts() {
		out = append(out, string(peer))
	}
	return out
}

// Lists asks the other connected nodes for their tasks. One that does not answer
// in time is left out.
func (a *Agent) Lists(ctx context.Context, q server.Query) (map[string]server.Page, error) {
	type answer struct {
		peer identity.ID
		page server.Page
		err  error
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var asked sync.WaitGroup
	defer asked.Wait()
	out := map[string]server.Page{}
	answers := make(chan answer, len(q.Present))
	waiting := 0
	for _, name := range q.Present {
		peer := identity.ID(name)
		if peer == a.cfg.Key.ID() {
			continue
		}
		waiting++
		asked.Go(func() {
			page, err := a.cfg.Peers.List(ctx, peer, q)
			answers <- answer{peer, page, err}
		})
	}
	for range waiting {
		got := <-answers
		if got.err != nil {
			a.log.WarnContext(ctx, "task list of a node not had", "peer", got.peer, "err", got.err)
			continue
		}
		out[string(got.peer)] = got.page
	}
	return out, nil
}

const askWait = 2 * time.Second

// askAround asks the connected nodes for a task that is not in our log: it may
// be a moment ahead of our copy, wait for its intent at another door, or for its
// owner. A node that asks us does that itself.
func (a *Agent) askAround(ctx context.Context, task string, caller identity.Principal) (*sdk.Task, error) {
	if caller.Kind == identity.Node {
		return nil, a2a.ErrNoTask
	}
	_, found := a.firstWith(ctx, task)
	if found == nil || !server.MaySee(caller, a2a.OwnerOf(found)) {
		return nil, a2a.ErrNoTask
	}
	// Who learns of an outcome here finds it in this node's log, too.
	if rep, err := a2a.ReportOf(found); err == nil && rep.Outcome != nil {
		a.cfg.Reported(*rep.Outcome)
	}
	return found, nil
}

// holder is the connected node that holds a task which is not in the log, and the
// task's owner.
func (a *Agent) holder(ctx context.Context, task string) (identity.ID, string, error) {
	peer, found := a.firstWith(ctx, task)
	if found == nil {
		return "", "", a2a.ErrNoTask
	}
	return peer, a2a.OwnerOf(found), nil
}

// firstWith asks the connected nodes for a task, and gives the first that has it.
func (a *Agent) firstWith(ctx context.Context, task string) (identity.ID, *sdk.Task) {
	type answer struct {
		peer identity.ID
		task *sdk.Task
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	adverts := a.cfg.Peers.Adverts()
	answers := make(chan answer, len(adverts))
	var asked sync.WaitGroup
	defer asked.Wait()
	for peer := range adverts {
		asked.Go(func() {
			t, err := a.cfg.Peers.Task(ctx, peer, task)
			if err != nil {
				t = nil
			}
			answers <- answer{peer, t}
		})
	}
	for range adverts {
		if got := <-answers; got.task != nil {
			cancel() // nobody else need answer
			return got.peer, got.task
		}
	}
	return "", nil
}

// Relay hands a message to a task that another node holds on to that node.
func (a *Agent) Relay(ctx context.Context, in server.Inbound, caller identity.Principal) iter.Seq2[server.Numbered, error] {
	if err := a.cfg.Closed(); err != nil {
		return failing(err)
	}
	peer, owner, err := a.holder(ctx, string(in.Request.Message.TaskID))
	if err != nil || !server.MaySee(caller, owner) {
		return failing(a2a.ErrNoTask)
	}
	req := &request{signed: in.Request}
	if !a2a.IsSigned(in.Request) {
		if err := a.vouch(req, in.Caller, in.Once); err != nil {
			return failing(err)
		}
	}
	return a.cfg.Peers.Relay(ctx, peer, req.signed, in.Caller.Door)
}
