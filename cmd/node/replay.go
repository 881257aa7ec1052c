package main

import (
	"context"
	"slices"
	"strings"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// replayView is what `policy replay` answers.
type replayView struct {
	Candidate   string             `json:"candidate"`
	Active      string             `json:"active"`
	Examined    int                `json:"examined"` // logged requests
	Same        int                `json:"same"`
	Differences []replayDifference `json:"differences"`
	// NotDecided counts the requests that could not be decided again, by why.
	NotDecided map[string]int `json:"not_decided"`
	Note       string         `json:"note"`
}

type replayDifference struct {
	Index   uint64   `json:"index"`
	Task    string   `json:"task"`
	Actor   string   `json:"actor"`
	Logged  bool     `json:"logged"`
	Now     bool     `json:"now"`
	Reasons []string `json:"reasons"` // codes, of what the candidate denies
}

const (
	replayDefault = 100
	replayMost    = 10_000
	replayNote    = "Roles and labels are those of now; the log holds no code and no words of a caller's own."
)

// Replay decides the newest logged executions again, under a candidate.
func (p *policies) Replay(ctx context.Context, req httpdoor.PolicyRequest) (any, error) {
	if req.Last == 0 {
		req.Last = replayDefault
	}
	if req.Last < 0 || req.Last > replayMost {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "last is 1 to %d", replayMost)
	}
	modules, err := p.wanted(req)
	if err != nil {
		return nil, err
	}
	config := authz.Config{Modules: modules, Additions: p.policy.Additions(), Workers: 1}
	if req.Layer == registry.LayerAdditions {
		config.Modules, config.Additions = p.policy.Modules(), modules
	}
	candidate, err := authz.NewPolicy(config)
	if err != nil {
		return nil, a2a.Errorf(a2a.CodeInvalidRequest, "%s", err)
	}
	defer func() { _ = candidate.Close() }() // nothing can be lost
	view := replayView{
		Candidate: candidate.Digest(), Active: p.policy.Digest(), Differences: []replayDifference{}, NotDecided: map[string]int{}, Note: replayNote,
	}
	for index := p.store.Size(); index > 0 && view.Examined < req.Last; {
		index--
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		entry, _, err := p.store.Entry(index)
		if err != nil {
			return nil, err
		}
		switch entry.Kind {
		case audit.KindIntent, audit.KindDenial:
		case audit.KindGap:
			var gap audit.GapBody
			if err := audit.DecodeBody(entry.Body, &gap); err == nil && gap.Code == a2a.CodeDenied {
				view.NotDecided["denials of which only the number is in the log"] += gap.Count
			}
			continue
		default:
			continue
		}
		view.Examined++
		if err := p.replay(ctx, candidate, index, entry, &view); err != nil {
			return nil, err
		}
	}
	slices.Reverse(view.Differences)
	return view, nil
}

// replay decides one entry again.
func (p *policies) replay(ctx context.Context, candidate *authz.Policy, index uint64, e audit.Entry, view *replayView) error {
	name := or(e.OnBehalf, e.Actor)
	q, why, err := p.logged(e, name)
	if err != nil {
		return err
	}
	if why != "" {
		view.NotDecided[why]++
		return nil
	}
	d, err := candidate.Decide(ctx, q)
	if err != nil {
		view.NotDecided["the candidate gave no answer"]++
		return nil
	}
	if d.Allow == e.Decision.Allow {
		view.Same++
		return nil
	}
	view.Differences = append(view.Differences, replayDifference{
		Index: index, Task: e.Task, Actor: name, Logged: e.Decision.Allow, Now: d.Allow, Reasons: append([]string{}, d.Codes()...),
	})
	return nil
}

// logged is the question behind an intent or a denial, as far as the log holds
// it; else why it cannot be asked again.
func (p *policies) logged(e audit.Entry, name string) (q authz.Query, why string, err error) {
	if e.Decision == nil {
		return q, "malformed, refused by the keepers or abandoned, not denied by policy", nil
	}
	principal, ok := p.directory.Principal(name)
	switch {
	case !ok && strings.HasPrefix(name, string(identity.User)+":"):
		return q, "a user's roles are his provider's, not in the log", nil
	case !ok:
		return q, "the principal is in force no more", nil
	}
	at, err := audit.ParseTime(e.Time)
	if err != nil {
		return q, "", err
	}
	q = authz.Query{
		Principal: principal, Action: authz.ExecRun, Tenant: e.Tenant, Via: server.DoorHTTP, Now: at,
		Vouched: principal.Kind != identity.Agent,
	}
	if e.Kind == audit.KindIntent {
		body, err := e.Intent()
		if err != nil {
			return q, "", err
		}
		asked := body.Asked
		if asked == nil { // of a version that did not say what was asked: what it got
			asked = &audit.Asked{CodeBytes: 1, Limits: body.Limits, Via: q.Via, Sandbox: body.Sandbox}
		}
		p.ask(&q, asked, body.Executor)
		q.Execution.Language, q.Execution.Network = body.Language, body.Network
		return q, "", nil
	}
	body, err := e.Denial()
	if err != nil {
		return q, "", err
	}
	switch {
	case body.Asked == nil:
		return q, "a denial of a version that logged no facts", nil
	case len(body.Asked.Withheld) > 0:
		return q, "a denial whose " + strings.Join(body.Asked.Withheld, ", ") + " the log does not hold", nil
	case body.Action != "":
		q.Action, q.Via, q.Suspended = body.Action, body.Asked.Via, slices.Contains(e.Decision.Reasons, "tenant_suspended")
		return q, "", nil
	}
	p.ask(&q, body.Asked, body.Door)
	q.Execution.Language, q.Execution.Network = body.Asked.Language, body.Asked.Network
	q.Node.RunAllowed = !slices.Contains(e.Decision.Reasons, "node_does_not_run")
	q.Suspended = slices.Contains(e.Decision.Reasons, "tenant_suspended")
	return q, "", nil
}

// ask makes it a question about running code.
func (p *policies) ask(q *authz.Query, asked *audit.Asked, node identity.ID) {
	q.Via, q.Ceiling = asked.Via, p.directory.Ceiling(q.Tenant)
	q.Node = authz.NodeFacts{ID: string(node), Tier: asked.Tier, RunAllowed: true}
	q.Execution = &authz.ExecutionFacts{
		Sandbox: asked.Sandbox, DataClass: asked.DataClass, CodeBytes: asked.CodeBytes,
		MemoryBytes: asked.Limits["memory_bytes"], TimeoutMS: asked.Limits["wall_ms"], CPUPercent: int(asked.Limits["cpu_percent"]),
		OutputBytes: asked.Limits["output_bytes"], FileSizeBytes: asked.Limits["file_size_bytes"], Processes: int(asked.Limits["processes"]),
	}
}
