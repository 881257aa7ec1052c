package consensus

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/agenticraft/node/identity"
)

// Status is the node's view of the group at one moment.
type Status struct {
	Role   string      // "leader", "follower", "candidate"; "worker" if not a keeper; "stopped" after a failure
	Leader identity.ID // "" if not known
	Term   uint64
	// LastIndex is the end of the raft log, CommitIndex what a quorum holds,
	// AppliedIndex what raft has handed to the state machine.
	LastIndex, CommitIndex, AppliedIndex uint64
	Keepers                              []identity.ID // sorted
	// Silent names the keepers that do not answer the leader, and since when.
	// Only the leader knows.
	Silent map[identity.ID]time.Time
	// Healthy is whether the node knows a leader and, as a keeper, has heard
	// of it lately.
	Healthy bool
	// Stalled says why the node cannot write now; "": it can.
	Stalled string
}

// Status says where the group stands.
func (g *Group) Status() Status {
	st := Status{Role: "worker", Silent: map[identity.ID]time.Time{}}
	st.Leader, st.Healthy = g.Leader()
	if g.raft == nil {
		st.Keepers = slices.Sorted(slices.Values(g.cfg.Members()))
		return st
	}
	st.Keepers = g.voters()
	st.Term = g.raft.CurrentTerm()
	st.LastIndex = g.raft.LastIndex()
	st.CommitIndex = g.raft.CommitIndex()
	st.AppliedIndex = g.raft.AppliedIndex()
	switch state := g.raft.State(); {
	case g.failure.Load() != nil || state == raft.Shutdown:
		st.Role, st.Healthy = "stopped", false
	case state == raft.Leader:
		st.Role = "leader"
		g.mu.Lock()
		maps.Copy(st.Silent, g.silent)
		g.mu.Unlock()
	case state == raft.Candidate:
		st.Role, st.Healthy = "candidate", false
	default:
		st.Role = "follower"
		st.Healthy = st.Healthy && time.Since(g.raft.LastContact()) < 2*g.cfg.Heartbeat
	}
	if why := g.stalled.Load(); why != nil {
		st.Stalled, st.Healthy = (*why).Error(), false
	}
	return st
}

// Leader names the leader as far as this node knows.
func (g *Group) Leader() (identity.ID, bool) {
	if g.raft != nil {
		// A keeper that left the vote hears of leaders as other nodes do.
		if _, id := g.raft.LeaderWithID(); id != "" || slices.Contains(g.cfg.Members(), g.cfg.Self) {
			return identity.ID(id), id != ""
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hint, g.hint != ""
}

// Lead reports whether this node leads, or believes that it does: an isolated
// leader learns of its loss within Config.Lease.
func (g *Group) Lead() bool { return g.raft != nil && g.raft.State() == raft.Leader }

// leaderChange is closed when the leader may have changed.
func (g *Group) leaderChange() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// hinted notes the leader that another node named.
func (g *Group) hinted(id identity.ID) {
	g.mu.Lock()
	same := g.hint == id
	g.mu.Unlock()
	if same || id != "" && !g.isMember(id) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hint = id
}

// observe registers for raft's observations and returns the loop that follows
// them until the group closes.
func (g *Group) observe() func() {
	seen := make(chan raft.Observation, 64)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState, raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	})
	g.raft.RegisterObserver(observer)
	return func() {
		defer g.raft.DeregisterObserver(observer)
		for {
			select {
			case <-g.ctx.Done():
				return
			case o := <-seen:
				g.noted(o)
			}
		}
	}
}

func (g *Group) noted(o raft.Observation) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch data := o.Data.(type) {
	case raft.LeaderObservation:
		g.log.Info("leader changed", "leader", string(data.LeaderID), "term", g.raft.CurrentTerm())
		g.met.elections.Inc()
		if data.LeaderID != "" {
			g.forward.leave(identity.ID(data.LeaderID))
		}
	case raft.RaftState:
		clear(g.silent)
		g.met.leading(data == raft.Leader)
	case raft.FailedHeartbeatObservation:
		if _, known := g.silent[identity.ID(data.PeerID)]; !known {
			g.log.Warn("keeper does not answer", "peer", string(data.PeerID))
			g.silent[identity.ID(data.PeerID)] = data.LastContact
		}
		return
	case raft.ResumedHeartbeatObservation:
		g.log.Info("keeper answers again", "peer", string(data.PeerID))
		delete(g.silent, identity.ID(data.PeerID))
		return
	}
	close(g.changed)
	g.changed = make(chan struct{})
}
