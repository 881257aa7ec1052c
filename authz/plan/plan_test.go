package plan_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/agenticraft/node/authz/plan"
)

// conformance are OPA's own cases for whoever evaluates Rego, of the version that
// go.mod names.
func conformance(t *testing.T) []cases.TestCase {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	set, err := cases.Load(filepath.Join(strings.TrimSpace(string(dir)), "v1/test/cases/testdata/v1"))
	if err != nil {
		t.Fatal(err)
	}
	return set.Sorted().Cases
}

// What OPA's search says a rule is, its plan says to the bit, or that it has no
// answer: in the cases of OPA's that ask for one rule. The long tests take all of
// them, the others one of every few.
func TestPlansAnswerAsOPADoes(t *testing.T) {
	seen := map[verdict]int{}
	for i, c := range conformance(t) {
		if i%everyNth != 0 {
			continue
		}
		if q, ok := questionOf(t, c); ok {
			v, err := q.compare(t.Context())
			if err != nil {
				t.Errorf("%s (%s): %v", c.Note, c.Filename, err)
			}
			seen[v]++
		}
	}
	t.Logf("%v", seen)
	if seen[alike] < 1500/everyNth {
		t.Errorf("only %d values were compared", seen[alike])
	}
}

// Whatever somebody writes as a policy: its plan says what OPA's search says, or
// nothing.
func FuzzPlansAnswerAsOPADoes(f *testing.F) {
	for _, body := range []string{
		"p := x if { some x in input.list; x > 1 }", "p contains x if some x, _ in data.set", "default p := 1\n\np := 2 if input.a == data.b[input.c]",
		"p := 1 if not input.a else := 2 if input.b", "p := {k: v | some k, v in input}", "p := f(input.a)\n\nf(x) := x if x == 1\n\nf(x) := -x if x != 1",
		"p := q with input.a as 3\n\nq := input.a", "p if every x in input.list { x < 9 }", "p[a].b contains c if some a, c in input", "p := data.set[_]",
		"p := object.get(input, [\"a\", 0], sprintf(\"%v\", [walk(input)]))", "p := [x, y] if [x, y] = input.list",
	} {
		f.Add(body, `{"a": 1, "b": true, "c": "k", "list": [1, 2]}`, `{"b": {"k": 1, "2": 2}, "set": {"x": [3]}}`)
	}
	f.Fuzz(func(t *testing.T, body, input, data string) {
		if len(body) > 1000 {
			return
		}
		q, ok := questionOf(t, cases.TestCase{Query: "data.t.p = x", Modules: []string{"package t\n\n" + body}})
		if !ok {
			return
		}
		of := func(text string) ast.Value {
			v, err := ast.ValueFromReader(strings.NewReader(text))
			if err != nil {
				return ast.NewObject()
			}
			return v
		}
		if q.input, q.data = of(input), of(data); q.data.Compare(ast.NewObject()) < 0 {
			return
		}
		if _, isObject := q.data.(ast.Object); !isObject {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.compare(ctx); err != nil {
			t.Error(err)
		}
	})
}

// A cancelled evaluation ends, however much is left of it.
func TestCancel(t *testing.T) {
	q, _ := questionOf(t, cases.TestCase{
		Query:   "data.t.p = x",
		Modules: []string{"package t\n\np if {\n\tsome a in numbers.range(1, 100000)\n\tsome b in numbers.range(1, 100000)\n\ta * b < 0\n}"},
	})
	p, err := plan.Compile(t.Context(), q.modules, q.caps, "t/p")
	if err != nil {
		t.Fatal(err)
	}
	cancel := topdown.NewCancel()
	time.AfterFunc(10*time.Millisecond, cancel.Cancel)
	if v, err := p.Eval(t.Context(), cancel, q.input, q.data); v != nil || err == nil {
		t.Errorf("Eval = %v, %v", v, err)
	}
}

// What sees more than its arguments has no plan.
func TestNoPlanOfWhatIsNoFunctionOfItsInput(t *testing.T) {
	for _, body := range []string{`p := http.send({"url": "http://127.0.0.1:1", "method": "get"})`, "p := rand.intn(\"a\", 3)", "p := time.now_ns()", "q := 1"} {
		q, ok := questionOf(t, cases.TestCase{Query: "data.t.p = x", Modules: []string{"package t\n\n" + body}})
		if !ok {
			t.Fatal(body)
		}
		if _, err := plan.Compile(t.Context(), q.modules, q.caps, "t/p"); !errors.Is(err, plan.ErrPlan) {
			t.Errorf("%s: %v, want ErrPlan", body, err)
		}
	}
}

// verdict is how a plan and OPA's search compare.
type verdict string

const (
	alike     verdict = "alike"
	undefined verdict = "both undefined"
	unknown   verdict = "the plan has no answer"
	unplanned verdict = "there is no plan"
	different verdict = "different"
)

func (q question) compare(ctx context.Context) (verdict, error) {
	p, err := plan.Compile(ctx, q.modules, q.caps, strings.ReplaceAll(q.rule, ".", "/"))
	if err != nil {
		if errors.Is(err, plan.ErrPlan) {
			return unplanned, nil
		}
		return different, err
	}
	cancel := topdown.NewCancel()
	defer context.AfterFunc(ctx, cancel.Cancel)()
	got, err := p.Eval(ctx, cancel, q.input, q.data)
	if err != nil {
		return unknown, nil
	}
	want, err := q.search(ctx)
	switch {
	case ctx.Err() != nil:
		return unknown, nil
	case err != nil:
		return different, fmt.Errorf("%v, OPA says %w", got, err)
	case got == nil && want == nil:
		return undefined, nil
	case got == nil || want == nil || got.Compare(want) != 0:
		return different, fmt.Errorf("%v, OPA says %v", got, want)
	case got.Hash() != ast.MustParseTerm(got.String()).Value.Hash():
		return different, fmt.Errorf("%v has the hash of another value", got)
	}
	return alike, nil
}

// question is a case as this package is asked it.
type question struct {
	rule        string // a.b.c
	modules     map[string]*ast.Module
	caps        *ast.Capabilities
	input, data ast.Value
}

var asksRule = regexp.MustCompile(`^data\.([a-zA-Z0-9_.]+) = x$`)

// questionOf is what a case asks, if that is one rule of modules that compile.
func questionOf(t *testing.T, c cases.TestCase) (q question, ok bool) {
	t.Helper()
	asked := asksRule.FindStringSubmatch(c.Query)
	if asked == nil || len(c.Env) > 0 {
		return q, false
	}
	q = question{
		rule: asked[1], modules: map[string]*ast.Module{}, input: ast.NewObject(), data: ast.NewObject(),
		caps: ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(c.ExperimentalKeywords)),
	}
	for i, text := range c.Modules {
		name := fmt.Sprintf("m%d.rego", i)
		module, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: q.caps, ProcessAnnotation: true})
		if err != nil {
			return q, false
		}
		q.modules[name] = module
	}
	value := func(v any) ast.Value {
		out, err := ast.InterfaceToValue(v)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if c.Data != nil {
		q.data = value(*c.Data)
	}
	if c.Input != nil {
		q.input = value(*c.Input)
	}
	if c.InputTerm != nil {
		term, err := ast.ParseTerm(*c.InputTerm)
		if err != nil {
			return q, false
		}
		q.input = term.Value
	}
	return q, true
}

// search is what OPA answers.
func (q question) search(ctx context.Context) (ast.Value, error) {
	compiler := ast.NewCompiler().WithCapabilities(q.caps)
	if compiler.Compile(q.modules); compiler.Failed() {
		return nil, compiler.Errors
	}
	data, err := ast.JSON(q.data)
	if err != nil {
		return nil, err
	}
	object, _ := data.(map[string]any)
	results, err := rego.New(
		rego.Query("data."+q.rule), rego.Compiler(compiler), rego.Store(inmem.NewFromObject(object)), rego.ParsedInput(q.input),
		rego.Capabilities(q.caps), rego.StrictBuiltinErrors(true),
		rego.GenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return t.Value, nil }),
	).Eval(ctx)
	if err != nil || len(results) == 0 {
		return nil, err
	}
	v, _ := results[0].Expressions[0].Value.(ast.Value)
	return v, nil
}
