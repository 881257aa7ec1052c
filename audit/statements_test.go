package audit_test

import (
	"slices"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

const someTime = "2026-11-23T12:00:00.000Z"

// statement is an entry of the test's first key, complete but for its body.
func statement(tb testing.TB, kind audit.Kind, body any) audit.Entry {
	tb.Helper()
	text, err := audit.MarshalBody(body)
	if err != nil {
		tb.Fatal(err)
	}
	return audit.Entry{V: audit.EntryVersion, Kind: kind, ID: "id1", Author: audittest.Key(tb, 1).ID(), Time: someTime, Body: text}
}

func TestStatementsAreHeldToTheirForm(t *testing.T) {
	node := audittest.Key(t, 1).ID()
	read := audit.ReadBody{
		Action: audit.ReadExport, Count: 1, Door: node, Entries: 7, Format: "csv", From: someTime, Until: someTime,
		Filter: &audit.ReadFilter{Actor: "agent:x", Kinds: []string{"intent"}, Since: someTime},
	}
	erasure := audit.ErasureBody{Reason: audit.ErasedOnRequest, Tasks: []string{"task1"}, Bytes: 9}
	alert := audit.AlertBody{Rule: "probing", Severity: audit.SeverityLow, Count: 3, Entries: []uint64{1, 5}, Node: node, From: someTime, Until: someTime}
	for _, e := range []audit.Entry{
		statement(t, audit.KindRead, read), statement(t, audit.KindErasure, erasure), statement(t, audit.KindAlert, alert),
	} {
		leaf, err := e.Encode()
		if err != nil {
			t.Fatalf("%s: %v", e.Kind, err)
		}
		if _, err := audit.DecodeEntry(leaf); err != nil {
			t.Errorf("%s: %v", e.Kind, err)
		}
	}
	with := func(b audit.ReadBody, change func(*audit.ReadBody)) audit.ReadBody { change(&b); return b }
	for name, e := range map[string]audit.Entry{
		"read of no sort":       statement(t, audit.KindRead, with(read, func(b *audit.ReadBody) { b.Action = "stare" })),
		"read of nothing":       statement(t, audit.KindRead, with(read, func(b *audit.ReadBody) { b.Count = 0 })),
		"read at no door":       statement(t, audit.KindRead, with(read, func(b *audit.ReadBody) { b.Door = "" })),
		"read at no time":       statement(t, audit.KindRead, with(read, func(b *audit.ReadBody) { b.From = "" })),
		"read with text":        statement(t, audit.KindRead, with(read, func(b *audit.ReadBody) { b.Filter = &audit.ReadFilter{Actor: "two words"} })),
		"erasure of nothing":    statement(t, audit.KindErasure, audit.ErasureBody{Reason: audit.ErasedByAge, Tasks: []string{}}),
		"erasure for no reason": statement(t, audit.KindErasure, audit.ErasureBody{Tasks: []string{"a"}}),
		"alert of no rule":      statement(t, audit.KindAlert, audit.AlertBody{Severity: "low", Count: 1, From: someTime, Until: someTime}),
		"alert unsorted":        statement(t, audit.KindAlert, audit.AlertBody{Rule: "r", Severity: "low", Count: 1, Entries: []uint64{2, 1}, From: someTime, Until: someTime}),
		"body of another kind":  statement(t, audit.KindAlert, erasure),
	} {
		if _, err := e.Encode(); err == nil {
			t.Errorf("%s is taken for an entry", name)
		}
	}
}

func TestResourcesAndPolicies(t *testing.T) {
	key := audittest.Key(t, 1)
	l := audittest.New(t, nil, nil)
	intent := audittest.Intent(t, key.ID(), "task1")
	intent.Decision.Policy = digestA
	intent.OnBehalf = "agent:root"
	l.Record(key, intent)                                                                                                         // 1
	l.Record(key, audit.Entry{Kind: audit.KindTenant, Tenant: "acme", Body: []byte(`{"action":"create","name":"acme"}`)})         // 2
	l.Record(key, audit.Entry{Kind: audit.KindPolicy, Body: []byte(`{"action":"apply","bundle":"","digest":"` + digestA + `"}`)}) // 3
	erasure := statement(t, audit.KindErasure, audit.ErasureBody{Reason: audit.ErasedByAge, Tasks: []string{"task1", "task2"}})
	erasure.ID = ""
	l.Record(key, erasure) // 4
	for _, test := range []struct {
		f    audit.Filter
		want []uint64
	}{
		{audit.Filter{Resource: "language:starlark"}, []uint64{1}},
		{audit.Filter{Resource: "starlark"}, []uint64{1}},
		{audit.Filter{Resource: "node:" + string(key.ID())}, []uint64{1, 4}},
		{audit.Filter{Resource: "tenant:acme"}, []uint64{2}},
		{audit.Filter{Resource: "task:task1"}, []uint64{1, 4}},
		{audit.Filter{Resource: "acm"}, nil},
		{audit.Filter{Policy: digestA}, []uint64{1, 3}},
		{audit.Filter{Policy: digestB}, nil},
		{audit.Filter{OnBehalf: "agent:root"}, []uint64{1}},
		{audit.Filter{OnBehalf: intent.Actor}, nil},
		{audit.Filter{Actor: "agent:root"}, []uint64{1}},
	} {
		page, err := l.Store.Query(deadline(t), test.f)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, one := range page.Entries {
			got = append(got, one.Index)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%+v: %v, want %v", test.f, got, test.want)
		}
	}
}
