package authz_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/authz"
)

// A tenant reaches what an admin gave it, and policies choose among that.
func TestDestinations(t *testing.T) {
	wide := authz.DefaultModules()
	narrow := maps.Clone(wide)
	narrow["ceilings.json"] = strings.Replace(wide["ceilings.json"], `"*:*"`, `"*.example.org:443"`, 1)
	clamped := maps.Clone(wide)
	clamped["ceilings.json"] = strings.Replace(wide["ceilings.json"], `"obligations": {`, `"obligations": {"network": {"a.example.org:*": true, "b.example.org:443": false},`, 1)
	for _, c := range []struct {
		name            string
		modules         map[string]string
		asked           string
		ceiling         []string
		allow           bool
		network, reason string
	}{
		{"nothing by default", wide, "allow=a.example.org:443", nil, false, "", "reach: nothing"},
		{"what was given", wide, "allow=a.example.org:443", []string{"a.example.org:443"}, true, "allow=a.example.org:443", ""},
		{"case and order", wide, "allow=B.example.org:443,a.example.org:443", []string{"*.example.org:443"}, true, "allow=a.example.org:443,b.example.org:443", ""},
		{"deeper", wide, "allow=x.y.example.org:443", []string{"*.example.org:443"}, true, "allow=x.y.example.org:443", ""},
		{"the domain itself", wide, "allow=example.org:443", []string{"*.example.org:443"}, false, "", "example.org:443"},
		{"a name that ends alike", wide, "allow=badexample.org:443", []string{"*.example.org:443"}, false, "", "badexample.org"},
		{"another port", wide, "allow=a.example.org:80", []string{"a.example.org:443"}, false, "", "a.example.org:80"},
		{"any port", wide, "allow=a.example.org:80", []string{"a.example.org:*"}, true, "allow=a.example.org:80", ""},
		{"one of two", wide, "allow=a.example.org:443,b.example.org:443", []string{"a.example.org:443"}, false, "", "may not reach b.example.org:443"},
		{"addresses have no domains", wide, "allow=10.0.0.1:443", []string{"*.0.0.1:443"}, false, "", "10.0.0.1"},
		{"v6", wide, "allow=[2001:db8::1]:443", []string{"[2001:db8::1]:443"}, true, "allow=[2001:db8::1]:443", ""},
		{"policy may", narrow, "allow=a.example.org:443", []string{"*:*"}, true, "allow=a.example.org:443", ""},
		{"policy may not", narrow, "allow=a.example.com:443", []string{"*:*"}, false, "", "*.example.org:443"},
		{"malformed", wide, "allow=a.example.org", []string{"*:*"}, false, "", "allow=a.example.org"},
		{"policy clamps", clamped, "allow=a.example.org:443,b.example.org:443", []string{"*:*"}, true, "allow=a.example.org:443", ""},
		{"policy clamps to none", clamped, "allow=b.example.org:443", []string{"*:*"}, true, "none", ""},
		{"none needs nothing", wide, "none", nil, true, "none", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPolicy(t, authz.Config{Modules: c.modules})
			d, err := p.Decide(t.Context(), authz.Query{
				Principal: agent("runner"), Action: authz.ExecRun, Ceiling: authz.Ceiling{Network: c.ceiling},
				Execution: &authz.ExecutionFacts{Language: "python", Network: c.asked},
			})
			if err != nil || d.Allow != c.allow || d.Obligations.Network != c.network {
				t.Fatalf("Decide = %+v, %v", d, err)
			}
			if !c.allow && (!slices.Equal(d.Codes(), []string{"network_not_allowed"}) || !strings.Contains(d.Reasons[0].Message, c.reason)) {
				t.Errorf("reasons %+v, want %q", d.Reasons, c.reason)
			}
		})
	}
}

// INVARIANT: I9, no policy adds anything beyond the tenant's ceiling.
func TestNoPolicyGoesBeyondTheTenantsCeiling(t *testing.T) {
	modules := map[string]string{"all.rego": `package agenticraft.authz
import rego.v1
default decision := {"allow": false}
decision := {"allow": true, "obligations": {"memory_bytes": 1099511627776, "timeout_ms": 99999999, "cpu_percent": 9999, "output_bytes": 1099511627776,
	"file_size_bytes": 1099511627776, "processes": 9999, "code_bytes": 9999999, "sandbox": "", "required": []}} if input.principal.registered
`}
	p := newPolicy(t, authz.Config{Modules: modules})
	ceiling := authz.Ceiling{
		Languages: []string{"starlark"}, Sandboxes: []string{"restricted"}, DataClasses: []string{"public"}, Tier: "T2",
		MemoryBytes: 100, TimeoutMS: 101, CPUPercent: 102, OutputBytes: 103, FileSizeBytes: 104, Processes: 105, CodeBytes: 106,
	}
	ask := func(e authz.ExecutionFacts) authz.Decision {
		d, err := p.Decide(t.Context(), authz.Query{Principal: agent("runner"), Action: authz.ExecRun, Ceiling: ceiling, Execution: &e})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	modest := authz.ExecutionFacts{Language: "starlark", DataClass: "public"}
	d := ask(modest)
	want := authz.Obligations{
		MemoryBytes: 100, TimeoutMS: 101, CPUPercent: 102, OutputBytes: 103, FileSizeBytes: 104, Processes: 105, CodeBytes: 106,
		Sandbox: "restricted", Tier: "T2", Network: "none", Required: []string{},
	}
	if diff := cmp.Diff(want, d.Obligations); !d.Allow || diff != "" {
		t.Errorf("a modest run: %+v (-want +got):\n%s", d, diff)
	}
	for code, change := range map[string]func(*authz.ExecutionFacts){
		"language_not_allowed":   func(e *authz.ExecutionFacts) { e.Language = "python" },
		"sandbox_not_allowed":    func(e *authz.ExecutionFacts) { e.Sandbox = "process" },
		"network_not_allowed":    func(e *authz.ExecutionFacts) { e.Network = "allow=example.org:443" },
		"data_class_not_allowed": func(e *authz.ExecutionFacts) { e.DataClass = "" },
		"limit_memory":           func(e *authz.ExecutionFacts) { e.MemoryBytes = 101 },
		"limit_timeout":          func(e *authz.ExecutionFacts) { e.TimeoutMS = 102 },
		"limit_cpu":              func(e *authz.ExecutionFacts) { e.CPUPercent = 103 },
		"limit_output":           func(e *authz.ExecutionFacts) { e.OutputBytes = 104 },
		"limit_file_size":        func(e *authz.ExecutionFacts) { e.FileSizeBytes = 105 },
		"limit_processes":        func(e *authz.ExecutionFacts) { e.Processes = 106 },
		"limit_code":             func(e *authz.ExecutionFacts) { e.CodeBytes = 107 },
	} {
		greedy := modest
		change(&greedy)
		if d := ask(greedy); d.Allow || !slices.Equal(d.Codes(), []string{code}) || d.Obligations.MemoryBytes != 0 {
			t.Errorf("%s: Decide = %+v", code, d)
		}
	}
}

func TestTiers(t *testing.T) {
	for _, c := range []struct {
		tier, least string
		holds       bool
	}{{"T1", "T2", true}, {"T2", "T2", true}, {"T3", "T2", false}, {"", "T4", false}, {"T4", "", true}, {"", "", true}, {"T0", "T1", false}} {
		if got := authz.TierHolds(c.tier, c.least); got != c.holds {
			t.Errorf("TierHolds(%q, %q) = %v", c.tier, c.least, got)
		}
	}
}
