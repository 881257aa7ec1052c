package http

import (
	"net"
	"net/http"
	"strings"

	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// caller is who the request's credential proves; nobody if it bears none.
func (d *door) caller(r *http.Request) (identity.Principal, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return identity.Principal{}, nil
	}
	scheme, bearer, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return identity.Principal{}, errScheme
	}
	return d.cfg.Authenticator.Authenticate(r.Context(), strings.TrimSpace(bearer), source(r))
}

// a2a proves the caller of an A2A request. A request without a credential goes
// on as nobody's: its signature must prove it.
func (d *door) a2a(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := d.caller(r)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		ctx := server.WithCaller(r.Context(), server.Caller{Principal: caller, Door: server.DoorHTTP})
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
