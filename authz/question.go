package authz

import (
	"time"

	"github.com/agenticraft/node/identity"
)

// Question is a [Query] as people write it: in golden decisions, and to ask for
// an explanation. What is left out has the default given here.
type Question struct {
	Action      string            `json:"action,omitempty"` // exec.run
	Kind        string            `json:"kind,omitempty"`   // agent
	Name        string            `json:"name,omitempty"`   // somebody
	Tenant      string            `json:"tenant,omitempty"` // default
	Roles       []string          `json:"roles,omitempty"`
	Scopes      []string          `json:"scopes,omitempty"`     // of an API key
	Attributes  map[string]string `json:"attributes,omitempty"` // the principal's labels
	Of          string            `json:"of,omitempty"`         // whose things; the principal's tenant
	Suspended   bool              `json:"suspended,omitempty"`
	Vouched     bool              `json:"vouched,omitempty"`
	Via         string            `json:"via,omitempty"`        // http
	Language    string            `json:"language,omitempty"`   // python
	Sandbox     string            `json:"sandbox,omitempty"`    // auto
	Network     string            `json:"network,omitempty"`    // none
	DataClass   string            `json:"data_class,omitempty"` // unclassified
	Ceiling     Ceiling           `json:"ceiling,omitzero"`     // the tenant's
	MemoryBytes int64             `json:"memory_bytes,omitempty"`
	TimeoutMS   int64             `json:"timeout_ms,omitempty"`
	CPUPercent  int               `json:"cpu_percent,omitempty"`
	OutputBytes int64             `json:"output_bytes,omitempty"`
	FileSize    int64             `json:"file_size_bytes,omitempty"`
	Processes   int               `json:"processes,omitempty"`
	CodeBytes   int               `json:"code_bytes,omitempty"` // 1
	Node        string            `json:"node,omitempty"`
	Tier        string            `json:"tier,omitempty"`
	NoRun       bool              `json:"no_run,omitempty"` // the node takes no executions
	Now         int64             `json:"now,omitempty"`    // Unix seconds; the clock's, in golden decisions 1800000000
}

// Query is the question as policy is asked it.
func (q Question) Query() Query {
	out := Query{
		Action: or(q.Action, ExecRun), Tenant: q.Of, Suspended: q.Suspended, Ceiling: q.Ceiling, Vouched: q.Vouched, Via: or(q.Via, "http"),
		Principal: identity.Principal{
			Kind: identity.PrincipalKind(or(q.Kind, string(identity.Agent))), Name: or(q.Name, "somebody"),
			Tenant: or(q.Tenant, "default"), Roles: q.Roles, Labels: q.Attributes, Scopes: q.Scopes,
		},
		Node: NodeFacts{ID: q.Node, Tier: q.Tier, RunAllowed: !q.NoRun}, Now: time.Unix(q.Now, 0),
	}
	if q.Now == 0 {
		out.Now = time.Now()
	}
	if out.Action == ExecRun {
		out.Execution = &ExecutionFacts{
			Language: or(q.Language, "python"), Sandbox: q.Sandbox, Network: q.Network, DataClass: q.DataClass,
			MemoryBytes: q.MemoryBytes, TimeoutMS: q.TimeoutMS, CPUPercent: q.CPUPercent, OutputBytes: q.OutputBytes,
			FileSizeBytes: q.FileSize, Processes: q.Processes, CodeBytes: max(q.CodeBytes, 1),
		}
	}
	return out
}
