package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// How the doors ask TLS clients for certificates.
const (
	clientsOff     = "off"
	clientsRequest = "request"
	clientsRequire = "require"
)

// tlsSettings are the configuration of the doors' TLS; without a certificate
// there is none.
type tlsSettings struct {
	Cert, Key string            // files, read again when they change
	Clients   string            // clientsOff, clientsRequest or clientsRequire
	ClientCA  string            // file of authorities for clients who are no agents
	Tenant    string            // to which those clients belong
	Roles     map[string]string // name in a client's certificate -> role
}

func tlsTable() []setting {
	str := func(key, def, help string, at func(*tlsSettings) *string) setting {
		return setting{
			key: key, env: envName(key), text: def, help: help,
			set: func(c *config, s string) error { *at(&c.TLS) = s; return nil },
			get: func(c *config) string { return *at(&c.TLS) },
		}
	}
	return []setting{
		str("tls_cert", "", "file with the certificate of the HTTP and gRPC doors, and its chain", func(t *tlsSettings) *string { return &t.Cert }),
		str("tls_key", "", "file with that certificate's key", func(t *tlsSettings) *string { return &t.Key }),
		{
			key: "tls_clients", env: envName("tls_clients"), text: clientsOff, help: "ask TLS clients for a certificate: off, request or require",
			set: func(c *config, s string) error {
				if s != clientsOff && s != clientsRequest && s != clientsRequire {
					return fmt.Errorf("%q is none of %s, %s, %s", s, clientsOff, clientsRequest, clientsRequire)
				}
				c.TLS.Clients = s
				return nil
			},
			get: func(c *config) string { return c.TLS.Clients },
		},
		str("tls_client_ca", "", "file with the authorities of clients who are no agents", func(t *tlsSettings) *string { return &t.ClientCA }),
		str("tls_client_tenant", "default", "tenant to which those clients belong", func(t *tlsSettings) *string { return &t.Tenant }),
		{
			key: "tls_client_roles", env: envName("tls_client_roles"), help: "their roles: NAME=ROLE,…",
			set: func(c *config, s string) (err error) { c.TLS.Roles, err = pairs(s, "NAME=ROLE"); return err },
			get: func(c *config) string { return pairsText(c.TLS.Roles) },
		},
		{
			key: "public_url", env: envName("public_url"), help: "URL by which others reach the HTTP door, for the agent card",
			set: func(c *config, s string) error { c.PublicURL = s; return checkPublicURL(s) },
			get: func(c *config) string { return c.PublicURL },
		},
	}
}

// check finds what does not go together.
func (t tlsSettings) check() error {
	switch {
	case (t.Cert == "") != (t.Key == ""):
		return errors.New("tls_cert and tls_key: one without the other")
	case t.Cert == "" && t.Clients != clientsOff:
		return errors.New("tls_clients: needs tls_cert")
	case t.Clients == clientsOff && t.ClientCA != "":
		return errors.New("tls_client_ca: needs tls_clients request or require")
	case t.ClientCA == "" && len(t.Roles) > 0:
		return errors.New("tls_client_roles: needs tls_client_ca")
	}
	return nil
}

// tlsFiles are the certificate of the doors and the authorities of their
// clients, as the files have them.
type tlsFiles struct {
	settings tlsSettings
	log      *slog.Logger

	mu      sync.Mutex // guards what follows; held over the reading of the files, at most once a second
	looked  time.Time
	stamps  [3]stamp
	current tlsState
}

type tlsState struct {
	certificate *tls.Certificate
	clients     *x509.CertPool // nil: none but agents
}

// stamp tells a file from what it was before.
type stamp struct {
	time time.Time
	size int64
}

// lookAgain is how long a change of the files may go unnoticed.
const lookAgain = time.Second

// openTLS reads the files; nil if the doors have no TLS.
func openTLS(s tlsSettings, log *slog.Logger) (*tlsFiles, error) {
	if s.Cert == "" {
		return nil, nil
	}
	t := &tlsFiles{settings: s, log: log, looked: time.Now(), stamps: s.stamps()}
	var err error
	if t.current, err = s.load(); err != nil {
		return nil, failed("%v", err)
	}
	if info, err := os.Stat(s.Key); err == nil && info.Mode().Perm()&0o077 != 0 {
		log.Warn("others on this machine may read the key of the TLS certificate", "file", s.Key, "mode", info.Mode().Perm().String())
	}
	return t, nil
}

// config is for servers. What it gives out follows the files.
func (t *tlsFiles) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.state().certificate, nil },
		ClientAuth: map[string]tls.ClientAuthType{
			// Who a certificate proves is decided for each request: see caller.
			clientsOff: tls.NoClientCert, clientsRequest: tls.RequestClientCert, clientsRequire: tls.RequireAnyClientCert,
		}[t.settings.Clients],
	}
}

// state is what the files hold. Files that do not make sense change nothing.
func (t *tlsFiles) state() tlsState {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.looked) < lookAgain {
		return t.current
	}
	t.looked = time.Now()
	stamps := t.settings.stamps()
	if stamps == t.stamps {
		return t.current
	}
	t.stamps = stamps
	next, err := t.settings.load()
	if err != nil {
		t.log.Error("the changed TLS files are not used", "err", err)
		return t.current
	}
	t.log.Info("TLS files read again", "expires", next.certificate.Leaf.NotAfter)
	t.current = next
	return next
}

func (s tlsSettings) stamps() (out [3]stamp) {
	for i, name := range []string{s.Cert, s.Key, s.ClientCA} {
		if info, err := os.Stat(name); err == nil {
			out[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return out
}

func (s tlsSettings) load() (tlsState, error) {
	cert, err := readTLSFile("tls_cert", s.Cert)
	if err != nil {
		return tlsState{}, err
	}
	key, err := readTLSFile("tls_key", s.Key)
	if err != nil {
		return tlsState{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tlsState{}, fmt.Errorf("tls_cert %s and tls_key %s: %w", s.Cert, s.Key, err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return tlsState{}, fmt.Errorf("tls_cert %s: expired on %s", s.Cert, pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	out := tlsState{certificate: &pair}
	if s.ClientCA != "" {
		out.clients, err = readAuthorities("tls_client_ca", s.ClientCA)
	}
	return out, err
}

// readAuthorities reads certificates that sign others.
func readAuthorities(what, name string) (*x509.CertPool, error) {
	text, err := readTLSFile(what, name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s %s: no certificate in it (PEM)", what, name)
	}
	return pool, nil
}

func readTLSFile(what, name string) ([]byte, error) {
	const most = 1 << 20 // bytes
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: no file %s", what, name)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	case info.Size() > most || !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %s is not a file of certificates", what, name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return bytes.Clone(text), nil
}

// own is the configuration for a door that speaks TLS itself; nil if there is
// none.
func (t *tlsFiles) own() *tls.Config {
	if t == nil {
		return nil
	}
	return t.config()
}

// wrap has a door's listener speak TLS, if there is any.
func (t *tlsFiles) wrap(l net.Listener) net.Listener {
	if t == nil {
		return l
	}
	return tls.NewListener(l, t.config())
}
