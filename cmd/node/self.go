package main

import (
	"path/filepath"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// self is who a node is and which cluster it belongs to, as its folder and its
// configuration say.
type self struct {
	key     *identity.Key
	genesis []byte // the leaf of the cluster's first entry
	begin   registry.GenesisBody
	peers   map[identity.ID][]string // addresses of other members, configured or noted
}

func readSelf(cfg *config) (s self, err error) {
	if s.key, err = identity.Load(filepath.Join(cfg.Data, nodeKeyFile)); err != nil {
		return s, startHint(err)
	}
	if s.genesis, err = readSmall(cfg.Genesis, audit.MaxLeaf); err != nil {
		return s, startHint(err)
	}
	if s.begin, err = registry.ReadGenesis(s.genesis); err != nil {
		return s, failed("%s: %v", cfg.Genesis, err)
	}
	if s.peers, err = cfg.peers(); err != nil {
		return s, err
	}
	s.peers, err = readPeers(cfg.Data, s.peers)
	return s, err
}
