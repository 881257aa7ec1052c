package authz

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// document is a policy's whole data, which OPA asks before it reads its store:
// it never changes, so no evaluation need read any of it again.
type document struct{ root ast.Value }

func readDocument(ctx context.Context, store storage.Store, txn storage.Transaction) (document, error) {
	root, err := store.Read(ctx, txn, storage.Path{})
	if err != nil {
		return document{}, err
	}
	value, ok := root.(ast.Value)
	if !ok {
		return document{}, fmt.Errorf("internal error: the store holds a %T", root)
	}
	return document{value}, nil
}

// Get is the data at a ref; nil lets OPA look into its store, which says what a
// ref means that is not there.
func (d document) Get(ref ast.Ref) ast.Value {
	if len(ref) < 2 || !ref[0].Equal(ast.DefaultRootDocument) {
		return nil
	}
	value, err := d.root.Find(ref[1:])
	if err != nil {
		return nil
	}
	return value
}

// Put forgets: everything is there already.
func (document) Put(ast.Ref, ast.Value) {}

// evaluate returns the value of a rule, nil if it is undefined: by its plan or,
// where that has no answer, as OPA searches for one.
func (b *bundle) evaluate(ctx context.Context, asked prepared, value ast.Value) (ast.Value, error) {
	// Without a cancel of ours OPA starts a goroutine for each evaluation.
	cancel := topdown.NewCancel()
	defer context.AfterFunc(ctx, cancel.Cancel)()
	if asked.plan != nil {
		if result, err := asked.plan.Eval(ctx, cancel, value, b.document.root); err == nil {
			return result, nil
		}
	}
	results, err := asked.search.Eval(ctx, rego.EvalParsedInput(value), rego.EvalTransaction(b.txn), rego.EvalBaseCache(b.document),
		rego.EvalExternalCancel(cancel), rego.EvalMetrics(metrics.NoOp()))
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", errors.Join(err, ctx.Err()))
	}
	if len(results) == 0 {
		return nil, nil
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, fmt.Errorf("%w: more than one answer", ErrPolicy)
	}
	result, _ := results[0].Expressions[0].Value.(ast.Value)
	return result, nil
}

// roomy grows the goroutine's stack at once. OPA recurses deeply, and on a fresh
// stack an evaluation would pay for each time that it doubles.
//
//go:noinline
func roomy() byte {
	var room [roomBytes]byte
	return room[time.Now().Nanosecond()%roomBytes]
}

const roomBytes = 24 << 10

// looksAtTime reports whether a rule may look at the time of a query: at
// input.now, or at input in a way that does not say what it looks at.
func looksAtTime(modules map[string]*ast.Module) bool {
	found := false
	var look func(*ast.Term) bool
	look = func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Var:
			found = found || t.Equal(ast.InputRootDocument)
		case ast.Ref:
			if !v[0].Equal(ast.InputRootDocument) {
				return found
			}
			if len(v) < 2 {
				found = true
				return true
			}
			fact, ok := v[1].Value.(ast.String)
			found = found || !ok || fact == "now"
			for _, rest := range v[1:] {
				ast.WalkTerms(rest, look)
			}
			return true
		}
		return found
	}
	for _, module := range modules {
		ast.WalkTerms(module, look)
	}
	return found
}
