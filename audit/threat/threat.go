// Package threat reads the log as it grows and says what looks wrong: guessed
// credentials, replays, denials followed by success, changes of privilege at
// odd hours, violated sandboxes, probed limits, an old agent at a new place,
// logs that differ, nodes that fell silent.
//
// A detector's state is made of entries alone, so that every keeper that reads
// the log has the same; the one that leads writes the alert, once. docs/auditors.md
// has a table of the rules: what each reads, its threshold, what it mistakes.
package threat

import (
	"cmp"
	"slices"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Names of the rules, as alerts bear them.
const (
	RuleGuessing   = "credential_guessing"
	RuleReplays    = "replay_storm"
	RuleBreakIn    = "denied_then_allowed"
	RuleOddHours   = "privilege_change_off_hours"
	RuleSandbox    = "sandbox_violation"
	RuleProbing    = "limit_probing"
	RulePlace      = "new_executor"
	RuleDivergence = "root_divergence"    // noted by [Watch.Diverged], not seen in entries
	RuleRollback   = "keeper_rolled_back" // noted by [Watch.RolledBack]
	RuleSilent     = "silent_node"        // noted by [Watch.Silent]
)

// Rules lists the names of all rules.
func Rules() []string {
	return []string{RuleGuessing, RuleReplays, RuleBreakIn, RuleOddHours, RuleSandbox, RuleProbing, RulePlace, RuleDivergence, RuleRollback, RuleSilent}
}

// Config sets the thresholds. The zero value of a field is its default.
type Config struct {
	Window       time.Duration  // in which events are counted; 5 minutes
	Guesses      int            // refused credentials; 20
	Replays      int            // repeated or late requests; 20
	Denials      int            // of one principal, before an allowance is odd; 5
	Violations   int            // of a sandbox by one principal; 3
	Probes       int            // runs and requests of one principal that hit a limit; 10
	PlaceRuns    int            // runs at known places before a new one is odd; 50
	HoursFrom    int            // working hours, from; 7
	HoursUntil   int            // until, exclusive; 20
	HoursIn      *time.Location // UTC
	WeekendIsOff bool           // Saturday and Sunday are no working days
	Silence      time.Duration  // of a member without a connection; 2 minutes
	Quiet        time.Duration  // after an alert, the same about the same is none; 1 hour
}

func (c Config) filled() Config {
	c.Window = cmp.Or(c.Window, 5*time.Minute)
	c.Guesses, c.Replays = cmp.Or(c.Guesses, 20), cmp.Or(c.Replays, 20)
	c.Denials, c.Violations = cmp.Or(c.Denials, 5), cmp.Or(c.Violations, 3)
	c.Probes, c.PlaceRuns = cmp.Or(c.Probes, 10), cmp.Or(c.PlaceRuns, 50)
	if c.HoursFrom == 0 && c.HoursUntil == 0 {
		c.HoursFrom, c.HoursUntil = 7, 20
	}
	if c.HoursIn == nil {
		c.HoursIn = time.UTC
	}
	c.Silence, c.Quiet = cmp.Or(c.Silence, 2*time.Minute), cmp.Or(c.Quiet, time.Hour)
	return c
}

// Alert is what a rule saw.
type Alert struct {
	Rule     string
	Severity string
	Actor    string      // whom it is about; "" if nobody is known
	Tenant   string      // the actor's
	Node     identity.ID // which it is about
	Count    int64       // events
	Entries  []uint64    // some of them, ascending
	From     time.Time
	Until    time.Time
}

// subject is what alerts are counted and kept quiet by.
type subject struct{ rule, name string }

// Bounds of what a detector keeps, whatever is done to it.
const (
	maxSubjects = 10_000
	maxPlaces   = 64 // nodes of one actor
)

// Detector turns entries into alerts. It may not be used concurrently.
type Detector struct {
	cfg    Config
	counts map[subject]*tally
	quiet  map[subject]time.Time // until when
	places map[string]*history   // by actor
}

// tally counts the events of a subject within the window.
type tally struct {
	events []event // ascending in time of coming
	sum    int64
}

type event struct {
	index uint64
	at    time.Time
	count int64
}

// history is where an actor's programs have run.
type history struct {
	runs  int
	nodes []identity.ID
}

// New makes a detector that knows nothing of the log yet.
func New(cfg Config) *Detector {
	return &Detector{cfg: cfg.filled(), counts: map[subject]*tally{}, quiet: map[subject]time.Time{}, places: map[string]*history{}}
}

// Observe reads the next entry of the log.
func (d *Detector) Observe(index uint64, e audit.Entry) []Alert {
	at, err := audit.ParseTime(e.Time)
	if err != nil {
		return nil // Apply admits no such entry
	}
	var out []Alert
	for _, rule := range []func(uint64, time.Time, audit.Entry) *Alert{
		d.guessing, d.replays, d.breakIn, d.oddHours, d.sandbox, d.probing, d.place,
	} {
		if a := rule(index, at, e); a != nil && d.speak(*a) {
			out = append(out, *a)
		}
	}
	return out
}

// count adds events to a subject's tally, and gives the alert once there are
// enough of them within the window.
func (d *Detector) count(rule, severity, name string, threshold int, index uint64, at time.Time, n int64) *Alert {
	key := subject{rule, name}
	t, ok := d.counts[key]
	if !ok {
		if len(d.counts) >= maxSubjects {
			d.forget(at)
		}
		t = &tally{}
		d.counts[key] = t
	}
	t.add(event{index, at, n}, d.cfg.Window)
	if t.sum < int64(threshold) {
		return nil
	}
	a := t.alert(rule, severity)
	delete(d.counts, key)
	return &a
}

// add counts an event and drops what is out of the window.
func (t *tally) add(e event, window time.Duration) {
	t.events = append(t.events, e)
	t.sum += e.count
	for len(t.events) > 1 && (e.at.Sub(t.events[0].at) > window || len(t.events) > 4096) {
		t.sum -= t.events[0].count
		t.events = t.events[1:]
	}
}

func (t *tally) alert(rule, severity string) Alert {
	a := Alert{Rule: rule, Severity: severity, Count: t.sum, From: t.events[0].at, Until: t.events[0].at}
	for _, e := range t.events {
		if len(a.Entries) < audit.MaxAlertEntries {
			a.Entries = append(a.Entries, e.index)
		}
		if e.at.Before(a.From) {
			a.From = e.at
		}
		if e.at.After(a.Until) {
			a.Until = e.at
		}
	}
	return a
}

// forget drops tallies that are out of the window, or all if there are none.
func (d *Detector) forget(now time.Time) {
	for key, t := range d.counts {
		if now.Sub(t.events[len(t.events)-1].at) > d.cfg.Window {
			delete(d.counts, key)
		}
	}
	if len(d.counts) >= maxSubjects {
		clear(d.counts)
	}
}

// speak reports whether an alert is to be given: the same about the same is
// given once in a while only.
func (d *Detector) speak(a Alert) bool {
	key := subject{a.Rule, cmp.Or(a.Actor, string(a.Node))}
	if until, ok := d.quiet[key]; ok && a.Until.Before(until) {
		return false
	}
	if len(d.quiet) >= maxSubjects {
		clear(d.quiet)
	}
	d.quiet[key] = a.Until.Add(d.cfg.Quiet)
	return true
}

// known reports whether the actor's programs have run on the node, and
// remembers it.
func (h *history) known(node identity.ID) bool {
	if slices.Contains(h.nodes, node) {
		return true
	}
	if len(h.nodes) < maxPlaces {
		h.nodes = append(h.nodes, node)
	}
	return false
}
