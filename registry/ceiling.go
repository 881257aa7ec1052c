package registry

import (
	"errors"
	"slices"
	"strings"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz/destination"
)

// Ceiling is the most that a tenant's people can be allowed to run, whatever the
// policy says. An admin sets it. The zero value bounds nothing but the network,
// of which it allows none.
type Ceiling struct {
	Languages     []string `json:"languages,omitempty"`    // empty: any
	Sandboxes     []string `json:"sandboxes,omitempty"`    // empty: any
	Network       []string `json:"network,omitempty"`      // patterns HOST:PORT; empty: none
	DataClasses   []string `json:"data_classes,omitempty"` // empty: any
	Tier          string   `json:"tier,omitempty"`         // the weakest that may run its code; empty: any
	MemoryBytes   int64    `json:"memory_bytes,omitempty"` // here and below, 0: no ceiling of the tenant's own
	TimeoutMS     int64    `json:"timeout_ms,omitempty"`
	CPUPercent    int      `json:"cpu_percent,omitempty"` // of one core
	OutputBytes   int64    `json:"output_bytes,omitempty"`
	FileSizeBytes int64    `json:"file_size_bytes,omitempty"`
	Processes     int      `json:"processes,omitempty"`
	CodeBytes     int      `json:"code_bytes,omitempty"`
}

const (
	maxCeilingList   = 64
	maxPatternBytes  = 300
	maxCeilingNumber = 1 << 50
)

// check holds the form: what its words mean is for those who decide by it.
func (c *Ceiling) check() string {
	if c == nil {
		return ""
	}
	for _, list := range [][]string{c.Languages, c.Sandboxes, c.DataClasses} {
		if len(list) > maxCeilingList || slices.ContainsFunc(list, func(s string) bool { return !plain(s, maxName) }) {
			return "a list of the ceiling is too long or holds a malformed name"
		}
	}
	if len(c.Network) > maxCeilingList || slices.ContainsFunc(c.Network, func(s string) bool { return !isPattern(s) }) {
		return "the ceiling's network is too long or holds what is not HOST:PORT"
	}
	if c.Tier != "" && !plain(c.Tier, 8) {
		return "the ceiling's tier is malformed"
	}
	numbers := []int64{
		c.MemoryBytes, c.TimeoutMS, int64(c.CPUPercent), c.OutputBytes, c.FileSizeBytes, int64(c.Processes), int64(c.CodeBytes),
	}
	if slices.Min(numbers) < 0 || slices.Max(numbers) > maxCeilingNumber {
		return "a number of the ceiling is out of range"
	}
	return ""
}

func isPattern(s string) bool {
	return s != "" && len(s) <= maxPatternBytes && strings.Contains(s, ":") &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-_:*[]") == ""
}

// ceiling holds that an execution is within what an admin gave its tenant, so
// that no node, whatever it decided, runs more. The code's length and the data's
// class are the node's own word.
//
// INVARIANT: I9, authority only narrows along a chain.
func (c *change) ceiling(b audit.IntentBody) error {
	cluster, err := get[Cluster](c.tx, clusterKey)
	if err != nil || cluster.Rules < rulesCeilings {
		return err
	}
	t, err := get[Tenant](c.tx, tenantPrefix+c.entry.Tenant)
	if errors.Is(err, ErrNotFound) {
		return refuse("tenant", "the tenant does not exist")
	}
	if err != nil {
		return err
	}
	var most Ceiling
	if t.Ceiling != nil {
		most = *t.Ceiling
	}
	if what := most.exceeded(b); what != "" {
		return refuse("ceiling", "the execution is beyond its tenant's ceiling: %s", what)
	}
	return nil
}

// exceeded names what an execution has beyond the ceiling, "" if nothing.
func (c Ceiling) exceeded(b audit.IntentBody) string {
	asked := b.Asked
	if asked == nil {
		asked = &audit.Asked{}
	}
	beyond := func(allowed []string, word string) bool { return len(allowed) > 0 && !slices.Contains(allowed, word) }
	switch {
	case beyond(c.Languages, b.Language):
		return "language"
	case beyond(c.Sandboxes, b.Sandbox) && !slices.Contains(c.Sandboxes, "auto"):
		return "sandbox"
	case asked.DataClass != "" && beyond(c.DataClasses, asked.DataClass):
		return "data class"
	case c.CodeBytes > 0 && asked.CodeBytes > c.CodeBytes:
		return "code"
	}
	reached, err := destination.Parse(b.Network)
	if err != nil || len(destination.Covered(reached, c.Network)) < len(reached) {
		return "network"
	}
	for _, l := range []struct {
		name string
		most int64
	}{
		{"memory_bytes", c.MemoryBytes},
		{"wall_ms", c.TimeoutMS},
		{"cpu_percent", int64(c.CPUPercent)},
		{"output_bytes", c.OutputBytes},
		{"file_size_bytes", c.FileSizeBytes},
		{"processes", int64(c.Processes)},
	} {
		// A limit that is not there is none.
		if got := b.Limits[l.name]; l.most > 0 && (got <= 0 || got > l.most) {
			return l.name
		}
	}
	return ""
}
