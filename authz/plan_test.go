package authz_test

import (
	"maps"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"pgregory.net/rapid"

	"github.com/agenticraft/node/authz"
)

// The plan of the default policy has an answer to every golden question and to
// any made of their parts, and it is the one that OPA searches: of the decision
// and of its reasons.
func TestTheDefaultPolicysPlanAnswersAsOPADoes(t *testing.T) {
	p := newPolicy(t, authz.Config{})
	same := func(q authz.Query) bool {
		plan, search := authz.PlanAndSearch(t, p, q)
		for i := range plan {
			if plan[i] == nil || search[i] == nil || ast.Compare(plan[i], search[i]) != 0 {
				t.Logf("%+v: the plan says %v, OPA %v", q, plan[i], search[i])
				return false
			}
		}
		return true
	}
	var queries []authz.Query
	for _, r := range goldenRows(t) {
		q := query(t, r)
		if !same(q) {
			t.Errorf("%s: the plan and OPA differ", r.Name)
		}
		queries = append(queries, q)
	}
	rapid.Check(t, func(rt *rapid.T) {
		one := rapid.SampledFrom(queries)
		q, who, what := one.Draw(rt, "of"), one.Draw(rt, "who"), one.Draw(rt, "what")
		q.Principal, q.Execution, q.Ceiling = who.Principal, what.Execution, what.Ceiling
		q.Node, q.Suspended, q.Vouched = one.Draw(rt, "node").Node, rapid.Bool().Draw(rt, "suspended"), rapid.Bool().Draw(rt, "vouched")
		if !same(q) {
			rt.Fatal("the plan and OPA differ")
		}
	})
}

// Where the plan meets what OPA's search need not look at, the answer is OPA's.
func TestWhatThePlanDoesNotAnswerOPADoes(t *testing.T) {
	modules := maps.Clone(authz.DefaultModules())
	modules["odd.rego"] = `package agenticraft.authz

import rego.v1

decision := {"allow": true} if {
	to_number(input.tenant) == 1
	input.action == "no.such"
}
`
	p := newPolicy(t, authz.Config{Modules: modules})
	d, err := p.Decide(t.Context(), authz.Query{Principal: agent("viewer"), Action: authz.StatusRead})
	if err != nil || !d.Allow {
		t.Errorf("Decide = %+v, %v", d, err)
	}
}
