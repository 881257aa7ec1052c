package registry

import (
	"errors"
	"fmt"
	"slices"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Epoch is who keeps the log over a part of it. The first begins with the
// keepers of entry 0; each further one begins with an entry that a quorum of
// the keepers before signed.
type Epoch struct {
	Number  uint64        `json:"number"`  // from 1
	From    uint64        `json:"from"`    // checkpoints of this size and larger are its keepers' to sign
	Keepers []identity.ID `json:"keepers"` // sorted
}

// epochOf reads the epoch in force.
func epochOf(tx audit.Tx) (Epoch, error) {
	e, err := get[Epoch](tx, epochKey)
	if !errors.Is(err, ErrNotFound) {
		return e, err
	}
	// Until the first change nothing is written: the keepers are those of
	// entry 0.
	rows, err := each[Member](tx, memberPrefix)
	first := Epoch{Number: 1}
	for _, m := range rows {
		if m.Role == Keeper && m.Since == 0 {
			first.Keepers = append(first.Keepers, m.ID)
		}
	}
	return first, err
}

// nextKeepers is who keeps the log after the next change that the members ask
// for: one more, or one less. It is false if nothing is to change.
func nextKeepers(tx audit.Tx) (now, next Epoch, change bool, err error) {
	if now, err = epochOf(tx); err != nil {
		return now, next, false, err
	}
	rows, err := each[Member](tx, memberPrefix)
	if err != nil {
		return now, next, false, err
	}
	next = Epoch{Number: now.Number + 1, Keepers: slices.Clone(now.Keepers)}
	var comes, goes *Member // the first to ask
	for _, m := range rows {
		votes := slices.Contains(now.Keepers, m.ID)
		if m.Role == Keeper && m.Leaving == nil && !votes && (comes == nil || m.Since < comes.Since) {
			comes = &m
		}
		if m.Leaving != nil && votes && (goes == nil || *m.Leaving < *goes.Leaving) {
			goes = &m
		}
	}
	switch {
	case comes != nil:
		next.Keepers = append(next.Keepers, comes.ID)
		slices.Sort(next.Keepers)
	case goes != nil:
		next.Keepers = slices.DeleteFunc(next.Keepers, func(id identity.ID) bool { return id == goes.ID })
	}
	return now, next, comes != nil || goes != nil, nil
}

// epoch begins the next epoch.
//
// INVARIANT: I7, who vouches for the log changes only by the word of a quorum
// of those who vouched before, one keeper at a time.
func (c *change) epoch() error {
	b, err := c.entry.Epoch()
	if err != nil {
		return refuse("malformed", "the body is not of its kind")
	}
	now, err := epochOf(c.tx)
	if err != nil {
		return err
	}
	if b.Epoch != now.Number+1 {
		return refuse("epoch", "the epoch in force is %d, not the one before this", now.Number)
	}
	if err := b.Verify(c.origin, now.Keepers, len(now.Keepers)/2+1); err != nil {
		return refuse("epoch_signatures", "a quorum of the keepers did not sign it")
	}
	if err := c.oneChange(now.Keepers, b.Keepers); err != nil {
		return err
	}
	next := Epoch{Number: b.Epoch, From: c.index + 1, Keepers: b.Keepers}
	if err := put(c.tx, epochPast+fmt.Sprintf("%016x", now.Number), now); err != nil {
		return err
	}
	return put(c.tx, epochKey, next)
}

// oneChange holds that one member comes who was let in as a keeper, or one goes
// who was told to.
func (c *change) oneChange(old, next []identity.ID) error {
	changes := 0
	for _, id := range next {
		if slices.Contains(old, id) {
			continue
		}
		changes++
		m, err := get[Member](c.tx, memberPrefix+string(id))
		if err != nil {
			return missing(err, "keepers", "the new keeper is not a member")
		}
		if m.Role != Keeper || m.Leaving != nil {
			return refuse("keepers", "the new keeper was not let in as one")
		}
	}
	for _, id := range old {
		if slices.Contains(next, id) {
			continue
		}
		changes++
		m, err := get[Member](c.tx, memberPrefix+string(id))
		if err != nil {
			return missing(err, "keepers", "a keeper is not a member")
		}
		if m.Leaving == nil {
			return refuse("keepers", "a keeper would go whom nobody told to")
		}
	}
	if changes != 1 || len(next) == 0 || len(next) > maxKeepers {
		return refuse("keepers", "an epoch changes one keeper")
	}
	return nil
}

// Epoch returns who keeps the log now.
func (r *Registry) Epoch() (now Epoch, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		now, err = epochOf(tx)
		return err
	})
	return now, err
}

// NextEpoch returns who keeps the log now, and who will once the keepers have
// agreed to the next change that the members ask for; change is false if they
// ask for none.
func (r *Registry) NextEpoch() (now, next Epoch, change bool, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		now, next, change, err = nextKeepers(tx)
		return err
	})
	return now, next, change, err
}

// Trust is whose signatures count for the log named origin, now and in every
// epoch before.
func (r *Registry) Trust(origin string) (trust audit.Trust, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		now, err := epochOf(tx)
		if err != nil {
			return err
		}
		epochs, err := each[Epoch](tx, epochPast)
		if err != nil {
			return err
		}
		for i, e := range append(epochs, now) {
			if i == 0 {
				trust, err = audit.NewTrust(origin, e.Number, e.Keepers)
			} else {
				trust, err = trust.Next(e.From, e.Keepers)
			}
			if err != nil {
				return err
			}
		}
		members, err := each[Member](tx, memberPrefix)
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.Role != Auditor {
				continue
			}
			vkey, err := audit.VerifierKey(m.ID)
			if err != nil {
				return err
			}
			trust.Witnesses = append(trust.Witnesses, vkey)
		}
		return nil
	})
	return trust, err
}

// InvitationByID returns an invitation by its key, even a used or expired one,
// or [ErrNotFound].
func (r *Registry) InvitationByID(id identity.ID) (Invitation, error) {
	return one[Invitation](r, invitePrefix+string(id))
}
