package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
)

const (
	membersFile    = "raft-members.json"
	membersVersion = 1
	maxMembersFile = 64 << 10 // bytes
	changeTimeout  = 2 * time.Second
)

// Arrange brings the group one change closer to the given voters and learners,
// who receive the log and have no vote. Only the leader can; it gives the lead
// away before it leaves. done reports that there is nothing left to change.
func (g *Group) Arrange(ctx context.Context, voters, learners []identity.ID) (done bool, err error) {
	if !g.Lead() {
		return false, ErrNoLeader
	}
	future := g.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return false, fmt.Errorf("read raft's members: %w", err)
	}
	servers, at := future.Configuration().Servers, future.Index()
	has := func(id identity.ID, as raft.ServerSuffrage) bool {
		return slices.ContainsFunc(servers, func(s raft.Server) bool { return s.ID == raft.ServerID(id) && s.Suffrage == as })
	}
	change := func(what string, id identity.ID, f raft.Future) (bool, error) {
		if err := f.Error(); err != nil {
			return false, fmt.Errorf("%s %s: %w", what, id, err)
		}
		g.log.InfoContext(ctx, "raft members changed", "change", what, "peer", id)
		return false, nil
	}
	for _, id := range voters {
		if !has(id, raft.Voter) {
			return change("add voter", id, g.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), at, changeTimeout))
		}
	}
	for _, id := range learners {
		if !has(id, raft.Nonvoter) && !has(id, raft.Voter) {
			return change("add learner", id, g.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), at, changeTimeout))
		}
	}
	for _, s := range servers {
		id := identity.ID(s.ID)
		switch {
		case slices.Contains(voters, id) || slices.Contains(learners, id):
		case id == g.cfg.Self:
			return change("hand over the lead of", id, g.handOver(voters))
		default:
			return change("remove", id, g.raft.RemoveServer(s.ID, at, changeTimeout))
		}
	}
	return true, nil
}

// handOver gives the lead to one of those who stay, each time to another one that
// answers: raft's own choice may be dead, or be about to leave, too.
func (g *Group) handOver(stay []identity.ID) raft.Future {
	g.mu.Lock()
	heirs := slices.DeleteFunc(slices.Clone(stay), func(id identity.ID) bool {
		_, silent := g.silent[id]
		return silent || id == g.cfg.Self
	})
	g.heir++
	turn := g.heir
	g.mu.Unlock()
	if len(heirs) == 0 {
		return g.raft.LeadershipTransfer()
	}
	heir := heirs[turn%len(heirs)]
	return g.raft.LeadershipTransferToServer(raft.ServerID(heir), raft.ServerAddress(heir))
}

// Counts reports whether raft still counts the node as one of the group: as the
// newest change says that a quorum has committed and that this keeper knows. A
// node that stops while it counts is one dead keeper more. It is false at a node
// that is no keeper.
func (g *Group) Counts(id identity.ID) bool {
	if g.members == nil {
		return false
	}
	members, _ := g.members.get()
	return slices.ContainsFunc(members.Servers, func(s raft.Server) bool { return s.ID == raft.ServerID(id) })
}

// Abdicate gives the lead to another keeper, if this one leads.
func (g *Group) Abdicate() error {
	if !g.Lead() {
		return nil
	}
	if err := g.raft.LeadershipTransfer().Error(); err != nil {
		return fmt.Errorf("hand over the lead: %w", err)
	}
	return nil
}

// voters are those whose votes count, as raft sees it.
func (g *Group) voters() []identity.ID {
	var out []identity.ID
	for _, s := range g.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			out = append(out, identity.ID(s.ID))
		}
	}
	slices.Sort(out)
	return out
}

// isMember reports whether the node takes part in raft, or is about to: as raft
// has it, which may be newer, or as the caller has it, who lets nodes in.
func (g *Group) isMember(id identity.ID) bool {
	if slices.Contains(g.cfg.Members(), id) {
		return true
	}
	return g.raft != nil && slices.ContainsFunc(g.raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return s.ID == raft.ServerID(id) })
}

// membership keeps raft's newest committed members on disk. raft itself keeps
// them in snapshots and in its log, but ours is one snapshot that is always
// there, and the log below it may be gone.
type membership struct {
	file string

	mu    sync.Mutex // held over the write: what is read is durable
	conf  raft.Configuration
	index uint64
}

// storedMembers is the content of the file.
type storedMembers struct {
	V       int            `json:"v"`
	Index   uint64         `json:"index"` // of the raft entry
	Servers []storedMember `json:"servers"`
}

type storedMember struct {
	ID    identity.ID `json:"id"`
	Votes bool        `json:"votes"`
}

// openMembership reads the file in dir; without one the members are those that
// the group began with.
func openMembership(dir string, first []identity.ID) (*membership, error) {
	m := &membership{file: filepath.Join(dir, membersFile), index: 1} // the entry that every keeper begins with
	for _, id := range first {
		m.conf.Servers = append(m.conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	info, err := os.Stat(m.file)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil && info.Size() > maxMembersFile {
		err = errors.New("it is too large")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", membersFile, err)
	}
	text, err := os.ReadFile(m.file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", membersFile, err)
	}
	var stored storedMembers
	if err := json.Unmarshal(text, &stored); err != nil || stored.V != membersVersion || stored.Index == 0 || len(stored.Servers) == 0 {
		return nil, fmt.Errorf("read %s: it is damaged: %w", m.file, errors.Join(ErrCorrupt, err))
	}
	m.index, m.conf.Servers = stored.Index, nil
	for _, s := range stored.Servers {
		one := raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.ID), Suffrage: raft.Nonvoter}
		if s.Votes {
			one.Suffrage = raft.Voter
		}
		m.conf.Servers = append(m.conf.Servers, one)
	}
	return m, nil
}

// get returns the members and the index of the entry that says so.
func (m *membership) get() (raft.Configuration, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conf.Clone(), m.index
}

// keep writes newer members down.
func (m *membership) keep(index uint64, conf raft.Configuration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.index {
		return nil
	}
	stored := storedMembers{V: membersVersion, Index: index}
	for _, s := range conf.Servers {
		stored.Servers = append(stored.Servers, storedMember{ID: identity.ID(s.ID), Votes: s.Suffrage == raft.Voter})
	}
	text, err := json.Marshal(stored)
	if err == nil {
		err = durable.WriteFile(m.file, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep raft's members: %w", err)
	}
	m.conf, m.index = conf.Clone(), index
	return nil
}
