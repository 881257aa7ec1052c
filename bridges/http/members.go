package http

import (
	"context"
	"net/http"

	"github.com/agenticraft/node/identity"
)

func (d *door) invite(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	var req InviteRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	return d.cfg.Members.Invite(ctx, by, req)
}

func (d *door) removeNode(ctx context.Context, by identity.Principal, r *http.Request) (any, error) {
	return d.cfg.Members.Remove(ctx, by, r.PathValue("id"))
}
