package identity

// PrincipalKind says what sort of credential proved a principal.
type PrincipalKind string

// The kinds of principals.
const (
	Agent   PrincipalKind = "agent"   // a registered Ed25519 key that signs requests
	Service PrincipalKind = "service" // an API key
	User    PrincipalKind = "user"    // a person, proved by a token of an OpenID provider
	Node    PrincipalKind = "node"    // a member of the mesh, proved by its connection
)

// Principal is who a credential proved. The zero value is nobody.
type Principal struct {
	Kind   PrincipalKind     `json:"kind"`
	Name   string            `json:"name"` // agent and node: did:key; service: API key id; user: made of issuer and subject
	Tenant string            `json:"tenant,omitempty"`
	Roles  []string          `json:"roles,omitempty"` // sorted
	Labels map[string]string `json:"labels,omitempty"`
	Scopes []string          `json:"scopes,omitempty"` // of an API key: the only actions it is for; empty: all of its roles
}

// String is the principal as logs and owners of tasks name it: "agent:did:key:z…",
// "service:k3x…". It is unique in a cluster and contains no secret.
func (p Principal) String() string {
	if p.IsZero() {
		return "nobody"
	}
	return string(p.Kind) + ":" + p.Name
}

// IsZero reports whether p is nobody.
func (p Principal) IsZero() bool { return p.Kind == "" && p.Name == "" }
