package authz_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/authz/mandate"
	"github.com/agenticraft/node/identity"
)

// BenchmarkPaired measures what issue 6 puts figures on, side by side in one loop, so
// that foreign load falls on all alike: a decision with 100 and with 10,000 bindings
// (and a tenth as many tenants) in the policy's data, never asked before and asked
// again; a mandate of depth 4, never seen before and seen again; and one Ed25519
// verification as the measure of the machine.
func BenchmarkPaired(b *testing.B) {
	few, many := policyOfBindings(b, 100), policyOfBindings(b, 10_000)
	chain, holder := chainOfFour(b)
	key, err := identity.Generate()
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 1024)
	signature := key.Sign("bench", message)
	q := authz.Query{
		Principal: agent(), Action: authz.ExecRun, Now: time.Unix(1_800_000_000, 0),
		Execution: &authz.ExecutionFacts{Language: "python", MemoryBytes: 64 << 20, TimeoutMS: 1000, CodeBytes: 1},
		Node:      authz.NodeFacts{ID: "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", Tier: "T2", RunAllowed: true},
	}
	q.Principal.Name, q.Principal.Tenant = "did:key:agent7", "tenant7"
	decide := func(p *authz.Policy, q authz.Query) {
		if d, err := p.Decide(b.Context(), q); err != nil || !d.Allow {
			b.Fatal(d, err)
		}
	}
	fresh := func(i int) authz.Query {
		asked, out := *q.Execution, q
		asked.CodeBytes += 1 + i%(1<<19)
		out.Execution = &asked
		return out
	}
	verify := func(chain string, holder identity.ID) {
		if _, err := mandate.Verify(chain, mandate.Options{Cluster: "agenticraft:bench", Holder: holder}); err != nil {
			b.Fatal(err)
		}
	}
	newChain, newHolder := chainOfFour(b)
	measured := []struct {
		name string
		do   func(i int)
		took []time.Duration
	}{
		{name: "decide-100", do: func(i int) { decide(few, fresh(i)) }},
		{name: "decide-10000", do: func(i int) { decide(many, fresh(i)) }},
		{name: "decide-again", do: func(int) { decide(many, q) }},
		{name: "mandate", do: func(int) { verify(newChain, newHolder) }},
		{name: "mandate-again", do: func(int) { verify(chain, holder) }},
		{name: "ed25519", do: func(int) {
			if !key.ID().Verify("bench", message, signature) {
				b.Fatal("the signature does not hold")
			}
		}},
	}
	for i := 0; b.Loop(); i++ {
		newChain, newHolder = chainOfFour(b)
		for _, j := range rand.Perm(len(measured)) { // whoever comes first finds cold caches
			m := &measured[j]
			began := time.Now()
			m.do(i)
			m.took = append(m.took, time.Since(began))
		}
	}
	p50 := map[string]float64{}
	for _, m := range measured {
		slices.Sort(m.took)
		p50[m.name] = float64(m.took[len(m.took)/2].Nanoseconds())
		b.ReportMetric(p50[m.name]/1000, m.name+"-p50-us")
	}
	b.ReportMetric(p50["decide-10000"]/p50["decide-100"], "growth")
	b.ReportMetric(p50["decide-10000"]/p50["ed25519"], "decide/ed25519")
}

// policyOfBindings is the default policy, with roles bound in its data: n bindings
// of principals, and a tenth as many tenants.
func policyOfBindings(tb testing.TB, n int) *authz.Policy {
	tb.Helper()
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
			tb.Fatal(err)
		}
		modules[name] = string(text)
	}
	modules["decision.rego"] = replaceOnce(tb, modules["decision.rego"], `acting := input.principal.only_role if {
	data.roles.table[input.principal.only_role].actions[input.action]
}`, `acting := data.bindings[input.principal.name].role if {
	data.bindings[input.principal.name].tenant == input.principal.tenant
	data.roles.table[data.bindings[input.principal.name].role].actions[input.action]
}`)
	return newPolicy(tb, authz.Config{Modules: modules})
}

func chainOfFour(tb testing.TB) (text string, holder identity.ID) {
	tb.Helper()
	keys := make([]*identity.Key, 6)
	for i := range keys {
		var err error
		if keys[i], err = identity.Generate(); err != nil {
			tb.Fatal(err)
		}
	}
	text, err := mandate.Grant(keys[0], mandate.Root{Cluster: "agenticraft:bench", Tenant: "acme", To: keys[1].ID(), Terms: mandate.Terms{
		Actions: []string{"exec.run"}, Languages: []string{"python"}, Depth: 4, NotAfter: time.Now().Add(time.Hour),
	}})
	for i := 1; i <= 4 && err == nil; i++ {
		text, err = mandate.Narrow(keys[i], text, keys[i+1].ID(), mandate.Terms{Depth: 4 - i})
	}
	if err != nil {
		tb.Fatal(err)
	}
	return text, keys[5].ID()
}

func replaceOnce(tb testing.TB, text, from, to string) string {
	tb.Helper()
	if strings.Count(text, from) != 1 {
		tb.Fatalf("%q is not in the text once", from)
	}
	return strings.Replace(text, from, to, 1)
}
