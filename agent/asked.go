package agent

import (
	"slices"

	"github.com/agenticraft/node/audit"
)

// The words that a request's facts may have in the log. A caller can put anything
// where they stand, a secret as well.
//
// INVARIANT: I10, no secret reaches a log.
var (
	knownLanguages   = []string{"javascript", "python", "sh", "starlark", "wasm"}
	knownSandboxes   = []string{"auto", "docker", "process", "restricted", "wasm"}
	knownDataClasses = []string{"confidential", "internal", "public", "restricted", "secret", "unclassified"}
)

// maxLogged is the largest number that every reader of JSON keeps.
const maxLogged = 1 << 53

// asked is what policy was asked about a request, as far as the log may hold it.
func asked(req *request) *audit.Asked {
	facts := req.query.Execution
	out := &audit.Asked{CodeBytes: facts.CodeBytes, Via: req.query.Via, Tier: req.query.Node.Tier}
	word := func(name, said string, known []string) string {
		if said == "" || slices.Contains(known, said) {
			return said
		}
		out.Withheld = append(out.Withheld, name)
		return ""
	}
	out.DataClass = word("data_class", facts.DataClass, knownDataClasses)
	out.Language = word("language", facts.Language, knownLanguages)
	out.Network = word("network", facts.Network, []string{"none"})
	out.Sandbox = word("sandbox", facts.Sandbox, knownSandboxes)
	out.Limits = named(facts.MemoryBytes, facts.CPUPercent, facts.TimeoutMS, facts.OutputBytes, facts.FileSizeBytes, facts.Processes)
	for name, limit := range out.Limits {
		switch {
		case limit == 0:
			delete(out.Limits, name)
		case limit < -maxLogged || limit > maxLogged:
			delete(out.Limits, name)
			out.Withheld = append(out.Withheld, name)
		}
	}
	slices.Sort(out.Withheld)
	return out
}
