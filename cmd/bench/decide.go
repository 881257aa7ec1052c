package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/authz/mandate"
	"github.com/agenticraft/node/identity"
)

// measureDecisions measures what policy and mandates cost a request, in this
// process and turn by turn: facts and chains that were never seen, and such as
// were. A signature's verification by the standard library is the measure of the
// machine.
func measureDecisions(ctx context.Context, t *Table, each time.Duration) error {
	few, err := policyOfBindings(100)
	if err != nil {
		return err
	}
	defer func() { _ = few.Close() }() // nothing can be lost
	many, err := policyOfBindings(10_000)
	if err != nil {
		return err
	}
	defer func() { _ = many.Close() }()
	key, err := identity.Generate()
	if err != nil {
		return err
	}
	plain, err := plainEd25519(key)
	if err != nil {
		return err
	}
	holders, err := newHolders()
	if err != nil {
		return err
	}
	known, err := newChain(holders)
	if err != nil {
		return err
	}
	var fresh chain          // of keys that sign all fresh chains
	var strangers chainQueue // of keys that sign nothing else
	measured := []struct {
		name string
		once bool // in a round
		do   func(i int) error
		took []float64
	}{
		{name: "decision, 100 bindings", do: func(i int) error { return decide(ctx, few, i) }},
		{name: "decision, 10,000 bindings, 1,000 tenants", do: func(i int) error { return decide(ctx, many, i) }},
		{name: "the same, on facts seen before", do: func(int) error { return decide(ctx, many, 0) }},
		{name: "mandate of depth 4", once: true, do: func(int) error { return fresh.verify() }},
		{name: "the same, of keys never seen", once: true, do: func(int) error { return strangers.next().verify() }},
		{name: "the same, seen before", do: func(int) error { return known.verify() }},
		{name: "one Ed25519 verification, 1 KiB", do: func(int) error { return plain() }},
	}
	for i, begun := 1, time.Now(); time.Since(begun) < each; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if fresh, err = newChain(holders); err != nil {
			return err
		}
		if err := strangers.fill(); err != nil {
			return err
		}
		for j := range measured {
			m := &measured[(i+j)%len(measured)]
			turns := 10
			if m.once {
				turns = 1
			}
			for k := range turns {
				began := time.Now()
				if err := m.do(10*i + k); err != nil {
					return fmt.Errorf("%s: %w", m.name, err)
				}
				m.took = append(m.took, float64(time.Since(began))/float64(time.Microsecond))
			}
		}
	}
	g := Group{Name: "decisions, in one process"}
	for _, m := range measured {
		g.Rows = append(g.Rows, summary(m.name, "us", m.took))
	}
	machine := g.Rows[len(g.Rows)-1]
	for i := range g.Rows[:len(g.Rows)-1] {
		g.Rows[i].Peers = append(g.Rows[i].Peers, Ratio{Peer: "Ed25519", Times: g.Rows[i].P50 / machine.P50, Of: "p50"})
	}
	t.Sections = append(t.Sections, g)
	t.Targets = append(t.Targets,
		Target{Name: "decision, 10,000 bindings, p50", Unit: "us", Most: 60, Got: g.Rows[1].P50},
		against("decision, 10,000 bindings, p50", "one Ed25519 verification", 60, referenceEd25519, g.Rows[1].P50/machine.P50),
		Target{Name: "decision on facts seen before, p50", Unit: "us", Most: 60, Got: g.Rows[2].P50},
		Target{Name: "decision, 10,000 bindings over 100", Unit: "times", Most: 1.3, Got: g.Rows[1].P50 / g.Rows[0].P50},
		Target{Name: "mandate of depth 4, p50", Unit: "us", Most: 350, Got: g.Rows[3].P50},
		against("mandate of depth 4, p50", "one Ed25519 verification", 350, referenceEd25519, g.Rows[3].P50/machine.P50),
		Target{Name: "mandate of depth 4, of keys never seen, p50", Unit: "us", Most: 350, Got: g.Rows[4].P50},
		Target{Name: "mandate of depth 4 seen before, p50", Unit: "us", Most: 350, Got: g.Rows[5].P50})
	return nil
}

// policyOfBindings is the default policy with n bindings of principals to roles
// in its data, and a tenth as many tenants.
func policyOfBindings(n int) (*authz.Policy, error) {
	bindings, tenants := map[string]map[string]string{}, map[string]map[string]string{}
	for i := range n {
		tenant := fmt.Sprint("tenant", i%(n/10))
		bindings[fmt.Sprint("did:key:agent", i)] = map[string]string{"tenant": tenant, "role": "runner"}
		tenants[tenant] = map[string]string{"class": "standard"}
	}
	modules := authz.DefaultModules()
	for name, table := range map[string]any{"bindings.json": bindings, "tenants.json": tenants} {
		text, err := json.Marshal(table)
		if err != nil {
			return nil, err
		}
		modules[name] = string(text)
	}
	const ofRequest, ofData = `acting := input.principal.only_role if {
	data.roles.table[input.principal.only_role].actions[input.action]
}`, `acting := data.bindings[input.principal.name].role if {
	data.bindings[input.principal.name].tenant == input.principal.tenant
	data.roles.table[data.bindings[input.principal.name].role].actions[input.action]
}`
	if strings.Count(modules["decision.rego"], ofRequest) != 1 {
		return nil, fmt.Errorf("the default policy has no such rule any more: %s", ofRequest)
	}
	modules["decision.rego"] = strings.Replace(modules["decision.rego"], ofRequest, ofData, 1)
	return authz.NewPolicy(authz.Config{Modules: modules})
}

// decide asks about a run whose code has another length for each i.
func decide(ctx context.Context, p *authz.Policy, i int) error {
	d, err := p.Decide(ctx, authz.Query{
		Principal: identity.Principal{Kind: identity.Agent, Name: "did:key:agent7", Tenant: "tenant7", Roles: []string{"runner"}},
		Action:    authz.ExecRun, Via: "http", Now: time.Now(),
		Execution: &authz.ExecutionFacts{Language: "python", MemoryBytes: 64 << 20, TimeoutMS: 1000, CodeBytes: 1 + i%(1<<19)},
		Node:      authz.NodeFacts{ID: "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", Tier: "T2", RunAllowed: true},
	})
	if err == nil && !d.Allow {
		err = fmt.Errorf("denied: %v", d.Codes())
	}
	return err
}

const benchCluster = "agenticraft:bench"

// chain is a mandate that was handed on four times.
type chain struct {
	text   string
	holder identity.ID
}

// newHolders are the keys of a chain: its root, and who holds it in turn.
func newHolders() (keys []*identity.Key, err error) {
	keys = make([]*identity.Key, mandate.MaxDepth+2)
	for i := range keys {
		if keys[i], err = identity.Generate(); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func newChain(keys []*identity.Key) (c chain, err error) {
	c.text, err = mandate.Grant(keys[0], mandate.Root{Cluster: benchCluster, Tenant: "acme", To: keys[1].ID(), Terms: mandate.Terms{
		Actions: []string{authz.ExecRun}, Languages: []string{"python"}, Depth: mandate.MaxDepth, NotAfter: time.Now().Add(time.Hour),
	}})
	for i := 1; i <= mandate.MaxDepth && err == nil; i++ {
		c.text, err = mandate.Narrow(keys[i], c.text, keys[i+1].ID(), mandate.Terms{Depth: mandate.MaxDepth - i})
	}
	c.holder = keys[mandate.MaxDepth+1].ID()
	return c, err
}

func (c chain) verify() error {
	_, err := mandate.Verify(c.text, mandate.Options{Cluster: benchCluster, Holder: c.holder})
	return err
}

// chainQueue holds chains of keys of their own, so many that the process has
// forgotten the keys of the one that is next since it made it.
type chainQueue []chain

const queued = 40 // chains, of five keys that signed each

func (q *chainQueue) fill() error {
	for len(*q) < queued {
		keys, err := newHolders()
		if err != nil {
			return err
		}
		c, err := newChain(keys)
		if err != nil {
			return err
		}
		*q = append(*q, c)
	}
	return nil
}

func (q *chainQueue) next() (c chain) {
	c, *q = (*q)[0], (*q)[1:]
	return c
}

// measureApply measures how long a policy takes from being sent to a node until
// every node says that it decides by it.
func measureApply(ctx context.Context, c *cluster, t *Table, n int) error {
	var took []float64
	for i := range n {
		modules := authz.DefaultModules()
		modules["tenants.json"] += strings.Repeat("\n", i+1)
		body, err := json.Marshal(map[string]any{"modules": modules})
		if err != nil {
			return err
		}
		var change struct {
			Digest string `json:"digest"`
		}
		begun := time.Now()
		if err := c.ask(ctx, i%len(c.Nodes), http.MethodPost, "/v1/policy", body, &change); err != nil {
			return err
		}
		for node := range c.Nodes {
			for active := ""; active != change.Digest; {
				var status struct {
					Policy string `json:"policy"`
				}
				if err := c.ask(ctx, node, http.MethodGet, "/v1/status", nil, &status); err != nil {
					return err
				}
				if active = status.Policy; active != change.Digest {
					if err := pause(ctx, 2*time.Millisecond); err != nil {
						return err
					}
				}
			}
		}
		took = append(took, milliseconds(time.Since(begun)))
	}
	row := summary(fmt.Sprintf("policy, from apply until %d nodes decide by it", len(c.Nodes)), "ms", took)
	t.Sections = append(t.Sections, Group{Name: "policies", Rows: []Row{row}})
	t.Targets = append(t.Targets, Target{Name: "policy applied and active on all nodes, p99", Unit: "ms", Most: 1000, Got: row.P99})
	return nil
}

// ask sends one request to a node as the cluster's admin.
func (c *cluster) ask(ctx context.Context, node int, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.Nodes[node].HTTP+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.Key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, text)
	}
	return json.Unmarshal(text, into)
}
