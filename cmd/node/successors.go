package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

// successors are the keepers of a later epoch than this node's copy of the log
// knows: the keepers changed while it was away. Raft at a keeper listens to
// keepers only, so it would not take the log from those of today. Any member that
// it reaches has the entries that changed the keepers; each is signed by a quorum
// of the keepers before, from those whom this node knows, and so proves who they
// are whoever sends it.
type successors struct {
	epoch   uint64
	keepers []identity.ID
	addrs   map[identity.ID][]string // where they may be found, as a member says
}

const (
	seekEvery    = time.Second
	seekTimeout  = 5 * time.Second
	maxWhere     = 64 << 10 // bytes
	whereVersion = 1
)

// successors are those whom the copy of the log does not know yet.
func (m *membership) successors(r roster) successors {
	if later := m.later.Load(); later != nil && later.epoch > r.changes.Now.Number {
		return *later
	}
	return successors{}
}

// seek looks for later keepers, while nothing is heard of those whom this node
// knows, until ctx ends. It asks one connected member after the other.
func (m *membership) seek(ctx context.Context, node *mesh.Node, links *links, lost func() bool) error {
	for turn := 0; pause(ctx, seekEvery); {
		if !lost() {
			continue
		}
		peers := slices.DeleteFunc(node.Peers(), func(p mesh.Peer) bool { return !p.Connected })
		if len(peers) == 0 {
			continue
		}
		turn++
		peer := peers[turn%len(peers)].ID
		before := m.later.Load()
		if err := m.askLater(ctx, links.logClient(peer)); err != nil && ctx.Err() == nil {
			m.log.DebugContext(ctx, "a member does not say who the keepers are", "peer", peer, "err", err)
		}
		if m.later.Load() != before {
			m.follow(node)
		}
	}
	return nil
}

// askLater asks a member who the keepers are, and takes its word for where.
func (m *membership) askLater(ctx context.Context, client *http.Client) error {
	ctx, cancel := context.WithTimeout(ctx, seekTimeout)
	defer cancel()
	known := m.trust()
	newest, err := known.Newest(ctx, client)
	if err != nil {
		return err
	}
	later := m.later.Load()
	if newest.Epoch <= known.Epoch || later != nil && (newest.Epoch < later.epoch || newest.Epoch == later.epoch && len(later.addrs) > 0) {
		return nil
	}
	next := &successors{epoch: newest.Epoch}
	if next.keepers, err = newest.Keepers(); err != nil {
		return err
	}
	if later == nil || later.epoch != next.epoch {
		m.log.InfoContext(ctx, "the keepers changed while this node was away", "epoch", next.epoch, "keepers", next.keepers)
	}
	next.addrs, err = askWhere(ctx, client, next.keepers)
	m.later.Store(next) // who does not know where they are is found by them, or not
	return err
}

// whereabouts is the answer to GET /where: addresses of keepers.
type whereabouts struct {
	V     int                      `json:"v"`
	Addrs map[identity.ID][]string `json:"addrs"`
}

func askWhere(ctx context.Context, client *http.Client, keepers []identity.ID) (map[identity.ID][]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://peer/where", nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask where the keepers are: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxWhere))
	if err != nil {
		return nil, fmt.Errorf("ask where the keepers are: %w", err)
	}
	var where whereabouts
	if err := json.Unmarshal(text, &where); res.StatusCode != http.StatusOK || err != nil || where.V != whereVersion {
		return nil, fmt.Errorf("ask where the keepers are: the member answered %d", res.StatusCode)
	}
	out := map[identity.ID][]string{}
	for _, id := range keepers {
		if addrs := where.Addrs[id]; len(addrs) > 0 {
			out[id] = addrs
		}
	}
	return out, nil
}

// whereHandler tells members where the keepers are, and leaves the rest to next.
func (m *membership) whereHandler(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("GET /where", func(w http.ResponseWriter, _ *http.Request) {
		r, err := m.read()
		if err != nil {
			http.Error(w, "the members cannot be read", http.StatusServiceUnavailable)
			return
		}
		where := whereabouts{V: whereVersion, Addrs: map[identity.ID][]string{}}
		for _, one := range r.members {
			if one.Role == registry.Keeper && len(one.Addrs) > 0 {
				where.Addrs[one.ID] = one.Addrs
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(where) // the peer may be gone
	})
	return mux
}

// unheard reports whether a node hears nothing of the keepers that it knows.
func unheard(role string, leader func() (identity.ID, bool), mirror *audit.Mirror) func() bool {
	return func() bool {
		if role != registry.Keeper {
			return mirror.Fresh() != nil
		}
		_, heard := leader()
		return !heard
	}
}
