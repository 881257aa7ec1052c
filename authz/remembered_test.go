package authz_test

import (
	"slices"
	"testing"
	"time"

	"github.com/agenticraft/node/authz"
)

// A decision that was made before is given again only while nothing that policy
// can see is another.
func TestRememberedDecisionsAreThoseOfTheSameFacts(t *testing.T) {
	p := newPolicy(t, authz.Config{})
	ask := func(what string, allow bool, change func(*authz.Query)) authz.Decision {
		t.Helper()
		q := authz.Query{
			Principal: agent("runner"), Action: authz.ExecRun, Now: time.Unix(1_800_000_000, 0),
			Execution: &authz.ExecutionFacts{Language: "python", CodeBytes: 1, Require: []string{"memory_bytes"}},
		}
		change(&q)
		var first authz.Decision
		var codes []string
		for i := range 2 {
			d, err := p.Decide(t.Context(), q)
			if err != nil || d.Allow != allow || d.Policy != p.Digest() {
				t.Fatalf("%s, time %d: %+v, %v; want allow %v", what, i+1, d, err, allow)
			}
			if i == 0 {
				first, codes = d, d.Codes()
			} else if d.Input != first.Input || !slices.Equal(d.Codes(), codes) {
				t.Errorf("%s: another answer: %+v, %+v", what, first, d)
			}
			// What a caller does with an answer changes no later one.
			if len(d.Obligations.Required) > 0 {
				d.Obligations.Required[0] = "forged"
			}
			if len(d.Reasons) > 0 {
				d.Reasons[0].Code = "forged"
			}
		}
		return first
	}
	same := ask("as it is", true, func(*authz.Query) {})
	if later := ask("later", true, func(q *authz.Query) { q.Now = q.Now.Add(time.Second) }); later.Input == same.Input {
		t.Error("the digest of the facts does not hold the time")
	}
	ask("other role", false, func(q *authz.Query) { q.Principal.Roles = []string{"viewer"} })
	ask("no role", false, func(q *authz.Query) { q.Principal.Roles = nil })
	ask("suspended", false, func(q *authz.Query) { q.Suspended = true })
	ask("other tenant", false, func(q *authz.Query) { q.Tenant = "globex" })
	ask("other language", false, func(q *authz.Query) { q.Execution.Language = "cobol" })
	ask("a ceiling", false, func(q *authz.Query) { q.Ceiling.Languages = []string{"starlark"} })
	ask("a scope", false, func(q *authz.Query) { q.Principal.Scopes = []string{"task.*"} })
	ask("a node without runs", false, func(q *authz.Query) { q.Node.ID = "n1" })
	ask("as it was", true, func(*authz.Query) {})

	shut := authz.DefaultModules()
	shut["roles.json"] = `{"precedence": [], "table": {}}`
	if err := p.Replace(t.Context(), shut); err != nil {
		t.Fatal(err)
	}
	ask("another policy", false, func(*authz.Query) {})
}

// However a rule gets at the time, the time counts.
func TestRememberedDecisionsEndWithTheirTime(t *testing.T) {
	for name, rule := range map[string]string{
		"by name":       "now if input.now < 1800000100",
		"by a variable": "now if {\n\tfact := \"now\"\n\tinput[fact] < 1800000100\n}",
		"by search":     "now if {\n\tsome fact, value in input\n\tfact == \"now\"\n\tvalue < 1800000100\n}",
		"by a copy":     "now if {\n\tall := input\n\tall.now < 1800000100\n}",
		"by object.get": "now if object.get(input, \"now\", 1800000100) < 1800000100",
		"by a function": "early(of) if of.now < 1800000100\n\nnow if early(input)",
		"in a list":     "now if [1, input][1].now < 1800000100",
		"by another":    "now if data.agenticraft.authz.ticks < 1800000100\n\nticks := input.now",
		"by an index":   "now if {\"a\": \"b\"}[input.labels[input.now]]\n\nnow if input.now < 1800000100",
	} {
		t.Run(name, func(t *testing.T) {
			modules := authz.DefaultModules()
			modules["hours.rego"] = "package agenticraft.authz\n\nimport rego.v1\n\ndecision := {\"allow\": true} if {\n\tinput.action == \"status.read\"\n\tinput.principal.name == \"guest\"\n\tnow\n}\n\n" + rule + "\n"
			p := newPolicy(t, authz.Config{Modules: modules})
			q := authz.Query{Principal: agent("none"), Action: authz.StatusRead, Now: time.Unix(1_800_000_000, 0)}
			q.Principal.Name = "guest"
			for range 2 {
				if d, err := p.Decide(t.Context(), q); err != nil || !d.Allow {
					t.Fatalf("in time: %+v, %v", d, err)
				}
			}
			q.Now = time.Unix(1_800_000_100, 0)
			if d, err := p.Decide(t.Context(), q); err != nil || d.Allow {
				t.Errorf("afterwards: %+v, %v", d, err)
			}
		})
	}
}
