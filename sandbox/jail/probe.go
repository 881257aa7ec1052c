package jail

import "maps"

// Tiers of isolation that a machine can offer.
const (
	Tier1 = "T1" // root: namespaces with unused user ids, control groups
	Tier2 = "T2" // user namespaces without control groups: rlimits and a watchdog
	Tier4 = "T4" // nothing: no jail can be made
)

// Probe is what a spawner found on its machine by making a jail.
type Probe struct {
	Tier          string            // [Tier1], [Tier2] or [Tier4]
	Features      map[string]string // feature -> "ok" or the kernel's exact answer
	CgroupVersion string            // "v1", "v2", "hybrid", "none"
	Enforces      map[string]string // limit -> mechanism; see sandbox.Result.Enforced
	Reason        string            // why no jail can be made; "" if one can
	Hint          string            // what may mend it
}

func (p Probe) clone() Probe {
	p.Features, p.Enforces = maps.Clone(p.Features), maps.Clone(p.Enforces)
	return p
}
