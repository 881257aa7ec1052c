package audit_test

import (
	"errors"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

func TestStory(t *testing.T) {
	key := audittest.Key(t, 1)
	l := audittest.New(t, nil, nil)
	if _, err := l.Store.Story(deadline(t), "task1"); !errors.Is(err, audit.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	d := denial
	d.Task, d.Decision = "task1", &audit.Decision{Reasons: []string{"tenant"}}
	l.Record(key, d)
	first := l.Record(key, audittest.Intent(t, key.ID(), "task1"))
	l.Record(key, audittest.Intent(t, key.ID(), "task2"))
	l.Record(key, audittest.Outcome(t, "task1", first, audit.StatusLost))
	late := audittest.Outcome(t, "task1", first, audit.StatusSucceeded)
	late.Kind = audit.KindLate
	lateAt := l.Record(key, late)
	refusedAt := l.Record(key, connection(t, "task1", first, audit.ConnectionBody{Verdict: "not_allowed"}))
	second := audittest.Intent(t, key.ID(), "task1")
	second.Attempt = 2
	secondAt := l.Record(key, second)
	s, err := l.Store.Story(deadline(t), "task1")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Denials) != 1 || len(s.Attempts) != 2 || len(s.Entries) != 6 || s.Receipt.Available || s.Receipt.Why != "it still runs" {
		t.Fatalf("%+v", s)
	}
	a, b := s.Attempts[0], s.Attempts[1]
	if a.Outcome == nil || a.Outcome.Status != audit.StatusLost || len(a.Late) != 1 || a.Late[0] != lateAt || b.Intent != secondAt || b.Outcome != nil {
		t.Errorf("%+v %+v", a, b)
	}
	if len(a.Connections) != 1 || a.Connections[0].Index != refusedAt || a.Connections[0].Verdict != "not_allowed" || len(b.Connections) != 0 {
		t.Errorf("connections: %+v %+v", a.Connections, b.Connections)
	}
	erasure := statement(t, audit.KindErasure, audit.ErasureBody{Reason: audit.ErasedByAge, Tasks: []string{"task0", "task1"}})
	erasure.ID = ""
	l.Record(key, erasure)
	if s, err = l.Store.Story(deadline(t), "task1"); err != nil || len(s.Erasures) != 1 || s.Erasures[0].Node != key.ID() {
		t.Errorf("%+v, %v", s.Erasures, err)
	}
}

// connection is an entry about a connection of the task's first attempt.
func connection(tb testing.TB, task string, intent uint64, b audit.ConnectionBody) audit.Entry {
	tb.Helper()
	body, err := audit.MarshalBody(b)
	if err != nil {
		tb.Fatal(err)
	}
	return audit.Entry{Kind: audit.KindConnection, Task: task, Attempt: 1, Ref: &intent, Body: body}
}
