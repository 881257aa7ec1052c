package registry

import (
	"cmp"
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

// Changes are the changes of keepers that the members ask for, the oldest wish
// first.
type Changes struct {
	Now   Epoch
	Comes []identity.ID // let in as keepers, and not voting yet
	Goes  []identity.ID // told to leave, and voting still
	Gone  []identity.ID // told to leave, and voting no more; members still
}

func changesOf(tx audit.Tx) (Changes, error) {
	var c Changes
	var err error
	if c.Now, err = epochOf(tx); err != nil {
		return c, err
	}
	rows, err := each[Member](tx, memberPrefix)
	if err != nil {
		return c, err
	}
	wish := func(m Member) uint64 {
		if m.Leaving != nil {
			return *m.Leaving
		}
		return m.Since
	}
	slices.SortStableFunc(rows, func(a, b Member) int { return cmp.Compare(wish(a), wish(b)) })
	for _, m := range rows {
		votes := slices.Contains(c.Now.Keepers, m.ID)
		switch {
		case m.Role != Keeper:
		case m.Leaving == nil && !votes:
			c.Comes = append(c.Comes, m.ID)
		case m.Leaving != nil && votes:
			c.Goes = append(c.Goes, m.ID)
		case m.Leaving != nil:
			c.Gone = append(c.Gone, m.ID)
		}
	}
	return c, nil
}

// With are the keepers of now and one more.
func (c Changes) With(id identity.ID) []identity.ID {
	return slices.Sorted(slices.Values(append(slices.Clone(c.Now.Keepers), id)))
}

// Without are the keepers of now but one.
func (c Changes) Without(id identity.ID) []identity.ID {
	return slices.DeleteFunc(slices.Clone(c.Now.Keepers), func(k identity.ID) bool { return k == id })
}

// Allow reports whether the epoch with these keepers makes one of the changes.
func (c Changes) Allow(epoch uint64, keepers []identity.ID) bool {
	return epoch == c.Now.Number+1 &&
		(slices.ContainsFunc(c.Comes, func(id identity.ID) bool { return slices.Equal(c.With(id), keepers) }) ||
			slices.ContainsFunc(c.Goes, func(id identity.ID) bool { return slices.Equal(c.Without(id), keepers) }))
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

// Changes returns who keeps the log, and which changes the members ask for.
func (r *Registry) Changes() (c Changes, err error) {
	err = r.state.View(func(tx audit.Tx) error {
		c, err = changesOf(tx)
		return err
	})
	return c, err
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
