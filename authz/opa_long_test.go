//go:build long

package authz_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/authz"
)

// Issue 6: the node's answers are those of the stock opa command, of the version
// that go.mod names, for the same policy and facts: all golden decisions.
func TestStockOPADecidesAlike(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "go", "install", "github.com/open-policy-agent/opa@"+strings.TrimSpace(string(version)))
	install.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	if out, err := install.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "" {
			t.Skipf("the opa command cannot be built here: %v\n%s", err, out)
		}
		t.Fatalf("build opa: %v\n%s", err, out)
	}

	policy := filepath.Join(dir, "policy")
	if err := os.Mkdir(policy, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(policy, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range authz.DefaultModules() {
		if base, isData := strings.CutSuffix(name, ".json"); isData {
			text = `{"` + base + `": ` + text + `}` // the node mounts each file under its name, opa at the root
		}
		write(name, text)
	}
	p := newPolicy(t, authz.Config{})
	rows := goldenRows(t)
	var inputs []json.RawMessage
	var want []any
	for _, r := range rows {
		q := query(t, r)
		inputs = append(inputs, json.RawMessage(authz.InputText(t, q)))
		want = append(want, authz.PolicyAlone(t, p, q))
	}
	text, err := json.Marshal(map[string]any{"questions": inputs})
	if err != nil {
		t.Fatal(err)
	}
	write("questions.json", string(text))
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "opa"), "eval", "--data", policy, "--format", "raw",
		`[answer | some question in data.questions; answer := data.agenticraft.authz.decision with input as question]`).CombinedOutput()
	if err != nil {
		t.Fatalf("opa eval: %v\n%s", err, out)
	}
	var got []any
	d := json.NewDecoder(strings.NewReader(string(out)))
	d.UseNumber()
	if err := d.Decode(&got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(got) != len(rows) {
		t.Fatalf("opa answers %d questions, of %d", len(got), len(rows))
	}
	for i, r := range rows {
		if diff := cmp.Diff(want[i], got[i]); diff != "" {
			t.Errorf("%s: the node (-) and opa (+) differ:\n%s", r.Name, diff)
		}
	}
	t.Logf("%d decisions alike", len(rows))
}
