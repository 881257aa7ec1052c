package plan

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// call calls a rule, a function of the policy, or one of OPA's.
func (b *builder) call(s *ir.CallStmt) step {
	args, result := b.operands(s.Args), b.uses(s.Result)
	if f, ok := b.functions[s.Func]; ok {
		if len(args) != len(f.params) {
			return b.fault("%s with %d arguments", s.Func, len(args))
		}
		return func(m *machine, l []*ast.Term) signal {
			if f.pure && m.memo[f.index].known {
				l[result] = m.memo[f.index].value
			} else {
				var to signal
				if l[result], to = m.call(f, values(args, l)); to != next {
					return to
				}
			}
			if l[result] == nil {
				return leave
			}
			return next
		}
	}
	f, ok := b.builtins[s.Func]
	if !ok {
		return b.fault("function %s", s.Func)
	}
	if compare, ok := comparisons[s.Func]; ok && len(args) == 2 {
		return func(_ *machine, l []*ast.Term) signal {
			l[result] = ast.InternedTerm(compare(ast.Compare(args[0].in(l).Value, args[1].in(l).Value)))
			return next
		}
	}
	return func(m *machine, l []*ast.Term) signal {
		value, to := m.invoke(s.Func, f, values(args, l))
		if to != next || f.void {
			return to
		}
		if l[result] = value; value == nil {
			return leave
		}
		return next
	}
}

// comparisons are what OPA's functions of these names say of an order.
var comparisons = map[string]func(order int) bool{
	ast.LessThan.Name:      func(order int) bool { return order < 0 },
	ast.LessThanEq.Name:    func(order int) bool { return order <= 0 },
	ast.GreaterThan.Name:   func(order int) bool { return order > 0 },
	ast.GreaterThanEq.Name: func(order int) bool { return order >= 0 },
	ast.Equal.Name:         func(order int) bool { return order == 0 },
	ast.NotEqual.Name:      func(order int) bool { return order != 0 },
}

func values(of []operand, l []*ast.Term) []*ast.Term {
	out := make([]*ast.Term, len(of))
	for i, o := range of {
		out[i] = o.in(l)
	}
	return out
}

// callDynamic calls the rule that a path names, if there is one.
func (b *builder) callDynamic(s *ir.CallDynamicStmt) step {
	path, result := b.operands(s.Path), b.uses(s.Result)
	args := make([]operand, len(s.Args))
	for i, l := range s.Args {
		args[i] = operand{local: b.uses(l)}
	}
	var known []*function
	for _, f := range b.functions {
		if len(f.path) == len(path) && len(f.params) == len(args) {
			known = append(known, f)
		}
	}
	return func(m *machine, l []*ast.Term) signal {
		i := slices.IndexFunc(known, func(f *function) bool {
			for i, o := range path {
				if key, ok := o.in(l).Value.(ast.String); !ok || string(key) != f.path[i] {
					return false
				}
			}
			return true
		})
		if i < 0 {
			return leave
		}
		var to signal
		if l[result], to = m.call(known[i], values(args, l)); to != next {
			return to
		}
		// A rule that is undefined leaves the blocks that would look into the data.
		if l[result] == nil {
			return leave + 3
		}
		return next
	}
}
