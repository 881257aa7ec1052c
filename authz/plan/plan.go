// Package plan evaluates Rego by the plans that OPA makes of it.
//
// OPA compiles a policy into an intermediate representation (its "plan" target,
// https://www.openpolicyagent.org/docs/ir): functions of blocks of simple
// statements, with rules looked up and unification undone beforehand. [Compile]
// turns such a plan into Go closures over a frame of locals, and [Program.Eval]
// runs them, which takes a small part of what OPA's own search takes. Values and
// built-in functions are OPA's.
//
// An error of Eval says that the plan has no answer, never that the policy has
// none: a plan looks at every rule, OPA's search stops where the rest cannot
// matter, so that it may answer where the plan meets a conflict or a failing
// built-in function. Whoever asks then has to ask OPA's search.
package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// ErrPlan is returned for modules of which OPA makes no plan, or one that this
// package does not know how to run.
var ErrPlan = errors.New("no plan")

// Program is a plan that can be run. It does not change and may be used
// concurrently.
type Program struct {
	blocks    []block // of the plan itself
	locals    int
	functions []*function
}

// function is one rule's plan, or one user-defined function's.
type function struct {
	name   string
	path   []string // by which it is called dynamically; nil: it is not
	index  int
	params []ir.Local
	locals int
	blocks []block
	// pure are rules, whose only arguments are the input and the data: one answer
	// serves the whole evaluation.
	pure bool
	// nested says that it returns an object whose members it changes after they
	// were put in, so that OPA's hashes of what is around them are out of date.
	nested bool
}

type block []step

// Compile plans the rule at a path such as "agenticraft/authz/decision".
func Compile(ctx context.Context, modules map[string]*ast.Module, caps *ast.Capabilities, rule string) (p *Program, err error) {
	defer recovered(&err)
	b := &bundle.Bundle{Data: map[string]any{}}
	for name, module := range modules {
		b.Modules = append(b.Modules, bundle.ModuleFile{URL: name, Path: name, Parsed: module})
	}
	c := compile.New().WithBundle(b).WithCapabilities(caps).WithTarget(compile.TargetPlan).WithPruneUnused(true).
		WithRegoVersion(ast.RegoV1).WithEntrypoints(rule)
	if err := c.Build(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	var policy ir.Policy
	if err := json.Unmarshal(c.Bundle().PlanModules[0].Raw, &policy); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	return New(&policy)
}

// New makes a program of the first plan of a policy.
func New(policy *ir.Policy) (*Program, error) {
	if policy.Plans == nil || len(policy.Plans.Plans) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrPlan)
	}
	b := builder{functions: map[string]*function{}, builtins: map[string]builtin{}}
	if policy.Static != nil {
		for _, s := range policy.Static.Strings {
			b.strings = append(b.strings, ast.StringTerm(s.Value))
		}
		for _, f := range policy.Static.BuiltinFuncs {
			call, known := topdown.GetBuiltin(f.Name), ast.BuiltinMap[f.Name]
			if call != nil && known != nil && !known.IsNondeterministic() {
				b.builtins[f.Name] = builtin{call: call, void: f.Decl.Result() == nil, relation: known.Relation}
			}
		}
	}
	p := &Program{}
	if policy.Funcs != nil {
		for _, f := range policy.Funcs.Funcs {
			fn := &function{name: f.Name, path: f.Path, index: len(p.functions), params: f.Params, pure: len(f.Params) == 2}
			b.functions[f.Name] = fn
			p.functions = append(p.functions, fn)
		}
		for i, f := range policy.Funcs.Funcs {
			b.locals = 0
			b.uses(f.Return)
			for _, l := range f.Params {
				b.uses(l)
			}
			p.functions[i].blocks = b.blocks(f.Blocks)
			p.functions[i].locals = b.locals
			p.functions[i].nested = makesObject(f)
		}
	}
	b.locals = int(ir.Unused)
	p.blocks = b.blocks(policy.Plans.Plans[0].Blocks)
	p.locals = b.locals
	return p, errors.Join(b.faults...)
}

// makesObject reports whether a function builds an object bit by bit.
func makesObject(f *ir.Func) bool {
	if len(f.Blocks) == 0 || len(f.Blocks[0].Stmts) == 0 {
		return false
	}
	first, ok := f.Blocks[0].Stmts[0].(*ir.MakeObjectStmt)
	return ok && first.Target == f.Return
}

// Eval is the value of the planned rule; nil if it is undefined. Cancel ends it.
func (p *Program) Eval(ctx context.Context, cancel topdown.Cancel, input, data ast.Value) (v ast.Value, err error) {
	defer recovered(&err)
	room := rooms.Get().(*[]*ast.Term)
	defer rooms.Put(room)
	m := machine{ctx: ctx, cancel: cancel, memo: make([]answer, len(p.functions)), free: *room}
	l := m.frame(p.locals)
	l[ir.Input], l[ir.Data] = ast.NewTerm(input), ast.NewTerm(data)
	for _, b := range p.blocks {
		switch b.run(&m, l) {
		case failed:
			return nil, m.err
		case returned:
			return nil, fmt.Errorf("%w: a plan returns", ErrPlan)
		}
	}
	if m.results > 1 {
		return nil, fmt.Errorf("%w: more than one answer", ErrPlan)
	}
	object, ok := m.result.(ast.Object)
	if !ok {
		return nil, nil
	}
	if found := object.Get(resultKey); found != nil {
		return found.Value, nil
	}
	return nil, nil
}

// recovered makes an error of a panic. OPA's planner has some for what it takes to
// be impossible, and a policy is text from outside: it ends no node.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: panic: %v", ErrPlan, r)
	}
}

var resultKey = ast.StringTerm("result")

// rooms are locals for evaluations to begin with.
var rooms = sync.Pool{New: func() any {
	room := make([]*ast.Term, frames)
	return &room
}}
