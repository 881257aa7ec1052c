package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// maxKeepers is the most keepers of a cluster: each entry waits for a majority.
const maxKeepers = 7

// MemberBody adds a node to the cluster, removes one, or invites one.
//
// An invitation is a key of its own: the entry names its public half, the token
// holds the private half, and whoever joins shows a signature by it over the
// node that joins. The log never holds what would let somebody join.
type MemberBody struct {
	Action string      `json:"action"` // [Add], [Remove] or [Invite]
	ID     identity.ID `json:"id"`     // the node; of an invitation: its key
	Role   string      `json:"role,omitempty"`
	Name   string      `json:"name,omitempty"`
	Addrs  []string    `json:"addrs,omitempty"` // multiaddrs
	// Expires is the end of an invitation, as audit.Entry.Time.
	Expires string `json:"expires,omitempty"`
	// Invite is the key of the invitation that the node joins by, and Proof
	// that key's signature ([JoinProof]) in base64.
	Invite identity.ID `json:"invite,omitempty"`
	Proof  string      `json:"proof,omitempty"`
}

// Invitation is an open or used invitation. A used one stays, so that its token
// is told from one that never was.
type Invitation struct {
	ID      identity.ID `json:"id"` // its key
	Role    string      `json:"role"`
	Expires string      `json:"expires"` // as audit.Entry.Time
	Since   uint64      `json:"since"`
	Used    *uint64     `json:"used,omitempty"` // index of the entry that used it
}

const joinDomain = "agenticraft join v1"

// JoinProof is the signature of an invitation's key that lets one node join one
// cluster: over its log's origin, the node and the role.
func JoinProof(invite *identity.Key, origin string, node identity.ID, role string) string {
	return base64.StdEncoding.EncodeToString(invite.Sign(joinDomain, joinMessage(origin, node, role)))
}

func joinMessage(origin string, node identity.ID, role string) []byte {
	return fmt.Appendf(nil, "%s\n%s\n%s\n", origin, node, role)
}

func (b MemberBody) check() error {
	bare := b.Name == "" && len(b.Addrs) == 0 && b.Invite == "" && b.Proof == ""
	badRole := when(!slices.Contains([]string{Keeper, Worker, Auditor}, b.Role), "role is none of keeper, worker, auditor")
	switch b.Action {
	case Add:
		proof, err := base64.StdEncoding.Strict().DecodeString(b.Proof)
		return fault(
			checkID(b.ID), checkOptional("name", b.Name), checkAddrs(b.Addrs), badRole,
			when(b.Expires != "", "a membership does not expire"),
			when((b.Invite == "") != (b.Proof == ""), "an invitation needs its proof"),
			when(b.Invite != "" && (checkID(b.Invite) != "" || err != nil || len(proof) != 64), "the proof of the invitation is malformed"),
		)
	case Invite:
		return fault(checkID(b.ID), badRole, when(b.Expires == "" || checkExpires(b.Expires) != "", "an invitation needs an end"),
			when(!bare, "an invitation names its key, role and end only"))
	case Remove:
		return fault(checkID(b.ID), when(b.Role != "" || b.Expires != "" || !bare, "a removal names the id only"))
	}
	return errAction
}

// member changes who belongs to the cluster. Who keeps the log follows by an
// entry of the keepers themselves, see epoch.
func (c *change) member(b MemberBody) error {
	switch b.Action {
	case Invite:
		return c.invite(b)
	case Remove:
		return c.removeMember(b)
	}
	return c.addMember(b)
}

func (c *change) invite(b MemberBody) error {
	if err := c.byAdmin("invites a node"); err != nil {
		return err
	}
	if _, err := get[Invitation](c.tx, invitePrefix+string(b.ID)); err == nil {
		return refuse("exists", "an invitation has this key already")
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	if end, err := audit.ParseTime(b.Expires); err != nil || !end.After(c.time) {
		return refuse("expired", "the invitation would have ended already")
	}
	return put(c.tx, invitePrefix+string(b.ID), Invitation{ID: b.ID, Role: b.Role, Expires: b.Expires, Since: c.index})
}

func (c *change) addMember(b MemberBody) error {
	if err := c.mayAdd(b); err != nil {
		return err
	}
	key := memberPrefix + string(b.ID)
	if _, err := get[Member](c.tx, key); err == nil {
		return refuse("exists", "the node is a member already")
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	rows, err := each[Member](c.tx, memberPrefix)
	if err != nil {
		return err
	}
	keepers := 0
	for _, m := range rows {
		if b.Name != "" && m.Name == b.Name {
			return refuse("name_taken", "member %s exists already", b.Name)
		}
		if m.Role == Keeper && m.Leaving == nil {
			keepers++
		}
	}
	if b.Role == Keeper && keepers >= maxKeepers {
		return refuse("keepers", "the cluster has %d keepers already", maxKeepers)
	}
	return put(c.tx, key, Member{ID: b.ID, Role: b.Role, Name: b.Name, Addrs: b.Addrs, Since: c.index})
}

// mayAdd holds that a node comes in by an admin's word: his entry, or his
// invitation, which is used up.
func (c *change) mayAdd(b MemberBody) error {
	if c.index == 0 {
		return nil
	}
	if b.Invite == "" {
		return c.byAdmin("adds a node without an invitation")
	}
	key := invitePrefix + string(b.Invite)
	inv, err := get[Invitation](c.tx, key)
	if err != nil {
		return missing(err, "invite_unknown", "this cluster gave no such invitation")
	}
	proof, err := base64.StdEncoding.DecodeString(b.Proof)
	if err != nil || c.origin == "" || !b.Invite.Verify(joinDomain, joinMessage(c.origin, b.ID, b.Role), proof) {
		return refuse("invite_proof", "the invitation was given for another node, role or cluster")
	}
	end, err := audit.ParseTime(inv.Expires)
	switch {
	case err != nil:
		return &brokenError{key: key, err: err}
	case inv.Used != nil:
		return refuse("invite_used", "the invitation was used already; ask for another one")
	case !c.time.Before(end):
		return refuse("invite_expired", "the invitation has expired; ask for another one")
	case inv.Role != b.Role:
		return refuse("invite_role", "the invitation is for a %s", inv.Role)
	}
	inv.Used = &c.index
	return put(c.tx, key, inv)
}

// removeMember removes a node at once, a voting keeper in two steps: it is
// marked here, leaves the vote by an epoch, and is removed by a second entry.
func (c *change) removeMember(b MemberBody) error {
	key := memberPrefix + string(b.ID)
	old, err := get[Member](c.tx, key)
	if err != nil {
		return missing(err, "not_found", "no such member")
	}
	now, err := epochOf(c.tx)
	if err != nil {
		return err
	}
	votes := slices.Contains(now.Keepers, b.ID)
	if err := c.mayRemove(old, votes); err != nil {
		return err
	}
	if !votes {
		return c.tx.Delete(key)
	}
	if old.Leaving != nil {
		return refuse("leaving", "the keeper is leaving already")
	}
	stay := 0
	for _, id := range now.Keepers {
		m, err := get[Member](c.tx, memberPrefix+string(id))
		if err != nil {
			return err
		}
		if m.Leaving == nil && id != b.ID {
			stay++
		}
	}
	if stay == 0 {
		return refuse("keepers", "the cluster would have no keeper")
	}
	old.Leaving = &c.index
	return put(c.tx, key, old)
}

// mayRemove holds that a node leaves by its own word or an admin's, and that a
// keeper who was told to leave is let go by another one.
func (c *change) mayRemove(m Member, votes bool) error {
	switch {
	case !c.byNode():
		return c.byAdmin("removes a node")
	case c.entry.Actor == nodeName(m.ID), m.Leaving != nil && !votes:
		return nil
	}
	return refuse("principal", "a node removes nobody but itself")
}

func (c *change) byNode() bool {
	kind, _, _ := cut(c.entry.Actor)
	return kind == identity.Node
}

func nodeName(id identity.ID) string {
	return identity.Principal{Kind: identity.Node, Name: id.DID()}.String()
}

// byAdmin refuses what only a holder of the role admin may do.
func (c *change) byAdmin(does string) error {
	if c.index == 0 {
		return nil
	}
	own, err := rolesOf(c.tx, c.entry.Actor)
	if err != nil {
		return err
	}
	if !slices.Contains(own, RoleAdmin) {
		return refuse("role", "only an admin %s", does)
	}
	return nil
}
