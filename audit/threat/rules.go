package threat

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/agenticraft/node/audit"
)

// Codes of refusals, as denials and gaps bear them.
var (
	guessCodes  = []string{"unauthenticated", "signature_invalid", "signature_missing", "wrong_audience"}
	replayCodes = []string{"repeated", "conflict", "expired", "not_yet_valid"}
	// A program that a forbidden call or a signal ended, or that spoke in its
	// worker's place.
	violationCodes = []string{"killed", "bad_reply"}
	limitCodes     = []string{"timed_out", "out_of_memory", "output_limit", "result_too_large"}
)

// refusals are how many refusals with one of these codes an entry tells of.
func refusals(e audit.Entry, codes []string) int64 {
	switch e.Kind {
	case audit.KindGap:
		var b audit.GapBody
		if json.Unmarshal(e.Body, &b) == nil && slices.Contains(codes, b.Code) {
			return int64(b.Count)
		}
	case audit.KindDenial:
		if b, err := e.Denial(); err == nil && slices.Contains(codes, b.Code) {
			return int64(max(1, b.Count))
		}
	}
	return 0
}

// guessing: many credentials that prove nobody, wherever they came from; they
// are in the log as counts.
func (d *Detector) guessing(index uint64, at time.Time, e audit.Entry) *Alert {
	n := refusals(e, guessCodes)
	if n == 0 {
		return nil
	}
	a := d.count(RuleGuessing, audit.SeverityMedium, string(e.Author), d.cfg.Guesses, index, at, n)
	if a != nil {
		a.Node = e.Author // the door that was tried
	}
	return a
}

// replays: requests that were signed before, too long ago or for another
// content. An outcome that came late is none.
func (d *Detector) replays(index uint64, at time.Time, e audit.Entry) *Alert {
	n := refusals(e, replayCodes)
	if n == 0 {
		return nil
	}
	a := d.count(RuleReplays, audit.SeverityMedium, string(e.Author), d.cfg.Replays, index, at, n)
	if a != nil {
		a.Node = e.Author
	}
	return a
}

// breakIn: somebody was denied again and again, and then he was not.
func (d *Detector) breakIn(index uint64, at time.Time, e audit.Entry) *Alert {
	key := subject{RuleBreakIn, e.Actor}
	switch {
	case e.Actor == "":
	case e.Kind == audit.KindDenial && e.Decision != nil, e.Kind == audit.KindGap && refusals(e, []string{"denied"}) > 0:
		// Counted only: the threshold is looked at when he is let in.
		n := max(1, refusals(e, []string{"denied"}))
		d.count(RuleBreakIn, "", e.Actor, int(^uint(0)>>1), index, at, n)
	case e.Kind == audit.KindIntent:
		t, ok := d.counts[key]
		if !ok {
			return nil
		}
		t.add(event{index, at, 0}, d.cfg.Window)
		if t.sum < int64(d.cfg.Denials) {
			return nil
		}
		a := t.alert(RuleBreakIn, audit.SeverityHigh)
		a.Actor, a.Tenant = e.Actor, e.Tenant
		if !slices.Contains(a.Entries, index) {
			a.Entries[len(a.Entries)-1] = index // the one that was let in is always told
		}
		delete(d.counts, key)
		return &a
	}
	return nil
}

// privileged are the kinds that change who may do what.
var privileged = []audit.Kind{audit.KindAgent, audit.KindKey, audit.KindRole, audit.KindTenant, audit.KindPolicy, audit.KindMember}

// oddHours: who may do what was changed outside working hours.
func (d *Detector) oddHours(index uint64, at time.Time, e audit.Entry) *Alert {
	if !slices.Contains(privileged, e.Kind) || e.Kind == audit.KindKey && noticed(e) {
		return nil
	}
	there := at.In(d.cfg.HoursIn)
	weekend := there.Weekday() == time.Saturday || there.Weekday() == time.Sunday
	working := there.Hour() >= d.cfg.HoursFrom && there.Hour() < d.cfg.HoursUntil
	if d.cfg.HoursFrom > d.cfg.HoursUntil { // over midnight
		working = there.Hour() >= d.cfg.HoursFrom || there.Hour() < d.cfg.HoursUntil
	}
	off := weekend && d.cfg.WeekendIsOff
	if working && !off {
		return nil
	}
	return &Alert{
		Rule: RuleOddHours, Severity: audit.SeverityLow, Actor: e.Actor, Tenant: e.Tenant, Count: 1, Entries: []uint64{index}, From: at, Until: at,
	}
}

// noticed reports whether an entry about a key only says that a node saw it used,
// which nodes write by themselves at any hour.
func noticed(e audit.Entry) bool {
	var b struct {
		Action string `json:"action"`
	}
	return json.Unmarshal(e.Body, &b) == nil && b.Action == "used"
}

// sandbox: one principal's programs do again and again what their jail forbids.
func (d *Detector) sandbox(index uint64, at time.Time, e audit.Entry) *Alert {
	if e.Kind != audit.KindOutcome && e.Kind != audit.KindLate {
		return nil
	}
	if b, err := e.Outcome(); err != nil || !has(violationCodes, b.ErrorCode) {
		return nil
	}
	a := d.count(RuleSandbox, audit.SeverityHigh, e.Actor, d.cfg.Violations, index, at, 1)
	if a != nil {
		a.Actor, a.Tenant, a.Node = e.Actor, e.Tenant, e.Author
	}
	return a
}

// probing: one principal runs into limits, or asks for more than it may have,
// again and again.
func (d *Detector) probing(index uint64, at time.Time, e audit.Entry) *Alert {
	hit := false
	switch e.Kind {
	case audit.KindOutcome:
		b, err := e.Outcome()
		hit = err == nil && (b.Status == audit.StatusTimedOut || has(limitCodes, b.ErrorCode))
	case audit.KindDenial:
		hit = e.Decision != nil && slices.ContainsFunc(e.Decision.Reasons, func(r string) bool {
			return strings.HasPrefix(r, "limit_") || strings.HasSuffix(r, "_not_allowed")
		})
	}
	if !hit || e.Actor == "" {
		return nil
	}
	a := d.count(RuleProbing, audit.SeverityLow, e.Actor, d.cfg.Probes, index, at, 1)
	if a != nil {
		a.Actor, a.Tenant = e.Actor, e.Tenant
	}
	return a
}

// place: an agent that has long run at known places runs at a new one.
func (d *Detector) place(index uint64, at time.Time, e audit.Entry) *Alert {
	if e.Kind != audit.KindIntent || e.Actor == "" {
		return nil
	}
	h, ok := d.places[e.Actor]
	if !ok {
		if len(d.places) >= maxSubjects {
			clear(d.places)
		}
		h = &history{}
		d.places[e.Actor] = h
	}
	h.runs++
	if h.known(e.Author) || h.runs <= d.cfg.PlaceRuns {
		return nil
	}
	return &Alert{
		Rule: RulePlace, Severity: audit.SeverityLow, Actor: e.Actor, Tenant: e.Tenant, Node: e.Author,
		Count: 1, Entries: []uint64{index}, From: at, Until: at,
	}
}

// has reports whether a code is one of these.
func has(codes []string, code string) bool { return code != "" && slices.Contains(codes, code) }
