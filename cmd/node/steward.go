package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// steward changes the keepers as the members ask for: while this node leads, it
// takes one step at a time towards what the log says, so that whoever leads
// next goes on from there.
//
// A node that comes as a keeper is first a learner of raft; when it has the
// whole log, a quorum of the keepers signs the epoch with it, that entry is
// recorded, and raft gives it its vote. One that goes leaves the epoch first,
// then raft, then the members.
type steward struct {
	who      *membership
	group    *consensus.Group
	points   *audit.Checkpointer
	recorder notedRecorder
	log      *slog.Logger

	idle map[identity.ID]time.Time // since when a keeper that left is out of raft
	said map[string]time.Time      // when something was last complained of
}

const (
	stewardEvery = 250 * time.Millisecond
	stewardWait  = 10 * time.Second
	// letGo is how long a keeper that left the vote may take to say goodbye,
	// before the leader removes it.
	letGo        = 5 * time.Second
	complainSpan = 10 * time.Second
)

func (s *steward) run(ctx context.Context) error {
	s.idle, s.said = map[identity.ID]time.Time{}, map[string]time.Time{}
	tick := time.NewTicker(stewardEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !s.group.Lead() {
			clear(s.idle)
			continue
		}
		wait, cancel := context.WithTimeout(ctx, stewardWait)
		err := s.step(wait)
		cancel()
		if err != nil && ctx.Err() == nil && !errors.Is(err, consensus.ErrNoLeader) && time.Since(s.said[err.Error()]) > complainSpan {
			clear(s.said)
			s.said[err.Error()] = time.Now()
			s.log.WarnContext(ctx, "the keepers do not change yet", "err", err)
		}
	}
}

// step takes the next step, if there is one.
func (s *steward) step(ctx context.Context) error {
	changes, err := s.who.registry.Changes()
	if err != nil {
		return err
	}
	done, err := s.group.Arrange(ctx, changes.Now.Keepers, changes.Comes)
	if err != nil || !done {
		return err
	}
	var why []error
	for _, id := range changes.Comes {
		if err := s.points.Holds(ctx, id); err != nil {
			why = append(why, err)
			continue
		}
		return s.begin(ctx, changes.Now.Number+1, changes.With(id))
	}
	for _, id := range changes.Goes {
		if err := s.quorumWithout(changes.Without(id)); err != nil {
			why = append(why, fmt.Errorf("%s does not go yet: %w", id, err))
			continue
		}
		return s.begin(ctx, changes.Now.Number+1, changes.Without(id))
	}
	return errors.Join(append(why, s.remove(ctx, changes.Gone))...)
}

// begin has the keepers sign the next epoch and records it.
func (s *steward) begin(ctx context.Context, epoch uint64, keepers []identity.ID) error {
	body, err := s.points.CollectEpoch(ctx, epoch, keepers)
	if err != nil {
		return err
	}
	text, err := audit.MarshalBody(body)
	if err != nil {
		return err
	}
	_, err = s.recorder.Record(ctx, audit.Entry{Kind: audit.KindEpoch, Actor: nodePrincipal(s.who.self).String(), Body: text})
	if err == nil {
		s.log.InfoContext(ctx, "keepers changed", "epoch", epoch, "keepers", keepers)
	}
	return err
}

// quorumWithout is nil if those who would stay are a quorum of themselves now:
// else they could neither finish the change nor make another one.
func (s *steward) quorumWithout(stay []identity.ID) error {
	silent := s.group.Status().Silent
	there := slices.DeleteFunc(slices.Clone(stay), func(id identity.ID) bool { _, dead := silent[id]; return dead })
	if len(there) > len(stay)/2 {
		return nil
	}
	return fmt.Errorf("only %d of the %d keepers that stay answer", len(there), len(stay))
}

// remove ends the membership of keepers that left the vote and said no goodbye.
func (s *steward) remove(ctx context.Context, gone []identity.ID) error {
	for id := range s.idle {
		if !slices.Contains(gone, id) {
			delete(s.idle, id)
		}
	}
	for _, id := range gone {
		since, seen := s.idle[id]
		if !seen {
			s.idle[id] = time.Now()
			continue
		}
		if time.Since(since) < letGo || id == s.who.self {
			continue
		}
		entry, err := registry.NewEntry(nodePrincipal(s.who.self).String(), registry.MemberBody{Action: registry.Remove, ID: id})
		if err != nil {
			return err
		}
		if _, err := s.recorder.Record(ctx, entry); err != nil {
			return err
		}
		s.log.InfoContext(ctx, "a keeper that left was removed", "peer", id)
	}
	return nil
}

func nodePrincipal(id identity.ID) identity.Principal {
	return identity.Principal{Kind: identity.Node, Name: id.DID()}
}
