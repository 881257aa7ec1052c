package authz

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agenticraft/node/authz/destination"
)

// Ceiling is the most that a tenant's people can be allowed to run, whatever a
// policy says: an admin sets it in the registry, outside every policy. The zero
// value bounds nothing but the network, of which it allows none.
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

// isZero reports whether it bounds nothing but the network.
func (c Ceiling) isZero() bool {
	return len(c.Languages)+len(c.Sandboxes)+len(c.Network)+len(c.DataClasses) == 0 && c.Tier == "" &&
		c.MemoryBytes|c.TimeoutMS|c.OutputBytes|c.FileSizeBytes == 0 && c.CPUPercent|c.Processes|c.CodeBytes == 0
}

// hold holds an allowed execution to the ceiling: what it asks for beyond is
// denied, with reasons, and what it did not ask for is capped.
//
// INVARIANT: I9, authority only narrows along a chain: a policy adds nothing
// beyond what the tenant was given.
func (c Ceiling) hold(asked *inputExecution, o *Obligations) []Reason {
	var reasons []Reason
	deny := func(code, format string, args ...any) {
		reasons = append(reasons, Reason{Code: code, Message: clip(fmt.Sprintf(format, args...) + "; an admin sets the tenant's ceiling: agenticraft tenant set")})
	}
	oneOf := func(code, what, value string, allowed []string) {
		if len(allowed) > 0 && !slices.Contains(allowed, value) {
			deny(code, "%s %q is above the tenant's ceiling; allowed: %s", what, value, strings.Join(allowed, ", "))
		}
	}
	oneOf("language_not_allowed", "language", asked.Language, c.Languages)
	oneOf("data_class_not_allowed", "data class", asked.DataClass, c.DataClasses)
	switch wanted := cmp.Or(o.Sandbox, asked.Sandbox); {
	case wanted != sandboxAuto:
		oneOf("sandbox_not_allowed", "sandbox", wanted, c.Sandboxes)
	case len(c.Sandboxes) == 1:
		o.Sandbox = c.Sandboxes[0]
	case len(c.Sandboxes) > 1 && !slices.Contains(c.Sandboxes, sandboxAuto):
		deny("sandbox_not_allowed", "sandbox %q is above the tenant's ceiling; name one of %s", wanted, strings.Join(c.Sandboxes, ", "))
	}
	if left := destination.Covered(o.Destinations, c.Network); len(left) < len(o.Destinations) {
		refused := slices.DeleteFunc(slices.Clone(o.Destinations), func(d string) bool { return slices.Contains(left, d) })
		deny("network_not_allowed", "the tenant may not reach %s; it may reach: %s", strings.Join(refused, ", "), cmp.Or(strings.Join(c.Network, ", "), "nothing"))
	}
	o.Tier = strongerTier(o.Tier, c.Tier)
	limit := func(code, what, unit string, asked, own int64, obligation *int64) {
		if own <= 0 {
			return
		}
		if asked > own {
			deny(code, "%s of %d is above the tenant's ceiling of %d %s", what, asked, own, unit)
		}
		*obligation = min(*obligation, own)
	}
	limit("limit_memory", "memory", "bytes", asked.MemoryBytes, c.MemoryBytes, &o.MemoryBytes)
	limit("limit_timeout", "time-out", "ms", asked.TimeoutMS, c.TimeoutMS, &o.TimeoutMS)
	limit("limit_output", "output", "bytes", asked.OutputBytes, c.OutputBytes, &o.OutputBytes)
	limit("limit_file_size", "file size", "bytes", asked.FileSizeBytes, c.FileSizeBytes, &o.FileSizeBytes)
	for _, small := range []struct {
		code, what, unit string
		asked            int64
		own              int
		obligation       *int
	}{
		{"limit_cpu", "cpu", "percent of one core", asked.CPUPercent, c.CPUPercent, &o.CPUPercent},
		{"limit_processes", "processes", "processes", asked.Processes, c.Processes, &o.Processes},
		{"limit_code", "code", "bytes", asked.CodeBytes, c.CodeBytes, &o.CodeBytes},
	} {
		wide := int64(*small.obligation)
		limit(small.code, small.what, small.unit, small.asked, int64(small.own), &wide)
		*small.obligation = int(wide)
	}
	return reasons
}

// tiers of sandboxes, strongest first.
var tiers = []string{"T1", "T2", "T3", "T4"}

// strongerTier is the more demanding of two least tiers; empty demands nothing.
func strongerTier(a, b string) string {
	if a == "" || b != "" && slices.Index(tiers, b) < slices.Index(tiers, a) {
		return b
	}
	return a
}

// IsTier reports whether text names a sandbox tier.
func IsTier(text string) bool { return slices.Contains(tiers, text) }

// TierHolds reports whether a sandbox of one tier is as strong as policy wants
// at least. An empty least wants nothing; an unknown tier holds nothing.
func TierHolds(tier, least string) bool {
	return least == "" || IsTier(tier) && strongerTier(tier, least) == tier
}
