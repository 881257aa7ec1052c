package plan

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// step does one statement on the locals of its frame.
type step func(m *machine, l []*ast.Term) signal

// signal says where a run goes on: with the next statement, or behind the end of
// the n-th block around it, counted from 1. A statement that is undefined goes
// behind the end of the block that it stands in.
type signal int

const (
	failed   signal = -2 // machine.err says how
	returned signal = -1 // from the function, with machine.value
	next     signal = 0
	leave    signal = 1
)

func (b block) run(m *machine, l []*ast.Term) signal {
	for _, s := range b {
		if to := s(m, l); to != next {
			return to
		}
	}
	return next
}

// inner is a signal of a nested block as the block around it sees it.
func (s signal) inner() signal {
	if s > 0 {
		return s - 1
	}
	return s
}

// machine is one evaluation.
type machine struct {
	ctx     context.Context
	cancel  topdown.Cancel
	memo    []answer // of functions that are pure, by index
	free    []*ast.Term
	value   *ast.Term // that a function returned; nil: it is undefined
	result  ast.Value // of the plan
	results int
	err     error
	context *topdown.BuiltinContext // made when it is first needed
}

// answer is what a pure function has returned.
type answer struct {
	known bool
	value *ast.Term
}

var (
	errCancelled = errors.New("evaluation was cancelled")
	errConflict  = errors.New("rules give more than one value")
	// In a path into the data OPA takes a number for its digits and the other way
	// round, and nowhere else; a plan does not say which it is.
	errPath = errors.New("a number where there are names, or digits where there are numbers")
)

func (m *machine) fail(err error) signal {
	m.err = err
	return failed
}

const frames = 512 // locals, beyond which more memory is fetched

// frame is room for n locals, all undefined.
func (m *machine) frame(n int) []*ast.Term {
	if len(m.free) < n {
		m.free = make([]*ast.Term, max(n, frames))
	}
	l := m.free[:n:n]
	m.free = m.free[n:]
	clear(l)
	return l
}

// call runs a function. Its value is nil if it is undefined.
func (m *machine) call(f *function, args []*ast.Term) (*ast.Term, signal) {
	if f.pure && m.memo[f.index].known {
		return m.memo[f.index].value, next
	}
	if m.cancel.Cancelled() {
		return nil, m.fail(errCancelled)
	}
	before := m.free
	l := m.frame(f.locals)
	for i, param := range f.params {
		l[param] = args[i]
	}
	var value *ast.Term
	for _, b := range f.blocks {
		s := b.run(m, l)
		if s == failed {
			return nil, failed
		}
		if s == returned {
			if value = m.value; f.nested && value != nil {
				value = ast.NewTerm(renewed(value.Value))
			}
			break
		}
	}
	m.free = before
	if f.pure {
		m.memo[f.index] = answer{true, value}
	}
	return value, next
}

// builtin is one of OPA's functions.
type builtin struct {
	call     topdown.BuiltinFunc
	void     bool
	relation bool // has any number of values, which it returns as an array
}

// invoke calls a function of OPA's. The value is nil if it is undefined.
func (m *machine) invoke(name string, b builtin, args []*ast.Term) (*ast.Term, signal) {
	if m.context == nil {
		m.context = &topdown.BuiltinContext{
			Context: m.ctx, Metrics: metrics.NoOp(), Cancel: m.cancel, Cache: builtins.Cache{}, Time: ast.IntNumberTerm(int(time.Now().UnixNano())),
		}
	}
	var value *ast.Term
	var values []*ast.Term
	err := b.call(*m.context, args, func(v *ast.Term) error {
		if value = v; b.relation {
			values = append(values, v)
		}
		return nil
	})
	if err != nil {
		return nil, m.fail(fmt.Errorf("%s: %w", name, err))
	}
	if b.relation {
		value = ast.ArrayTerm(values...)
	}
	return value, next
}

// at is what a value has at a key; nil: nothing.
func at(source, key *ast.Term) (*ast.Term, error) {
	switch v := source.Value.(type) {
	case ast.Object:
		found := v.Get(key)
		if number, ok := key.Value.(ast.Number); ok && found == nil && v.Get(ast.StringTerm(number.String())) != nil {
			return nil, errPath
		}
		return found, nil
	case *ast.Array:
		if text, ok := key.Value.(ast.String); ok {
			if i, err := strconv.Atoi(string(text)); err == nil && i >= 0 && i < v.Len() {
				return nil, errPath
			}
		}
		return v.Get(key), nil
	case ast.Set:
		if v.Contains(key) {
			return key, nil
		}
	}
	return nil, nil
}

// scan visits the members of a collection until visit says something else than
// next; other values have none.
func scan(source *ast.Term, visit func(key, value *ast.Term) signal) (to signal) {
	switch v := source.Value.(type) {
	case *ast.Array:
		for i := range v.Len() {
			if to = visit(ast.InternedTerm(i), v.Elem(i)); to != next {
				return to
			}
		}
	case ast.Object:
		v.Until(func(key, value *ast.Term) bool {
			to = visit(key, value)
			return to != next
		})
	case ast.Set:
		v.Until(func(member *ast.Term) bool {
			to = visit(member, member)
			return to != next
		})
	}
	return to
}

func length(v ast.Value) int {
	switch v := v.(type) {
	case *ast.Array:
		return v.Len()
	case ast.Object:
		return v.Len()
	case ast.Set:
		return v.Len()
	}
	return 0
}

// upsert is an object with a value at a path, through objects that are made where
// there are none. What was there stays as it is.
func upsert(at *ast.Term, path []*ast.Term, value *ast.Term) *ast.Term {
	if len(path) == 0 {
		return value
	}
	out := ast.NewObject()
	var below *ast.Term
	if at != nil {
		if object, ok := at.Value.(ast.Object); ok {
			object.Foreach(func(key, held *ast.Term) { out.Insert(key, held) })
			below = object.Get(path[0])
		}
	}
	out.Insert(path[0], upsert(below, path[1:], value))
	return ast.NewTerm(out)
}

// renewed is the same value made anew, so that its hash is that of what it holds.
func renewed(v ast.Value) ast.Value {
	switch v := v.(type) {
	case ast.Object:
		out := ast.NewObject()
		v.Foreach(func(key, value *ast.Term) { out.Insert(key, ast.NewTerm(renewed(value.Value))) })
		return out
	case ast.Set:
		return ast.NewSet(v.Slice()...)
	}
	return v
}
