package registry

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Who may hand out what: nobody more than he has, and the cluster keeps an admin.

// revocation is a row of the table of revoked blocks.
type revocation struct {
	Since uint64 `json:"since"`
}

// mandate ends a block, for whoever signed it or an admin.
//
// INVARIANT: I9, authority only narrows along a chain: who was given something
// cannot take it from others.
func (c *change) mandate(b MandateBody) error {
	own, err := rolesOf(c.tx, c.entry.Actor)
	if err != nil {
		return err
	}
	if !slices.Contains(own, RoleAdmin) && !c.signedBlock(b) {
		return refuse("role", "a block of a mandate is revoked by whoever signed it, who shows it, or by an admin")
	}
	if c.tx.Get(revokedPrefix+b.ID) != nil {
		return refuse("exists", "the block is revoked already")
	}
	return put(c.tx, revokedPrefix+b.ID, revocation{Since: c.index})
}

// signedBlock reports whether the body shows the block, and the actor signed it.
func (c *change) signedBlock(b MandateBody) bool {
	raw, err := base64.StdEncoding.DecodeString(b.Block)
	sum := sha256.Sum256(raw)
	var block struct {
		By string `json:"by"`
	}
	return err == nil && hex.EncodeToString(sum[:]) == b.ID && json.Unmarshal(raw, &block) == nil &&
		c.entry.Actor == string(identity.Agent)+":"+block.By
}

// begin writes a new principal and its roles.
func (c *change) begin(principal string, roles []string, key string, row any) error {
	if err := c.mayGrant(roles); err != nil {
		return err
	}
	if err := putRoles(c.tx, principal, roles); err != nil {
		return err
	}
	return put(c.tx, key, row)
}

// end writes a principal that is no longer in force.
func (c *change) end(principal, key string, row any) error {
	if err := putRoles(c.tx, principal, nil); err != nil {
		return err
	}
	if err := put(c.tx, key, row); err != nil {
		return err
	}
	return c.keepAdmin()
}

// mayGrant holds that nobody hands out what he does not hold, but an admin.
//
// INVARIANT: I9, authority only narrows along a chain.
func (c *change) mayGrant(roles []string) error {
	if c.index == 0 {
		return nil
	}
	own, err := rolesOf(c.tx, c.entry.Actor)
	if err != nil {
		return err
	}
	if slices.Contains(own, RoleAdmin) {
		return c.unscoped(len(roles) > 0)
	}
	for _, r := range roles {
		if !slices.Contains(own, r) {
			return refuse("role", "only an admin hands out roles that he does not hold")
		}
	}
	return c.unscoped(len(roles) > 0)
}

// scopesOf are the scopes of the key that asks, if it is one.
func (c *change) scopesOf() ([]string, error) {
	id, ok := strings.CutPrefix(c.entry.Actor, string(identity.Service)+":")
	if !ok || c.index == 0 {
		return nil, nil
	}
	k, err := get[Key](c.tx, keyPrefix+id)
	return k.Scopes, err
}

// unscoped holds that a key of limited scope hands out nothing that is not
// limited: roles to agents, or to keys, whose scopes scopesNarrow looks at.
func (c *change) unscoped(granting bool) error {
	scopes, err := c.scopesOf()
	if err != nil || len(scopes) == 0 || !granting || c.entry.Kind == audit.KindKey {
		return err
	}
	return refuse("scope", "an API key of limited scope hands out no roles")
}

// scopesNarrow holds that a key of limited scope makes none of wider scope.
func (c *change) scopesNarrow(given []string) error {
	own, err := c.scopesOf()
	if err != nil || len(own) == 0 {
		return err
	}
	if len(given) == 0 || slices.ContainsFunc(given, func(s string) bool { return !slices.Contains(own, s) }) {
		return refuse("scope", "an API key of limited scope makes none of wider scope")
	}
	return nil
}

// onlyAdmin holds that the actor is an admin in the registry, whatever the policy
// allows, in clusters that began with that rule.
func (c *change) onlyAdmin(complaint string) error {
	if c.index == 0 {
		return nil
	}
	cluster, err := get[Cluster](c.tx, clusterKey)
	if err != nil || cluster.Rules < rulesSigned {
		return err
	}
	own, err := rolesOf(c.tx, c.entry.Actor)
	if err == nil && !slices.Contains(own, RoleAdmin) {
		err = refuse("role", "%s", complaint)
	}
	return err
}

// keepAdmin refuses the change after which nobody in force would be an admin.
func (c *change) keepAdmin() error {
	var holders []string
	err := c.tx.Each(rolePrefix, func(key string, value []byte) error {
		g, err := decode[grants](key, value)
		if slices.Contains(g.Roles, RoleAdmin) {
			holders = append(holders, strings.TrimPrefix(key, rolePrefix))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range holders {
		s, err := standingOf(c.tx, name, c.time)
		if err != nil {
			return err
		}
		if s.inForce {
			return nil
		}
	}
	return refuse("last_admin", "the cluster would have no admin; appoint another one first")
}
