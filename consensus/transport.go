package consensus

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// durableTransport lets a leader send entries while its own disk writes them
// (Ongaro, Consensus: Bridging Theory and Practice, 10.2.1), although raft
// believes that they are stored. Three rules make up for that belief:
//
//   - An entry that is not on our disk yet is never called committed to others.
//   - That we have entries is never told to a leader before they are on our disk,
//     those included that we hold since we led.
//   - Nothing is applied before it is on our disk, see fsm, and so no proposal is
//     answered.
//
// What raft counts as committed beyond that stays between it and us, and a
// crash forgets it like any other proposal under way. Changes of the members and
// an election's first entry are exempt: raft acts on them by itself, so they are
// on our disk before it goes on, see store.take.
//
// INVARIANT: I7 an acknowledged entry is never lost.
type durableTransport struct {
	*raft.NetworkTransport
	store   *store
	timeout time.Duration // of a write

	calls chan raft.RPC
	done  chan struct{}
	once  sync.Once
	work  sync.WaitGroup
}

var (
	_ raft.Transport   = (*durableTransport)(nil)
	_ raft.WithPreVote = (*durableTransport)(nil)
	_ raft.WithClose   = (*durableTransport)(nil)
)

func newDurableTransport(inner *raft.NetworkTransport, s *store) *durableTransport {
	t := &durableTransport{
		NetworkTransport: inner, store: s, timeout: s.cfg.Timeout,
		calls: make(chan raft.RPC), done: make(chan struct{}),
	}
	t.work.Go(t.receive)
	return t
}

// Consumer are the calls of other keepers.
func (t *durableTransport) Consumer() <-chan raft.RPC { return t.calls }

func (t *durableTransport) Close() error {
	t.once.Do(func() { close(t.done) })
	err := t.NetworkTransport.Close()
	t.work.Wait()
	return err
}

func (t *durableTransport) receive() {
	for {
		select {
		case call := <-t.NetworkTransport.Consumer():
			select {
			case t.calls <- t.answering(call):
			case <-t.done:
				return
			}
		case <-t.done:
			return
		}
	}
}

// answering has the answer wait for the disk.
func (t *durableTransport) answering(call raft.RPC) raft.RPC {
	if request, ok := call.Command.(*raft.AppendEntriesRequest); !ok || len(request.Entries) == 0 {
		return call
	}
	asker := call.RespChan
	answers := make(chan raft.RPCResponse, 1)
	call.RespChan = answers
	t.work.Go(func() {
		var answer raft.RPCResponse
		select {
		case answer = <-answers:
		case <-t.done:
			return
		}
		if response, ok := answer.Response.(*raft.AppendEntriesResponse); ok && response.Success {
			if err := t.settled(); err != nil {
				response.Success = false // the leader sends them again
			}
		}
		asker <- answer // has room for it
	})
	return call
}

func (t *durableTransport) settled() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), t.timeout, errStalled)
	defer cancel()
	return t.store.settled(ctx)
}

// sent is the request as it leaves this keeper.
func (t *durableTransport) sent(request *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	upTo := t.store.upTo()
	if request.LeaderCommitIndex <= upTo {
		return request
	}
	out := *request
	out.LeaderCommitIndex = upTo
	return &out
}

// AppendEntries sends entries, or none as a heartbeat.
func (t *durableTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse) error {
	return t.NetworkTransport.AppendEntries(id, target, t.sent(request), response)
}

// AppendEntriesPipeline sends entries without waiting for the answers to those
// before.
func (t *durableTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return &durablePipeline{inner, t}, nil
}

type durablePipeline struct {
	raft.AppendPipeline
	transport *durableTransport
}

// AppendEntries sends entries, and gives the pipeline up when there is no room in
// it for too long. raft stops reading answers at the first one that says no,
// which a follower whose disk is full gives, while it may be waiting here for
// one to be read: it would wait for ever, send that follower nothing again, and
// never end.
func (p *durablePipeline) AppendEntries(request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	stuck := time.AfterFunc(p.transport.timeout, func() { _ = p.Close() }) // which makes it return
	defer stuck.Stop()
	return p.AppendPipeline.AppendEntries(p.transport.sent(request), response)
}
