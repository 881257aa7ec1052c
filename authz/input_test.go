package authz_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
)

// The digest in the audit log must be of exactly what was decided on.
func TestWhatIsHashedIsWhatIsEvaluated(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringN(0, 20, 80)
		texts := rapid.MapOfN(text, text, 0, 3)
		q := authz.Query{
			Principal: identity.Principal{
				Kind: identity.PrincipalKind(text.Draw(rt, "kind")), Name: text.Draw(rt, "name"), Tenant: text.Draw(rt, "tenant"),
				Roles: rapid.SliceOfN(text, 0, 3).Draw(rt, "roles"), Labels: texts.Draw(rt, "labels"),
				Scopes: rapid.SliceOfN(text, 0, 2).Draw(rt, "scopes"),
			},
			Action: text.Draw(rt, "action"), Tenant: text.Draw(rt, "of"), Via: text.Draw(rt, "via"), Labels: texts.Draw(rt, "labels"),
			Suspended: rapid.Bool().Draw(rt, "suspended"), Vouched: rapid.Bool().Draw(rt, "vouched"),
			Now:  time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(rt, "now"), 0),
			Node: authz.NodeFacts{ID: text.Draw(rt, "node"), Tier: text.Draw(rt, "tier"), RunAllowed: rapid.Bool().Draw(rt, "runs")},
		}
		if rapid.Bool().Draw(rt, "ceiling") {
			q.Ceiling = authz.Ceiling{Languages: rapid.SliceOfN(text, 0, 3).Draw(rt, "ceiling languages"), Network: []string{"*:443"}, MemoryBytes: rapid.Int64().Draw(rt, "ceiling memory")}
		}
		if rapid.Bool().Draw(rt, "execution") {
			q.Execution = &authz.ExecutionFacts{
				Language: text.Draw(rt, "language"), Sandbox: text.Draw(rt, "sandbox"), Network: text.Draw(rt, "network"),
				MemoryBytes: rapid.Int64().Draw(rt, "memory"), TimeoutMS: rapid.Int64().Draw(rt, "timeout"), CPUPercent: rapid.Int().Draw(rt, "cpu"),
				OutputBytes: rapid.Int64().Draw(rt, "output"), FileSizeBytes: rapid.Int64().Draw(rt, "file size"),
				Processes: rapid.Int().Draw(rt, "processes"), CodeBytes: rapid.Int().Draw(rt, "code"),
				Require: rapid.SliceOfN(text, 0, 3).Draw(rt, "require"), DataClass: text.Draw(rt, "data class"),
			}
			if rapid.Bool().Draw(rt, "destinations") {
				q.Execution.Network = "allow=a.example.org:443,[::1]:80,10.0.0.1:1"
			}
		}
		if !authz.InputsAgree(t, q) {
			rt.Fatalf("the documents of %+v differ: %s", q, authz.InputText(t, q))
		}
	})
}

// The document is a wire format: policies are written against it.
func TestInputDocument(t *testing.T) {
	q := authz.Query{
		Principal: agent("runner"), Action: authz.ExecRun, Vouched: true, Via: "http", Now: time.Unix(1_800_000_000, 999),
		Execution: &authz.ExecutionFacts{Language: "python", MemoryBytes: 5, CodeBytes: 3},
		Node:      authz.NodeFacts{ID: "n1", Tier: "T2", RunAllowed: true},
	}
	const want = `{"action":"exec.run",` +
		`"principal":{"kind":"agent","name":"did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp","tenant":"acme","roles":{"runner":true},"labels":{},"only_role":"runner","registered":true},` +
		`"tenant":"acme","suspended":false,"vouched":true,"via":"http","labels":{},"now":1800000000,` +
		`"node":{"id":"n1","tier":"T2","run_allowed":true},` +
		`"execution":{"language":"python","sandbox":"auto","network":"none","destinations":[],"data_class":"unclassified","memory_bytes":5,"timeout_ms":0,"cpu_percent":0,` +
		`"output_bytes":0,"file_size_bytes":0,"processes":0,"code_bytes":3,"least":0,"require":[]}}`
	if got := authz.InputText(t, q); got != want {
		t.Errorf("input document\n got %s\nwant %s", got, want)
	}
}
