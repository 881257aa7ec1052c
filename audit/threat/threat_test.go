package threat_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/threat"
	"github.com/agenticraft/node/identity"
)

// start is a Tuesday at noon.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func node(t testing.TB, n byte) identity.ID {
	t.Helper()
	seed := make([]byte, 32)
	seed[0] = n
	key, err := identity.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return key.ID()
}

// story is a log in the making: each entry some seconds after the one before.
type story struct {
	t       testing.TB
	entries []audit.Entry
	at      time.Time
	author  identity.ID
}

func tell(t testing.TB) *story { return &story{t: t, at: start, author: node(t, 1)} }

func (s *story) add(n int, step time.Duration, e audit.Entry, body any) *story {
	s.t.Helper()
	text, err := audit.MarshalBody(body)
	if err != nil {
		s.t.Fatal(err)
	}
	for range n {
		s.at = s.at.Add(step)
		e.V, e.ID, e.Author, e.Time, e.Body = 1, fmt.Sprint("id", len(s.entries)), s.author, audit.FormatTime(s.at), text
		s.entries = append(s.entries, e)
	}
	return s
}

func (s *story) gap(n int, step time.Duration, code string, count int) *story {
	at := audit.FormatTime(s.at)
	return s.add(n, step, audit.Entry{Kind: audit.KindGap, Actor: "unauthenticated"}, audit.GapBody{Code: code, Count: count, From: at, Until: at})
}

func (s *story) denied(n int, step time.Duration, actor string, reasons ...string) *story {
	return s.add(n, step, audit.Entry{Kind: audit.KindDenial, Actor: actor, Decision: &audit.Decision{Reasons: reasons}}, audit.DenialBody{Code: "denied"})
}

func (s *story) runs(n int, step time.Duration, actor string) *story {
	return s.add(n, step, audit.Entry{Kind: audit.KindIntent, Actor: actor, Attempt: 1, Task: "t", Decision: &audit.Decision{Allow: true}}, audit.IntentBody{Executor: s.author})
}

func (s *story) ended(n int, step time.Duration, actor, status, code string) *story {
	return s.add(n, step, audit.Entry{Kind: audit.KindOutcome, Actor: actor, Attempt: 1, Task: "t"}, audit.OutcomeBody{Status: status, ErrorCode: code})
}

func (s *story) on(n byte) *story { s.author = node(s.t, n); return s }

func (s *story) later(d time.Duration) *story { s.at = s.at.Add(d); return s }

// rules are the names of the alerts that a detector gives.
func (s *story) rules() []string {
	d := threat.New(threat.Config{})
	out := []string{}
	for i, e := range s.entries {
		for _, a := range d.Observe(uint64(i), e) {
			out = append(out, a.Rule)
			if a.Count < 1 || a.Until.Before(a.From) || !slices.IsSorted(a.Entries) || len(a.Entries) == 0 || len(a.Entries) > audit.MaxAlertEntries || a.Entries[len(a.Entries)-1] > uint64(i) {
				s.t.Errorf("%+v", a)
			}
		}
	}
	return out
}

func TestRules(t *testing.T) {
	const minute = time.Minute
	role := audit.Entry{Kind: audit.KindRole, Actor: "agent:admin"}
	grant := map[string]string{"action": "grant"}
	key := audit.Entry{Kind: audit.KindKey, Actor: "node:did:key:z6Mk"}
	for name, tc := range map[string]struct {
		s    *story
		want []string
	}{
		"quiet life":             {tell(t).runs(100, time.Second, "a").ended(100, time.Second, "a", "succeeded", ""), nil},
		"guesses":                {tell(t).gap(4, time.Second, "unauthenticated", 5), []string{threat.RuleGuessing}},
		"few guesses":            {tell(t).gap(3, time.Second, "unauthenticated", 5), nil},
		"slow guesses":           {tell(t).gap(20, 6*minute, "unauthenticated", 10), nil},
		"guesses told once":      {tell(t).gap(100, time.Second, "unauthenticated", 50), []string{threat.RuleGuessing}},
		"guesses told again":     {tell(t).gap(1, time.Second, "unauthenticated", 50).later(2*time.Hour).gap(1, time.Second, "unauthenticated", 50), []string{threat.RuleGuessing, threat.RuleGuessing}},
		"replays":                {tell(t).gap(2, time.Second, "repeated", 8).gap(1, time.Second, "expired", 4), []string{threat.RuleReplays}},
		"let in at last":         {tell(t).denied(6, time.Second, "a", "role_missing").runs(1, time.Second, "a"), []string{threat.RuleBreakIn}},
		"another is let in":      {tell(t).denied(6, time.Second, "a", "role_missing").runs(1, time.Second, "b"), nil},
		"let in after a while":   {tell(t).denied(6, time.Second, "a", "role_missing").later(time.Hour).runs(1, time.Second, "a"), nil},
		"a few denials":          {tell(t).denied(3, time.Second, "a", "role_missing").runs(1, time.Second, "a"), nil},
		"counted denials":        {tell(t).add(1, 0, audit.Entry{Kind: audit.KindGap, Actor: "a"}, audit.GapBody{Code: "denied", Count: 90, From: audit.FormatTime(start), Until: audit.FormatTime(start)}).runs(1, time.Second, "a"), []string{threat.RuleBreakIn}},
		"role at noon":           {tell(t).add(1, 0, role, grant), nil},
		"role at night":          {tell(t).later(12*time.Hour).add(1, 0, role, grant), []string{threat.RuleOddHours}},
		"key made at night":      {tell(t).later(12*time.Hour).add(1, 0, key, map[string]string{"action": "create"}), []string{threat.RuleOddHours}},
		"key seen at night":      {tell(t).later(12*time.Hour).add(1, 0, key, map[string]string{"action": "used"}), nil},
		"jail broken":            {tell(t).ended(3, time.Second, "a", "failed", "killed"), []string{threat.RuleSandbox}},
		"jail broken by three":   {tell(t).ended(1, time.Second, "a", "failed", "killed").ended(1, time.Second, "b", "failed", "killed").ended(1, time.Second, "c", "failed", "killed"), nil},
		"limits probed":          {tell(t).ended(5, time.Second, "a", "timed_out", "").ended(5, time.Second, "a", "failed", "out_of_memory"), []string{threat.RuleProbing}},
		"limits asked beyond":    {tell(t).denied(10, time.Second, "a", "limit_memory"), []string{threat.RuleProbing}},
		"errors of one's own":    {tell(t).ended(100, time.Second, "a", "failed", "language_error"), nil},
		"a new place, new agent": {tell(t).runs(10, time.Second, "a").on(2).runs(10, time.Second, "a"), nil},
		"a new place, old agent": {tell(t).runs(60, time.Second, "a").on(2).runs(10, time.Second, "a"), []string{threat.RulePlace}},
	} {
		if got := tc.s.rules(); !slices.Equal(got, tc.want) && len(got)+len(tc.want) > 0 {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// What a detector keeps is bounded, whoever comes.
func TestManyStrangersCostLittle(t *testing.T) {
	d := threat.New(threat.Config{})
	s := tell(t).denied(1, 0, "x", "limit_memory").runs(1, 0, "x")
	for i := range 50_000 {
		for _, e := range s.entries {
			e.Actor = fmt.Sprint("agent:", i)
			d.Observe(uint64(i), e)
		}
	}
	if n := threat.Held(d); n > 60_000 {
		t.Errorf("%d subjects are kept", n)
	}
}

// log is a log that a watch reads and writes.
type log struct {
	mu      sync.Mutex // guards what follows
	entries []audit.Indexed
	once    map[string]bool
	grown   chan struct{}
}

func (l *log) add(e audit.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, audit.Indexed{Index: uint64(len(l.entries)), Entry: e})
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *log) follow(ctx context.Context, from uint64) iter.Seq2[audit.Indexed, error] {
	return func(yield func(audit.Indexed, error) bool) {
		for {
			l.mu.Lock()
			entries, grown := l.entries, l.grown
			l.mu.Unlock()
			for ; from < uint64(len(entries)); from++ {
				if !yield(entries[from], nil) {
					return
				}
			}
			select {
			case <-grown:
			case <-ctx.Done():
				yield(audit.Indexed{}, ctx.Err())
				return
			}
		}
	}
}

func (l *log) record(_ context.Context, e audit.Entry) (audit.Ack, error) {
	l.mu.Lock()
	known := l.once[e.Once.Key]
	l.once[e.Once.Key] = true
	l.mu.Unlock()
	if known {
		return audit.Ack{Existing: true}, nil
	}
	l.add(e)
	return audit.Ack{}, nil
}

// The leader writes an alert once; if it dies before, the next one does.
func TestWatchWritesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{once: map[string]bool{}, grown: make(chan struct{})}
		lead := make([]atomic.Bool, 3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 3)
		for i := range lead {
			w := threat.NewWatch(threat.WatchConfig{
				Entries: l.follow, Size: func() uint64 { return 0 }, Record: l.record,
				Lead: func() bool { return lead[i].Load() }, Away: func() []identity.ID { return []identity.ID{node(t, 9)} },
			})
			go func() { done <- w.Run(ctx) }()
		}
		alerts := func() (out []string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, one := range l.entries {
				if b, err := one.Entry.Alert(); err == nil {
					out = append(out, b.Rule)
				}
			}
			return out
		}
		for _, e := range tell(t).ended(3, time.Second, "a", "failed", "killed").entries {
			l.add(e)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := alerts(); len(got) != 0 {
			t.Errorf("without a leader: %v", got)
		}
		lead[1].Store(true)
		time.Sleep(time.Minute)
		lead[1].Store(false)
		lead[2].Store(true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := alerts(); !slices.Equal(got, []string{threat.RuleSandbox, threat.RuleSilent}) {
			t.Errorf("%v", got)
		}
		cancel()
		for range lead {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
