package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	natsdoor "github.com/agenticraft/node/bridges/nats"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
	"github.com/agenticraft/node/sandbox"
)

// cluster answers the HTTP door's questions about this node and the others.
type cluster struct {
	begun     time.Time
	name      string
	self      identity.ID
	store     *audit.Store
	group     *consensus.Group
	node      *mesh.Node
	directory directory
	policy    *authz.Policy
	policies  *policies
	manager   *sandbox.Manager
	path      *agent.Agent
	who       *membership
	role      string              // of this node: registry.Keeper, …
	mirror    *audit.Mirror       // of a node that is no keeper
	points    *audit.Checkpointer // nil on a worker
	odd       *quarantine
	marks     *waterlines
	noRun     bool
	nats      *natsdoor.Door // nil: none

	checking sync.Mutex  // held while the log is checked
	caughtUp atomic.Bool // once since the start; a moment's lag later is normal
}

func (c *cluster) Status(ctx context.Context) any {
	raft, load := c.group.Status(), c.manager.Load()
	trust := trustView{c.who.trust()}
	view := statusView{
		ID: c.self, Cluster: c.name, Version: buildVersion().Version, Ready: true,
		Role: raft.Role, Leader: raft.Leader, Term: raft.Term, Keepers: trust.keepers(), Quorum: trust.Quorum, Epoch: trust.Epoch,
		LogSize: c.store.Size(), Policy: c.policy.Digest(), PolicyError: c.policies.problem(),
		Slots: load.Slots, Busy: load.Busy, Queued: load.Queued,
		UptimeSec: time.Since(c.begun).Seconds(),
	}
	if c.nats != nil {
		door := c.nats.Status()
		view.NATS = &door
	}
	if c.role != registry.Keeper {
		view.Role = c.role
	}
	if c.odd.err() != nil {
		view.Role = "quarantined"
	}
	view.Witnesses = []witnessView{}
	if c.points != nil {
		witnessed := c.store.Witnessed()
		for _, id := range slices.Sorted(maps.Keys(witnessed)) {
			view.Witnesses = append(view.Witnesses, witnessView{id, witnessed[id].Size})
		}
	}
	if err := c.Ready(ctx); err != nil {
		view.Ready, view.NotReady = false, err.Error()
	}
	if size, root, err := c.store.Tree(); err == nil {
		view.LogSize, view.LogRoot = size, root.String()
	}
	if cp, _, err := c.store.Checkpoint(); err == nil {
		view.Checkpoint = cp.Size
	}
	return view
}

// Ready is nil when the node can take requests: there is a leader to record
// them, and a quorum has cosigned the log at least once.
func (c *cluster) Ready(context.Context) error {
	if err := c.odd.err(); err != nil {
		return err
	}
	if c.role != registry.Keeper {
		if err := c.mirror.Fresh(); err != nil {
			return cmp.Or(c.alone(), err)
		}
		return nil
	}
	if err := c.marks.err(); err != nil {
		return err
	}
	raft := c.group.Status()
	if raft.Stalled != "" {
		return errors.New("this node cannot write: " + raft.Stalled)
	}
	if _, ok := c.group.Leader(); !ok {
		return cmp.Or(c.alone(), errors.New("the keepers have no leader"))
	}
	if _, _, err := c.store.Checkpoint(); err != nil {
		return errors.New("no quorum has cosigned the log yet")
	}
	if raft.CommitIndex == 0 || raft.AppliedIndex < raft.CommitIndex && !c.caughtUp.Load() {
		return errors.New("the node still catches up with the log")
	}
	c.caughtUp.Store(true)
	return nil
}

// errAlone is what a node says that no other one answers.
var errAlone = errors.New("no other node answers where this one looks for them: if all whom it knows are gone, because they were replaced while it was away, name one of today's in peers of its configuration, as ADDR/p2p/ID (agenticraft nodes at another node lists them), and start it again")

// alone is why this node finds nobody; nil if it does, or has nobody to find.
func (c *cluster) alone() error {
	if len(away(c.directory, c.node, c.self)) == 0 {
		return nil
	}
	for _, p := range c.node.Peers() {
		if p.Connected {
			return nil
		}
	}
	return errAlone
}

func (c *cluster) Nodes(context.Context) any {
	members, err := c.directory.Members()
	if err != nil {
		members = nil
	}
	leader, _ := c.group.Leader()
	connected := map[identity.ID]mesh.Peer{}
	for _, p := range c.node.Peers() {
		connected[p.ID] = p
	}
	adverts := c.node.Adverts()
	views := []nodeView{}
	for _, m := range members {
		view := nodeView{ID: m.ID, Role: m.Role, Name: m.Name, Self: m.ID == c.self, Leader: m.ID == leader}
		peer, advert := connected[m.ID], adverts[m.ID].Data
		view.Connected, view.Address, view.LastError = peer.Connected || view.Self, peer.Addr, peer.LastError
		view.RTTMS = float64(peer.RTT.Microseconds()) / 1e3
		if view.Self {
			advert = c.path.Advert()
		}
		if ad, err := agent.ParseAdvert(advert); err == nil {
			view.Runs, view.Sandboxes, view.Slots, view.Busy, view.Queued = ad.Run, ad.Backends, ad.Slots, ad.Busy, ad.Queued
		}
		views = append(views, view)
	}
	return map[string]any{"nodes": views}
}

func (c *cluster) Sandboxes(context.Context) any {
	return map[string]any{"sandboxes": c.manager.Describe()}
}

func (c *cluster) Policy(context.Context) any {
	v := policyView{Digest: c.policy.Digest(), Modules: c.policy.Modules(), Added: c.policy.Additions(), Before: map[string]string{}}
	v.Base, v.Additions = c.policy.Layers()
	for _, layer := range []string{registry.LayerBase, registry.LayerAdditions} {
		if row, err := c.directory.Policy(layer); err == nil {
			v.Before[layer] = row.Digest
		}
	}
	return v
}

func (c *cluster) Trust(context.Context) any { return c.who.trust() }

func (c *cluster) Receipt(ctx context.Context, task string, caller identity.Principal) ([]byte, error) {
	return c.path.Receipt(ctx, task, caller)
}

// Check checks this node's copy of the log as `audit verify` checks a folder. It
// is for one at a time: it keeps the processors busy.
func (c *cluster) Check(ctx context.Context, progress func(checked, size uint64)) (audit.DirReport, error) {
	if !c.checking.TryLock() {
		return audit.DirReport{}, &a2a.Error{
			Code: a2a.CodeBusy, Message: "this node's log is being checked already", Hint: "wait until that check is over, or check another node's", RetryAfter: 5 * time.Second,
		}
	}
	defer c.checking.Unlock()
	trust := c.who.trust()
	return c.store.Verify(ctx, &trust, logRules(), progress)
}

// stateView is who could do what at a moment.
type stateView struct {
	registry.State
	Time string `json:"time"` // of the entry at State.At
}

// State replays the log up to an entry.
func (c *cluster) State(ctx context.Context, index uint64) (any, error) {
	e, _, err := c.store.Entry(index)
	if err != nil {
		return nil, err
	}
	state, err := registry.AsOf(ctx, c.store, index)
	return stateView{state, e.Time}, err
}

// entryProof proves that an entry is in the log that a quorum cosigned.
type entryProof struct {
	Index      uint64          `json:"index"`
	Entry      json.RawMessage `json:"entry"`
	Size       uint64          `json:"size"`
	Proof      []audit.Hash    `json:"proof"`
	Checkpoint string          `json:"checkpoint"`
	TLogProof  string          `json:"tlog_proof"` // index, proof and checkpoint as C2SP tlog-proof
}

const proofWait = 5 * time.Second

func (c *cluster) Prove(ctx context.Context, index uint64) (any, error) {
	_, leaf, err := c.store.Entry(index)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, proofWait)
	defer cancel()
	at, note, err := c.store.WaitCheckpoint(ctx, index)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, a2a.Errorf(a2a.CodeUnavailable, "no quorum of keepers has cosigned entry %d yet; try again later", index)
	}
	if err != nil {
		return nil, err
	}
	// Auditors come a moment after the keepers: theirs counts for more than the
	// newest.
	if witnessed, text, err := c.store.Published(true); err == nil && witnessed.Size > index {
		at, note = witnessed, text
	}
	proof, err := c.store.ProveEntry(index, at.Size)
	if err != nil {
		return nil, err
	}
	return entryProof{
		Index: index, Entry: leaf, Size: at.Size, Proof: proof, Checkpoint: string(note),
		TLogProof: string(audit.TLogProof{Index: index, Proof: proof, Checkpoint: note}.Text()),
	}, nil
}

// watch acts on what the log says of the cluster: who was removed is cut off,
// what was begun with an authority that has ended is stopped.
func watch(ctx context.Context, store *audit.Store, who *membership, node *mesh.Node, path *agent.Agent, policies *policies) error {
	from := store.Size()
	policies.poke() // what came since the start
	for entry, err := range store.Follow(ctx, from) {
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		switch entry.Entry.Kind {
		case audit.KindMember, audit.KindEpoch:
			who.follow(node)
		case audit.KindAgent, audit.KindKey, audit.KindTenant, audit.KindMandate:
			path.Recheck()
		case audit.KindPolicy:
			policies.poke() // its tests may take a while, which no suspension waits for
		}
	}
	return nil
}

// away are the members that this node has no connection to.
func away(members directory, node *mesh.Node, self identity.ID) []identity.ID {
	list, err := members.Members()
	if err != nil {
		return nil
	}
	reached := map[identity.ID]bool{self: true}
	for _, p := range node.Peers() {
		if p.Connected {
			reached[p.ID] = true
		}
	}
	var out []identity.ID
	for _, m := range list {
		if !reached[m.ID] {
			out = append(out, m.ID)
		}
	}
	return out
}

// trustView is the trust as status shows it.
type trustView struct{ audit.Trust }

func (t trustView) keepers() []identity.ID {
	ids, err := t.Keepers()
	if err != nil {
		return []identity.ID{}
	}
	return ids
}
