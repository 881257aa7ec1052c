package authz

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// The files of a policy that test it and decide nothing.
const (
	goldenFile = "golden.json"
	testSuffix = "_test.rego"
)

// Golden is one row of golden.json: a question and the answer that it must get.
type Golden struct {
	Case string `json:"case"`
	Question
	Allow   bool     `json:"allow,omitempty"`
	Reasons []string `json:"reasons,omitempty"` // codes of a denial, sorted; left out: any
}

const (
	goldenNow    = 1_800_000_000    // Unix seconds
	testTimeout  = 5 * time.Second  // of one Rego test
	trialOfOne   = 2 * time.Second  // of one query that every policy must deny, which no decision is given
	trialTimeout = 10 * time.Second // of all that a policy is put to before it activates
	maxGolden    = 10_000
	maxTestFault = 20
)

// TestReport is what a policy's own tests said.
type TestReport struct {
	Digest   string   `json:"digest"`
	Rego     int      `json:"rego"`   // Rego tests that passed
	Golden   int      `json:"golden"` // golden decisions that passed
	Failures []string `json:"failures"`
}

// Test compiles the modules, holds them to what every policy must deny, and
// runs their own tests: rules test_… of files …_test.rego, and golden.json. An
// error says that they make no policy, or that all of it takes longer than a
// node gives it; failed tests are in the report, and so is what must be allowed
// and is not.
func Test(ctx context.Context, modules map[string]string, must ...Query) (TestReport, error) {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	b, err := compile(ctx, modules)
	if err != nil {
		return TestReport{}, err
	}
	if err := b.deniesNobody(ctx); err != nil {
		return TestReport{}, err
	}
	report, err := b.test(ctx)
	for _, q := range must {
		if err != nil {
			return report, err
		}
		var d Decision
		if d, err = b.ask(ctx, q); err == nil && !d.Allow {
			report.fail("%s could not do %s under it: %v", q.Principal, q.Action, d.Codes())
		}
	}
	return report, err
}

func isTest(name string) bool { return name == goldenFile || strings.HasSuffix(name, testSuffix) }

func (b *bundle) test(ctx context.Context) (TestReport, error) {
	report := TestReport{Digest: b.digest, Failures: []string{}}
	if err := b.regoTests(ctx, &report); err != nil {
		return report, err
	}
	err := b.goldenTests(ctx, &report)
	return report, err
}

func (r *TestReport) fail(format string, args ...any) {
	if len(r.Failures) < maxTestFault {
		r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
	}
}

// regoTests runs the rules named test_… with OPA's own tester.
func (b *bundle) regoTests(ctx context.Context, report *TestReport) error {
	files := maps.Clone(b.modules)
	maps.DeleteFunc(files, func(name, _ string) bool { return name == goldenFile })
	if !slices.ContainsFunc(slices.Collect(maps.Keys(files)), isTest) {
		return nil
	}
	parsed, data, err := parse(files)
	if err != nil {
		return err
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities())
	store := inmem.NewFromObject(data)
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return fmt.Errorf("%w: tests: %w", ErrPolicy, err)
	}
	defer store.Abort(ctx, txn)
	results, err := tester.NewRunner().SetCompiler(compiler).SetStore(store).SetModules(parsed).
		RaiseBuiltinErrors(true).SetTimeout(testTimeout).SetParallel(1).RunTests(ctx, txn)
	if err != nil {
		return fmt.Errorf("%w: tests: %w", ErrPolicy, err)
	}
	for r := range results {
		switch {
		case r.Pass():
			report.Rego++
		case r.Error != nil:
			report.fail("%s.%s: %v", r.Package, r.Name, r.Error)
		case !r.Skip:
			report.fail("%s.%s does not hold", r.Package, r.Name)
		}
	}
	return nil
}

func (b *bundle) goldenTests(ctx context.Context, report *TestReport) error {
	text, ok := b.modules[goldenFile]
	if !ok {
		return nil
	}
	var rows []Golden
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&rows); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("%w: %s: %s cannot be a JSON %s", ErrPolicy, goldenFile, cmp.Or(wrong.Field, "its list of rows"), wrong.Value)
		}
		return fmt.Errorf("%w: %s: %w", ErrPolicy, goldenFile, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || len(rows) > maxGolden {
		return fmt.Errorf("%w: %s: more than one list, or more than %d rows", ErrPolicy, goldenFile, maxGolden)
	}
	for i, row := range rows {
		if row.Now == 0 {
			row.Now = goldenNow
		}
		got, err := b.ask(ctx, row.Query())
		switch {
		case err != nil:
			report.fail("golden decision %d (%s): %v", i, row.Case, err)
		case got.Allow != row.Allow:
			report.fail("golden decision %d (%s): allow is %v: %v", i, row.Case, got.Allow, got.Codes())
		case row.Reasons != nil && !slices.Equal(got.Codes(), row.Reasons):
			report.fail("golden decision %d (%s): reasons are %v, not %v", i, row.Case, got.Codes(), row.Reasons)
		default:
			report.Golden++
		}
	}
	return nil
}
