package authz_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/authz"
)

func TestPackAndUnpack(t *testing.T) {
	packed, err := authz.Pack(authz.DefaultModules())
	if err != nil {
		t.Fatal(err)
	}
	modules, err := authz.Unpack(packed)
	if err != nil || cmp.Diff(authz.DefaultModules(), modules) != "" {
		t.Errorf("Unpack = %v", err)
	}
	p := newPolicy(t, authz.Config{})
	if authz.Digest(modules) != p.Digest() {
		t.Error("the digest of unpacked files is another")
	}
	bomb, err := authz.Pack(map[string]string{"a.json": strings.Repeat(" ", 9<<20)})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"nothing": nil, "garbage": []byte("garbage"), "cut": packed[:100], "bomb": bomb, "big": make([]byte, 1<<20)} {
		if m, err := authz.Unpack(bad); !errors.Is(err, authz.ErrPolicy) || m != nil {
			t.Errorf("%s: Unpack = %d files, %v", name, len(m), err)
		}
	}
}

func TestPolicyTestsItself(t *testing.T) {
	with := func(files map[string]string) map[string]string {
		all := authz.DefaultModules()
		maps.Copy(all, files)
		return all
	}
	const head = "package agenticraft.x_test\n\nimport rego.v1\n\nimport data.agenticraft.authz\n\n"
	for name, c := range map[string]struct {
		files        map[string]string
		rego, golden int
		failures     int
		err          bool
	}{
		"no tests":   {},
		"rego holds": {files: map[string]string{"x_test.rego": head + "test_a if not authz.registered with input as {}\n"}, rego: 1},
		"rego fails": {files: map[string]string{"x_test.rego": head + "test_a if authz.registered with input as {}\n\ntest_b if true\n"}, rego: 1, failures: 1},
		"golden": {files: map[string]string{"golden.json": `[
			{"case": "a", "roles": ["runner"], "allow": true},
			{"case": "b", "roles": ["viewer"], "reasons": ["role_missing"]},
			{"case": "c", "roles": ["runner"], "memory_bytes": 3221225472},
			{"case": "wrong", "roles": ["viewer"], "allow": true},
			{"case": "wrong reason", "roles": ["viewer"], "reasons": ["other_tenant"]}]`}, golden: 3, failures: 2},
		"golden of no list": {files: map[string]string{"golden.json": `{"case": 1}`}, err: true},
		"golden misspelt":   {files: map[string]string{"golden.json": `[{"case": "a", "rolls": ["runner"]}]`}, err: true},
		"test with http":    {files: map[string]string{"x_test.rego": head + "test_a if http.send({\"url\": \"http://127.0.0.1\", \"method\": \"get\"})\n"}, err: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := authz.Test(t.Context(), with(c.files))
			if (err != nil) != c.err || got.Rego != c.rego || got.Golden != c.golden || len(got.Failures) != c.failures {
				t.Errorf("Test = %+v, %v", got, err)
			}
			p := newPolicy(t, authz.Config{})
			before := p.Digest()
			err = p.Replace(t.Context(), with(c.files))
			if bad := c.err || c.failures > 0; (err != nil) != bad || bad && p.Digest() != before {
				t.Errorf("Replace = %v, digest %s", err, p.Digest())
			}
		})
	}
}

// A policy whose tests never end is refused, and soon.
func TestEndlessPolicyIsRefused(t *testing.T) {
	modules := authz.DefaultModules()
	modules["x_test.rego"] = "package agenticraft.x_test\n\nimport rego.v1\n\ntest_a if {\n\tsome i in numbers.range(1, 100000)\n\tsome j in numbers.range(1, 100000)\n\ti + j < 0\n}\n"
	began := time.Now()
	report, err := authz.Test(t.Context(), modules)
	if took := time.Since(began); err == nil && len(report.Failures) == 0 || took > time.Minute {
		t.Errorf("Test = %+v, %v after %v", report, err, took)
	}
}

func TestExplainNamesWhatWouldBeAllowed(t *testing.T) {
	p := newPolicy(t, authz.Config{})
	for name, c := range map[string]struct {
		q    authz.Question
		want [][]string // one of them must be there; nil: allowed
	}{
		"runner":      {q: authz.Question{Roles: []string{"runner"}}},
		"viewer":      {q: authz.Question{Roles: []string{"viewer"}}, want: [][]string{{"grant role runner"}}},
		"network":     {q: authz.Question{Roles: []string{"runner"}, Network: "allow=example.org:443"}, want: [][]string{{"network none"}}},
		"two at once": {q: authz.Question{Roles: []string{"runner"}, Language: "cobol", MemoryBytes: 1 << 40}, want: [][]string{{"language python", "no memory_bytes, or less"}}},
		"suspended":   {q: authz.Question{Roles: []string{"runner"}, Suspended: true}, want: [][]string{{"resume the tenant"}}},
		"elsewhere":   {q: authz.Question{Roles: []string{"runner"}, Of: "globex"}, want: [][]string{{"ask in the own tenant default"}, {"grant role admin"}}},
		"no such act": {q: authz.Question{Roles: []string{"admin"}, Action: "world.end"}, want: [][]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := p.Explain(t.Context(), c.q.Query())
			if err != nil || e.Allow != (c.want == nil) || len(e.Rules) == 0 {
				t.Fatalf("Explain = %+v, %v", e, err)
			}
			if !e.Allow && len(e.Reasons) == 0 || len(c.want) == 0 && len(e.WouldAllow) != 0 {
				t.Errorf("Explain = %+v", e)
			}
			for _, way := range c.want {
				if !slices.ContainsFunc(e.WouldAllow, func(w []string) bool { return slices.Equal(w, way) }) {
					t.Errorf("ways are %v, want %v among them", e.WouldAllow, way)
				}
			}
		})
	}
}
