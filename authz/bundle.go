package authz

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/agenticraft/node/authz/plan"
)

// ErrPolicy is returned for modules that do not make a policy.
var ErrPolicy = errors.New("bad policy")

const (
	maxModules     = 64
	maxModuleBytes = 1 << 20
	digestLabel    = "agenticraft policy v1\x00"
	packageRoot    = "agenticraft"
	decisionRule   = "agenticraft.authz.decision"
	reasonsRule    = "agenticraft.reasons.found"
)

//go:embed policy/*.rego policy/*.json
var defaults embed.FS

// moduleName keeps names out of each other's way: data of roles.json is
// data.roles in Rego.
var moduleName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}\.(rego|json)$`)

// DefaultModules returns the built-in policy: Rego modules and JSON data by
// file name.
func DefaultModules() map[string]string {
	modules := make(map[string]string)
	// The names and contents were fixed when the program was built.
	entries, err := defaults.ReadDir("policy")
	if err != nil {
		panic("internal error: " + err.Error())
	}
	for _, entry := range entries {
		text, err := fs.ReadFile(defaults, path.Join("policy", entry.Name()))
		if err != nil {
			panic("internal error: " + err.Error())
		}
		modules[entry.Name()] = string(text)
	}
	return modules
}

// bundle is one compiled policy. It does not change and may be used
// concurrently.
type bundle struct {
	modules  map[string]string
	digest   string
	roles    []string // as data.roles.table names them, sorted
	compiler *ast.Compiler
	store    storage.Store
	txn      storage.Transaction // reads; nothing ever writes
	document document
	timed    bool // a rule looks at the time of a query
	decision prepared
	reasons  prepared
}

// prepared is a rule that a policy is asked for, ready to be evaluated.
type prepared struct {
	plan   *plan.Program          // nil: OPA makes none of it
	search rego.PreparedEvalQuery // OPA's own way, for what the plan does not answer
}

// compile checks the modules and prepares the two queries.
func compile(ctx context.Context, modules map[string]string) (*bundle, error) {
	modules = maps.Clone(modules)
	if len(modules) > maxModules {
		return nil, fmt.Errorf("%w: %d files, at most %d", ErrPolicy, len(modules), maxModules)
	}
	deciding := maps.Clone(modules)
	maps.DeleteFunc(deciding, func(name, _ string) bool { return isTest(name) })
	parsed, data, err := parse(deciding)
	if err != nil {
		return nil, err
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities()).WithStrict(true)
	if compiler.Compile(parsed); compiler.Failed() {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, compiler.Errors)
	}
	b := &bundle{modules: modules, digest: digest(modules), roles: roleNames(data), compiler: compiler, timed: looksAtTime(compiler.Modules)}
	b.store = inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	if b.txn, err = b.store.NewTransaction(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if b.document, err = readDocument(ctx, b.store, b.txn); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	for rule, asked := range map[string]*prepared{decisionRule: &b.decision, reasonsRule: &b.reasons} {
		if asked.plan, err = plan.Compile(ctx, parsed, capabilities(), strings.ReplaceAll(rule, ".", "/")); err != nil && !errors.Is(err, plan.ErrPlan) {
			return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
		}
		asked.search, err = rego.New(
			rego.Query("data."+rule), rego.Compiler(compiler), rego.Store(b.store),
			rego.Capabilities(capabilities()), rego.StrictBuiltinErrors(true),
			rego.GenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return t.Value, nil }),
		).PrepareForEval(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPolicy, err)
		}
	}
	return b, nil
}

// parse reads the modules: Rego below package agenticraft, each file of JSON
// mounted under its own name.
func parse(modules map[string]string) (map[string]*ast.Module, map[string]any, error) {
	if len(modules) > maxModules {
		return nil, nil, fmt.Errorf("%w: %d modules, at most %d", ErrPolicy, len(modules), maxModules)
	}
	parsed := make(map[string]*ast.Module)
	data := make(map[string]any)
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		text := modules[name]
		base, isData := strings.CutSuffix(name, ".json")
		var err error
		switch {
		case !moduleName.MatchString(name):
			err = errors.New("a name is lower-case letters, digits and _, ending in .rego or .json")
		case len(text) > maxModuleBytes:
			err = fmt.Errorf("%d bytes, at most %d", len(text), maxModuleBytes)
		case isData && base == packageRoot:
			err = errors.New("data cannot be named like the packages")
		case isData:
			data[base], err = parseData(text)
		default:
			parsed[name], err = parseModule(name, text)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%w: %q: %w", ErrPolicy, name, err))
		}
	}
	return parsed, data, errors.Join(faults...)
}

func parseData(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON document")
	}
	return value, nil
}

func parseModule(name, text string) (*ast.Module, error) {
	module, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities()})
	if err != nil {
		return nil, err
	}
	if module == nil {
		return nil, errors.New("empty module")
	}
	ref := module.Package.Path
	if len(ref) < 3 || !ref[1].Equal(ast.StringTerm(packageRoot)) {
		return nil, fmt.Errorf("%s is not below package %s: name it %[2]s.NAME", module.Package, packageRoot)
	}
	if !slices.ContainsFunc(module.Imports, func(i *ast.Import) bool { return i.Path.String() == "rego.v1" }) {
		return nil, errors.New("missing import rego.v1")
	}
	return module, nil
}

// capabilities are those of OPA without anything that sees more than the input:
// the same question has the same answer on every node, today and in a replay.
func capabilities() *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion()
	caps.AllowNet = []string{}
	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		group, _, _ := strings.Cut(b.Name, ".")
		return b.IsNondeterministic() || slices.Contains([]string{"net", "http", "opa", "rand", "uuid", "providers"}, group) ||
			// These fall back on the machine's clock.
			b.Name == "io.jwt.decode_verify" || strings.HasPrefix(b.Name, "crypto.x509.") ||
			b.Name == "trace" || b.Name == "print" || b.Name == "internal.print" || b.Name == "rego.parse_module"
	})
	return caps
}

// digest is the hex SHA-256 of all names and contents, sorted by name, each
// behind its length.
func digest(modules map[string]string) string {
	h := sha256.New()
	io.WriteString(h, digestLabel)
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		for _, part := range []string{name, modules[name]} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			io.WriteString(h, part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func roleNames(data map[string]any) []string {
	roles, _ := data["roles"].(map[string]any)
	table, _ := roles["table"].(map[string]any)
	return slices.Sorted(maps.Keys(table))
}
