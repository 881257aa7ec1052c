package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
)

// certificateUser names a user whom a certificate proves. A name in a
// certificate may be a person's; the log, which keeps for ever, gets a digest,
// as it does of the users of an OpenID provider.
func certificateUser(name string) string {
	sum := sha256.Sum256([]byte("agenticraft x509 user v1\x00" + name))
	return "x" + hex.EncodeToString(sum[:16])
}

// AuthenticateCertificate says whom a TLS client's certificate proves; that the
// client holds its key, the connection proved. A certificate with the key of a
// registered agent proves that agent, whoever signed it: the key is his name.
// Any other must come from an authority that the operator named, and bear a
// name to which he gave a role.
func (c *credentials) AuthenticateCertificate(_ context.Context, chain []*x509.Certificate) (identity.Principal, error) {
	if pub, ok := chain[0].PublicKey.(ed25519.PublicKey); ok {
		if p, ok := c.directory.Agent(identity.FromPublicKey(pub)); ok {
			return p, nil
		}
	}
	if p, ok := c.tls.user(chain); ok {
		return p, nil
	}
	c.noted(a2a.CodeUnauthenticated)
	return identity.Principal{}, &a2a.Error{Code: a2a.CodeUnauthenticated, Message: "the credentials were refused"}
}

// user is who a certificate of one of the operator's authorities names.
func (t *tlsFiles) user(chain []*x509.Certificate) (identity.Principal, bool) {
	if t == nil {
		return identity.Principal{}, false
	}
	pool := t.state().clients
	if pool == nil {
		return identity.Principal{}, false
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return identity.Principal{}, false
	}
	for _, name := range namesOf(chain[0]) {
		if role, ok := t.settings.Roles[name]; ok {
			return identity.Principal{Kind: identity.User, Name: certificateUser(name), Tenant: t.settings.Tenant, Roles: []string{role}}, true
		}
	}
	return identity.Principal{}, false
}

// namesOf are the names in a certificate, most exact first: URIs such as SPIFFE
// ids, mail addresses, host names, then the common name.
func namesOf(c *x509.Certificate) []string {
	var out []string
	for _, u := range c.URIs {
		out = append(out, u.String())
	}
	out = slices.Concat(out, c.EmailAddresses, c.DNSNames)
	if c.Subject.CommonName != "" {
		out = append(out, c.Subject.CommonName)
	}
	return out
}
