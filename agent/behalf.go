package agent

import (
	"context"
	"errors"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/authz/destination"
	"github.com/agenticraft/node/authz/mandate"
	"github.com/agenticraft/node/identity"
)

// behalf is the mandate under which the issuer of a request asks for somebody
// else.
type behalf struct {
	mandate mandate.Verified
	root    identity.Principal
}

// Reasons of denials that mandates give, beside those of policy.
const (
	codeMandate = "mandate_exceeded" // it does not cover what is asked
	codeSpent   = "mandate_spent"    // the keepers counted its budget to the end
)

// behalf checks the mandate that a request shows, if any. Everybody in the chain
// must be an agent in force, of the mandate's tenant: revoking one ends it. What
// depends on that has one answer for every failure.
//
// INVARIANT: I9, authority only narrows along a chain.
func (a *Agent) behalf(req *request) (*behalf, error) {
	if req.exec.Mandate == "" {
		return nil, nil
	}
	if req.vouched {
		return nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "mandate: only its holder can show it", Hint: "sign the request with the holder's key: --agent-key"}
	}
	v, err := mandate.Verify(req.exec.Mandate, mandate.Options{Cluster: a.cfg.Audience, Holder: req.facts.Issuer})
	if errors.Is(err, mandate.ErrTime) {
		req.lacks = err.Error()
	}
	if err != nil {
		return nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: err.Error()}
	}
	if req.principal.Tenant != v.Tenant {
		return nil, errCredentials
	}
	b := &behalf{mandate: v}
	for i, link := range v.Chain {
		p, ok := a.cfg.Directory.Agent(link.By)
		if !ok || p.Tenant != v.Tenant {
			return nil, errCredentials
		}
		if a.cfg.Directory.MandateRevoked(link.ID) {
			req.lacks = "the mandate was revoked"
			return nil, &a2a.Error{Code: a2a.CodeDenied, Message: req.lacks}
		}
		if i == 0 {
			b.root = p
		}
	}
	return b, nil
}

// ask puts a request to policy. Under a mandate there are three questions, each
// of which can only narrow: may the holder act for others, does the mandate
// cover it, may the root.
func (a *Agent) ask(ctx context.Context, req *request) (authz.Decision, error) {
	query := req.query
	if req.behalf == nil {
		return a.cfg.Policy.Decide(ctx, query)
	}
	holder := query
	holder.Action = authz.ExecDelegate
	dec, err := a.cfg.Policy.Decide(ctx, holder)
	if err != nil || !dec.Allow {
		return dec, err
	}
	asked := req.exec.Limits
	network, err := destination.Parse(req.exec.Network)
	if err != nil {
		return authz.Decision{}, err
	}
	err = req.behalf.mandate.Covers(query.Action, req.exec.Language, mandate.Limits{
		CodeBytes: int64(len(req.exec.Code)), CPUPercent: int64(asked.CPUPercent), FileSizeBytes: asked.FileSizeBytes,
		MemoryBytes: asked.MemoryBytes, OutputBytes: asked.OutputBytes, Processes: int64(asked.Processes), TimeoutMS: asked.TimeoutMS,
	}, network...)
	if errors.Is(err, mandate.ErrExceeded) {
		return authz.Decision{Reasons: []authz.Reason{{Code: codeMandate, Message: err.Error()}}, Policy: dec.Policy, Input: dec.Input, Duration: dec.Duration}, nil
	}
	query.Principal = req.behalf.root
	dec, err = a.cfg.Policy.Decide(ctx, query)
	if err == nil && dec.Allow {
		dec.Obligations = req.behalf.narrow(dec.Obligations)
	}
	return dec, err
}

// narrow lowers ceilings to the mandate's.
func (b *behalf) narrow(o authz.Obligations) authz.Obligations {
	least := func(ceiling, own int64) int64 {
		if own == 0 {
			return ceiling
		}
		return min(ceiling, own)
	}
	l := b.mandate.Terms.Limits
	o.MemoryBytes = least(o.MemoryBytes, l.MemoryBytes)
	o.TimeoutMS = least(o.TimeoutMS, l.TimeoutMS)
	o.CPUPercent = int(least(int64(o.CPUPercent), l.CPUPercent))
	o.OutputBytes = least(o.OutputBytes, l.OutputBytes)
	o.FileSizeBytes = least(o.FileSizeBytes, l.FileSizeBytes)
	o.Processes = int(least(int64(o.Processes), l.Processes))
	o.CodeBytes = int(least(int64(o.CodeBytes), l.CodeBytes))
	return o
}

// uses are the blocks as the intent names them, for the keepers to count.
func (b *behalf) uses() []audit.MandateUse {
	var out []audit.MandateUse
	for _, link := range b.mandate.Chain {
		out = append(out, audit.MandateUse{ID: link.ID, Runs: link.Budget.Runs, WallMS: link.Budget.WallMS})
	}
	return out
}
