package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/registry"
)

const (
	defaultTenant = "default"
	genesisFile   = "genesis.json"
	nodeKeyFile   = "node.key"
	apiKeyFile    = "api.key"
	agentKeyFile  = "agent.key"
)

// secrets are what a new cluster's first operator needs.
type secrets struct {
	apiKey string
}

// devGenesis begins a cluster whose keepers are all of keys, or takes over the
// one that began in this folder before.
func devGenesis(data string, keys []*identity.Key) (secrets, error) {
	file := filepath.Join(data, genesisFile)
	if leaf, err := os.ReadFile(file); err == nil {
		if _, err := registry.ReadGenesis(leaf); err != nil {
			return secrets{}, failed("%s: %v", file, err)
		}
		text, err := os.ReadFile(filepath.Join(data, apiKeyFile))
		if err != nil {
			return secrets{}, failed("the folder holds a cluster but not its API key: %v", err)
		}
		return secrets{apiKey: strings.TrimSpace(string(text))}, nil
	}
	return newCluster(data, "dev", keys)
}

// newCluster writes the genesis, an API key of role admin and the key of an
// agent that may run code. The genesis comes last: who finds it finds all.
func newCluster(data, name string, keepers []*identity.Key) (secrets, error) {
	var suffix [4]byte
	_, _ = rand.Read(suffix[:]) // never fails (crypto/rand)
	g := registry.Genesis{
		Cluster: name + "-" + hex.EncodeToString(suffix[:]),
		Time:    time.Now(),
		Vouch:   true,
		Tenants: []string{defaultTenant},
	}
	for i, key := range keepers {
		g.Members = append(g.Members, registry.MemberBody{ID: key.ID(), Role: registry.Keeper, Name: fmt.Sprintf("node%d", i+1)})
	}
	text, id, hash, err := authz.NewAPIKey()
	if err != nil {
		return secrets{}, err
	}
	g.Keys = []registry.KeyBody{{
		ID: id, Name: "admin", Hash: hex.EncodeToString(hash[:]), Tenant: defaultTenant, Roles: []string{registry.RoleAdmin},
	}}
	agent, err := loadOrMakeKey(filepath.Join(data, agentKeyFile))
	if err != nil {
		return secrets{}, err
	}
	g.Agents = []registry.AgentBody{{ID: agent.ID(), Name: "first-agent", Tenant: defaultTenant, Roles: []string{"runner"}}}
	leaf, err := registry.GenesisLeaf(g)
	if err != nil {
		return secrets{}, err
	}
	if err := durable.WriteFile(filepath.Join(data, apiKeyFile), []byte(text+"\n"), 0o600); err != nil {
		return secrets{}, err
	}
	return secrets{apiKey: text}, durable.WriteFile(filepath.Join(data, genesisFile), leaf, 0o644)
}

func (a *app) initCommand() *cobra.Command {
	var data, name, listen string
	cmd := &cobra.Command{
		Use: "init --data DIR", Short: "Begin a cluster of one node: keys, genesis, API key, configuration", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if data == "" {
				return usage("init needs --data DIR")
			}
			return a.init(data, name, listen)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the node's data folder")
	cmd.Flags().StringVar(&name, "name", "cluster", "the cluster's name; a random suffix is added")
	cmd.Flags().StringVar(&listen, "http", "127.0.0.1:8420", "host:port of the HTTP door")
	return cmd
}

func (a *app) init(data, name, listen string) error {
	data, err := filepath.Abs(data)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(data, genesisFile)); err == nil {
		return failed("%s holds a cluster already", data)
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	key, err := loadOrMakeKey(filepath.Join(data, nodeKeyFile))
	if err != nil {
		return err
	}
	if _, err := newCluster(data, name, []*identity.Key{key}); err != nil {
		return err
	}
	text, err := yaml.Marshal(map[string]any{"data": data, "http": listen})
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	config := filepath.Join(data, "config.yaml")
	if err := durable.WriteFile(config, text, 0o600); err != nil {
		return err
	}
	if a.json {
		a.print(map[string]string{
			"id": string(key.ID()), "data": data, "config": config,
			"api_key_file": filepath.Join(data, apiKeyFile), "agent_key": filepath.Join(data, agentKeyFile),
		})
		return nil
	}
	fmt.Fprintf(a.stdout, `node %s
Start it:   %s serve --config %s
Use it:     %s --server http://%s --api-key-file %s status
`, key.ID(), os.Args[0], config, os.Args[0], listen, filepath.Join(data, apiKeyFile))
	return nil
}
