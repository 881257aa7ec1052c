package http

import (
	"context"
	"net/http"

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
	return d.cfg.Admin.RotateKey(ctx, by, r.PathValue("id"))
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
