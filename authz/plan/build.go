package plan

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// builder turns statements into steps.
type builder struct {
	strings   []*ast.Term
	functions map[string]*function
	builtins  map[string]builtin
	locals    int // of the function that is being built
	faults    []error
}

func (b *builder) fault(format string, args ...any) step {
	b.faults = append(b.faults, fmt.Errorf("%w: "+format, append([]any{ErrPlan}, args...)...))
	return func(m *machine, _ []*ast.Term) signal { return m.fail(ErrPlan) }
}

// uses makes room for a local.
func (b *builder) uses(l ir.Local) ir.Local {
	if l < 0 {
		b.fault("local %d", l)
		return 0
	}
	b.locals = max(b.locals, int(l)+1)
	return l
}

// operand is a local or, if constant is not nil, that.
type operand struct {
	local    ir.Local
	constant *ast.Term
}

func (o operand) in(l []*ast.Term) *ast.Term {
	if o.constant != nil {
		return o.constant
	}
	return l[o.local]
}

func (b *builder) operand(o ir.Operand) operand {
	switch v := o.Value.(type) { // pointers, as they come out of JSON
	case *ir.Local:
		return operand{local: b.uses(*v)}
	case *ir.Bool:
		return operand{constant: ast.InternedTerm(bool(*v))}
	case *ir.StringIndex:
		return operand{constant: b.text(int(*v))}
	}
	b.fault("operand %T", o.Value)
	return operand{}
}

func (b *builder) operands(list []ir.Operand) []operand {
	var out []operand
	for _, o := range list {
		out = append(out, b.operand(o))
	}
	return out
}

func (b *builder) text(index int) *ast.Term {
	if index < 0 || index >= len(b.strings) {
		b.fault("string %d", index)
		return ast.InternedEmptyString
	}
	return b.strings[index]
}

func (b *builder) blocks(list []*ir.Block) []block {
	out := make([]block, 0, len(list))
	for _, one := range list {
		out = append(out, b.block(one))
	}
	return out
}

func (b *builder) block(of *ir.Block) block {
	if of == nil {
		return nil
	}
	out := make(block, 0, len(of.Stmts))
	for _, s := range of.Stmts {
		out = append(out, b.step(s))
	}
	return out
}

func (b *builder) step(s ir.Stmt) step {
	switch s := s.(type) {
	case *ir.NopStmt:
		return func(*machine, []*ast.Term) signal { return next }
	case *ir.ReturnLocalStmt, *ir.BreakStmt, *ir.BlockStmt, *ir.ScanStmt, *ir.NotStmt, *ir.WithStmt, *ir.ResultSetAddStmt:
		return b.control(s)
	case *ir.CallStmt:
		return b.call(s)
	case *ir.CallDynamicStmt:
		return b.callDynamic(s)
	case *ir.DotStmt, *ir.LenStmt, *ir.EqualStmt, *ir.NotEqualStmt, *ir.IsArrayStmt, *ir.IsObjectStmt, *ir.IsSetStmt, *ir.IsDefinedStmt, *ir.IsUndefinedStmt:
		return b.look(s)
	}
	return b.assign(s)
}

// control are the statements that say where a run goes on.
func (b *builder) control(s ir.Stmt) step {
	switch s := s.(type) {
	case *ir.ReturnLocalStmt:
		source := b.uses(s.Source)
		return func(m *machine, l []*ast.Term) signal {
			m.value = l[source]
			return returned
		}
	case *ir.BreakStmt:
		to := signal(s.Index) + 1
		return func(*machine, []*ast.Term) signal { return to }
	case *ir.BlockStmt:
		blocks := b.blocks(s.Blocks)
		return func(m *machine, l []*ast.Term) signal {
			for _, inside := range blocks {
				if to := inside.run(m, l).inner(); to != next {
					return to
				}
			}
			return next
		}
	case *ir.ScanStmt:
		source, key, value, inside := b.uses(s.Source), b.uses(s.Key), b.uses(s.Value), b.block(s.Block)
		return func(m *machine, l []*ast.Term) signal {
			if l[source] == nil {
				return next
			}
			// Leaving the block goes on with the next member; leaving the one around it
			// ends the scan.
			return scan(l[source], func(k, v *ast.Term) signal {
				if m.cancel.Cancelled() {
					return m.fail(errCancelled)
				}
				l[key], l[value] = k, v
				return inside.run(m, l).inner()
			}).inner()
		}
	case *ir.NotStmt:
		inside := b.block(s.Block)
		return func(m *machine, l []*ast.Term) signal {
			switch to := inside.run(m, l); to {
			case next:
				return leave
			default:
				return to.inner()
			}
		}
	case *ir.WithStmt:
		return b.with(s)
	case *ir.ResultSetAddStmt:
		value := b.uses(s.Value)
		return func(m *machine, l []*ast.Term) signal {
			if m.results == 0 || !ast.ValueEqual(m.result, l[value].Value) {
				m.result = l[value].Value
				m.results++
			}
			return next
		}
	}
	return b.fault("statement %T", s)
}

// with replaces a local, or a part of it, for as long as its block runs.
func (b *builder) with(s *ir.WithStmt) step {
	local, value, inside := b.uses(s.Local), b.operand(s.Value), b.block(s.Block)
	var path []*ast.Term
	for _, index := range s.Path {
		path = append(path, b.text(index))
	}
	return func(m *machine, l []*ast.Term) signal {
		before, memo := l[local], m.memo
		m.memo = make([]answer, len(memo))
		l[local] = upsert(before, path, value.in(l))
		to := inside.run(m, l)
		l[local], m.memo = before, memo
		if to == next || to < 0 {
			return to
		}
		return max(to.inner(), leave)
	}
}
