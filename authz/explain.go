package authz

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/agenticraft/node/authz/destination"
)

// Explanation is why a question gets its answer.
type Explanation struct {
	Allow       bool         `json:"allow"`
	Reasons     []Reason     `json:"reasons"`
	Obligations *Obligations `json:"obligations,omitempty"`
	Policy      string       `json:"policy"`
	Input       any          `json:"input"` // the facts that the policy saw
	// Rules are the values of the rules that decide, by package: what is not
	// there did not hold.
	Rules map[string]any `json:"rules"`
	// WouldAllow are the smallest changes after which it would be allowed, each a
	// list of changes that are needed together.
	WouldAllow [][]string `json:"would_allow"`
}

// explained are the packages whose rules an explanation shows.
var explained = map[string]string{"authz": "data.agenticraft.authz", "execution": "data.agenticraft.execution"}

const maxWays = 8

// Explain decides and says which facts and rules made the answer and, of a
// denial, what would have been allowed. It changes nothing and writes nothing.
func (p *Policy) Explain(ctx context.Context, q Query) (Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*p.timeout)
	defer cancel()
	f := p.active.Load()
	b := f.base
	d, err := f.ask(ctx, q, p.log)
	if err != nil {
		return Explanation{}, fmt.Errorf("explain %s: %w", q.Action, err)
	}
	in := newInput(q)
	e := Explanation{Allow: d.Allow, Reasons: slices.Concat([]Reason{}, d.Reasons), Policy: d.Policy, Input: in, Rules: map[string]any{}, WouldAllow: [][]string{}}
	if d.Allow && q.Action == ExecRun {
		e.Obligations = &d.Obligations
	}
	for name, path := range explained {
		result, err := rego.New(rego.Query(path), rego.Compiler(b.compiler), rego.Store(b.store), rego.Capabilities(capabilities()),
			rego.ParsedInput(in.value())).Eval(ctx)
		if err != nil {
			return Explanation{}, fmt.Errorf("explain %s: %w", q.Action, err)
		}
		if len(result) == 1 && len(result[0].Expressions) == 1 {
			e.Rules[name] = result[0].Expressions[0].Value
		}
	}
	if !d.Allow {
		e.WouldAllow, err = f.ways(ctx, q, p.log)
	}
	return e, err
}

// change is one fact that could be another.
type change struct {
	name string
	to   func(*Query)
}

// ways looks for the fewest changes after which the answer is yes: one, else two,
// else three.
func (f *inForce) ways(ctx context.Context, q Query, log *slog.Logger) ([][]string, error) {
	changes := f.changes(q)
	found := [][]string{}
	var look func(from, left int, q Query, made []string) error
	look = func(from, left int, q Query, made []string) error {
		for i := from; i < len(changes) && len(found) < maxWays; i++ {
			changed := copied(q)
			changes[i].to(&changed)
			names := append(slices.Clone(made), changes[i].name)
			if left > 1 {
				if err := look(i+1, left-1, changed, names); err != nil {
					return err
				}
				continue
			}
			d, err := f.ask(ctx, changed, log)
			if err != nil {
				return err
			}
			if d.Allow {
				found = append(found, names)
			}
		}
		return nil
	}
	for many := 1; many <= 3 && len(found) == 0; many++ {
		if err := look(0, many, q, nil); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// changes are the facts that can be changed, and to what.
func (f *inForce) changes(q Query) []change {
	var out []change
	for _, role := range f.roles {
		if !slices.Contains(q.Principal.Roles, role) {
			out = append(out, change{"grant role " + role, func(q *Query) { q.Principal.Roles = append(q.Principal.Roles, role) }})
		}
	}
	if q.Tenant != "" && q.Tenant != q.Principal.Tenant {
		out = append(out, change{"ask in the own tenant " + q.Principal.Tenant, func(q *Query) { q.Tenant = "" }})
	}
	if q.Suspended {
		out = append(out, change{"resume the tenant", func(q *Query) { q.Suspended = false }})
	}
	if len(q.Principal.Scopes) > 0 {
		out = append(out, change{"a key whose scopes include " + q.Action, func(q *Query) { q.Principal.Scopes = nil }})
	}
	if q.Vouched {
		out = append(out, change{"sign with an agent's key", func(q *Query) { q.Vouched = false }})
	}
	if !q.Node.RunAllowed && q.Node.ID != "" {
		out = append(out, change{"another node", func(q *Query) { q.Node = NodeFacts{} }})
	}
	e := q.Execution
	if e == nil {
		return out
	}
	for _, language := range []string{"python", "starlark", "javascript", "sh", "wasm"} {
		if e.Language != language {
			out = append(out, change{"language " + language, func(q *Query) { q.Execution.Language = language }})
		}
	}
	if e.Sandbox != "" && e.Sandbox != "auto" {
		out = append(out, change{"sandbox auto", func(q *Query) { q.Execution.Sandbox = "" }})
	}
	if e.Network != "" && e.Network != destination.None {
		out = append(out, change{"network none", func(q *Query) { q.Execution.Network = "" }})
		if destinations, err := destination.Parse(e.Network); err == nil && len(destination.Covered(destinations, q.Ceiling.Network)) < len(destinations) {
			out = append(out, change{"a tenant's ceiling with network " + strings.Join(destinations, ","), func(q *Query) { q.Ceiling.Network = destinations }})
		}
	}
	if e.DataClass != "" && e.DataClass != unclassified {
		out = append(out, change{"no data class", func(q *Query) { q.Execution.DataClass = "" }})
	}
	bounds := q.Ceiling
	bounds.Network = nil
	if !bounds.isZero() {
		out = append(out, change{"a higher ceiling of the tenant", func(q *Query) { q.Ceiling = Ceiling{Network: q.Ceiling.Network} }})
	}
	for _, limit := range []struct {
		name string
		zero func(*ExecutionFacts) bool
	}{
		{"memory_bytes", func(e *ExecutionFacts) bool { old := e.MemoryBytes; e.MemoryBytes = 0; return old != 0 }},
		{"timeout_ms", func(e *ExecutionFacts) bool { old := e.TimeoutMS; e.TimeoutMS = 0; return old != 0 }},
		{"cpu_percent", func(e *ExecutionFacts) bool { old := e.CPUPercent; e.CPUPercent = 0; return old != 0 }},
		{"output_bytes", func(e *ExecutionFacts) bool { old := e.OutputBytes; e.OutputBytes = 0; return old != 0 }},
		{"file_size_bytes", func(e *ExecutionFacts) bool { old := e.FileSizeBytes; e.FileSizeBytes = 0; return old != 0 }},
		{"processes", func(e *ExecutionFacts) bool { old := e.Processes; e.Processes = 0; return old != 0 }},
	} {
		trial := *e
		if limit.zero(&trial) {
			out = append(out, change{"no " + limit.name + ", or less", func(q *Query) { limit.zero(q.Execution) }})
		}
	}
	return out
}

// copied is a query whose changes leave the original as it is.
func copied(q Query) Query {
	q.Principal.Roles = slices.Clone(q.Principal.Roles)
	q.Principal.Labels = maps.Clone(q.Principal.Labels)
	if q.Execution != nil {
		e := *q.Execution
		q.Execution = &e
	}
	return q
}
