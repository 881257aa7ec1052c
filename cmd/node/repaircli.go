package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// auditRepairCommand replaces a stopped node's bad log by its peers'.
func (a *app) auditRepairCommand() *cobra.Command {
	var data, file string
	cmd := &cobra.Command{
		Use: "repair --data DIR | --config FILE", Short: "Replace a stopped node's bad log by a verified copy from its peers", Args: noArgs,
		Long: `Replace a stopped node's bad log by a verified copy from its peers. The bad log is
kept as evidence in a folder of its own. Every part of the copy is checked against a
checkpoint that a quorum of keepers signed. A log that verifies and that nothing
contradicts is left alone.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := map[string]string{}
			if data != "" {
				given["data"] = data
				if own := filepath.Join(data, "config.yaml"); file == "" {
					if _, err := os.Stat(own); err == nil {
						file = own
					}
				}
			}
			cfg, err := loadConfig(file, given, a.env)
			if err != nil {
				return err
			}
			return a.repair(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the node's data folder; its config.yaml is read if there is one")
	cmd.Flags().StringVar(&file, "config", "", "the node's YAML configuration file")
	return cmd
}

func (a *app) repair(ctx context.Context, cfg *config) error {
	unlock, err := lockFolder(cfg.Data)
	if err != nil {
		return err
	}
	defer unlock()
	self, err := readSelf(cfg)
	if err != nil {
		return err
	}
	key, genesis, begin, peers := self.key, self.genesis, self.begin, self.peers
	for _, m := range begin.Members {
		if _, named := peers[m.ID]; !named && len(m.Addrs) > 0 {
			peers[m.ID] = m.Addrs
		}
	}
	delete(peers, key.ID())
	if len(peers) == 0 {
		return &a2a.Error{Code: "failed", Message: "no peer is known to copy the log from", Hint: "name one in peers, as ADDR/p2p/ID"}
	}
	what, size, err := fault(ctx, cfg.Data)
	if err != nil {
		return err
	}
	if what == "" {
		return failed("nothing to repair: the log verifies, and no checkpoint is known that contradicts it")
	}
	aside := filepath.Join(cfg.Data, "bad-log-"+time.Now().UTC().Format("20060102T150405Z"))
	if err := audit.SetAside(cfg.Data, aside); err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.stderr, "agenticraft: the bad log is kept in %s (%s)\n", aside, what)
	}
	entries, root, err := restoreLog(ctx, cfg.Data, aside, genesis, begin.Cluster, key, peers, size)
	if err != nil {
		return &a2a.Error{Code: "unavailable", Message: "the log was not restored: " + err.Error(), Hint: "when the keepers can be reached, run the same command again"}
	}
	if a.json {
		a.print(map[string]any{"fault": what, "evidence": aside, "log_size": entries, "log_root": root.String()})
		return nil
	}
	fmt.Fprintf(a.stdout, "repaired: %d entries, root %s\nStart it: %s serve --config …\n", entries, root, os.Args[0])
	return nil
}

// fault says what is wrong with the log in a folder, "" if nothing is, and the
// size that a sound one has at least.
func fault(ctx context.Context, data string) (what string, size uint64, err error) {
	at, _, err := audit.Contradiction(data)
	if err == nil {
		return fmt.Sprintf("a quorum signed another log of %d entries", at.Size), at.Size, nil
	}
	if !errors.Is(err, audit.ErrNotFound) {
		return "", 0, err
	}
	rep, err := verifyFolder(ctx, data, nil)
	switch {
	case errors.Is(err, audit.ErrNotFound):
		return "there was none", 1, nil
	case err != nil:
		return "", 0, err
	case rep.Bad != nil:
		return rep.Bad.String(), 1, nil
	}
	return "", 0, nil
}

// restoreLog fetches the whole log, and for a keeper takes it to where raft can
// go on from.
func restoreLog(ctx context.Context, data, aside string, genesis []byte, cluster string, key *identity.Key, peers map[identity.ID][]string, size uint64) (entries uint64, root audit.Hash, err error) {
	p, err := openPull(data, genesis, cluster, key, peers)
	if err != nil {
		return 0, root, err
	}
	defer closed(p.close)
	if err := p.until(ctx, func() bool { return p.mirror.Fresh() == nil && p.store.Size() >= size }); err != nil {
		return 0, root, err
	}
	own, err := p.tables.MemberByID(key.ID())
	if err != nil {
		return 0, root, fmt.Errorf("this node in the restored log: %w", err)
	}
	if own.Role == registry.Keeper {
		if err := p.position(ctx, data, key.ID()); err != nil {
			return 0, root, err
		}
	}
	if err := p.store.Clear(aside); err != nil {
		return 0, root, err
	}
	return p.store.Tree()
}

// position takes the log to a raft entry, as some keeper knows it. The next
// checkpoint shows whether that keeper was right.
func (p *pull) position(ctx context.Context, data string, self identity.ID) error {
	now, err := p.tables.Epoch()
	if err != nil {
		return err
	}
	why := errors.New("no keeper is known")
	for _, id := range slices.DeleteFunc(now.Keepers, func(id identity.ID) bool { return id == self }) {
		index, term, meta, err := audit.Describe(ctx, p.links.logClient(id))
		if err == nil {
			err = p.store.Restore(ctx, index, term, meta)
		}
		if err == nil {
			return consensus.MarkRestored(data, index)
		}
		why = fmt.Errorf("%s: %w", id, err)
	}
	return why
}
