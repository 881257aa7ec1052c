package main

import (
	"context"
	"slices"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
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
	replayNote    = "Roles and labels are those of now. The log holds the limits that a run got, which are taken as asked for; it holds no code, and of denials no facts."
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
	defer func() { _ = candidate.Close() }() // its workers end; nothing can be lost
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
		if entry.Kind != audit.KindIntent && entry.Kind != audit.KindDenial {
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
	if e.Kind == audit.KindDenial {
		view.NotDecided["denial: its facts are not in the log"]++
		return nil
	}
	name := or(e.OnBehalf, e.Actor)
	principal, ok := p.directory.Principal(name)
	if !ok {
		view.NotDecided["the principal is in force no more"]++
		return nil
	}
	body, err := e.Intent()
	if err != nil {
		return err
	}
	at, err := audit.ParseTime(e.Time)
	if err != nil {
		at = time.Now()
	}
	d, err := candidate.Decide(ctx, authz.Query{
		Principal: principal, Action: authz.ExecRun, Tenant: e.Tenant, Via: "http", Now: at, Ceiling: p.directory.Ceiling(e.Tenant),
		Vouched: principal.Kind != "agent",
		Execution: &authz.ExecutionFacts{
			Language: body.Language, Network: body.Network, Sandbox: body.Sandbox, CodeBytes: 1,
			MemoryBytes: body.Limits["memory_bytes"], TimeoutMS: body.Limits["wall_ms"], CPUPercent: int(body.Limits["cpu_percent"]),
			OutputBytes: body.Limits["output_bytes"], FileSizeBytes: body.Limits["file_size_bytes"], Processes: int(body.Limits["processes"]),
		},
		Node: authz.NodeFacts{ID: string(body.Executor), RunAllowed: true},
	})
	if err != nil {
		view.NotDecided["the candidate gave no answer"]++
		return nil
	}
	logged := e.Decision != nil && e.Decision.Allow
	if d.Allow == logged {
		view.Same++
		return nil
	}
	view.Differences = append(view.Differences, replayDifference{
		Index: index, Task: e.Task, Actor: name, Logged: logged, Now: d.Allow, Reasons: slices.Concat([]string{}, d.Codes()),
	})
	return nil
}
