package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

// departure takes this node out of the cluster in good order: what runs here
// ends, a keeper leaves the vote, a keeper removes the member, the process ends.
type departure struct {
	who     *membership
	links   *links
	handler *server.Handler
	log     *slog.Logger
	asked   chan struct{} // has room for one
}

const (
	departureEvery = 100 * time.Millisecond
	// departureDrain is how long what runs here may take to end.
	departureDrain = 60 * time.Second
	goodbyeWait    = 30 * time.Second
)

// errLeft ends a node that left in good order.
var errLeft = errors.New("this node has left the cluster")

// begin has the node leave. It returns at once and may be called again.
func (d *departure) begin() {
	select {
	case d.asked <- struct{}{}:
	default:
	}
}

// run returns errLeft when the node was asked to leave, here or by the log, and
// has; an error when the log says that it was removed.
func (d *departure) run(ctx context.Context) error {
	if err := d.await(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	d.log.InfoContext(ctx, "leaving: no more requests are taken, what runs here ends")
	wait, cancel := context.WithTimeout(ctx, departureDrain)
	err := d.handler.Close(wait)
	cancel()
	if err != nil {
		d.log.WarnContext(ctx, "not everything ended", "err", err)
	}
	for d.who.votes(d.who.self) { // the leader sees to that
		if !pause(ctx, departureEvery) {
			return nil
		}
	}
	switch err := d.goodbye(ctx); {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("leave the cluster: %w", err)
	}
	return errLeft
}

// await returns when this node is to leave.
func (d *departure) await(ctx context.Context) error {
	for {
		own, err := d.who.registry.MemberByID(d.who.self)
		switch {
		case errors.Is(err, registry.ErrNotFound):
			return failed("this node was removed from the cluster")
		case err == nil && own.Leaving != nil:
			return nil
		}
		select {
		case <-d.asked:
			return nil
		case <-ctx.Done():
			return nil
		case <-time.After(departureEvery):
		}
	}
}

// goodbye asks one keeper after the other to end this node's membership. While
// raft counts this node it stays, however long that takes.
func (d *departure) goodbye(ctx context.Context) error {
	for end := time.Now().Add(goodbyeWait); ; {
		err, wait := errors.New("no keeper is known"), time.Second
		for _, id := range d.who.keepers() {
			if err = d.ask(ctx, id); err == nil {
				return nil
			}
			d.log.DebugContext(ctx, "keeper did not let go", "peer", id, "err", err)
			if known, ok := errors.AsType[*a2a.Error](err); ok && known.Code == codeStays {
				end, wait = time.Now().Add(goodbyeWait), departureEvery
			}
		}
		if time.Now().After(end) || !pause(ctx, wait) {
			return err
		}
	}
}

// ask asks one keeper. One that does not answer is dead, or will be asked again.
func (d *departure) ask(ctx context.Context, keeper identity.ID) error {
	ctx, cancel := context.WithTimeout(ctx, goodbyeWait/2)
	defer cancel()
	return askKeeper(ctx, d.links.client(keeper, mesh.GuestProtocol), "/leave", struct{}{}, nil)
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// clientTo speaks HTTP to a peer over streams of one protocol.
func clientTo(node *mesh.Node, to identity.ID, protocol string) *http.Client {
	l := newLinks()
	l.node = node
	return l.client(to, protocol)
}
