package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
)

// denials writes refusals to the log without any request waiting for it, and
// without letting a flood of them become a flood of entries: policy denials of
// one principal are written one by one up to a rate, then as counts; failures
// of callers who proved nothing only ever as counts.
type denials struct {
	recorder Recorder
	log      *slog.Logger
	queue    chan audit.Entry
	last     time.Duration // for what is left when the node stops

	mu      sync.Mutex // guards what follows
	buckets map[string]*bucket
	counts  map[count]int
	since   time.Time // when counting began
}

// count groups the refusals that are written as a number only.
type count struct{ actor, tenant, code string }

// bucket is one principal's allowance of entries.
type bucket struct {
	tokens float64
	last   time.Time
}

const (
	denialBurst   = 20
	denialRate    = 1 // per second
	denialQueue   = 256
	denialFlush   = 5 * time.Second
	denialWait    = 10 * time.Second
	denialLast    = time.Second
	maxBuckets    = 10_000
	maxCounts     = 1_000
	unknownCaller = "unauthenticated"
	codeRepeated  = "repeated"
	codeVouch     = "vouch_not_allowed" // who signed, or would have, may not speak for the caller
	fewRepeated   = 5                   // repetitions in a flush that a client's retries explain
)

func newDenials(r Recorder, log *slog.Logger) *denials {
	return &denials{
		recorder: r, log: log, queue: make(chan audit.Entry, denialQueue), last: denialLast,
		buckets: map[string]*bucket{}, counts: map[count]int{}, since: time.Now(),
	}
}

// noteDenied notes a request that policy refused.
func (a *Agent) noteDenied(req *request) { a.denials.note(a.denialEntry(req), "denied") }

// noteRefused counts a request that could not prove itself.
func (a *Agent) noteRefused(req *request, err error) {
	if req.noted {
		return
	}
	code := "internal"
	if known := new(a2a.Error); errors.As(err, &known) {
		code = known.Code
	}
	a.denials.count(count{actor: unknownCaller, code: code}, 1)
}

// noteForged notes a request whose signer proved himself, and then spoke for
// somebody for whom he may not: an agent, or a node that is a confused deputy or
// worse. It reports whether it did; of a signer whom nobody knows it says nothing.
func (a *Agent) noteForged(facts a2a.Signed, via string) bool {
	if len(facts.Claims.Mandate) == 0 {
		return false
	}
	signer, known := a.cfg.Directory.Agent(facts.Issuer)
	if !known {
		signer = identity.Principal{Kind: identity.Node, Name: facts.Issuer.DID()}
		known = a.cfg.Directory.Member(facts.Issuer)
	}
	if known {
		a.NoteDenial(signer, authz.ExecRun, codeVouch, via, authz.Decision{})
	}
	return known
}

// NoteDenial notes an act that runs no code and that a door refused: by policy, or
// with a decision that is zero, by the keepers, whose code says why. Via is the
// kind of door.
func (a *Agent) NoteDenial(p identity.Principal, action, code, via string, d authz.Decision) {
	body := audit.DenialBody{Code: code, Door: a.cfg.Key.ID(), Action: action}
	if d.Policy != "" {
		body.Asked = &audit.Asked{Via: via}
	}
	text, err := audit.MarshalBody(body)
	if err != nil {
		panic("internal error: audit body does not marshal: " + err.Error())
	}
	e := audit.Entry{ID: audit.NewID(time.Now()), Kind: audit.KindDenial, Actor: p.String(), Tenant: p.Tenant, Body: text}
	if d.Policy != "" {
		e.Decision = decisionRecord(d, a.cfg.Key.ID())
	}
	a.denials.note(e, code)
}

// NoteUnauthenticated counts a caller whom a door turned away.
func (a *Agent) NoteUnauthenticated(code string) {
	a.denials.count(count{actor: unknownCaller, code: code}, 1)
}

// noteRepeated counts a request that was made before: a client that tries again,
// or somebody who replays what he has seen.
func (a *Agent) noteRepeated(req *request, err error) {
	code := codeRepeated
	if known := new(a2a.Error); errors.As(err, &known) {
		code = known.Code
	} else if err != nil {
		return // the log could not be read
	}
	a.denials.count(count{actor: req.principal.String(), tenant: req.principal.Tenant, code: code}, 1)
}

func (d *denials) note(e audit.Entry, code string) {
	if !d.allowance(e.Actor, time.Now()) {
		d.count(count{e.Actor, e.Tenant, code}, 1)
		return
	}
	select {
	case d.queue <- e:
	default:
		d.count(count{e.Actor, e.Tenant, code}, 1)
	}
}

func (d *denials) allowance(actor string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.buckets[actor]
	if !ok {
		if len(d.buckets) >= maxBuckets {
			clear(d.buckets)
		}
		b = &bucket{tokens: denialBurst, last: now}
		d.buckets[actor] = b
	}
	b.tokens = min(denialBurst, b.tokens+now.Sub(b.last).Seconds()*denialRate)
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (d *denials) count(c count, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.counts[c]; !ok && len(d.counts) >= maxCounts {
		c = count{actor: unknownCaller, code: "overflow"}
	}
	d.counts[c] += n
}

// run writes what was noted until ctx is done, and then what is left.
func (d *denials) run(ctx context.Context) {
	writing, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(d.last, end) })()
	tick := time.NewTicker(denialFlush)
	defer tick.Stop()
	for {
		select {
		case e := <-d.queue:
			d.write(writing, e)
		case <-tick.C:
			d.flush(writing)
		case <-ctx.Done():
			d.drain(writing)
			d.flush(writing)
			return
		}
	}
}

// drain writes what is in the queue now.
func (d *denials) drain(ctx context.Context) {
	for {
		select {
		case e := <-d.queue:
			d.write(ctx, e)
		default:
			return
		}
	}
}

func (d *denials) flush(ctx context.Context) {
	d.mu.Lock()
	counts, since, now := d.counts, d.since, time.Now()
	d.counts, d.since = map[count]int{}, now
	d.mu.Unlock()
	for c, n := range counts {
		if c.code == codeRepeated && n < fewRepeated {
			continue
		}
		body, err := audit.MarshalBody(audit.GapBody{
			Code: c.code, Count: n, From: audit.FormatTime(since), Until: audit.FormatTime(now),
		})
		if err != nil {
			panic("internal error: gap body does not marshal: " + err.Error())
		}
		if !d.write(ctx, audit.Entry{Kind: audit.KindGap, Actor: c.actor, Tenant: c.tenant, Body: body}) {
			d.count(c, n) // kept for the next time
		}
	}
}

func (d *denials) write(ctx context.Context, e audit.Entry) bool {
	ctx, cancel := context.WithTimeout(ctx, denialWait)
	defer cancel()
	if _, err := d.recorder.Record(ctx, e); err != nil {
		d.log.WarnContext(ctx, "denial not recorded", "actor", e.Actor, "err", err)
		return false
	}
	return true
}
