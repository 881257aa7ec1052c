package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/agenticraft/node/identity"
)

const (
	enqueueTimeout = time.Second // for raft's main loop to take an entry
	firstRetry     = 10 * time.Millisecond
	lastRetry      = 200 * time.Millisecond
)

// Propose commits the command and returns what the state machine answered on
// the leader. It retries while it is sure that nothing was proposed, and
// returns before ctx is done, or after 10 seconds if ctx has no deadline:
// ErrNoLeader, ErrAmbiguous, ErrRefused or ErrTooLarge, wrapped.
func (g *Group) Propose(ctx context.Context, cmd []byte) ([]byte, error) {
	if len(cmd) > MaxCommandBytes {
		return nil, fmt.Errorf("propose %d bytes, at most %d: %w", len(cmd), MaxCommandBytes, ErrTooLarge)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultPatience)
		defer cancel()
	}
	begin := time.Now()
	result, err := g.propose(ctx, cmd)
	g.met.proposed(err, time.Since(begin))
	if err != nil {
		return nil, fmt.Errorf("propose: %w", err)
	}
	return result, nil
}

func (g *Group) propose(ctx context.Context, cmd []byte) ([]byte, error) {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		changed := g.leaderChange()
		result, err := g.attempt(ctx, cmd)
		if !errors.Is(err, ErrNoLeader) {
			return result, err
		}
		select {
		case <-changed:
		case <-time.After(retry/2 + rand.N(retry)):
		case <-ctx.Done():
			return nil, err
		case <-g.ctx.Done():
			if failed := g.hasFailed(); failed != nil {
				return nil, failed
			}
			return nil, fmt.Errorf("%w: this node is closing", ErrNoLeader)
		}
	}
}

// attempt proposes once, here or at the leader.
func (g *Group) attempt(ctx context.Context, cmd []byte) ([]byte, error) {
	if g.Lead() {
		return g.proposeHere(ctx, cmd)
	}
	return g.forward.propose(ctx, cmd)
}

// A proposal is waiting until the batcher takes it or its owner gives it up,
// whichever comes first.
type proposal struct {
	cmd    []byte
	state  atomic.Int32
	answer chan answer // has room for one
}

type answer struct {
	result []byte
	err    error
	hint   identity.ID // with ErrNoLeader: who leads, as another node knows
}

const (
	waiting int32 = iota
	taken
	givenUp
)

// flight is a raft entry under way and whose proposals it holds.
type flight struct {
	future    raft.ApplyFuture
	proposals []*proposal
}

// proposeHere proposes on this node, which leads or believes it does.
func (g *Group) proposeHere(ctx context.Context, cmd []byte) ([]byte, error) {
	if err := g.hasFailed(); err != nil {
		return nil, err
	}
	if err := g.hasStalled(); err != nil {
		return nil, err
	}
	if g.check != nil {
		if err := g.check(cmd); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	size := int64(len(cmd))
	if err := g.budget.Acquire(ctx, size); err != nil {
		return nil, fmt.Errorf("%w: too many proposals are under way: %w", ErrNoLeader, err)
	}
	defer g.budget.Release(size)
	p := &proposal{cmd: cmd, answer: make(chan answer, 1)}
	select {
	case g.queue <- p:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: too many proposals are under way: %w", ErrNoLeader, ctx.Err())
	case <-g.ctx.Done():
		return nil, fmt.Errorf("%w: this node is closing", ErrNoLeader)
	}
	select {
	case a := <-p.answer:
		return a.result, a.err
	case <-ctx.Done():
		return p.giveUp(ctx.Err())
	case <-g.ctx.Done():
		return p.giveUp(errCut)
	}
}

// giveUp tells what is certain when the owner waits no longer.
func (p *proposal) giveUp(why error) ([]byte, error) {
	if p.state.CompareAndSwap(waiting, givenUp) {
		return nil, fmt.Errorf("%w: %w", ErrNoLeader, why)
	}
	select {
	case a := <-p.answer: // it came at the same moment
		return a.result, a.err
	default:
		return nil, fmt.Errorf("%w: %w", ErrAmbiguous, why)
	}
}

// batch merges waiting proposals into raft entries. It does not linger: what
// arrives while raft is busy with the entry before makes the next one larger.
func (g *Group) batch() {
	defer close(g.inflight)
	var next *proposal
	for {
		if next == nil {
			select {
			case next = <-g.queue:
			case <-g.ctx.Done():
				return
			}
		}
		var proposals []*proposal
		var cmds [][]byte
		size := 0
		for next != nil && len(cmds) < maxBatch && (size == 0 || size+len(next.cmd) <= maxBatchBytes) {
			if next.state.CompareAndSwap(waiting, taken) {
				proposals = append(proposals, next)
				cmds = append(cmds, next.cmd)
				size += len(next.cmd) + 1
			}
			select {
			case next = <-g.queue:
			default:
				next = nil
			}
		}
		if len(cmds) == 0 {
			continue
		}
		g.met.batch.Observe(float64(len(cmds)))
		select {
		case g.inflight <- flight{g.raft.Apply(packEntry(cmds), enqueueTimeout), proposals}:
		case <-g.ctx.Done():
			return
		}
	}
}

// settle gives the answers of raft's entries to their proposals, in order.
func (g *Group) settle() {
	for f := range g.inflight {
		err := f.future.Error()
		var results [][]byte
		if err == nil {
			switch response := f.future.Response().(type) {
			case [][]byte:
				results = response
			case error:
				err = response
			}
		}
		if err == nil && len(results) != len(f.proposals) {
			err = fmt.Errorf("internal error: %d results for %d commands", len(results), len(f.proposals))
		}
		if err != nil {
			err = certainty(err)
		}
		for i, p := range f.proposals {
			if err != nil {
				p.answer <- answer{err: err}
			} else {
				p.answer <- answer{result: results[i]}
			}
		}
	}
}

// certainty says which of raft's errors mean that nothing was proposed. With an
// unbuffered apply channel a time-out to enqueue is one of them; an error of
// the leader's disk is not, for the write may land.
func certainty(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader),
		errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	default:
		return fmt.Errorf("%w: %w", ErrAmbiguous, err)
	}
}
