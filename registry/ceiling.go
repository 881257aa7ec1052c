package registry

import (
	"slices"
	"strings"
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
