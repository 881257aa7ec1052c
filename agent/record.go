package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
)

// The entries that the path writes. They hold ids, numbers, codes and salted
// commitments, never code, inputs, results or outside text (I10).

func (a *Agent) entry(kind audit.Kind, req *request, body any) audit.Entry {
	text, err := audit.MarshalBody(body)
	if err != nil {
		panic("internal error: audit body does not marshal: " + err.Error())
	}
	e := audit.Entry{
		ID:     audit.NewID(time.Now()), // drawn once: to record it again is to record the same
		Kind:   kind,
		Actor:  req.principal.String(),
		Tenant: req.principal.Tenant,
		Task:   req.task,
		Body:   text,
	}
	if req.behalf != nil {
		e.OnBehalf = req.behalf.root.String()
	}
	return e
}

func (a *Agent) intentEntry(req *request, spec sandbox.Spec, ev *evidence) audit.Entry {
	body := audit.IntentBody{
		Asked:    asked(req),
		Language: req.exec.Language,
		Sandbox:  req.backend,
		Runtime:  a.runtimeOf(req),
		Limits:   limitNumbers(spec.Limits),
		Network:  req.decision.Obligations.Network,
		Required: spec.Required,
		Door:     a.cfg.Key.ID(),
		Executor: a.cfg.Key.ID(),
		Request:  ev.commit("request", req.facts.Digest),
		LeaseMS:  (spec.Limits.Wall + leaseSlack).Milliseconds(),
	}
	if req.mandate != nil {
		body.Door = req.mandate.Door
		body.DoorDecision = decisionRecord(req.mandate.Decision, body.Door)
	}
	if req.behalf != nil {
		body.Mandate = req.behalf.uses()
	}
	e := a.entry(audit.KindIntent, req, body)
	e.Attempt = 1
	e.Once = &audit.Once{Key: onceKey(req.task), Digest: req.facts.Digest}
	e.Decision = decisionRecord(req.decision, a.cfg.Key.ID())
	return e
}

func (a *Agent) outcomeEntry(req *request, ev *evidence, rep *a2a.Report) audit.Entry {
	body := audit.OutcomeBody{
		Status:     string(rep.Status),
		ExitCode:   rep.ExitCode,
		Enforced:   rep.Enforced,
		WallMS:     int64(rep.Usage.WallMS),
		CPUMS:      int64(rep.Usage.CPUMS),
		PeakMemory: rep.Usage.PeakMemoryBytes,
		Output: map[string]string{
			"stdout": ev.commit("stdout", digest(ev.Stdout)),
			"stderr": ev.commit("stderr", digest(ev.Stderr)),
			"result": ev.commit("result", digest(ev.Result)),
		},
	}
	if rep.Error != nil {
		body.ErrorCode = rep.Error.Code
	}
	e := a.entry(audit.KindOutcome, req, body)
	e.Attempt = 1
	e.Ref = req.intent
	return e
}

// abandonEntry is a denial that holds the request's at-most-once key: if it is
// first, the request can never run.
func (a *Agent) abandonEntry(req *request) audit.Entry {
	e := a.entry(audit.KindDenial, req, audit.DenialBody{Code: abandonedCode})
	e.Once = &audit.Once{Key: onceKey(req.task), Digest: req.facts.Digest}
	return e
}

func (a *Agent) denialEntry(req *request) audit.Entry {
	e := a.entry(audit.KindDenial, req, audit.DenialBody{Code: a2a.CodeDenied, Door: a.cfg.Key.ID(), Asked: asked(req)})
	e.Decision = decisionRecord(req.decision, a.cfg.Key.ID())
	return e
}

// onceKey is the at-most-once key of a request. The task id is made of issuer
// and jti and of nothing else, so the key can be had from the id alone.
func onceKey(task string) string {
	sum := sha256.Sum256([]byte("agenticraft once v1\x00" + task))
	return hex.EncodeToString(sum[:])
}

// barred is the digest of a request that was given up by who knew only its task:
// of no request in truth.
func barred(task string) string { return onceKey(task) }

func decisionRecord(d authz.Decision, by identity.ID) *audit.Decision {
	return &audit.Decision{
		Allow: d.Allow, Reasons: d.Codes(), Policy: d.Policy, Input: d.Input, Micros: d.Duration.Microseconds(), Node: by,
		Obligations: obligations(d),
	}
}

// obligations are what the decision binds a run to, besides what its intent says.
func obligations(d authz.Decision) *audit.Obligations {
	o := d.Obligations
	out := audit.Obligations{
		Limits:  named(o.MemoryBytes, o.CPUPercent, o.TimeoutMS, o.OutputBytes, o.FileSizeBytes, o.Processes),
		Sandbox: o.Sandbox, Tier: o.Tier,
	}
	out.Limits["code_bytes"] = int64(o.CodeBytes)
	for name, ceiling := range out.Limits {
		if out.Limits[name] = min(ceiling, maxLogged); ceiling == 0 {
			delete(out.Limits, name)
		}
	}
	if !d.Allow || len(out.Limits) == 0 && out.Sandbox == "" && out.Tier == "" {
		return nil
	}
	return &out
}

func limitNumbers(l sandbox.Limits) map[string]int64 {
	return named(l.Memory, l.CPUPercent, l.Wall.Milliseconds(), l.Output, l.FileSize, l.Processes)
}

// named are limits under the names that they have in the log.
func named(memory int64, cpu int, wallMS, output, fileSize int64, processes int) map[string]int64 {
	return map[string]int64{
		"memory_bytes": memory, "cpu_percent": int64(cpu), "wall_ms": wallMS, "output_bytes": output,
		"file_size_bytes": fileSize, "processes": int64(processes),
	}
}

func (a *Agent) runtimeOf(req *request) string {
	for _, d := range a.cfg.Runner.Describe() {
		if d.Name == req.backend {
			return d.Runtimes[req.exec.Language]
		}
	}
	return ""
}

// query is what policy is asked: verified facts only.
func (a *Agent) query(req *request) authz.Query {
	ask := req.exec.Limits
	return authz.Query{
		Principal: req.principal,
		Action:    authz.ExecRun,
		Tenant:    req.principal.Tenant,
		Suspended: a.cfg.Directory.Suspended(req.principal.Tenant),
		Ceiling:   a.cfg.Directory.Ceiling(req.principal.Tenant),
		Now:       time.Now(),
		Vouched:   req.vouched,
		Via:       req.via,
		Execution: &authz.ExecutionFacts{
			Language: req.exec.Language, Sandbox: sandboxName(req), Network: or(req.exec.Network, "none"), DataClass: req.exec.DataClass,
			MemoryBytes: ask.MemoryBytes, TimeoutMS: ask.TimeoutMS, CPUPercent: ask.CPUPercent,
			OutputBytes: ask.OutputBytes, FileSizeBytes: ask.FileSizeBytes, Processes: ask.Processes,
			CodeBytes: len(req.exec.Code), Require: req.exec.Require,
		},
		Node: authz.NodeFacts{
			ID: string(a.cfg.Key.ID()), RunAllowed: !a.cfg.NoRun || req.mandate == nil,
			Tier: a.tier(req),
		},
	}
}

// tier is that of the sandbox which would run the request here, "" if none would.
func (a *Agent) tier(req *request) string {
	if a.cfg.NoRun {
		return ""
	}
	name, err := a.cfg.Runner.Resolve(req.exec.Sandbox, req.exec.Language, req.exec.Needs())
	if err != nil {
		return ""
	}
	return tierOf(a.cfg.Runner.Describe(), name)
}

func sandboxName(req *request) string { return or(req.exec.Sandbox, "auto") }

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func sorted(set map[string]bool) []string {
	return slices.Sorted(maps.Keys(set))
}

// discard is an Output that nobody reads.
type discard struct{}

func (discard) Output(string, int64, []byte) {}
func (discard) Kept()                        {}
