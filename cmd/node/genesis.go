package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/agenticraft/node/audit"
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
	if leaf, err := readSmall(file, audit.MaxLeaf); err == nil {
		if _, err := registry.ReadGenesis(leaf); err != nil {
			return secrets{}, failed("%s: %v", file, err)
		}
		text, err := readSmall(filepath.Join(data, apiKeyFile), maxAPIKeyFile)
		if err != nil {
			return secrets{}, failed("the folder holds a cluster but not its API key: %v", err)
		}
		return secrets{apiKey: strings.TrimSpace(string(text))}, nil
	}
	var members []registry.MemberBody
	for i, key := range keys {
		members = append(members, registry.MemberBody{ID: key.ID(), Role: registry.Keeper, Name: fmt.Sprintf("node%d", i+1)})
	}
	return newCluster(data, "dev", members, false)
}

// newCluster writes the genesis, an API key of role admin and the key of an
// agent that may run code and, where policies must be signed, is the admin who can.
// The genesis comes last: who finds it finds all.
func newCluster(data, name string, keepers []registry.MemberBody, signedPolicy bool) (secrets, error) {
	var suffix [4]byte
	_, _ = rand.Read(suffix[:]) // never fails (crypto/rand)
	g := registry.Genesis{
		Cluster: name + "-" + hex.EncodeToString(suffix[:]),
		Time:    time.Now(),
		Vouch:   true,
		Tenants: []string{defaultTenant},
		Members: keepers,

		SignedPolicy: signedPolicy,
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
	roles := []string{"runner"}
	if signedPolicy {
		roles = []string{registry.RoleAdmin, "runner"}
	}
	g.Agents = []registry.AgentBody{{ID: agent.ID(), Name: "first-agent", Tenant: defaultTenant, Roles: roles}}
	leaf, err := registry.GenesisLeaf(g)
	if err != nil {
		return secrets{}, err
	}
	if err := durable.WriteFile(filepath.Join(data, apiKeyFile), []byte(text+"\n"), 0o600); err != nil {
		return secrets{}, err
	}
	return secrets{apiKey: text}, durable.WriteFile(filepath.Join(data, genesisFile), leaf, 0o644)
}

// initFlags are the flags of init, as the user wrote them.
type initFlags struct {
	data, name, http, genesis string
	mesh, keepers             []string
	keyOnly, signedPolicy     bool
}

func (a *app) initCommand() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use: "init --data DIR", Short: "Make a node's folder: key, genesis, API key, configuration", Args: noArgs,
		Long: `Make a node's folder.

A cluster of one node:
  agenticraft init --data DIR

A cluster of three machines: make each node's key, then begin the cluster on one
machine, then hand its genesis.json to the others:
  agenticraft init --data DIR --key-only                        (on B and C; prints the ID)
  agenticraft init --data DIR --mesh ADDR --keeper ID@ADDR --keeper ID@ADDR      (on A)
  agenticraft init --data DIR --mesh ADDR --genesis genesis.json          (on B and C)
ADDR is a multiaddr such as /ip4/192.0.2.7/tcp/8520.`,
		RunE: func(*cobra.Command, []string) error {
			if f.data == "" {
				return usage("init needs --data DIR")
			}
			if f.genesis != "" && len(f.keepers) > 0 {
				return usage("--genesis joins a cluster, --keeper begins one: give one of them")
			}
			if f.signedPolicy && (f.genesis != "" || f.keyOnly) {
				return usage("--signed-policy is said once, where the cluster begins")
			}
			return a.init(f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", "the node's data folder")
	flags.StringVar(&f.name, "name", "cluster", "the cluster's name; a random suffix is added")
	flags.StringVar(&f.http, "http", "127.0.0.1:8420", "host:port of the HTTP door")
	flags.StringArrayVar(&f.mesh, "mesh", nil, "multiaddr to listen on for other nodes (may be repeated; default: loopback)")
	flags.StringArrayVar(&f.keepers, "keeper", nil, "ID@ADDR of another keeper (may be repeated)")
	flags.StringVar(&f.genesis, "genesis", "", "join the cluster that begins with this file")
	flags.BoolVar(&f.keyOnly, "key-only", false, "only make the node's key and print its ID")
	flags.BoolVar(&f.signedPolicy, "signed-policy", false, "the cluster takes only policies that an admin's agent key signed; the first agent is such an admin")
	return cmd
}

func (a *app) init(f initFlags) error {
	data, err := filepath.Abs(f.data)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(data, genesisFile)); err == nil {
		return failed("%s holds a cluster already", data)
	}
	others, err := parseKeepers(f.keepers)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	key, err := loadOrMakeKey(filepath.Join(data, nodeKeyFile))
	if err != nil {
		return err
	}
	made := map[string]string{"id": string(key.ID()), "data": data}
	if f.keyOnly {
		if a.json {
			a.print(made)
		} else {
			fmt.Fprintln(a.stdout, key.ID())
		}
		return nil
	}
	self := registry.MemberBody{ID: key.ID(), Role: registry.Keeper, Addrs: f.mesh}
	if f.genesis != "" {
		err = joinGenesis(data, f.genesis, key.ID())
	} else if _, err = newCluster(data, f.name, append([]registry.MemberBody{self}, others...), f.signedPolicy); err == nil {
		made["api_key_file"], made["agent_key"] = filepath.Join(data, apiKeyFile), filepath.Join(data, agentKeyFile)
	}
	if err != nil {
		return err
	}
	values := map[string]any{"data": data, "http": f.http}
	if len(f.mesh) > 0 {
		values["mesh"] = f.mesh
	}
	text, err := yaml.Marshal(values)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	made["config"] = filepath.Join(data, "config.yaml")
	if err := durable.WriteFile(made["config"], text, 0o600); err != nil {
		return err
	}
	if a.json {
		a.print(made)
		return nil
	}
	fmt.Fprintf(a.stdout, "node %s\nStart it:   %s serve --config %s\n", key.ID(), os.Args[0], made["config"])
	if made["api_key_file"] != "" {
		fmt.Fprintf(a.stdout, "Use it:     %s --server http://%s --api-key-file %s status\n", os.Args[0], f.http, made["api_key_file"])
	}
	if len(others) > 0 {
		fmt.Fprintf(a.stdout, "Hand to the other keepers: %s\n", filepath.Join(data, genesisFile))
	}
	return nil
}

// parseKeepers reads ID@ADDR.
func parseKeepers(texts []string) ([]registry.MemberBody, error) {
	var out []registry.MemberBody
	for _, text := range texts {
		name, addr, ok := strings.Cut(text, "@")
		id, err := identity.ParseID(name)
		if !ok || err != nil || !strings.HasPrefix(addr, "/") {
			return nil, usage("--keeper %q is not ID@MULTIADDR", text)
		}
		out = append(out, registry.MemberBody{ID: id, Role: registry.Keeper, Addrs: []string{addr}})
	}
	return out, nil
}

// joinGenesis takes over the genesis of a cluster that this node is a keeper of.
func joinGenesis(data, file string, self identity.ID) error {
	leaf, err := readSmall(file, audit.MaxLeaf)
	if err != nil {
		return err
	}
	g, err := registry.ReadGenesis(leaf)
	if err != nil {
		return failed("%s is not a genesis: %v", file, err)
	}
	if !slices.Contains(keepersOf(g), self) {
		return failed("this node, %s, is not a keeper of the cluster %s", self, g.Cluster)
	}
	return durable.WriteFile(filepath.Join(data, genesisFile), leaf, 0o644)
}
