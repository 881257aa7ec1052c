package authz

import (
	"time"

	"github.com/agenticraft/node/identity"
)

// The actions that the node asks about. A policy that knows one of them not
// denies it.
const (
	ExecRun       = "exec.run"
	ExecCancel    = "exec.cancel"
	ExecDelegate  = "exec.delegate"
	TaskRead      = "task.read"
	TaskList      = "task.list"
	AuditRead     = "audit.read"
	LogRead       = "log.read"
	EvidenceRead  = "evidence.read"
	EvidenceErase = "evidence.erase"
	TrustRead     = "trust.read"
	KeyCreate     = "key.create"
	KeyList       = "key.list"
	KeyRevoke     = "key.revoke"
	AgentAdd      = "agent.add"
	AgentList     = "agent.list"
	AgentRevoke   = "agent.revoke"
	RoleGrant     = "role.grant"
	RoleList      = "role.list"
	RoleRevoke    = "role.revoke"
	TenantCreate  = "tenant.create"
	TenantList    = "tenant.list"
	TenantSet     = "tenant.set"
	NodeList      = "node.list"
	NodeInvite    = "node.invite"
	NodeRemove    = "node.remove"
	StatusRead    = "status.read"
	PolicyRead    = "policy.read"
	PolicyApply   = "policy.apply"
	PolicyAdd     = "policy.extend"
	PolicyAsk     = "policy.explain"
	PolicyReplay  = "policy.replay"
	SandboxList   = "sandbox.list"
	MandateEnd    = "mandate.revoke"
)

// Query is one question to the policy. Every field is a verified fact; what
// the caller merely says about himself has no place in it.
type Query struct {
	Principal identity.Principal
	Action    string  // one of the constants above
	Tenant    string  // whose things the action touches; empty: the principal's own
	Suspended bool    // the registry says that Tenant is suspended
	Ceiling   Ceiling // what an admin set for Tenant; bounds [ExecRun] whatever the policy says
	Execution *ExecutionFacts
	Node      NodeFacts
	Vouched   bool              // a node signed in the principal's place
	Via       string            // the door: "http", "mesh", …
	Labels    map[string]string // of the request
	Now       time.Time         // the policy's only clock; whole seconds count
}

// ExecutionFacts is what a request asks to run. Zero means that the caller did
// not ask; an empty Sandbox is "auto", an empty Network is "none".
type ExecutionFacts struct {
	Language      string
	Sandbox       string
	Network       string
	MemoryBytes   int64
	TimeoutMS     int64
	CPUPercent    int // of one core
	OutputBytes   int64
	FileSizeBytes int64
	Processes     int
	CodeBytes     int
	DataClass     string   // as the caller declares it; empty is "unclassified"
	Require       []string // limits without which the run must be refused
}

// NodeFacts is the node that would run the code. A door that decides before a
// place is chosen leaves ID empty.
type NodeFacts struct {
	ID         string
	Tier       string // the best sandbox tier there, "T1" to "T4"
	RunAllowed bool
}

// Decision is the policy's answer. The zero value denies.
type Decision struct {
	Allow       bool
	Reasons     []Reason    // why not, sorted by code; empty when allowed
	Obligations Obligations // of an allowed ExecRun; zero otherwise
	Policy      string      // hex digest of the policy that answered
	Input       string      // hex SHA-256 of the input document it saw
	Duration    time.Duration
}

// Reason is one cause of a denial: a code from a fixed set (docs/policy.md) and
// a sentence for people, which names the fact and what would have been allowed.
type Reason struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Codes returns the codes of the decision's reasons, sorted, without
// repetition.
func (d Decision) Codes() []string {
	var codes []string
	for _, r := range d.Reasons {
		if n := len(codes); n == 0 || codes[n-1] != r.Code {
			codes = append(codes, r.Code)
		}
	}
	return codes
}

// Obligations bind whoever runs the code. The numbers are ceilings, all above
// zero: the run gets the smaller of a ceiling and what was asked for or, where
// nothing was asked for, the node's default.
type Obligations struct {
	MemoryBytes   int64    `json:"memory_bytes"`
	TimeoutMS     int64    `json:"timeout_ms"`
	CPUPercent    int      `json:"cpu_percent"` // of one core
	OutputBytes   int64    `json:"output_bytes"`
	FileSizeBytes int64    `json:"file_size_bytes"`
	Processes     int      `json:"processes"`
	CodeBytes     int      `json:"code_bytes"`
	Sandbox       string   `json:"sandbox,omitempty"`      // forced; empty: as asked
	Tier          string   `json:"tier,omitempty"`         // the weakest that may run it; empty: any
	Network       string   `json:"network"`                // Destinations as runs name them: "none" or "allow=HOST:PORT,…"
	Destinations  []string `json:"destinations,omitempty"` // sorted: those asked for that are left
	Required      []string `json:"required"`               // sorted: the policy's and the caller's
}
