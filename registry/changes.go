package registry

import (
	"errors"
	"slices"
	"strings"

	"github.com/agenticraft/node/identity"
)

// What each kind of body changes in the tables, once admission has held who asks.

func (c *change) agent(b AgentBody) error {
	old, err := agentOf(c.tx, b.ID)
	exists := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if b.Action != Add {
		return c.changeAgent(old, exists, b)
	}
	switch {
	case exists && old.Revoked != nil:
		return refuse("revoked", "a revoked key does not come back; make a new one")
	case exists:
		return refuse("exists", "the agent is registered already as %s", old.Name)
	}
	if err := c.tenantExists(b.Tenant); err != nil {
		return err
	}
	rows, err := each[Agent](c.tx, agentPrefix)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(rows, func(a Agent) bool {
		return a.Revoked == nil && a.Rotated == "" && a.Tenant == b.Tenant && a.Name == b.Name
	}) {
		return refuse("name_taken", "agent %s exists already in tenant %s", b.Name, b.Tenant)
	}
	row := Agent{ID: b.ID, Name: b.Name, Tenant: b.Tenant, Labels: b.Labels, Since: c.index}
	return c.begin(row.Principal().String(), b.Roles, agentPrefix+string(b.ID), row)
}

// changeAgent ends an agent, for good or for a while, or puts another key in its
// place.
func (c *change) changeAgent(old Agent, exists bool, b AgentBody) error {
	switch {
	case !exists:
		return refuse("not_found", "no such agent")
	case old.Revoked != nil:
		return refuse("revoked", "the agent is revoked already")
	case b.Tenant != "" && b.Tenant != old.Tenant:
		return refuse("tenant", "the agent belongs to another tenant")
	}
	roles, name, row := old.Roles, old.Principal().String(), agentPrefix+string(b.ID)
	old = withoutRoles(old)
	switch b.Action {
	case Revoke:
		old.Revoked = &c.index
		return c.end(name, row, old)
	case Suspend, Resume:
		if old.Suspended == (b.Action == Suspend) {
			return refuse("exists", "the agent is in that state already")
		}
		// To let somebody work again is to grant all that he may do.
		if b.Action == Resume {
			if err := c.mayGrant(roles); err != nil {
				return err
			}
		}
		old.Suspended = b.Action == Suspend
		if err := put(c.tx, row, old); err != nil {
			return err
		}
		return c.keepAdmin()
	}
	return c.rotateAgent(old, roles, b)
}

// rotateAgent gives name, roles and labels to another key. The old one ends now,
// or goes on beside it for a while.
func (c *change) rotateAgent(old Agent, roles []string, b AgentBody) error {
	_, err := get[Agent](c.tx, agentPrefix+string(b.To))
	switch {
	case err == nil:
		return refuse("exists", "the new key is registered already; a key is rotated to one that nobody knows yet")
	case !errors.Is(err, ErrNotFound):
		return err
	case old.Rotated != "":
		return refuse("exists", "the agent has another key already")
	case old.Suspended:
		return refuse("revoked", "the agent is suspended")
	}
	heir := Agent{ID: b.To, Name: old.Name, Tenant: old.Tenant, Labels: old.Labels, Since: c.index}
	if err := c.begin(heir.Principal().String(), roles, agentPrefix+string(b.To), heir); err != nil {
		return err
	}
	old.Rotated, old.Expires = b.To, b.Until
	if b.Until == "" {
		old.Revoked = &c.index
		return c.end(old.Principal().String(), agentPrefix+string(b.ID), old)
	}
	if err := put(c.tx, agentPrefix+string(b.ID), old); err != nil {
		return err
	}
	return c.keepAdmin()
}

func (c *change) key(b KeyBody) error {
	if byNode := strings.HasPrefix(c.entry.Actor, string(identity.Node)+":"); byNode != (b.Action == Used) {
		return refuse("principal", "nodes say which keys they saw, and nothing else of keys; admins say everything else")
	}
	old, err := keyOf(c.tx, b.ID)
	exists := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if b.Action != Create {
		return c.changeKey(old, exists, b)
	}
	if exists {
		return refuse("exists", "an API key has this id already")
	}
	if err := c.tenantExists(b.Tenant); err != nil {
		return err
	}
	rows, err := each[Key](c.tx, keyPrefix)
	if err != nil {
		return err
	}
	for _, k := range rows {
		if k.Revoked == nil && k.Tenant == b.Tenant && k.Name == b.Name {
			return refuse("name_taken", "API key %s exists already in tenant %s", b.Name, b.Tenant)
		}
		if k.Hash == b.Hash {
			return refuse("exists", "an API key has this secret already")
		}
	}
	if err := c.scopesNarrow(b.Scopes); err != nil {
		return err
	}
	row := Key{ID: b.ID, Name: b.Name, Hash: b.Hash, Tenant: b.Tenant, Scopes: b.Scopes, Expires: b.Expires, Since: c.index}
	return c.begin(row.Principal().String(), b.Roles, keyPrefix+b.ID, row)
}

func (c *change) changeKey(old Key, exists bool, b KeyBody) error {
	switch {
	case !exists:
		return refuse("not_found", "no such API key")
	case old.Revoked != nil:
		return refuse("revoked", "the API key is revoked already")
	case b.Tenant != "" && b.Tenant != old.Tenant:
		return refuse("tenant", "the API key belongs to another tenant")
	}
	principal := old.Principal().String()
	if b.Action == Revoke {
		old.Revoked = &c.index
		old.Roles = nil
		return c.end(principal, keyPrefix+b.ID, old)
	}
	if b.Action == Used {
		old.Roles, old.Used = nil, max(old.Used, c.entry.Time)
		return put(c.tx, keyPrefix+b.ID, old)
	}
	if err := c.scopesNarrow(old.Scopes); err != nil {
		return err
	}
	// Another secret is a grant of all that the key may do.
	if err := c.mayGrant(old.Roles); err != nil {
		return err
	}
	if b.Hash == old.Hash || b.Hash == old.Before {
		return refuse("exists", "the API key had this secret before")
	}
	old.Before, old.Until = "", ""
	if b.Until != "" {
		old.Before, old.Until = old.Hash, b.Until
	}
	old.Hash, old.Roles = b.Hash, nil
	if b.Expires != "" {
		old.Expires = b.Expires
	}
	if err := put(c.tx, keyPrefix+b.ID, old); err != nil {
		return err
	}
	return c.keepAdmin()
}

func (c *change) setTenant(b TenantBody) error {
	// Ceilings bound what policies allow, so no policy says who sets them.
	if err := c.onlyAdmin("only an admin changes tenants"); err != nil {
		return err
	}
	old, err := get[Tenant](c.tx, tenantPrefix+b.Name)
	exists := err == nil
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	switch {
	case b.Action == Create && exists:
		return refuse("exists", "tenant %s exists already", b.Name)
	case b.Action != Create && !exists:
		return refuse("not_found", "no such tenant")
	case b.Action == Create:
		old = Tenant{Name: b.Name, Since: c.index, Suspended: b.Suspended, Ceiling: b.Ceiling, Vouchers: b.Vouchers}
	case b.Action == Retain:
		old.EvidenceHours = b.EvidenceHours
	case b.Action == Limit:
		old.Ceiling, old.Vouchers = b.Ceiling, b.Vouchers
	default:
		old.Suspended = b.Suspended
	}
	return put(c.tx, tenantPrefix+b.Name, old)
}

func (c *change) role(b RoleBody) error {
	s, err := standingOf(c.tx, b.Principal, c.time)
	switch {
	case err != nil:
		return missing(err, "not_found", "the principal is not registered")
	case s.principal.Kind == identity.Node:
		return refuse("malformed", "a node has no roles")
	case !s.inForce:
		return refuse("revoked", "the principal is revoked or expired")
	case s.principal.Tenant != b.Tenant:
		return refuse("tenant", "the principal belongs to another tenant")
	}
	roles := slices.Clone(s.principal.Roles)
	has := slices.Contains(roles, b.Role)
	if b.Action == Grant {
		if has {
			return refuse("exists", "the principal has role %s already", b.Role)
		}
		if len(roles) >= maxRoles {
			return refuse("too_many", "the principal has %d roles already", maxRoles)
		}
		if err := c.mayGrant([]string{b.Role}); err != nil {
			return err
		}
		return putRoles(c.tx, b.Principal, append(roles, b.Role))
	}
	if !has {
		return refuse("not_found", "the principal does not have role %s", b.Role)
	}
	if err := putRoles(c.tx, b.Principal, slices.DeleteFunc(roles, func(r string) bool { return r == b.Role })); err != nil {
		return err
	}
	return c.keepAdmin()
}

// policy holds that an admin changes the base and at least an operator the
// additions, who knows what he replaces. Whether the bundle is a policy at all is
// judged by each node, which keeps the one before if it is not: compiling is not
// for the state machine.
func (c *change) policy(b PolicyBody) error {
	own, err := rolesOf(c.tx, c.entry.Actor)
	if err != nil {
		return err
	}
	if !mayChange(b.Layer, own) {
		return refuse("role", "only an admin changes the policy, and only an admin or an operator the operators' additions to it")
	}
	if err := c.stoodFor(b); err != nil {
		return err
	}
	old, err := get[Policy](c.tx, policyRow(b.Layer))
	row := Policy{Digest: b.Digest, Since: c.index}
	switch {
	case err == nil && b.Before != old.Digest:
		return refuse("conflict", "the policy has changed meanwhile; look at the one in force first")
	case err == nil && b.Digest == old.Digest:
		return refuse("exists", "this policy is in force already")
	case err == nil:
		row.Before = &old.Since
	case !errors.Is(err, ErrNotFound):
		return err
	}
	return put(c.tx, policyRow(b.Layer), row)
}

func mayChange(layer string, roles []string) bool {
	return slices.Contains(roles, RoleAdmin) || layer == LayerAdditions && slices.Contains(roles, RoleOperator)
}

// stoodFor holds that somebody who may change the policy has signed the bundle,
// where a signature is there or the cluster wants one.
func (c *change) stoodFor(b PolicyBody) error {
	if b.Author == nil {
		cluster, err := get[Cluster](c.tx, clusterKey)
		if err != nil {
			return err
		}
		if cluster.SignedPolicy && b.Signed == nil {
			return refuse("signature", "this cluster takes signed policies only: agenticraft policy sign, or apply with --agent-key")
		}
		return nil
	}
	name := string(identity.Agent) + ":" + b.Author.By
	s, err := standingOf(c.tx, name, c.time)
	switch {
	case err != nil:
		return missing(err, "signature", "who signed the bundle is not registered")
	case !s.inForce || !mayChange(b.Layer, s.principal.Roles):
		return refuse("signature", "who signed the bundle is not in force, or may not change the policy")
	case !b.Author.Holds(b.Layer, b.Digest):
		return refuse("signature", "the bundle's signature does not hold")
	}
	return nil
}
