package main

import (
	"context"
	"errors"
	"slices"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/authz/destination"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// roleView is who holds which roles.
type roleView struct {
	Principal string   `json:"principal"`
	Name      string   `json:"name"`
	Tenant    string   `json:"tenant"`
	Roles     []string `json:"roles"`
}

// Roles lists who holds a role now.
func (m *admin) Roles(context.Context) (any, error) {
	views := []roleView{}
	agents, err := m.registry.Agents()
	for _, a := range agents {
		if a.Revoked == nil && len(a.Roles) > 0 {
			views = append(views, roleView{a.Principal().String(), a.Name, a.Tenant, a.Roles})
		}
	}
	keys, keysErr := m.registry.Keys()
	for _, k := range keys {
		if k.Revoked == nil && len(k.Roles) > 0 {
			views = append(views, roleView{k.Principal().String(), k.Name, k.Tenant, k.Roles})
		}
	}
	return map[string]any{"roles": views}, errors.Join(err, keysErr)
}

func (m *admin) GrantRole(ctx context.Context, by identity.Principal, req httpdoor.RoleRequest) (any, error) {
	if err := m.checkRole(req.Role); err != nil {
		return nil, err
	}
	return m.changeRole(ctx, by, registry.Grant, req)
}

// RevokeRole takes a role away, even one that the policy in force does not know.
func (m *admin) RevokeRole(ctx context.Context, by identity.Principal, req httpdoor.RoleRequest) (any, error) {
	return m.changeRole(ctx, by, registry.Revoke, req)
}

func (m *admin) changeRole(ctx context.Context, by identity.Principal, action string, req httpdoor.RoleRequest) (any, error) {
	p, err := m.principal(tenantOf(req.Tenant, by), req.Principal)
	if err != nil {
		return nil, err
	}
	body := registry.RoleBody{Action: action, Principal: p.String(), Role: req.Role, Tenant: p.Tenant}
	if err := record(ctx, m, by, body); err != nil {
		return nil, err
	}
	roles := slices.DeleteFunc(slices.Clone(p.Roles), func(r string) bool { return r == req.Role })
	if action == registry.Grant {
		roles = append(roles, req.Role)
		slices.Sort(roles)
	}
	return roleView{Principal: p.String(), Tenant: p.Tenant, Roles: roles}, nil
}

// principal finds an agent or API key in force by any of its names.
func (m *admin) principal(tenant, text string) (identity.Principal, error) {
	if p, ok := m.registry.Principal(text); ok {
		return p, nil
	}
	if id, err := agentID(text); err == nil {
		if p, ok := m.registry.Agent(id); ok {
			return p, nil
		}
	}
	agent, agentErr := m.registry.AgentByName(tenant, text)
	key, keyErr := m.registry.KeyByName(tenant, text)
	switch {
	case agentErr == nil && keyErr == nil:
		return identity.Principal{}, a2a.Errorf(a2a.CodeInvalidRequest, "both an agent and an API key are called %.80q; give the ID", text)
	case agentErr == nil:
		return agent.Principal(), nil
	case keyErr == nil:
		return key.Principal(), nil
	}
	key, err := m.registry.KeyByID(text)
	if err == nil && key.Revoked == nil {
		return key.Principal(), nil
	}
	return identity.Principal{}, a2a.Errorf(a2a.CodeNotFound, "no agent or API key %.80q in force in tenant %s", text, tenant)
}

func (m *admin) Tenants(context.Context) (any, error) {
	tenants, err := m.registry.Tenants()
	return map[string]any{"tenants": slices.Concat([]registry.Tenant{}, tenants)}, err
}

func (m *admin) CreateTenant(ctx context.Context, by identity.Principal, name string) (any, error) {
	if err := record(ctx, m, by, registry.TenantBody{Action: registry.Create, Name: name}); err != nil {
		return nil, err
	}
	return m.tenant(name)
}

func (m *admin) SetTenant(ctx context.Context, by identity.Principal, name string, req httpdoor.TenantRequest) (any, error) {
	if req.Suspended == nil && req.Ceiling == nil && req.EvidenceHours == nil {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "nothing to change: give suspended, ceiling or evidence_hours")
	}
	if req.EvidenceHours != nil {
		if err := record(ctx, m, by, registry.TenantBody{Action: registry.Retain, Name: name, EvidenceHours: *req.EvidenceHours}); err != nil {
			return nil, err
		}
	}
	if req.Ceiling != nil {
		t, err := m.registry.Tenant(name)
		if err != nil {
			return nil, notFound("tenant", name, err)
		}
		ceiling, err := checkCeiling(registry.Ceiling(*req.Ceiling))
		if err != nil {
			return nil, err
		}
		if err := record(ctx, m, by, registry.TenantBody{Action: registry.Limit, Name: name, Ceiling: &ceiling, Vouchers: t.Vouchers}); err != nil {
			return nil, err
		}
	}
	if req.Suspended != nil {
		if err := record(ctx, m, by, registry.TenantBody{Action: registry.Set, Name: name, Suspended: *req.Suspended}); err != nil {
			return nil, err
		}
	}
	return m.tenant(name)
}

// checkCeiling holds the words of a ceiling, and writes each in its one form.
func checkCeiling(c registry.Ceiling) (registry.Ceiling, error) {
	for i, text := range c.Network {
		pattern, err := destination.ParsePattern(text)
		if err != nil {
			return c, a2a.Errorf(a2a.CodeInvalidRequest, "network: %s", err)
		}
		c.Network[i] = pattern
	}
	if c.Tier != "" && !authz.IsTier(c.Tier) {
		return c, a2a.Errorf(a2a.CodeInvalidRequest, "tier %.20q is none of T1, T2, T3, T4", c.Tier)
	}
	return c, nil
}

func (m *admin) tenant(name string) (any, error) {
	t, err := m.registry.Tenant(name)
	if err != nil {
		return nil, notFound("tenant", name, err)
	}
	return t, nil
}
