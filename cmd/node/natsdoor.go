package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/natsrpc"
	httpdoor "github.com/agenticraft/node/bridges/http"
	natsdoor "github.com/agenticraft/node/bridges/nats"
)

// natsSettings are the configuration of the NATS door; without a URL there is
// none.
type natsSettings struct {
	natsdoor.Access
	Subject string
	Queue   bool
}

func natsTable() []setting {
	str := func(key, def, help string, at func(*natsSettings) *string) setting {
		return setting{
			key: key, env: "AGENTICRAFT_" + strings.ToUpper(key), text: def, help: help,
			set: func(c *config, s string) error { *at(&c.NATS) = s; return nil },
			get: func(c *config) string { return *at(&c.NATS) },
		}
	}
	return []setting{
		str("nats_url", "", "NATS server of the NATS door: nats://HOST:PORT or tls://HOST:PORT, several with commas; empty: no such door", func(n *natsSettings) *string { return &n.URL }),
		str("nats_subject", natsrpc.DefaultSubject, "what the door's subjects begin with", func(n *natsSettings) *string { return &n.Subject }),
		{
			key: "nats_queue", env: "AGENTICRAFT_NATS_QUEUE", text: "false", help: "work on the JetStream queue of signed requests, too",
			set: func(c *config, s string) (err error) { c.NATS.Queue, err = strconv.ParseBool(s); return err },
			get: func(c *config) string { return strconv.FormatBool(c.NATS.Queue) },
		},
		str("nats_user", "", "user name at the NATS server", func(n *natsSettings) *string { return &n.User }),
		str("nats_password_file", "", "file with that user's password", func(n *natsSettings) *string { return &n.PasswordFile }),
		str("nats_creds", "", "file with a NATS user's JWT and seed", func(n *natsSettings) *string { return &n.Creds }),
		str("nats_nkey", "", "file with the seed of an nkey", func(n *natsSettings) *string { return &n.NKey }),
		str("nats_ca", "", "file of certificates that sign the NATS server's (default: the system's)", func(n *natsSettings) *string { return &n.CA }),
		str("nats_cert", "", "file with the client certificate for the NATS server", func(n *natsSettings) *string { return &n.Cert }),
		str("nats_cert_key", "", "file with that certificate's key", func(n *natsSettings) *string { return &n.Key }),
	}
}

// open makes the door; nil if the configuration names no server. The caller
// fills in what is not configuration.
func (n natsSettings) open(cfg natsdoor.Config) (*natsdoor.Door, error) {
	if n.URL == "" {
		return nil, nil
	}
	cfg.Access, cfg.Subject, cfg.Queue = n.Access, n.Subject, n.Queue
	cfg.Access.Name = "agenticraft " + string(cfg.Node)
	cfg.Version, cfg.Schema, cfg.JSONRPC, cfg.Drain = buildVersion().Version, a2a.ExecutionSchema(), httpdoor.JSONRPCPath, drainWait
	door, err := natsdoor.New(cfg)
	if err != nil {
		return nil, usage("configuration: %v", err)
	}
	return door, nil
}

// interfaces are what the agent card says of the door.
func (n natsSettings) interfaces() []a2a.CardInterface {
	var out []a2a.CardInterface
	for server := range strings.SplitSeq(n.URL, ",") {
		if server = strings.TrimSpace(server); server != "" {
			out = append(out, a2a.CardInterface{URL: strings.TrimSuffix(server, "/") + "/" + n.Subject, Binding: natsrpc.BindingURI})
		}
	}
	return out
}

// natsFinding is what the doctor says of the door.
func natsFinding(s natsdoor.Status) finding {
	f := finding{Name: "nats", OK: s.Connected && s.Fault == "", Detail: fmt.Sprintf("subjects %s.* at %s", s.Subject, s.Server)}
	switch {
	case !s.Connected:
		f.Detail = "no connection to " + s.Server
		f.Hint = "is the NATS server up, and are its address and the credentials right? (nats_* in the configuration)"
	case s.Queue == "waiting":
		f.OK = false
		f.Detail += ", the queue waits for JetStream"
		f.Hint = "enable JetStream on the NATS server, or set nats_queue to false"
	case s.Fault != "":
		f.Hint = "the node's NATS user must be allowed to subscribe and publish there, docs/bindings-nats.md"
	}
	if s.Connected && s.Queue == "working" {
		f.Detail += ", works on the queue"
	}
	if s.Fault != "" {
		f.Detail += ": " + s.Fault
	}
	return f
}
