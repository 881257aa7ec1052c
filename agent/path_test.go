package agent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/sandbox"
)

func TestARequestLeavesIntentAndOutcome(t *testing.T) {
	w := newWorld(t)
	rep := w.run(w.signed(w.caller, nil))
	if rep.Status != a2a.Succeeded || string(rep.Result) != "1" || rep.Intent == nil || rep.Outcome == nil {
		t.Fatalf("report %+v", rep)
	}
	got := w.entries(audit.KindIntent, audit.KindOutcome)
	if len(got) != 2 || got[0].Kind != audit.KindIntent || got[1].Kind != audit.KindOutcome || *got[1].Ref != *rep.Intent {
		t.Fatalf("entries %+v", got)
	}
	if want := "agent:" + w.caller.ID().DID(); got[0].Actor != want || got[0].Decision == nil || !got[0].Decision.Allow {
		t.Errorf("intent by %s, decision %+v; want %s, allowed", got[0].Actor, got[0].Decision, want)
	}
}

// What a program connected to is in the log before its outcome, and what it only
// wrote is not.
func TestConnectionsAreInTheLogBeforeTheOutcome(t *testing.T) {
	w := newWorld(t)
	w.runner.opens = []sandbox.Connection{
		{Destination: sandbox.Destination{Host: "example.org", Port: 443}, Verdict: sandbox.Connected, Sent: 10, Received: 20, Duration: 3 * time.Millisecond},
		{Verdict: sandbox.NotAllowed},
	}
	rep := w.run(w.signed(w.caller, nil))
	got := w.entries(audit.KindConnection, audit.KindOutcome)
	if rep.Status != a2a.Succeeded || len(got) != 3 || got[2].Kind != audit.KindOutcome {
		t.Fatalf("report %+v, entries %+v", rep, got)
	}
	want := map[audit.ConnectionBody]bool{
		{Host: "example.org", Port: 443, Sent: 10, Received: 20, MS: 3, Verdict: "ok"}: true, {Verdict: "not_allowed"}: true,
	}
	for _, e := range got[:2] {
		body, err := e.Connection()
		if err != nil || !want[body] || e.Task != rep.Task || *e.Ref != *rep.Intent {
			t.Errorf("connection %+v, %v", body, err)
		}
		delete(want, body)
	}
}

func TestMalformedDestinationsAreRefused(t *testing.T) {
	w := newWorld(t)
	_, err := w.submit(w.signed(w.caller, func(e *a2a.Execution) { e.Network = "allow=2130706433:80" }))
	if got := new(a2a.Error); !errors.As(err, &got) || got.Code != a2a.CodeInvalidRequest || !strings.Contains(got.Message, "2130706433") {
		t.Errorf("Submit = %v", err)
	}
}

// INVARIANT: I1, nothing runs before its intent is durable on a quorum.
func TestNothingRunsBeforeItsIntent(t *testing.T) {
	for name, failure := range map[string]func(audit.Entry) (error, error){
		"no quorum":         func(audit.Entry) (error, error) { return audit.ErrUnavailable, nil },
		"quorum lost":       func(audit.Entry) (error, error) { return audit.ErrUnknown, nil },
		"committed unknown": func(audit.Entry) (error, error) { return nil, audit.ErrUnknown },
		"refused":           func(audit.Entry) (error, error) { return &audit.Refusal{Code: "revoked"}, nil },
		"broken":            func(audit.Entry) (error, error) { return errors.New("disk on fire"), nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.record.failing(failure)
			rep := w.run(w.signed(w.caller, nil))
			if w.runner.runs() != 0 {
				t.Error("the code ran")
			}
			if rep.Status != a2a.Failed || rep.Intent != nil || rep.Outcome != nil || rep.Error == nil {
				t.Errorf("report %+v", rep)
			}
			if n := len(w.entries(audit.KindOutcome)); n != 0 {
				t.Errorf("the log has %d outcomes", n)
			}
		})
	}
}

// An intent whose commit was unknown and that is in the log after all ends as
// lost.
//
// INVARIANT: I2, every intent gets exactly one outcome.
func TestAnUnknownIntentEndsAsLost(t *testing.T) {
	w := newWorld(t)
	w.record.failing(func(e audit.Entry) (error, error) {
		if e.Kind == audit.KindIntent {
			return nil, audit.ErrUnknown
		}
		return nil, nil
	})
	w.run(w.signed(w.caller, nil))
	w.sweep(&tasks{}, func() bool { return len(w.entries(audit.KindOutcome)) == 1 })
	out, err := w.entries(audit.KindOutcome)[0].Outcome()
	if err != nil || out.Status != audit.StatusLost || w.runner.runs() != 0 {
		t.Errorf("outcome %+v, %v; the code ran %d times", out, err, w.runner.runs())
	}
}

// A commit that was unknown and is found in the log at the second try is our
// own: the request runs, once.
func TestAnIntentProposedAgainIsStillOurs(t *testing.T) {
	w := newWorld(t)
	w.record.twice = true
	rep := w.run(w.signed(w.caller, nil))
	if rep.Status != a2a.Succeeded || rep.Intent == nil || rep.Outcome == nil || w.runner.runs() != 1 {
		t.Errorf("report %+v, %d runs", rep, w.runner.runs())
	}
	if i, o := len(w.entries(audit.KindIntent)), len(w.entries(audit.KindOutcome)); i != 1 || o != 1 {
		t.Errorf("%d intents, %d outcomes", i, o)
	}
}

// The outcome is owed even when the quorum is away for a while and the caller
// has gone.
//
// INVARIANT: I2, every intent gets exactly one outcome.
func TestTheOutcomeIsOwed(t *testing.T) {
	w := newWorld(t)
	var tries atomic.Int32
	w.record.failing(func(e audit.Entry) (error, error) {
		switch {
		case e.Kind != audit.KindOutcome:
			return nil, nil
		case tries.Add(1) == 1:
			return audit.ErrUnavailable, nil
		case tries.Load() == 2:
			return nil, audit.ErrUnknown // it is in, and nobody knows
		default:
			return nil, nil
		}
	})
	adm, err := w.submit(w.signed(w.caller, nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.runner.during = cancel // the caller goes while the code runs
	rep := adm.Run(ctx, quiet{})
	if rep.Status != a2a.Cancelled || rep.Outcome == nil {
		t.Errorf("report %+v", rep)
	}
	if n := len(w.entries(audit.KindOutcome)); n != 1 {
		t.Errorf("the log has %d outcomes, want 1", n)
	}
}

// INVARIANT: I2, a late result is kept as late, never erased.
func TestALateResultIsKept(t *testing.T) {
	w := newWorld(t)
	other := w.log.Recorder(w.peer)
	w.runner.during = func() {
		intents := w.entries(audit.KindIntent)
		body, err := audit.MarshalBody(audit.OutcomeBody{Status: audit.StatusLost, ExitCode: 1, ErrorCode: "lost"})
		if err != nil {
			t.Error(err)
			return
		}
		rec, err := w.log.Store.Task(intents[0].Task)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = other.Record(context.Background(), audit.Entry{
			Kind: audit.KindOutcome, Actor: intents[0].Actor, Tenant: intents[0].Tenant,
			Task: intents[0].Task, Attempt: 1, Ref: rec.Intent, Body: body,
		})
		if err != nil {
			t.Error(err)
		}
	}
	rep := w.run(w.signed(w.caller, nil))
	if rep.Status != a2a.Lost {
		t.Errorf("report says %s, and the log says lost", rep.Status)
	}
	if n := len(w.entries(audit.KindOutcome)); n != 1 {
		t.Errorf("the log has %d outcomes, want 1", n)
	}
	late := w.entries(audit.KindLate)
	if len(late) != 1 {
		t.Fatalf("the log has %d late entries, want 1", len(late))
	}
	if body, err := late[0].Outcome(); err != nil || body.Status != audit.StatusSucceeded {
		t.Errorf("the late entry says %+v, %v", body, err)
	}
}

func TestADenialIsRecordedAndNothingElse(t *testing.T) {
	w := newWorld(t)
	adm, err := w.submit(w.signed(w.viewer, nil))
	if err != nil || adm.Final == nil || adm.Run != nil {
		t.Fatalf("Submit = %+v, %v", adm, err)
	}
	if adm.Final.Status != a2a.Denied || adm.Final.Error == nil || adm.Final.Error.Message == "" {
		t.Errorf("report %+v", adm.Final)
	}
	w.sweep(&tasks{}, func() bool { return len(w.entries(audit.KindDenial)) == 1 })
	if d := w.entries(audit.KindDenial)[0].Decision; d == nil || d.Allow || len(d.Reasons) == 0 || d.Policy == "" {
		t.Errorf("the entry's decision is %+v", d)
	}
	if n := len(w.entries(audit.KindIntent)); n != 0 || w.runner.runs() != 0 {
		t.Errorf("%d intents, %d runs", n, w.runner.runs())
	}
}

// No answer is a no.
func TestAPolicyThatFailsDenies(t *testing.T) {
	w := newWorld(t)
	w.policy = broken{}
	w.build()
	adm, err := w.submit(w.signed(w.caller, nil))
	if err != nil || adm.Final == nil || adm.Final.Status != a2a.Denied || adm.Run != nil {
		t.Errorf("Submit = %+v, %v", adm, err)
	}
}

type broken struct{}

func (broken) Decide(context.Context, authz.Query) (authz.Decision, error) {
	return authz.Decision{Allow: true}, errors.New("no answer")
}

// INVARIANT: I8, at most one run per (issuer, jti, attempt).
func TestTheSameRequestRunsOnce(t *testing.T) {
	w := newWorld(t)
	req := w.signed(w.caller, nil)
	first, err := w.submit(req)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.submit(req); err != nil || !again.Existing || again.Run != nil || again.Task != first.Task {
		t.Errorf("while it is under way: %+v, %v", again, err)
	}
	first.Run(t.Context(), quiet{})
	if again, err := w.submit(req); err != nil || !again.Existing || again.Run != nil {
		t.Errorf("after it ended: %+v, %v", again, err)
	}
	if w.runner.runs() != 1 {
		t.Errorf("it ran %d times", w.runner.runs())
	}
}

// INVARIANT: I9, authority only narrows along a chain: who vouches gives the
// caller's rights, and only members vouch.
func TestVouching(t *testing.T) {
	w := newWorld(t)
	unsigned, err := a2a.NewRequest(a2a.Execution{Language: "python", Code: "result = 1"})
	if err != nil {
		t.Fatal(err)
	}
	service := identity.Principal{Kind: identity.Service, Name: serviceID, Tenant: "acme", Roles: []string{"admin"}}
	adm, err := w.agent.Submit(t.Context(), server.Inbound{Request: unsigned, Caller: server.Caller{Principal: service, Door: server.DoorHTTP}})
	if err != nil || adm.Run == nil || adm.Owner != service.String() {
		t.Fatalf("Submit for a service = %+v, %v", adm, err)
	}
	adm.Run(t.Context(), quiet{})
	if got := w.entries(audit.KindIntent); len(got) != 1 || got[0].Actor != service.String() {
		t.Errorf("intents %+v", got)
	}

	_, err = w.submit(unsigned)
	wantCode(t, err, a2a.CodeSignatureMissing)

	mandate := func(key, via *identity.Key, subject string) error {
		req, err := a2a.Sign(key, unsigned, a2a.SignOptions{
			Audience: a2a.Audience(clusterName),
			Mandate:  []a2a.MandateBlock{{Subject: subject, Tenant: "acme", Via: via.ID().DID()}},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.submit(req)
		return err
	}
	wantCode(t, mandate(w.caller, w.caller, service.String()), a2a.CodeUnauthenticated)         // an agent cannot vouch
	wantCode(t, mandate(w.caller, w.node, service.String()), a2a.CodeUnauthenticated)           // nor in a node's name
	wantCode(t, mandate(w.node, w.node, "service:nobody"), a2a.CodeUnauthenticated)             // nor for who does not exist
	wantCode(t, mandate(w.node, w.node, "agent:"+w.caller.ID().DID()), a2a.CodeUnauthenticated) // agents sign for themselves

	// Issue 6: each is in the log under the name of who spoke for somebody else; a
	// signer whom nobody knows is only counted.
	stranger, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, mandate(stranger, stranger, service.String()), a2a.CodeUnauthenticated)
	w.sweep(&tasks{}, func() bool {
		by, counted := map[string]int{}, 0
		for _, e := range w.entries(audit.KindDenial) {
			if d, err := e.Denial(); err == nil && d.Code == "vouch_not_allowed" && d.Action == authz.ExecRun {
				by[e.Actor]++
			}
		}
		for _, e := range w.entries(audit.KindGap) {
			var gap audit.GapBody
			if err := audit.DecodeBody(e.Body, &gap); err == nil && gap.Code == a2a.CodeUnauthenticated {
				counted += gap.Count
			}
		}
		return by["agent:"+w.caller.ID().DID()] == 2 && by["node:"+w.node.ID().DID()] == 2 && len(by) == 2 && counted == 1
	})
}

// INVARIANT: I6, a limit that cannot be enforced refuses the run: what the
// caller or policy named is required, and ceilings narrow what was asked for.
func TestLimits(t *testing.T) {
	w := newWorld(t)
	rep := w.run(w.signed(w.caller, func(e *a2a.Execution) {
		e.Limits = a2a.Limits{CPUPercent: 50, TimeoutMS: 1500}
		e.Require = []string{sandbox.LimitFiles}
	}))
	if rep.Status != a2a.Succeeded {
		t.Fatalf("report %+v", rep)
	}
	spec := w.runner.ran[0]
	if spec.Limits.CPUPercent != 50 || spec.Limits.Wall.Milliseconds() != 1500 || spec.Limits.Memory != sandbox.DefaultLimits().Memory {
		t.Errorf("limits %+v", spec.Limits)
	}
	for _, name := range []string{sandbox.LimitCPUPercent, sandbox.LimitWall, sandbox.LimitFiles, sandbox.LimitNetwork, sandbox.LimitMemory} {
		if !contains(spec.Required, name) {
			t.Errorf("%s is not required: %v", name, spec.Required)
		}
	}
	w.runner.before = sandbox.ErrUnenforceable
	rep = w.run(w.signed(w.caller, nil))
	if rep.Error == nil || rep.Error.Code != a2a.CodeUnenforceable || rep.Intent != nil {
		t.Errorf("report %+v", rep)
	}
}

// INVARIANT: I6, a tier that policy demands and this machine does not have refuses
// the run by its name, here and at a peer's asking; nothing is written or run.
func TestATierThatTheMachineLacksRefusesTheRun(t *testing.T) {
	w := newWorld(t)
	w.policy = demanding{w.policy, "T2"}
	w.build()
	for tier, runs := range map[string]bool{"T1": true, "T2": true, "T3": false, "T4": false, "container": false} {
		w.runner.tier = tier
		adm, err := w.submit(w.signed(w.caller, func(e *a2a.Execution) { e.On = "local" }))
		if runs {
			if err != nil || adm.Run == nil || adm.Run(t.Context(), quiet{}).Status != a2a.Succeeded {
				t.Errorf("tier %s: %+v, %v", tier, adm, err)
			}
			continue
		}
		wantCode(t, err, a2a.CodeUnavailable)
		for _, says := range []string{"tier T2", "python"} {
			if !strings.Contains(fmt.Sprint(err), says) {
				t.Errorf("tier %s: %v does not say %q", tier, err, says)
			}
		}
	}
	if n := len(w.entries(audit.KindIntent)); n != 2 || w.runner.runs() != 2 {
		t.Errorf("%d intents, %d runs; want 2", n, w.runner.runs())
	}
}

// demanding obliges every run to a tier.
type demanding struct {
	agent.Authorizer
	tier string
}

func (d demanding) Decide(ctx context.Context, q authz.Query) (authz.Decision, error) {
	out, err := d.Authorizer.Decide(ctx, q)
	out.Obligations.Tier = d.tier
	return out, err
}

func TestCancelBeforeItBegins(t *testing.T) {
	w := newWorld(t)
	adm, err := w.submit(w.signed(w.caller, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.agent.Cancel(t.Context(), adm.Task); err != nil {
		t.Fatal(err)
	}
	rep := adm.Run(t.Context(), quiet{})
	if rep.Status != a2a.Cancelled || rep.ExitCode != 130 {
		t.Errorf("report %+v", rep)
	}
	// If its intent was written, it has an outcome, too.
	if i, o := len(w.entries(audit.KindIntent)), len(w.entries(audit.KindOutcome)); i != o {
		t.Errorf("%d intents, %d outcomes", i, o)
	}
}

// A caller who cancels while the intent is on its way to a quorum is told what
// the log says: the intent stands, so its outcome is "cancelled".
func TestCancelWhileTheIntentIsWritten(t *testing.T) {
	w := newWorld(t)
	adm, err := w.submit(w.signed(w.caller, nil))
	if err != nil {
		t.Fatal(err)
	}
	w.record.failing(func(e audit.Entry) (before, after error) {
		if e.Kind == audit.KindIntent {
			if err := w.agent.Cancel(t.Context(), adm.Task); err != nil {
				t.Error(err)
			}
		}
		return nil, nil
	})
	rep := adm.Run(t.Context(), quiet{})
	if rep.Status != a2a.Cancelled || rep.Intent == nil || rep.Outcome == nil {
		t.Errorf("report %+v", rep)
	}
	if i, o := len(w.entries(audit.KindIntent)), len(w.entries(audit.KindOutcome)); i != 1 || o != 1 {
		t.Errorf("%d intents, %d outcomes", i, o)
	}
}

// What was refused a moment before the node stops is on record all the same.
func TestDenialsAreRecordedBeforeTheNodeStops(t *testing.T) {
	w := newWorld(t)
	const refused = 10
	for range refused {
		if adm, err := w.submit(w.signed(w.viewer, nil)); err != nil || adm.Final == nil {
			t.Fatalf("Submit = %+v, %v", adm, err)
		}
	}
	w.agent.StopPatiently()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := w.agent.Run(ctx, &tasks{}); err != nil {
		t.Fatal(err)
	}
	if n := len(w.entries(audit.KindDenial)); n != refused {
		t.Errorf("%d denials are on record, want %d", n, refused)
	}
}

// A flood of refusals does not become a flood of entries, and none is lost.
func TestDenialsAreCounted(t *testing.T) {
	w := newWorld(t)
	const flood = 100
	for range flood {
		if adm, err := w.submit(w.signed(w.viewer, nil)); err != nil || adm.Final == nil {
			t.Fatalf("Submit = %+v, %v", adm, err)
		}
		tampered := w.signed(w.caller, nil)
		tampered.Message.ID = "changed"
		_, err := w.submit(tampered)
		wantCode(t, err, a2a.CodeSignatureInvalid)
	}
	total := func() (denied, unproved, entries int) {
		entries = len(w.entries(audit.KindDenial))
		denied = entries
		for _, e := range w.entries(audit.KindGap) {
			var gap audit.GapBody
			if err := audit.DecodeBody(e.Body, &gap); err != nil {
				t.Fatal(err)
			}
			entries++
			if gap.Code == a2a.CodeSignatureInvalid {
				unproved += gap.Count
			} else {
				denied += gap.Count
			}
		}
		return denied, unproved, entries
	}
	w.sweep(&tasks{}, func() bool { d, u, _ := total(); return d == flood && u == flood })
	if _, _, n := total(); n > 40 {
		t.Errorf("%d refusals became %d entries", 2*flood, n)
	}
}
