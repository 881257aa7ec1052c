package http

import (
	"context"
	"net/http"

	"github.com/agenticraft/node/identity"
)

func (d *door) applyPolicy(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req PolicyRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Policies.Apply(ctx, by, req)
}

func (d *door) explainPolicy(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req ExplainRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Policies.Explain(ctx, by, req)
}

func (d *door) replayPolicy(ctx context.Context, _ identity.Principal, r *http.Request) (any, error) {
	var req PolicyRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Policies.Replay(ctx, req)
}

func (d *door) policyBefore(ctx context.Context, _ identity.Principal, r *http.Request) (any, error) {
	q, err := parameters(r, "layer")
	if err != nil {
		return nil, err
	}
	return d.cfg.Policies.Before(ctx, q.Get("layer"))
}
