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
	_ server.Mesh   = (*Agent)(nil)
	_ server.Lister = (*Agent)(nil)
)

// Follow streams a task from the node that runs it.
func (a *Agent) Follow(ctx context.Context, task string, caller identity.Principal, after *uint64) iter.Seq2[server.Numbered, error] {
	executor, intent, err := a.whereabouts(task)
	switch {
	case err != nil || !server.MaySee(caller, intent.Actor):
		return failing(errNoTask)
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
	for end := time.Now().Add(askWait); errors.Is(err, audit.ErrNotFound) && time.Now().Before(end) && ctx.Err() == nil; {
		sleep(ctx, settlePoll) // our copy of the log is a moment behind
		_, intent, err = a.whereabouts(task)
	}
	if err != nil || !server.MayHandle(caller, intent.Actor) {
		return nil, errNoTask
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
// be a moment ahead of our copy, or wait for its intent at another door. A node
// that asks us does that itself.
func (a *Agent) askAround(ctx context.Context, task string, caller identity.Principal) (*sdk.Task, error) {
	if caller.Kind == identity.Node {
		return nil, errNoTask
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	adverts := a.cfg.Peers.Adverts()
	answers := make(chan *sdk.Task, len(adverts))
	var asked sync.WaitGroup
	defer asked.Wait()
	for peer := range adverts {
		asked.Go(func() {
			t, err := a.cfg.Peers.Task(ctx, peer, task)
			if err != nil || !server.MaySee(caller, a2a.OwnerOf(t)) {
				t = nil
			}
			answers <- t
		})
	}
	for range adverts {
		if t := <-answers; t != nil {
			cancel() // nobody else need answer
			return t, nil
		}
	}
	return nil, errNoTask
}

var errNoTask = &a2a.Error{Code: a2a.CodeNotFound, Message: "no such task"}
