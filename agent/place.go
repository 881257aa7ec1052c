package agent

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
)

// Advert is what a node says of itself to its peers: what it can run and how
// busy it is. It is a hint; the node decides again when it is asked.
type Advert struct {
	Version  int                 `json:"v"`
	Run      bool                `json:"run"`      // takes executions at all
	Backends map[string][]string `json:"backends"` // backend -> languages
	Tiers    map[string]string   `json:"tiers,omitempty"`
	Named    map[string][]string `json:"named,omitempty"` // backend -> names and digests of its runtimes
	Slots    int                 `json:"slots"`
	Busy     int                 `json:"busy"`
	Queued   int                 `json:"queued"`
}

const (
	advertVersion = 1
	// maxExecutors bounds how many nodes one request is offered to.
	maxExecutors = 3
	anywhere     = "any"
	here         = "local"
)

// Advert is this node's own, as JSON.
func (a *Agent) Advert() []byte {
	load := a.cfg.Runner.Load()
	ad := Advert{
		Version: advertVersion, Run: !a.cfg.NoRun && a.cfg.Closed() == nil,
		Backends: map[string][]string{}, Tiers: map[string]string{}, Named: map[string][]string{},
		Slots: load.Slots, Busy: load.Busy, Queued: load.Queued,
	}
	for _, d := range a.cfg.Runner.Describe() {
		if d.Available {
			ad.Backends[d.Name] = d.Languages
			ad.Tiers[d.Name] = d.Tier
			if len(d.Named) > 0 {
				ad.Named[d.Name] = d.Named
			}
		}
	}
	text, err := json.Marshal(ad)
	if err != nil {
		panic("internal error: advert does not marshal: " + err.Error())
	}
	return text
}

// ParseAdvert reads a peer's advert.
func ParseAdvert(text []byte) (Advert, error) {
	var ad Advert
	if err := json.Unmarshal(text, &ad); err != nil {
		return Advert{}, fmt.Errorf("parse advert: %w", err)
	}
	if ad.Version != advertVersion {
		return Advert{}, fmt.Errorf("advert has version %d, want %d", ad.Version, advertVersion)
	}
	return ad, nil
}

// Offers reports whether the node says that it can run this, with the runtime,
// in a sandbox of at least a tier; empty is any.
func (ad Advert) Offers(backend, language, runtime, least string) bool {
	for name, languages := range ad.Backends {
		if (backend == "" || backend == "auto" || backend == name) && slices.Contains(languages, language) &&
			(runtime == "" || slices.Contains(ad.Named[name], runtime)) && authz.TierHolds(ad.Tiers[name], least) {
			return ad.Run
		}
	}
	return false
}

// load is how full the node is; above 1 requests wait.
func (ad Advert) load() float64 {
	return float64(ad.Busy+ad.Queued) / float64(max(ad.Slots, 1))
}

// place chooses the nodes to offer the request to, best first.
func (a *Agent) place(req *request) ([]identity.ID, error) {
	backend := req.exec.Sandbox
	if forced := req.decision.Obligations.Sandbox; forced != "" {
		backend = forced
	}
	self := a.cfg.Key.ID()
	least := req.decision.Obligations.Tier
	resolved, unable := a.resolve(backend, req.exec, least)
	req.backend = resolved
	// A request that a peer placed here is not passed on: one hop, no loops.
	if req.mandate != nil || req.exec.On == here || req.exec.On == string(self) {
		if unable != nil {
			return nil, unable
		}
		return []identity.ID{self}, nil
	}
	peers := a.offers(backend, req.exec, least)
	if req.exec.On != "" && req.exec.On != anywhere {
		return a.placeOn(req.exec.On)
	}
	if unable != nil {
		if len(peers) == 0 {
			return nil, unable
		}
		return choose(peers, maxExecutors), nil
	}
	if load := a.cfg.Runner.Load(); load.Busy < load.Slots || len(peers) == 0 {
		return append([]identity.ID{self}, choose(peers, maxExecutors-1)...), nil
	}
	return append(choose(peers, maxExecutors-1), self), nil
}

// resolve is the sandbox that runs it here, if one may.
//
// INVARIANT: I6, a tier that policy demands and this machine does not have
// refuses the run.
func (a *Agent) resolve(backend string, e a2a.Execution, least string) (string, error) {
	if a.cfg.NoRun {
		return "", &a2a.Error{Code: a2a.CodeUnavailable, Message: "this node takes no executions", Hint: "send the request without \"on\", or name another node"}
	}
	name, err := a.cfg.Runner.Resolve(backend, e.Language, e.Needs())
	if err != nil {
		return "", &a2a.Error{Code: a2a.CodeUnavailable, Message: err.Error()}
	}
	if least == "" {
		return name, nil
	}
	return a.resolveTier(name, backend, e, least)
}

// resolveTier is the sandbox that was chosen if it is strong enough, else, where
// any will do, another that is.
func (a *Agent) resolveTier(name, backend string, e a2a.Execution, least string) (string, error) {
	best := ""
	for _, d := range a.cfg.Runner.Describe() {
		lacks := e.Needs() != "" && !slices.Contains(d.Named, e.Needs())
		if !d.Available || lacks || !slices.Contains(d.Languages, e.Language) || !authz.TierHolds(d.Tier, least) {
			continue
		}
		if d.Name == name {
			return name, nil
		}
		if best == "" && (backend == "" || backend == "auto") {
			best = d.Name
		}
	}
	if best == "" {
		return "", a2a.Errorf(a2a.CodeUnavailable, "policy wants a sandbox of tier %s or stronger, and this node has none for %s", least, e.Language)
	}
	return best, nil
}

// placeOn is the one node that the caller named.
func (a *Agent) placeOn(name string) ([]identity.ID, error) {
	id, err := identity.ParseID(name)
	if err != nil {
		return nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: `"on" is neither "any", "local" nor a node's peer ID`, Hint: "agenticraft nodes lists them"}
	}
	if !a.cfg.Directory.Member(id) {
		return nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "no node " + name + " in this cluster", Hint: "agenticraft nodes lists them"}
	}
	return []identity.ID{id}, nil
}

type offer struct {
	id   identity.ID
	load float64
}

// offers are the connected peers that say they can run this.
func (a *Agent) offers(backend string, e a2a.Execution, least string) []offer {
	var out []offer
	for id, text := range a.cfg.Peers.Adverts() {
		if ad, err := a.advert(text); err == nil && ad.Offers(backend, e.Language, e.Needs(), least) && a.cfg.Directory.Member(id) {
			out = append(out, offer{id, ad.load()})
		}
	}
	return out
}

// advert reads a peer's advert, which nobody changes afterwards.
func (a *Agent) advert(text []byte) (Advert, error) {
	if ad, ok := a.adverts.Get(string(text)); ok {
		return ad, nil
	}
	ad, err := ParseAdvert(text)
	if err == nil {
		a.adverts.Put(string(text), ad)
	}
	return ad, err
}

// choose picks up to n peers, each the less loaded of two drawn at random: the
// power of two choices keeps many doors from rushing to the one idle node
// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
func choose(from []offer, n int) []identity.ID {
	from = slices.Clone(from)
	var out []identity.ID
	for len(from) > 0 && len(out) < n {
		i, j := rand.IntN(len(from)), rand.IntN(len(from))
		if from[j].load < from[i].load {
			i = j
		}
		out = append(out, from[i].id)
		from = slices.Delete(from, i, i+1)
	}
	return out
}

// tierOf is the isolation tier of the backend that would run the request here.
func tierOf(descriptions []sandbox.Description, backend string) string {
	for _, d := range descriptions {
		if d.Name == backend {
			return d.Tier
		}
	}
	return ""
}
