package nats

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Access says where the NATS server is and how the node proves itself to it.
// The names in errors are those of the node's configuration.
type Access struct {
	URL  string // nats://HOST:PORT or tls://HOST:PORT, several with commas
	Name string // of the connection, for the server's operator

	User         string
	PasswordFile string
	Creds        string // file with a user's JWT and seed
	NKey         string // file with a seed

	CA   string // file of certificates that the server's must be signed by
	Cert string // the client's own, for a server that asks for one
	Key  string
}

const (
	connectWait     = 5 * time.Second
	reconnectWait   = 250 * time.Millisecond
	reconnectJitter = 250 * time.Millisecond
	reconnectBuffer = 16 << 20 // bytes of replies that wait for the connection to come back
	pingInterval    = 20 * time.Second
)

// options checks everything and reads the credentials.
func (a Access) options() ([]nats.Option, error) {
	faults := a.checkURL()
	out := []nats.Option{
		nats.Name(a.Name),
		nats.Timeout(connectWait),
		// The node lives without NATS, and comes back to it by itself, whatever
		// the reason was.
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(reconnectBuffer), nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
	}
	ways := 0
	if a.User != "" || a.PasswordFile != "" {
		ways++
		password, err := os.ReadFile(a.PasswordFile)
		if a.User == "" || a.PasswordFile == "" {
			faults = append(faults, errors.New("nats_user and nats_password_file belong together"))
		} else if err != nil {
			faults = append(faults, fmt.Errorf("nats_password_file: %w", err))
		}
		out = append(out, nats.UserInfo(a.User, strings.TrimRight(string(password), "\r\n")))
	}
	if a.Creds != "" {
		ways++
		if _, err := os.Stat(a.Creds); err != nil { // read again at each connect, so that it can be renewed
			faults = append(faults, fmt.Errorf("nats_creds: %w", err))
		}
		out = append(out, nats.UserCredentials(a.Creds))
	}
	if a.NKey != "" {
		ways++
		option, err := nats.NkeyOptionFromSeed(a.NKey)
		if err != nil {
			faults = append(faults, fmt.Errorf("nats_nkey: %w", err))
		} else {
			out = append(out, option)
		}
	}
	if ways > 1 {
		faults = append(faults, errors.New("nats_user, nats_creds and nats_nkey exclude each other"))
	}
	if a.CA != "" {
		if _, err := os.Stat(a.CA); err != nil {
			faults = append(faults, fmt.Errorf("nats_ca: %w", err))
		}
		out = append(out, nats.RootCAs(a.CA))
	}
	if a.Cert != "" || a.Key != "" {
		if a.Cert == "" || a.Key == "" {
			faults = append(faults, errors.New("nats_cert and nats_cert_key belong together"))
		}
		ways++
		for key, file := range map[string]string{"nats_cert": a.Cert, "nats_cert_key": a.Key} {
			if _, err := os.Stat(file); file != "" && err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", key, err))
			}
		}
		out = append(out, nats.ClientCert(a.Cert, a.Key))
	}
	if !a.loopback() && ways == 0 {
		faults = append(faults, errors.New("nats_url: a server that is not on this machine needs credentials: nats_user, nats_creds, nats_nkey or nats_cert"))
	}
	return out, errors.Join(faults...)
}

// checkURL refuses what would send requests in the clear or show a secret.
func (a Access) checkURL() []error {
	var faults []error
	for text := range strings.SplitSeq(a.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		switch {
		case err != nil:
			faults = append(faults, errors.New("nats_url: not a URL")) // its text may hold a password
		case u.User != nil:
			faults = append(faults, errors.New("nats_url: credentials do not belong into a URL; use nats_user and nats_password_file"))
		case u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls":
			faults = append(faults, fmt.Errorf("nats_url: %q is neither nats://HOST:PORT nor tls://HOST:PORT", text))
		case u.Scheme != "tls" && !loopback(u.Hostname()):
			faults = append(faults, fmt.Errorf("nats_url: %q is not on this machine, so it needs TLS: tls://%s", text, u.Host))
		}
	}
	return faults
}

// loopback reports whether every server is on this machine.
func (a Access) loopback() bool {
	for text := range strings.SplitSeq(a.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(text)); err != nil || !loopback(u.Hostname()) {
			return false
		}
	}
	return true
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
