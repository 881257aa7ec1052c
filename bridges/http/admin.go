package http

import (
	"context"
	"errors"
	"net/http"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

func (d *door) keys(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Admin.Keys(ctx)
}

func (d *door) createKey(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req KeyRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Admin.CreateKey(ctx, by, req)
}

func (d *door) rotateKey(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req RotateRequest
	if r.ContentLength != 0 {
		if err := decode(r.Body, &req); err != nil {
			return nil, err
		}
	}
	return d.cfg.Admin.RotateKey(ctx, by, r.PathValue("id"), req)
}

func (d *door) revokeKey(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	return nil, d.cfg.Admin.RevokeKey(ctx, by, r.PathValue("id"))
}

func (d *door) agents(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Admin.Agents(ctx)
}

func (d *door) addAgent(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req AgentRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Admin.AddAgent(ctx, by, req)
}

func (d *door) revokeAgent(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	return nil, d.cfg.Admin.RevokeAgent(ctx, by, r.PathValue("id"))
}

func (d *door) roles(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Admin.Roles(ctx)
}

func (d *door) grantRole(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req RoleRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Admin.GrantRole(ctx, by, req)
}

func (d *door) revokeRole(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req RoleRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Admin.RevokeRole(ctx, by, req)
}

func (d *door) tenants(ctx context.Context, _ identity.Principal, _ *http.Request) (any, error) {
	return d.cfg.Admin.Tenants(ctx)
}

func (d *door) createTenant(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req TenantRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Admin.CreateTenant(ctx, by, req.Name)
}

func (d *door) setTenant(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req TenantRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Admin.SetTenant(ctx, by, r.PathValue("name"), req)
}

// change makes a change that the caller worded himself. Which action it is, and so
// what policy is asked, stands in it.
func (d *door) change(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req ChangeRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	action, err := d.cfg.Admin.Act(req)
	if known, ok := errors.AsType[*a2a.Error](err); ok {
		return nil, &unread{known}
	}
	if err != nil {
		return nil, err
	}
	if err := d.cfg.Gate.Permit(ctx, by, action); err != nil {
		return nil, err
	}
	return d.cfg.Admin.Change(ctx, by, req)
}
