package authz_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
)

var update = flag.Bool("update", false, "rewrite the matrix of roles and actions; it refuses to loosen a cell")

type row struct {
	Name, Kind, Tenant, Of, Action, Via string
	Roles                               []string
	Vouched, Suspended                  bool
	Exec                                yaml.Node
	Node                                struct {
		ID         string
		RunAllowed bool `yaml:"run_allowed"`
	}
	Deny []string
}

type facts struct {
	Language, Sandbox, Network string
	MemoryBytes                int64 `yaml:"memory_bytes"`
	TimeoutMS                  int64 `yaml:"timeout_ms"`
	CPUPercent                 int   `yaml:"cpu_percent"`
	OutputBytes                int64 `yaml:"output_bytes"`
	FileSizeBytes              int64 `yaml:"file_size_bytes"`
	Processes                  int
	CodeBytes                  int `yaml:"code_bytes"`
}

func goldenRows(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile("testdata/decisions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) < 300 {
		t.Errorf("%d golden rows, want at least 300", len(rows))
	}
	return rows
}

func TestGoldenDecisions(t *testing.T) {
	rows := goldenRows(t)
	p := newPolicy(t, authz.Config{})
	for _, r := range rows {
		t.Run(r.Name, func(t *testing.T) {
			q := query(t, r)
			d, err := p.Decide(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allow != (len(r.Deny) == 0) || !slices.Equal(d.Codes(), r.Deny) {
				t.Errorf("Decide = %v %v, want denials %v", d.Allow, d.Reasons, r.Deny)
			}
			for _, reason := range d.Reasons {
				if len(reason.Message) < 10 || strings.Contains(reason.Message, "%!") {
					t.Errorf("reason %s says %q", reason.Code, reason.Message)
				}
			}
			if obliged := d.Obligations.MemoryBytes > 0; obliged != (d.Allow && q.Action == authz.ExecRun) {
				t.Errorf("obligations %+v of an answer %v to %s", d.Obligations, d.Allow, q.Action)
			}
		})
	}
}

// The matrix of all roles and actions, as docs/policy.md shows it.
func TestGoldenMatrix(t *testing.T) {
	p := newPolicy(t, authz.Config{})
	actions := []string{
		authz.ExecRun, authz.ExecCancel, authz.ExecDelegate, authz.MandateEnd, authz.TaskRead, authz.TaskList, authz.AuditRead, authz.LogRead, authz.EvidenceRead, authz.EvidenceErase, authz.TrustRead,
		authz.KeyCreate, authz.KeyList, authz.KeyRevoke, authz.AgentAdd, authz.AgentList, authz.AgentRevoke, authz.RoleGrant, authz.RoleList, authz.RoleRevoke,
		authz.TenantCreate, authz.TenantList, authz.TenantSet,
		authz.NodeList, authz.NodeInvite, authz.NodeRemove, authz.StatusRead, authz.PolicyRead, authz.PolicyAsk, authz.PolicyReplay, authz.PolicyApply, authz.PolicyAdd, authz.SandboxList,
	}
	var got strings.Builder
	fmt.Fprintf(&got, "%-14s", "")
	for _, role := range p.Roles() {
		fmt.Fprintf(&got, " %-9s", role)
	}
	for _, action := range actions {
		fmt.Fprintf(&got, "\n%-14s", action)
		for _, role := range p.Roles() {
			q := authz.Query{Principal: agent(role), Action: action}
			if action == authz.ExecRun {
				q.Execution = &authz.ExecutionFacts{Language: "python"}
			}
			answer := "-"
			if d, err := p.Decide(t.Context(), q); err != nil {
				t.Fatal(err)
			} else if d.Allow {
				answer = "yes"
			}
			fmt.Fprintf(&got, " %-9s", answer)
		}
	}
	text := strings.ReplaceAll(got.String(), " \n", "\n")
	for strings.Contains(text, " \n") {
		text = strings.ReplaceAll(text, " \n", "\n")
	}
	text = strings.TrimRight(text, " ") + "\n"
	const name = "testdata/matrix.txt"
	want, err := os.ReadFile(name)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if *update {
		if old := strings.Count(string(want), "yes"); len(want) > 0 && strings.Count(text, "yes") > old {
			t.Fatalf("the matrix would allow more than before; edit %s by hand and say why in a decision record", name)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("roles and actions differ from %s (-want +got):\n%s", name, diff)
	}
}

func TestObligationsOfTheDefaultPolicy(t *testing.T) {
	p := newPolicy(t, authz.Config{})
	q := authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{
		Language: "python", MemoryBytes: 64 << 20, Require: []string{"cpu_percent", "wall"},
	}}
	d, err := p.Decide(t.Context(), q)
	if err != nil || !d.Allow {
		t.Fatalf("Decide = %+v, %v", d, err)
	}
	want := authz.Obligations{
		MemoryBytes: 2 << 30, TimeoutMS: 600_000, CPUPercent: 200, OutputBytes: 8 << 20, FileSizeBytes: 64 << 20,
		Processes: 128, CodeBytes: 1 << 20, Network: "none", Required: []string{"cpu_percent", "memory", "network", "wall"},
	}
	if diff := cmp.Diff(want, d.Obligations); diff != "" {
		t.Errorf("obligations (-want +got):\n%s", diff)
	}
	if d.Policy != p.Digest() || len(d.Input) != 64 || d.Duration <= 0 {
		t.Errorf("decision is not traceable: %+v", d)
	}
}

func TestReasonNamesTheFactAndWhatWouldDo(t *testing.T) {
	p := newPolicy(t, authz.Config{})
	for _, c := range []struct {
		q    authz.Query
		want []string
	}{
		{authz.Query{Principal: agent("viewer"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "python"}}, []string{"exec.run", "admin, delegator, runner", "viewer"}},
		{authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "cobol"}}, []string{`"cobol"`, "javascript, python, sh, starlark, wasm"}},
		{authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "python", MemoryBytes: 3 << 30}}, []string{"3221225472", "2147483648", "bytes"}},
		{authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "python", Network: "allow=x:1"}}, []string{"x:1", "nothing"}},
		{authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "python", Network: "allow=x"}}, []string{`"allow=x"`, "none"}},
		{authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "python", DataClass: "secret"}}, []string{`"secret"`, "internal, public, unclassified"}},
		{authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "\x1b[31m\n"}}, []string{`"\x1b[31m\n"`}},
	} {
		d, err := p.Decide(t.Context(), c.q)
		if err != nil || d.Allow || len(d.Reasons) != 1 {
			t.Fatalf("Decide(%v) = %+v, %v", c.q, d, err)
		}
		for _, part := range c.want {
			if !strings.Contains(d.Reasons[0].Message, part) {
				t.Errorf("%s: %q does not mention %q", d.Reasons[0].Code, d.Reasons[0].Message, part)
			}
		}
	}
}

func TestTenantCeilingsNarrow(t *testing.T) {
	modules := authz.DefaultModules()
	modules["ceilings.json"] = `{"small": {"ordinary": {
		"languages": {"starlark": true, "python": false}, "sandboxes": {"auto": true, "process": false, "restricted": true}, "network": {}, "data_classes": {"unclassified": true},
		"obligations": {"memory_bytes": 1048576, "timeout_ms": 1000, "cpu_percent": 50, "output_bytes": 1, "file_size_bytes": 1, "processes": 1,
			"code_bytes": 1, "sandbox": "restricted", "required": ["processes"]}}}}`
	modules["tenants.json"] = `{"acme": {"class": "small"}, "typo": {"class": "smal"}}`
	p := newPolicy(t, authz.Config{Modules: modules})

	q := authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "starlark"}}
	d, err := p.Decide(t.Context(), q)
	if err != nil || !d.Allow {
		t.Fatalf("Decide = %+v, %v", d, err)
	}
	o := d.Obligations
	if o.MemoryBytes != 1<<20 || o.CPUPercent != 50 || o.Sandbox != "restricted" || !slices.Equal(o.Required, []string{"processes"}) {
		t.Errorf("obligations = %+v", o)
	}
	q.Execution = &authz.ExecutionFacts{Language: "python", Sandbox: "process", MemoryBytes: 2 << 20}
	if d, err = p.Decide(t.Context(), q); err != nil || !slices.Equal(d.Codes(), []string{"language_not_allowed", "limit_memory", "sandbox_not_allowed"}) {
		t.Errorf("Decide = %+v, %v", d, err)
	}
	// Ceilings that do not exist are no ceilings to run under.
	q.Principal.Tenant = "typo"
	q.Execution = &authz.ExecutionFacts{Language: "starlark"}
	if d, err = p.Decide(t.Context(), q); err != nil || d.Allow || len(d.Reasons) == 0 {
		t.Errorf("Decide under unknown ceilings = %+v, %v", d, err)
	}
}

func TestBadModulesAreRefused(t *testing.T) {
	defaults := authz.DefaultModules()
	p := newPolicy(t, authz.Config{})
	before := p.Digest()
	for name, change := range map[string]map[string]string{
		"syntax":             {"decision.rego": "package agenticraft.authz\nimport rego.v1\nallow if {"},
		"other package":      {"x.rego": "package system\nimport rego.v1\na := 1"},
		"root package":       {"x.rego": "package agenticraft\nimport rego.v1\na := 1"},
		"no rego.v1":         {"x.rego": "package agenticraft.x\na := 1"},
		"empty":              {"x.rego": ""},
		"http.send":          {"x.rego": "package agenticraft.x\nimport rego.v1\na := http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"})"},
		"net.lookup_ip_addr": {"x.rego": "package agenticraft.x\nimport rego.v1\na := net.lookup_ip_addr(\"localhost\")"},
		"opa.runtime":        {"x.rego": "package agenticraft.x\nimport rego.v1\na := opa.runtime()"},
		"time.now_ns":        {"x.rego": "package agenticraft.x\nimport rego.v1\na := time.now_ns()"},
		"rand.intn":          {"x.rego": "package agenticraft.x\nimport rego.v1\na := rand.intn(\"x\", 3)"},
		"uuid":               {"x.rego": "package agenticraft.x\nimport rego.v1\na := uuid.rfc4122(\"x\")"},
		"name":               {"../x.rego": "package agenticraft.x\nimport rego.v1\na := 1"},
		"data name":          {"agenticraft.json": "{}"},
		"data syntax":        {"roles.json": "{"},
		"data twice":         {"roles.json": "{} {}"},
		"too large":          {"roles.json": strings.Repeat(" ", 2<<20)},
		"recursion":          {"x.rego": "package agenticraft.x\nimport rego.v1\na := b\nb := a"},
		"no decision":        {"decision.rego": "package agenticraft.authz\nimport rego.v1\nacting := \"x\"\nregistered := true\nwithin_reach := true\nvouching_accepted := true\ntenant_serves := true"},
		"allows nobody all":  {"x.rego": "package agenticraft.authz\nimport rego.v1\ndecision := {\"allow\": true} if input.action == \"role.grant\""},
		"allow is text":      {"x.rego": "package agenticraft.authz\nimport rego.v1\ndecision := {\"allow\": \"true\"} if input.action == \"role.grant\""},
		"conflict":           {"x.rego": "package agenticraft.authz\nimport rego.v1\ndecision := {\"allow\": 1} if input.tenant == \"\"\ndecision := {\"allow\": 2} if input.tenant == \"\""},
	} {
		modules := maps.Clone(defaults)
		maps.Copy(modules, change)
		if err := p.Replace(t.Context(), modules); !errors.Is(err, authz.ErrPolicy) {
			t.Errorf("%s: Replace = %v, want ErrPolicy", name, err)
		}
		if _, err := authz.NewPolicy(authz.Config{Modules: modules}); !errors.Is(err, authz.ErrPolicy) {
			t.Errorf("%s: NewPolicy = %v, want ErrPolicy", name, err)
		}
	}
	if err := p.Replace(t.Context(), map[string]string{}); !errors.Is(err, authz.ErrPolicy) {
		t.Errorf("Replace with nothing = %v, want ErrPolicy", err)
	}
	if p.Digest() != before {
		t.Error("a refused policy became active")
	}
}

// A policy that answers half must not be half believed.
func TestMalformedAnswersDeny(t *testing.T) {
	const head = "package agenticraft.authz\nimport rego.v1\n"
	for name, rule := range map[string]string{
		"allow a run without obligations": `decision := {"allow": true} if input.principal.name == "mallory"`,
		"zero ceiling":                    `decision := {"allow": true, "obligations": {"memory_bytes": 0, "timeout_ms": 1, "cpu_percent": 1, "output_bytes": 1, "file_size_bytes": 1, "processes": 1, "code_bytes": 1, "sandbox": "", "required": []}} if input.principal.name == "mallory"`,
		"fraction":                        `decision := {"allow": true, "obligations": {"memory_bytes": 1.5, "timeout_ms": 1, "cpu_percent": 1, "output_bytes": 1, "file_size_bytes": 1, "processes": 1, "code_bytes": 1, "sandbox": "", "required": []}} if input.principal.name == "mallory"`,
		"no list of required":             `decision := {"allow": true, "obligations": {"memory_bytes": 1, "timeout_ms": 1, "cpu_percent": 1, "output_bytes": 1, "file_size_bytes": 1, "processes": 1, "code_bytes": 1, "sandbox": "", "required": "all"}} if input.principal.name == "mallory"`,
		"builtin error":                   `decision := {"allow": true} if to_number(input.principal.name) > 0`,
		"not an object":                   `decision := true if input.principal.name == "mallory"`,
	} {
		p := newPolicy(t, authz.Config{Modules: map[string]string{
			"decision.rego": head + "default decision := {\"allow\": false}\n" + guard(rule),
			"reasons.rego":  "package agenticraft.reasons\nimport rego.v1\n",
		}})
		q := authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "python"}}
		q.Principal.Name = "mallory"
		d, err := p.Decide(t.Context(), q)
		if err == nil || d.Allow || !slices.Equal(d.Codes(), []string{authz.ReasonPolicyError}) {
			t.Errorf("%s: Decide = %+v, %v; want a denial with an error", name, d, err)
		}
	}
}

// guard keeps a rule from failing the trial queries, which are by nobody.
func guard(rule string) string {
	head, condition, _ := strings.Cut(rule, " if ")
	return head + " if {\n\tinput.principal.name != \"\"\n\t" + condition + "\n}\n"
}

func TestTimeoutDenies(t *testing.T) {
	modules := authz.DefaultModules()
	modules["slow.rego"] = `package agenticraft.authz
import rego.v1
decision := {"allow": true} if {
	input.principal.name == "slow"
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	a * b == -1
}`
	p := newPolicy(t, authz.Config{Modules: modules, Timeout: 50 * time.Millisecond, Workers: 1})
	q := authz.Query{Principal: agent("none"), Action: authz.TaskRead}
	q.Principal.Name = "slow"
	d, err := p.Decide(t.Context(), q)
	if !errors.Is(err, context.DeadlineExceeded) || d.Allow || !slices.Equal(d.Codes(), []string{authz.ReasonPolicyError}) {
		t.Errorf("Decide = %+v, %v; want a denial by time-out", d, err)
	}
	// The worker is free again.
	q.Principal = agent("admin")
	if d, err := retry(p, q); err != nil || !d.Allow {
		t.Errorf("Decide afterwards = %+v, %v", d, err)
	}
}

// retry gives a loaded machine a second chance to free the one worker.
func retry(p *authz.Policy, q authz.Query) (d authz.Decision, err error) {
	for range 100 {
		if d, err = p.Decide(context.Background(), q); err == nil {
			break
		}
	}
	return d, err
}

func TestHostileQueriesDeny(t *testing.T) {
	p := newPolicy(t, authz.Config{})
	long := strings.Repeat("x", 1<<20)
	q := authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: long}}
	if d, err := p.Decide(t.Context(), q); !errors.Is(err, authz.ErrInput) || d.Allow {
		t.Errorf("a megabyte of language: %v, %v", d.Allow, err)
	}
	q.Execution.Language = strings.Repeat("é", 8000)
	d, err := p.Decide(t.Context(), q)
	if err != nil || d.Allow || len(d.Reasons) != 1 || len(d.Reasons[0].Message) > 600 {
		t.Errorf("a long language: %v, %v", d, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := p.Decide(ctx, authz.Query{Principal: agent("admin"), Action: authz.TaskRead}); !errors.Is(err, context.Canceled) || d.Allow {
		t.Errorf("a caller who left: %v, %v", d, err)
	}
}

func TestZeroDecisionDenies(t *testing.T) {
	if (authz.Decision{}).Allow {
		t.Error("the zero decision allows")
	}
}

func TestDigestCoversNamesAndContents(t *testing.T) {
	p := newPolicy(t, authz.Config{})
	if again := newPolicy(t, authz.Config{}); again.Digest() != p.Digest() {
		t.Error("same modules, other digest")
	}
	changed := authz.DefaultModules()
	changed["tenants.json"] += "\n"
	if err := p.Replace(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	one := p.Digest()
	delete(changed, "tenants.json")
	changed["tenant.json"] = "{}\n\n"
	if err := p.Replace(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if p.Digest() == one {
		t.Error("other names, same digest")
	}
	handed := p.Modules()
	handed["tenant.json"] = "x"
	if p.Modules()["tenant.json"] == "x" {
		t.Error("Modules hands out its own map")
	}
}

func TestCloseIsFinal(t *testing.T) {
	p, err := authz.NewPolicy(authz.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if d, err := p.Decide(t.Context(), authz.Query{Principal: agent("admin"), Action: authz.TaskRead}); !errors.Is(err, authz.ErrClosed) || d.Allow {
		t.Errorf("Decide after Close = %+v, %v", d, err)
	}
}

// BenchmarkDecide is one allowed exec.run by a runner, under the default policy.
func BenchmarkDecide(b *testing.B) {
	p := newPolicy(b, authz.Config{})
	run := authz.Query{
		Principal: agent("runner"), Action: authz.ExecRun, Now: time.Unix(1_800_000_000, 0),
		Execution: &authz.ExecutionFacts{Language: "python", MemoryBytes: 64 << 20, TimeoutMS: 1000, CodeBytes: 100},
		Node:      authz.NodeFacts{ID: "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", Tier: "T2", RunAllowed: true},
	}
	denied := run
	denied.Execution = &authz.ExecutionFacts{Language: "cobol"}
	for _, c := range []struct {
		name string
		q    authz.Query
	}{{"exec.run", run}, {"task.read", authz.Query{Principal: agent("viewer"), Action: authz.TaskRead}}, {"denied", denied}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				if c.q.Execution != nil {
					c.q.Execution.CodeBytes = 1 + i%(1<<19) // never asked before
				}
				d, err := p.Decide(b.Context(), c.q)
				if err != nil || d.Allow != (c.name != "denied") {
					b.Fatal(d, err)
				}
				took = append(took, d.Duration)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
		})
	}
}

// What the data holds about other tenants must not slow a decision.
func BenchmarkDecideAmongTenants(b *testing.B) {
	for _, many := range []int{100, 10_000} {
		b.Run(strconv.Itoa(many), func(b *testing.B) {
			classes := map[string]map[string]string{}
			for i := range many {
				classes[fmt.Sprintf("tenant%d", i)] = map[string]string{"class": "standard"}
			}
			text, err := json.Marshal(classes)
			if err != nil {
				b.Fatal(err)
			}
			modules := authz.DefaultModules()
			modules["tenants.json"] = string(text)
			p := newPolicy(b, authz.Config{Modules: modules})
			q := authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Execution: &authz.ExecutionFacts{Language: "python", CodeBytes: 100}}
			q.Principal.Tenant = "tenant7"
			b.ReportAllocs()
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				q.Execution.CodeBytes = 1 + i%(1<<19) // never asked before
				d, err := p.Decide(b.Context(), q)
				if err != nil || !d.Allow {
					b.Fatal(d, err)
				}
				took = append(took, d.Duration)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
		})
	}
}

func query(t *testing.T, r row) authz.Query {
	t.Helper()
	q := authz.Query{
		Principal: identity.Principal{Kind: identity.Agent, Name: "did:key:zTest", Tenant: "acme", Roles: r.Roles},
		Action:    authz.ExecRun, Tenant: r.Of, Suspended: r.Suspended, Vouched: r.Vouched, Via: r.Via,
		Node: authz.NodeFacts{ID: r.Node.ID, RunAllowed: r.Node.RunAllowed},
	}
	if r.Roles == nil {
		q.Principal.Roles = []string{"runner"}
	}
	switch r.Kind {
	case "":
	case "none":
		q.Principal.Kind, q.Principal.Name = "", ""
	default:
		q.Principal.Kind = identity.PrincipalKind(r.Kind)
	}
	if r.Tenant == "none" {
		q.Principal.Tenant = ""
	}
	switch r.Action {
	case "":
	case "none":
		q.Action = ""
	default:
		q.Action = r.Action
	}
	if q.Action == authz.ExecRun && r.Exec.Tag != "!!null" {
		f := facts{Language: "python", CodeBytes: 10}
		if err := r.Exec.Decode(&f); r.Exec.Kind != 0 && err != nil {
			t.Fatal(err)
		}
		q.Execution = &authz.ExecutionFacts{
			Language: f.Language, Sandbox: f.Sandbox, Network: f.Network, MemoryBytes: f.MemoryBytes, TimeoutMS: f.TimeoutMS,
			CPUPercent: f.CPUPercent, OutputBytes: f.OutputBytes, FileSizeBytes: f.FileSizeBytes, Processes: f.Processes, CodeBytes: f.CodeBytes,
		}
	}
	return q
}

func agent(roles ...string) identity.Principal {
	return identity.Principal{Kind: identity.Agent, Name: "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", Tenant: "acme", Roles: roles}
}

func newPolicy(tb testing.TB, cfg authz.Config) *authz.Policy {
	tb.Helper()
	p, err := authz.NewPolicy(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	return p
}
