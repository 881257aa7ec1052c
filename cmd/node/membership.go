package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/threat"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

// membership is who belongs to the cluster, as this node's own copy of the log
// says, and where they are.
type membership struct {
	self     identity.ID
	registry *registry.Registry
	origin   string
	first    []identity.ID            // the keepers of entry 0
	known    map[identity.ID][]string // addresses that the operator or the join gave
	log      *slog.Logger

	// A copy that is old may not know today's keepers; until it has caught up,
	// those whom the operator named are let in, too.
	caughtUp  atomic.Bool
	later     atomic.Pointer[successors]  // keepers of an epoch that the copy does not know yet
	last      atomic.Pointer[roster]      // the last that could be read
	trusted   atomic.Pointer[audit.Trust] // the last that could be read
	lead      atomic.Pointer[consensus.Group]
	threats   atomic.Pointer[threat.Watch] // told of logs that differ
	abdicates atomic.Bool
	parting   sync.Map // identity.ID -> time.Time until which its goodbye is answered
}

// goodbyeGrace is how long a node that left by its own word may stay connected,
// to hear that it has.
const goodbyeGrace = 5 * time.Second

// part lets a node that asked to be removed hear the answer.
func (m *membership) part(id identity.ID) {
	m.parting.Store(id, time.Now().Add(goodbyeGrace))
	time.AfterFunc(goodbyeGrace, func() { m.parting.Delete(id) })
}

// rolledBack tells the detectors of a keeper whose folder is older than it was.
func (m *membership) rolledBack(id identity.ID) {
	if threats := m.threats.Load(); threats != nil {
		threats.RolledBack(id)
	}
}

// leads reports whether this node leads the keepers.
func (m *membership) leads() bool {
	g := m.lead.Load()
	return g != nil && g.Lead()
}

// counts reports whether raft still counts a node as one of its own, as this keeper
// knows: until it does not, the node must not go.
func (m *membership) counts(id identity.ID) bool {
	g := m.lead.Load()
	return g != nil && g.Counts(id)
}

// abdicate gives the lead away: the others have another log than this node.
func (m *membership) abdicate() {
	g := m.lead.Load()
	if g == nil || m.abdicates.Swap(true) {
		return
	}
	go func() { // ends with the transfer, which has a time-out
		defer m.abdicates.Store(false)
		if err := g.Abdicate(); err != nil {
			m.log.Warn("the lead was not handed over", "err", err)
		}
	}()
}

// guestGrace is how long after its end an invitation is still answered, so that
// whoever comes late is told why.
const guestGrace = 24 * time.Hour

// roster is who belongs to the cluster and who keeps the log.
type roster struct {
	members []registry.Member
	changes registry.Changes
}

// read reads the roster, or is the last one that could be read: a node whose full
// disk keeps the newest entries from being written stays in touch with those
// whom it knew a moment ago, to take the log from them when there is space.
func (m *membership) read() (r roster, err error) {
	if r.members, err = m.registry.Members(); err == nil {
		r.changes, err = m.registry.Changes()
	}
	if err == nil {
		m.last.Store(&r)
		return r, nil
	}
	if last := m.last.Load(); last != nil && errors.Is(err, audit.ErrUnavailable) {
		return *last, nil
	}
	m.log.Error("members not read", "err", err)
	return roster{}, err
}

// allow reports whether a node may be connected.
func (m *membership) allow(id identity.ID) bool {
	r, err := m.read()
	if err != nil {
		return false
	}
	if slices.ContainsFunc(r.members, func(one registry.Member) bool { return one.ID == id }) || slices.Contains(m.successors(r).keepers, id) {
		return true
	}
	_, named := m.known[id]
	return named && !m.caughtUp.Load()
}

// guest reports whether somebody was invited, and may say so, or has just said
// goodbye.
func (m *membership) guest(id identity.ID) bool {
	if _, parts := m.parting.Load(id); parts {
		return true
	}
	inv, err := m.registry.InvitationByID(id)
	if err != nil {
		return false
	}
	end, err := audit.ParseTime(inv.Expires)
	return err == nil && time.Now().Before(end.Add(guestGrace))
}

// member is this node's own row, or an error that says what to do.
func (m *membership) member() (registry.Member, error) {
	own, err := m.registry.MemberByID(m.self)
	if errors.Is(err, registry.ErrNotFound) {
		return own, &a2a.Error{
			Code: "failed", Message: fmt.Sprintf("this node, %s, is not a member of the cluster, as far as its copy of the log goes", m.self),
			Hint: "agenticraft invite (at a keeper) and agenticraft join TOKEN (here) make it one; a node that was removed needs a new folder",
		}
	}
	return own, err
}

// raftMembers are the nodes that vote or are about to.
func (m *membership) raftMembers() []identity.ID {
	r, err := m.read()
	if err != nil {
		return nil
	}
	return slices.Concat(r.changes.Now.Keepers, r.changes.Comes, m.successors(r).keepers)
}

// keepers are those who hold the log, to be asked by nodes that do not, or have
// not all of it.
func (m *membership) keepers() []identity.ID {
	r, _ := m.read() // nobody, if that fails
	ids := slices.Concat(r.changes.Now.Keepers, m.successors(r).keepers)
	if !m.caughtUp.Load() {
		ids = slices.AppendSeq(ids, maps.Keys(m.known))
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return slices.DeleteFunc(ids, func(id identity.ID) bool { return id == m.self })
}

// peers are whom to stay connected with, and where they may be found.
func (m *membership) peers() map[identity.ID][]string {
	out := map[identity.ID][]string{}
	for id, addrs := range m.known {
		if m.allow(id) {
			out[id] = addrs
		}
	}
	r, _ := m.read() // nobody, if that fails
	for _, other := range r.members {
		if _, named := out[other.ID]; !named && other.ID != m.self && len(other.Addrs) > 0 {
			out[other.ID] = other.Addrs
		}
	}
	for id, addrs := range m.successors(r).addrs {
		if _, named := out[id]; !named && id != m.self {
			out[id] = addrs
		}
	}
	return out
}

// trust is whose signatures count.
func (m *membership) trust() audit.Trust {
	t, err := m.registry.Trust(m.origin)
	if err == nil {
		m.trusted.Store(&t)
		return t
	}
	m.log.Error("trust not read", "err", err)
	if last := m.trusted.Load(); last != nil {
		return *last
	}
	return audit.Trust{} // signs and trusts nothing
}

// votes reports whether a node is one of the keepers in force.
func (m *membership) votes(id identity.ID) bool {
	r, err := m.read()
	return err == nil && slices.Contains(r.changes.Now.Keepers, id)
}

// mayBegin is nil for a change of keepers that the members ask for.
func (m *membership) mayBegin(epoch uint64, keepers []identity.ID) error {
	changes, err := m.registry.Changes()
	if err != nil {
		return err
	}
	if !changes.Allow(epoch, keepers) {
		return errors.New("the log here does not ask for that change of keepers")
	}
	return nil
}

// peersFile holds the addresses that a node learned when it joined.
const (
	peersFile    = "peers.json"
	peersVersion = 1
	maxPeersFile = 256 << 10 // bytes
)

type storedPeers struct {
	V     int      `json:"v"`
	Peers []string `json:"peers"` // multiaddrs with /p2p/ID
}

func writePeers(dir string, peers []string) error {
	text, err := json.MarshalIndent(storedPeers{V: peersVersion, Peers: peers}, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", peersFile, err)
	}
	return durable.WriteFile(filepath.Join(dir, peersFile), append(text, '\n'), 0o600)
}

// readPeers adds the learned addresses to those of the configuration, which
// count more.
func readPeers(dir string, given map[identity.ID][]string) (map[identity.ID][]string, error) {
	name := filepath.Join(dir, peersFile)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return given, nil
	}
	text, err := readSmall(name, maxPeersFile)
	if err != nil {
		return nil, err
	}
	var stored storedPeers
	if err := json.Unmarshal(text, &stored); err != nil || stored.V != peersVersion {
		return nil, failed("%s is not a file of addresses", name)
	}
	learned, err := parsePeers(stored.Peers)
	if err != nil {
		return nil, failed("%s: %v", name, err)
	}
	for id, addrs := range learned {
		if _, named := given[id]; !named {
			given[id] = addrs
		}
	}
	return given, nil
}

// becomeKeeper gives a node that was let in as a keeper the state that raft
// goes on from: the log up to some raft entry.
func becomeKeeper(ctx context.Context, who *membership, store *audit.Store, links *links, mirror *audit.Mirror, log *slog.Logger) error {
	began, said := time.Now(), time.Time{}
	for try := 0; ; try++ {
		err := becomeOnce(ctx, who, store, links, mirror, try)
		if err == nil {
			log.InfoContext(ctx, "caught up, asks for its vote", "size", store.Size(), "elapsed", time.Since(began))
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, audit.ErrFork) {
			return err
		}
		if time.Since(said) > 5*time.Second {
			log.WarnContext(ctx, "not caught up yet", "size", store.Size(), "err", err)
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(becomeRetry):
		}
	}
}

const becomeRetry = 200 * time.Millisecond

func becomeOnce(ctx context.Context, who *membership, store *audit.Store, links *links, mirror *audit.Mirror, try int) error {
	if err := mirror.Pull(ctx, 0); err != nil {
		return err
	}
	keepers := who.keepers()
	if len(keepers) == 0 {
		return errors.New("no keeper is known")
	}
	index, term, meta, err := audit.Describe(ctx, links.logClient(keepers[try%len(keepers)]))
	if err != nil {
		return err
	}
	// What lies behind the newest checkpoint is one keeper's word for a moment:
	// the next checkpoint is compared with it, and the leader gives no vote
	// before both have the same root.
	return store.Restore(ctx, index, term, meta)
}

// follow keeps the mesh in step with the log.
func (m *membership) follow(node *mesh.Node) {
	node.SetPeers(m.peers())
	node.Recheck()
}
