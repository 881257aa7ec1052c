package plan

import (
	"encoding/json"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// look are the statements that are undefined unless something holds.
func (b *builder) look(s ir.Stmt) step {
	holds := func(ok bool) signal {
		if ok {
			return next
		}
		return leave
	}
	switch s := s.(type) {
	case *ir.DotStmt:
		source, key, target := b.operand(s.Source), b.operand(s.Key), b.uses(s.Target)
		return func(m *machine, l []*ast.Term) signal {
			from := source.in(l)
			if from == nil {
				return leave
			}
			found, err := at(from, key.in(l))
			if err != nil {
				return m.fail(err)
			}
			l[target] = found
			return holds(found != nil)
		}
	case *ir.LenStmt:
		source, target := b.operand(s.Source), b.uses(s.Target)
		return func(_ *machine, l []*ast.Term) signal {
			l[target] = ast.InternedTerm(length(source.in(l).Value))
			return next
		}
	case *ir.EqualStmt:
		x, y := b.operand(s.A), b.operand(s.B)
		return func(_ *machine, l []*ast.Term) signal { return holds(equal(x.in(l), y.in(l))) }
	case *ir.NotEqualStmt:
		x, y := b.operand(s.A), b.operand(s.B)
		return func(_ *machine, l []*ast.Term) signal { return holds(!equal(x.in(l), y.in(l))) }
	case *ir.IsArrayStmt:
		source := b.operand(s.Source)
		return func(_ *machine, l []*ast.Term) signal { return holds(is[*ast.Array](source.in(l))) }
	case *ir.IsObjectStmt:
		source := b.operand(s.Source)
		return func(_ *machine, l []*ast.Term) signal { return holds(is[ast.Object](source.in(l))) }
	case *ir.IsSetStmt:
		source := b.operand(s.Source)
		return func(_ *machine, l []*ast.Term) signal { return holds(is[ast.Set](source.in(l))) }
	case *ir.IsDefinedStmt:
		source := b.uses(s.Source)
		return func(_ *machine, l []*ast.Term) signal { return holds(l[source] != nil) }
	case *ir.IsUndefinedStmt:
		source := b.uses(s.Source)
		return func(_ *machine, l []*ast.Term) signal { return holds(l[source] == nil) }
	}
	return b.fault("statement %T", s)
}

func is[V ast.Value](t *ast.Term) bool {
	if t == nil {
		return false
	}
	_, ok := t.Value.(V)
	return ok
}

func equal(x, y *ast.Term) bool {
	if x == nil || y == nil {
		return x == y
	}
	return x == y || ast.ValueEqual(x.Value, y.Value)
}

// assign are the statements that make values.
func (b *builder) assign(s ir.Stmt) step {
	put := func(target ir.Local, value func(l []*ast.Term) *ast.Term) step {
		target = b.uses(target)
		return func(_ *machine, l []*ast.Term) signal {
			l[target] = value(l)
			return next
		}
	}
	always := func(target ir.Local, value *ast.Term) step {
		return put(target, func([]*ast.Term) *ast.Term { return value })
	}
	switch s := s.(type) {
	case *ir.AssignVarStmt:
		return put(s.Target, b.operand(s.Source).in)
	case *ir.AssignVarOnceStmt:
		source, target := b.operand(s.Source), b.uses(s.Target)
		return func(m *machine, l []*ast.Term) signal {
			if value := source.in(l); l[target] == nil {
				l[target] = value
			} else if !equal(l[target], value) {
				return m.fail(errConflict)
			}
			return next
		}
	case *ir.AssignIntStmt:
		return always(s.Target, number(s.Value))
	case *ir.ResetLocalStmt:
		return always(s.Target, nil)
	case *ir.MakeNullStmt:
		return always(s.Target, ast.InternedNullTerm)
	case *ir.MakeNumberIntStmt:
		return always(s.Target, number(s.Value))
	case *ir.MakeNumberRefStmt:
		digits, _ := b.text(s.Index).Value.(ast.String)
		return always(s.Target, ast.NumberTerm(json.Number(digits)))
	case *ir.MakeArrayStmt:
		return put(s.Target, func([]*ast.Term) *ast.Term { return ast.ArrayTerm() })
	case *ir.MakeObjectStmt:
		return put(s.Target, func([]*ast.Term) *ast.Term { return ast.ObjectTerm() })
	case *ir.MakeSetStmt:
		return put(s.Target, func([]*ast.Term) *ast.Term { return ast.SetTerm() })
	}
	return b.grow(s)
}

func number(n int64) *ast.Term { return ast.InternedTerm(n) }

// grow are the statements that add to collections, which a plan has made itself.
func (b *builder) grow(s ir.Stmt) step {
	switch s := s.(type) {
	case *ir.ArrayAppendStmt:
		array, value := b.uses(s.Array), b.operand(s.Value)
		return func(m *machine, l []*ast.Term) signal {
			list, ok := l[array].Value.(*ast.Array)
			if !ok {
				return m.fail(errConflict)
			}
			l[array] = ast.NewTerm(list.Append(value.in(l)))
			return next
		}
	case *ir.ObjectInsertStmt:
		object, key, value := b.uses(s.Object), b.operand(s.Key), b.operand(s.Value)
		return func(m *machine, l []*ast.Term) signal {
			held, ok := l[object].Value.(ast.Object)
			if !ok {
				return m.fail(errConflict)
			}
			held.Insert(key.in(l), value.in(l))
			return next
		}
	case *ir.ObjectInsertOnceStmt:
		object, key, value := b.uses(s.Object), b.operand(s.Key), b.operand(s.Value)
		return func(m *machine, l []*ast.Term) signal {
			held, ok := l[object].Value.(ast.Object)
			if !ok {
				return m.fail(errConflict)
			}
			if old := held.Get(key.in(l)); old == nil {
				held.Insert(key.in(l), value.in(l))
			} else if !equal(old, value.in(l)) {
				return m.fail(errConflict)
			}
			return next
		}
	case *ir.ObjectMergeStmt:
		x, y, target := b.uses(s.A), b.uses(s.B), b.uses(s.Target)
		return func(m *machine, l []*ast.Term) signal {
			of, ok := l[x].Value.(ast.Object)
			with, also := l[y].Value.(ast.Object)
			if !ok || !also {
				return m.fail(errConflict)
			}
			merged, ok := of.Merge(with)
			if !ok {
				return m.fail(errConflict)
			}
			l[target] = ast.NewTerm(merged)
			return next
		}
	case *ir.SetAddStmt:
		set, value := b.uses(s.Set), b.operand(s.Value)
		return func(m *machine, l []*ast.Term) signal {
			held, ok := l[set].Value.(ast.Set)
			if !ok {
				return m.fail(errConflict)
			}
			held.Add(value.in(l))
			return next
		}
	}
	return b.fault("statement %T", s)
}
