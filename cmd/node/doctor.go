package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
)

// finding is one thing that the doctor looked at.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"` // what mends it
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Find out what is wrong: reachable, authenticated, authorized, quorum, peers, sandboxes", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			findings := door.examine(cmd.Context())
			bad := false
			for _, f := range findings {
				bad = bad || !f.OK
			}
			if a.json {
				a.print(map[string]any{"ok": !bad, "findings": findings})
			} else {
				for _, f := range findings {
					mark := "ok "
					if !f.OK {
						mark = "BAD"
					}
					fmt.Fprintf(a.stdout, "%s  %-14s %s\n", mark, f.Name, f.Detail)
					if f.Hint != "" {
						fmt.Fprintf(a.stdout, "     %-14s %s\n", "", f.Hint)
					}
				}
			}
			if bad {
				return exitError(exitFailed)
			}
			return nil
		},
	}
}

// examine asks one thing after the other, and stops where the next would only
// repeat the same fault.
func (c *api) examine(ctx context.Context) []finding {
	var found []finding
	add := func(name string, err error, detail string) bool {
		f := finding{Name: name, OK: err == nil, Detail: detail}
		if known := new(a2a.Error); errors.As(err, &known) {
			f.Detail, f.Hint = known.Message, known.Hint
		} else if err != nil {
			f.Detail = err.Error()
		}
		found = append(found, f)
		return err == nil
	}
	if !add("reachable", c.health(ctx), c.base) {
		return found
	}
	found = append(found, c.examineTLS(ctx))
	var me identity.Principal
	if err := c.do(ctx, http.MethodGet, "/v1/whoami", nil, &me); !add("authenticated", err, me.String()) {
		return found
	}
	var s statusView
	if err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s); !add("authorized", err, fmt.Sprintf("roles %v", me.Roles)) {
		return found
	}
	var ready error
	if !s.Ready {
		ready = &a2a.Error{Message: s.NotReady, Hint: "a quorum of keepers must be up and see each other"}
	}
	add("quorum", ready, fmt.Sprintf("%d of %d keepers needed, leader %s, term %d", s.Quorum, len(s.Keepers), s.Leader, s.Term))
	var signed error
	if s.Checkpoint == 0 {
		signed = &a2a.Error{Message: "no quorum has cosigned the log", Hint: "look for \"logs differ\" in the nodes' logs"}
	}
	add("log", signed, fmt.Sprintf("%d entries, %d of them cosigned", s.LogSize, s.Checkpoint))
	if s.NATS != nil {
		found = append(found, natsFinding(*s.NATS))
	}
	found = append(found, c.examinePeers(ctx)...)
	return append(found, c.examineSandboxes(ctx)...)
}

func (c *api) health(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/healthz", nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	return res.Body.Close()
}

// examineTLS looks at the certificate that the node shows.
func (c *api) examineTLS(ctx context.Context) finding {
	out := finding{Name: "tls", OK: true, Detail: "none: the door is for this machine only"}
	if !strings.HasPrefix(c.base, "https:") {
		return out
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/healthz", nil)
	if err != nil {
		return finding{Name: "tls", Detail: err.Error()}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return finding{Name: "tls", Detail: rootCause(err)}
	}
	defer res.Body.Close()
	if res.TLS == nil || len(res.TLS.PeerCertificates) == 0 {
		return finding{Name: "tls", Detail: "the node showed no certificate"}
	}
	cert := res.TLS.PeerCertificates[0]
	left := time.Until(cert.NotAfter)
	out.Detail = fmt.Sprintf("%s, certificate of %s, until %s", tls.VersionName(res.TLS.Version), strings.Join(namesOf(cert), " "), cert.NotAfter.UTC().Format(time.DateOnly))
	if left < expiresSoon {
		out.OK, out.Hint = false, "the certificate ends soon: put a new one in the place of tls_cert and tls_key; the node reads it by itself"
	}
	return out
}

// expiresSoon is when the doctor minds the end of a certificate.
const expiresSoon = 14 * 24 * time.Hour

func (c *api) examinePeers(ctx context.Context) []finding {
	var out struct {
		Nodes []nodeView `json:"nodes"`
	}
	if err := c.do(ctx, http.MethodGet, "/v1/nodes", nil, &out); err != nil {
		return []finding{{Name: "peers", Detail: err.Error()}}
	}
	var found []finding
	for _, n := range out.Nodes {
		switch {
		case n.Self:
		case n.Connected:
			found = append(found, finding{Name: "peer", OK: true, Detail: fmt.Sprintf("%s at %s, %.1f ms", n.ID, n.Address, n.RTTMS)})
		default:
			found = append(found, finding{Name: "peer", Detail: fmt.Sprintf("%s cannot be reached: %s", n.ID, n.LastError), Hint: "is it running, and is its address right?"})
		}
	}
	return found
}

func (c *api) examineSandboxes(ctx context.Context) []finding {
	var out struct {
		Sandboxes []sandbox.Description `json:"sandboxes"`
	}
	if err := c.do(ctx, http.MethodGet, "/v1/sandboxes", nil, &out); err != nil {
		return []finding{{Name: "sandboxes", Detail: err.Error()}}
	}
	var found []finding
	some := false
	for _, d := range out.Sandboxes {
		f := finding{Name: "sandbox", OK: true, Detail: fmt.Sprintf("%s, tier %s, %v", d.Name, d.Tier, d.Languages)}
		some = some || d.Available
		if !d.Available {
			// One that the machine does not offer is nothing wrong.
			f.Detail, f.Hint = "not here: "+d.Name+": "+d.Reason, d.Hint
		}
		found = append(found, f)
	}
	if !some {
		found = append(found, finding{Name: "sandbox", Detail: "this node can run nothing"})
	}
	return found
}
