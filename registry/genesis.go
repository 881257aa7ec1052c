package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticraft/node/audit"
)

// GenesisBody is the body of entry 0.
type GenesisBody struct {
	Cluster string       `json:"cluster"`
	Vouch   bool         `json:"vouch"`
	Rules   int          `json:"rules,omitempty"`         // see [Cluster]
	Signed  bool         `json:"signed_policy,omitempty"` // see [Cluster]
	Members []MemberBody `json:"members"`
	Tenants []TenantBody `json:"tenants"`
	Agents  []AgentBody  `json:"agents,omitempty"`
	Keys    []KeyBody    `json:"keys,omitempty"`
}

// Genesis is how a cluster begins: everyone who starts with the same Genesis
// has the same entry 0, and so the same log.
type Genesis struct {
	Cluster string    // name
	Time    time.Time // whole milliseconds count
	// Vouch lets nodes sign for callers who have an API key only.
	Vouch bool
	// SignedPolicy refuses policies for which no agent's signature stands.
	SignedPolicy bool
	Members      []MemberBody // with at least one keeper; Action may be left out here and below
	Tenants      []string
	Agents       []AgentBody
	Keys         []KeyBody // one of the agents and keys holds [RoleAdmin]
}

// GenesisLeaf makes the leaf of entry 0: canonical, and the same for the same
// Genesis whatever the order of its lists.
func GenesisLeaf(g Genesis) ([]byte, error) {
	b := GenesisBody{
		Cluster: g.Cluster, Vouch: g.Vouch, Rules: rulesCeilings, Signed: g.SignedPolicy, Members: slices.Clone(g.Members),
		Agents: slices.Clone(g.Agents), Keys: slices.Clone(g.Keys), Tenants: make([]TenantBody, len(g.Tenants)),
	}
	for i, name := range g.Tenants {
		b.Tenants[i] = TenantBody{Action: Create, Name: name}
	}
	for i := range b.Members {
		b.Members[i].Action = Add
	}
	for i := range b.Agents {
		b.Agents[i].Action = Add
		b.Agents[i].Roles = slices.Sorted(slices.Values(b.Agents[i].Roles))
	}
	for i := range b.Keys {
		b.Keys[i].Action = Create
		b.Keys[i].Roles = slices.Sorted(slices.Values(b.Keys[i].Roles))
	}
	slices.SortFunc(b.Members, func(x, y MemberBody) int { return strings.Compare(string(x.ID), string(y.ID)) })
	slices.SortFunc(b.Tenants, func(x, y TenantBody) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Agents, func(x, y AgentBody) int { return strings.Compare(string(x.ID), string(y.ID)) })
	slices.SortFunc(b.Keys, func(x, y KeyBody) int { return strings.Compare(x.ID, y.ID) })
	text, err := audit.MarshalBody(b)
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	e := audit.Entry{V: audit.EntryVersion, Kind: audit.KindGenesis, ID: "genesis", Time: audit.FormatTime(g.Time), Body: text}
	// What no keeper would admit must not become a file.
	if err := (Admission{}).Admit(memory{}, 0, "", e); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	leaf, err := e.Encode()
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return leaf, nil
}

// ReadGenesis reads what [GenesisLeaf] made.
func ReadGenesis(leaf []byte) (GenesisBody, error) {
	e, err := audit.DecodeEntry(leaf)
	if err != nil {
		return GenesisBody{}, fmt.Errorf("genesis: %w", err)
	}
	if e.Kind != audit.KindGenesis {
		return GenesisBody{}, errors.New("genesis: not an entry 0")
	}
	b, err := read[GenesisBody](e.Body)
	if err != nil {
		return GenesisBody{}, fmt.Errorf("genesis: %w", err)
	}
	return b, nil
}

// genesis fills the empty tables.
func (c *change) genesis() error {
	if c.index != 0 {
		return refuse("genesis", "only entry 0 is a genesis entry")
	}
	b, err := read[GenesisBody](c.entry.Body)
	if err != nil {
		return err
	}
	if !plain(b.Cluster, maxName) {
		return refuse("malformed", "the name of the cluster is missing or malformed")
	}
	if b.Rules < 0 || b.Rules > rulesCeilings {
		return refuse("malformed", "the cluster began with rules that this version does not know")
	}
	if max(len(b.Members), len(b.Tenants), len(b.Agents), len(b.Keys)) > maxFirst {
		return refuse("malformed", "entry 0 has more than %d rows of a kind", maxFirst)
	}
	if !slices.ContainsFunc(b.Members, func(m MemberBody) bool { return m.Role == Keeper }) {
		return refuse("no_keeper", "a cluster needs a keeper")
	}
	if err := put(c.tx, clusterKey, Cluster{Name: b.Cluster, Vouch: b.Vouch, Rules: b.Rules, SignedPolicy: b.Signed}); err != nil {
		return err
	}
	if err := firsts(b.Members, Add, c.member); err != nil {
		return err
	}
	if err := firsts(b.Tenants, Create, c.setTenant); err != nil {
		return err
	}
	if err := firsts(b.Agents, Add, c.agent); err != nil {
		return err
	}
	if err := firsts(b.Keys, Create, c.key); err != nil {
		return err
	}
	return c.keepAdmin()
}

// firsts applies rows of entry 0, which can only add.
func firsts[B body](rows []B, action string, apply func(B) error) error {
	for _, row := range rows {
		if err := row.check(); err != nil {
			return err
		}
		if actionOf(row) != action {
			return refuse("malformed", "entry 0 can only add")
		}
		if err := apply(row); err != nil {
			return err
		}
	}
	return nil
}

func actionOf(b body) string {
	switch b := b.(type) {
	case MemberBody:
		return b.Action
	case AgentBody:
		return b.Action
	case KeyBody:
		return b.Action
	case TenantBody:
		return b.Action
	case RoleBody:
		return b.Action
	}
	return ""
}

// memory is tables that last as long as a check.
type memory map[string][]byte

// EmptyState is the state of the admission rules before the first entry, in
// memory.
func EmptyState() audit.Tx { return memory{} }

func (m memory) Get(key string) []byte              { return slices.Clone(m[key]) }
func (m memory) Put(key string, value []byte) error { m[key] = slices.Clone(value); return nil }
func (m memory) Delete(key string) error            { delete(m, key); return nil }
func (m memory) Each(prefix string, fn func(key string, value []byte) error) error {
	for _, key := range sortedKeys(m, prefix) {
		if err := fn(key, slices.Clone(m[key])); err != nil {
			return err
		}
	}
	return nil
}
