package http

import (
	"context"
	"net"
	"net/http"
	"strings"

	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// caller is who the request's credential proves; nobody if it bears none.
func (d *door) caller(r *http.Request) (identity.Principal, error) {
	return authenticate(r.Context(), d.cfg.Authenticator, r.Header.Get("Authorization"), source(r))
}

func authenticate(ctx context.Context, a Authenticator, authorization, source string) (identity.Principal, error) {
	if authorization == "" {
		return identity.Principal{}, nil
	}
	scheme, bearer, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return identity.Principal{}, errScheme
	}
	return a.Authenticate(ctx, strings.TrimSpace(bearer), source)
}

// Callers proves the callers of the gRPC binding as the door proves its own.
func Callers(a Authenticator) func(ctx context.Context, authorization, source string) (server.Caller, error) {
	return func(ctx context.Context, authorization, source string) (server.Caller, error) {
		p, err := authenticate(ctx, a, authorization, source)
		return server.Caller{Principal: p, Door: server.DoorHTTP}, err
	}
}

// refuser is a binding that words refusals in its own form.
type refuser interface {
	Refuse(w http.ResponseWriter, r *http.Request, err error)
}

// a2a proves the caller of an A2A request to a binding below a path. A request
// without a credential goes on as nobody's: its signature must prove it.
func (d *door) a2a(path string, binding http.Handler) http.Handler {
	next := http.StripPrefix(path, binding)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := d.caller(r)
		if err != nil {
			if b, ok := binding.(refuser); ok {
				b.Refuse(w, r, err)
				return
			}
			d.fail(w, r, err)
			return
		}
		ctx := server.WithCaller(r.Context(), server.Caller{Principal: caller, Door: d.cfg.Door})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// source is the address that guesses are counted by.
func source(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
