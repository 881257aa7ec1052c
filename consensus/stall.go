package consensus

import (
	"errors"
	"fmt"
	"time"
)

// Staller is what a [StateMachine] may have, too, whose Apply waits while its
// disk takes nothing. A keeper with such a machine gives the lead away and
// refuses proposals until the machine goes on. The methods may be called
// concurrently.
type Staller interface {
	// Stalled says why Apply waits; nil: it does not.
	Stalled() error
	// Broken says why the machine must be opened again, if a write failed that
	// no call of Apply waited for; nil: it need not.
	Broken() error
	// Release makes an Apply that waits return an error, now and from now on.
	Release()
}

const (
	stallTick  = 100 * time.Millisecond
	hangFactor = 3 // write time-outs after which a leader that cannot even step down fails
)

var errHung = errors.New("the state machine's disk does not finish a write")

// watchMachine looks after the machine, and the log, until the group closes.
func (g *Group) watchMachine(s Staller) {
	tick := time.NewTicker(stallTick)
	defer tick.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-tick.C:
		}
		if s != nil {
			if err := s.Broken(); err != nil {
				g.fail(fmt.Errorf("state machine: %w", err))
				return
			}
		}
		age, why := g.store.stalled()
		hung := max(age, g.fsm.busy())
		if s != nil && why == nil {
			why = s.Stalled()
		}
		if why == nil {
			why = g.store.unwritable()
		}
		if why == nil && hung > g.cfg.WriteTimeout {
			why = errHung
		}
		g.setStalled(why)
		if why == nil || !g.Lead() || len(g.voters()) < 2 {
			continue
		}
		err := g.raft.LeadershipTransfer().Error()
		if err != nil && hung > hangFactor*g.cfg.WriteTimeout {
			// raft's main loop waits for the machine and cannot step down, yet
			// its heartbeats keep the others from electing one of them.
			g.fail(fmt.Errorf("give the lead away: %w: %w", err, why))
			return
		}
	}
}

func (g *Group) setStalled(why error) {
	before := g.stalled.Load()
	switch {
	case why != nil && before == nil:
		g.log.Error("this keeper takes no proposals until its disk does", "err", why)
		g.stalled.Store(&why)
	case why == nil && before != nil:
		g.log.Info("this keeper takes proposals again")
		g.stalled.Store(nil)
	}
}

// hasStalled says why the node takes no proposals now.
func (g *Group) hasStalled() error {
	if why := g.stalled.Load(); why != nil {
		return fmt.Errorf("%w: this node cannot write: %w", ErrNoLeader, *why)
	}
	return nil
}
