package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/agenticraft/node/audit"
)

// State is everything that the tables said at one moment.
type State struct {
	At      uint64   `json:"at"` // index of the newest entry that counted
	Cluster Cluster  `json:"cluster"`
	Epoch   Epoch    `json:"epoch"` // who kept the log
	Members []Member `json:"members"`
	Tenants []Tenant `json:"tenants"`
	Agents  []Agent  `json:"agents"` // with their roles; those revoked by then have Revoked
	Keys    []Key    `json:"keys"`   // likewise
	Policy  *Policy  `json:"policy"` // nil: the built-in one
	// Additions are what the cluster added to the policy; nil: nothing.
	Additions *Policy `json:"additions,omitempty"`
}

// changes are the kinds of entries that change the tables: all but those that
// tell what happened. What mandates have spent is not told.
func changes() []audit.Kind {
	happened := []audit.Kind{
		audit.KindIntent, audit.KindOutcome, audit.KindLate, audit.KindDenial, audit.KindGap,
		audit.KindRead, audit.KindErasure, audit.KindAlert, audit.KindConnection,
	}
	return slices.DeleteFunc(audit.Kinds(), func(k audit.Kind) bool { return slices.Contains(happened, k) })
}

// AsOf is what the tables said after the entry at index: who could do what on
// that day. It replays the changes from entry 0 on through the rules that
// admitted them.
func AsOf(ctx context.Context, log interface {
	Origin() string
	Query(ctx context.Context, f audit.Filter) (audit.Page, error)
}, index uint64,
) (State, error) {
	tables, rules := memory{}, Admission{Origin: log.Origin()}
	f := audit.Filter{Kinds: changes(), Limit: audit.MaxLimit}
	for more := true; more; {
		page, err := log.Query(ctx, f)
		if err != nil {
			return State{}, err
		}
		for _, one := range page.Entries {
			if one.Index > index {
				page.Next = ""
				break
			}
			if err := rules.Admit(tables, one.Index, one.Entry.Author, one.Entry); err != nil {
				return State{}, fmt.Errorf("replay entry %d: %w", one.Index, err)
			}
		}
		f.Cursor, more = page.Next, page.Next != ""
	}
	return stateOf(New(tables), index)
}

func stateOf(r *Registry, index uint64) (State, error) {
	s := State{At: index}
	var errs [6]error
	s.Cluster, errs[0] = r.Cluster()
	s.Members, errs[1] = r.Members()
	s.Tenants, errs[2] = r.Tenants()
	s.Agents, errs[3] = r.Agents()
	s.Keys, errs[4] = r.Keys()
	s.Epoch, errs[5] = r.Epoch()
	for layer, into := range map[string]**Policy{LayerBase: &s.Policy, LayerAdditions: &s.Additions} {
		policy, err := r.Policy(layer)
		switch {
		case err == nil:
			*into = &policy
		case !errors.Is(err, ErrNotFound):
			return State{}, err
		}
	}
	s.Members, s.Tenants = slices.Concat([]Member{}, s.Members), slices.Concat([]Tenant{}, s.Tenants)
	s.Agents, s.Keys = slices.Concat([]Agent{}, s.Agents), slices.Concat([]Key{}, s.Keys)
	return s, errors.Join(errs[:]...)
}

// View makes memory a state that a [Registry] reads.
func (m memory) View(fn func(tx audit.Tx) error) error { return fn(m) }
