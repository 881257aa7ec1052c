package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

// signers are this node's parts in the checkpoints: keepers cosign and collect
// them, auditors verify what they pull and countersign, workers only pull.
func signers(key *identity.Key, store *audit.Store, who *membership, links *links, role string, odd *quarantine, log *slog.Logger) (*audit.Checkpointer, *audit.Mirror, error) {
	alarm := func(a audit.Alarm) {
		log.Error("logs differ", "peer", a.Peer, "size", a.Size, "what", a.Text)
		if threats := who.threats.Load(); threats != nil {
			threats.Diverged(a.Peer)
		}
	}
	mirrored := audit.MirrorConfig{
		Store: store, Peers: who.keepers, Client: links.logClient, Alarm: alarm, Contradicted: odd.contradicted, Log: log,
		Trust: func() (audit.Trust, error) { return who.registry.Trust(who.origin) },
	}
	var points *audit.Checkpointer
	if role != registry.Worker {
		var err error
		points, err = audit.NewCheckpointer(audit.CheckpointerConfig{
			Store: store, Key: key, Trust: who.trust, MayBegin: who.mayBegin, Client: links.logClient,
			Lead: func() bool { return who.leads() }, Log: log, Alarm: alarm,
			Contradicted: odd.contradicted, Outvoted: who.abdicate,
			// Each checkpoint costs every keeper two flushes of the disk that its
			// entries wait for, too; a receipt can wait this long.
			Spacing: checkpointSpacing,
		})
		if err != nil {
			return nil, nil, err
		}
	}
	if role == registry.Auditor {
		mirrored.Witness = points.Cosign
	}
	mirror, err := audit.NewMirror(mirrored)
	return points, mirror, err
}

// openConsensus takes this node's place among the keepers, or beside them. One
// that was let in as a keeper fetches the log first.
func openConsensus(ctx context.Context, cfg *config, self identity.ID, role string, who *membership, node *mesh.Node, links *links, store *audit.Store, mirror *audit.Mirror, odd *quarantine, marks *waterlines, log *slog.Logger) (*consensus.Group, error) {
	conf := consensus.Config{
		Self: self, Keepers: who.first, Members: who.raftMembers, Dir: cfg.Data, Log: log,
		AllowForward: who.registry.Member, // admission says which entries each may write
		Aside:        odd.err() != nil,
		MayVote:      marks.mayVote,
	}
	if !conf.Aside && role == registry.Keeper && !slices.Contains(who.first, self) {
		conf.Join = true
		begun, err := consensus.HasLog(cfg.Data)
		if err != nil {
			return nil, err
		}
		if !begun {
			if who.votes(self) {
				return nil, lostVote(self)
			}
			if err := becomeKeeper(ctx, who, store, links, mirror, log); err != nil {
				return nil, err
			}
		}
	}
	if role == registry.Keeper {
		if err := marks.begin(); err != nil {
			return nil, err
		}
	}
	group, err := consensus.Open(conf, node, store)
	if err == nil {
		who.lead.Store(group)
	}
	return group, err
}

func lostVote(self identity.ID) error {
	return &a2a.Error{
		Code: "failed", Message: fmt.Sprintf("this keeper, %s, votes, but its folder raft is gone and its vote with it", self),
		Hint: "agenticraft leave NODE at another keeper, then invite and join with a new folder",
	}
}

// keepLog takes part in the checkpoints, once this node's history is known to
// be the one that it signed before.
func keepLog(ctx context.Context, store *audit.Store, points *audit.Checkpointer, group *consensus.Group) error {
	if err := checkHistory(ctx, store, group); err != nil || ctx.Err() != nil {
		return err
	}
	return points.Run(ctx)
}

// caughtUp notes when a keeper has applied what the others had committed.
func caughtUp(ctx context.Context, group *consensus.Group, who *membership, node *mesh.Node) error {
	for seen := 0; seen < 2; { // what is heard right after an election may be old
		if raft := group.Status(); raft.Leader != "" && raft.CommitIndex > 0 && raft.AppliedIndex >= raft.CommitIndex {
			seen++
		} else {
			seen = 0
		}
		if !pause(ctx, time.Second) {
			return nil
		}
	}
	who.caughtUp.Store(true)
	who.follow(node)
	return nil
}

// mirrored notes when a node that pulls the log has caught up with it.
func mirrored(ctx context.Context, mirror *audit.Mirror, who *membership, node *mesh.Node) error {
	for mirror.Fresh() != nil {
		if !pause(ctx, 100*time.Millisecond) {
			return nil
		}
	}
	who.caughtUp.Store(true)
	who.follow(node)
	return nil
}

// closedTo says why a node takes no requests: it is in quarantine, or an auditor,
// which runs nothing, has nothing run, and so has no interest in what it
// vouches for.
func closedTo(auditor bool, odd *quarantine) func() error {
	return func() error {
		if err := odd.err(); err != nil || !auditor {
			return err
		}
		return &a2a.Error{Code: a2a.CodeDenied, Message: "this node is an auditor: it runs nothing and passes nothing on", Hint: "send the request to another node"}
	}
}

// checkHistory stops a node whose log, once it has caught up, is shorter than
// or other than what it signed before: its data folder was rolled back or
// tampered with, and what it would sign now could contradict that.
func checkHistory(ctx context.Context, store *audit.Store, group *consensus.Group) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for caughtUp := 0; ; {
		err := store.CheckCosigned()
		if err == nil {
			return nil
		}
		raft := group.Status()
		if raft.Leader != "" && raft.AppliedIndex >= raft.CommitIndex {
			caughtUp++ // twice in a row: what a leader says right after its election may be old
		} else {
			caughtUp = 0
		}
		if caughtUp > historyTries {
			return fmt.Errorf("this node's log is not what it signed before: %w; keep the folder as evidence, and start the node with an empty one", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// checkpointSpacing is the least time between two checkpoints.
const checkpointSpacing = 400 * time.Millisecond

// historyTries is how often in a row, a second apart, a caught-up node must
// find its log wanting before it stops.
const historyTries = 10
