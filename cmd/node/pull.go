package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
	"github.com/agenticraft/node/registry"
)

// pull is a node's log while a command fetches it, with no node running.
type pull struct {
	store  *audit.Store
	tables *registry.Registry
	node   *mesh.Node
	links  *links
	mirror *audit.Mirror
}

// openPull opens or makes the log in a data folder, and connects to nobody but
// the given peers.
func openPull(data string, genesis []byte, cluster string, key *identity.Key, peers map[identity.ID][]string) (*pull, error) {
	origin := audit.OriginOf(genesis)
	p := &pull{links: newLinks()}
	sources := func() []identity.ID {
		return slices.DeleteFunc(slices.Collect(maps.Keys(peers)), func(id identity.ID) bool { return id == key.ID() })
	}
	var err error
	p.store, err = audit.OpenStore(audit.StoreConfig{
		Dir: data, Genesis: genesis, Admit: registry.Admission{Origin: origin}, Fetch: audit.NewFetcher(p.links.logClient, sources),
	})
	if err != nil {
		return nil, err
	}
	p.tables = registry.New(p.store)
	p.node, err = mesh.New(mesh.Config{
		Key: key, Cluster: cluster, DialOnly: true,
		Allow: func(id identity.ID) bool { _, known := peers[id]; return known },
	})
	if err != nil {
		return nil, errors.Join(err, p.store.Close())
	}
	p.node.SetPeers(peers)
	p.links.node = p.node
	p.mirror, err = audit.NewMirror(audit.MirrorConfig{
		Store: p.store, Peers: sources, Client: p.links.logClient,
		Trust: func() (audit.Trust, error) { return p.tables.Trust(origin) },
	})
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// maxIdlePulls is how often in a row nothing may come before until gives up.
const maxIdlePulls = 60

// until pulls until is says that it is enough. Each part is verified against a
// checkpoint that a quorum signed.
func (p *pull) until(ctx context.Context, is func() bool) error {
	for idle := 0; !is(); {
		before := p.store.Size()
		err := p.mirror.Pull(ctx, joinRetry)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, audit.ErrFork):
			return err
		case p.store.Size() > before:
			idle = 0
		default:
			if idle++; idle > maxIdlePulls {
				return errors.Join(errors.New("the log does not come from any keeper"), err)
			}
			pause(ctx, joinRetry)
		}
	}
	return nil
}

func (p *pull) close() error { return errors.Join(p.node.Close(), p.store.Close()) }
