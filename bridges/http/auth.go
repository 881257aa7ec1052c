package http

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"strings"

	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/identity"
)

// caller is who the request's credential proves; nobody if it bears none.
func (d *door) caller(r *http.Request) (identity.Principal, error) {
	// Two credentials are none: which of them another reader would heed, we cannot know.
	shown := server.Credential{Authorization: strings.Join(r.Header.Values("Authorization"), ", "), Source: source(r)}
	if r.TLS != nil {
		shown.Certificates = r.TLS.PeerCertificates
	}
	return authenticate(r.Context(), d.cfg.Authenticator, shown)
}

// CertificateAuthenticator is an [Authenticator] that knows TLS clients, too.
// The chain is not empty, and the client holds the key of its first.
type CertificateAuthenticator interface {
	AuthenticateCertificate(ctx context.Context, chain []*x509.Certificate) (identity.Principal, error)
}

// authenticate proves who shows a credential: the header's bearer, who may be
// another than the client that carries his request, else the client.
func authenticate(ctx context.Context, a Authenticator, shown server.Credential) (identity.Principal, error) {
	if shown.Authorization == "" {
		if known, ok := a.(CertificateAuthenticator); ok && len(shown.Certificates) > 0 {
			return known.AuthenticateCertificate(ctx, shown.Certificates)
		}
		return identity.Principal{}, nil
	}
	scheme, bearer, ok := strings.Cut(shown.Authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return identity.Principal{}, errScheme
	}
	return a.Authenticate(ctx, strings.TrimSpace(bearer), shown.Source)
}

// Callers proves the callers of the gRPC binding as the door proves its own.
func Callers(a Authenticator) func(ctx context.Context, shown server.Credential) (server.Caller, error) {
	return func(ctx context.Context, shown server.Credential) (server.Caller, error) {
		p, err := authenticate(ctx, a, shown)
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
