package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// Times are read as RFC 3339 lets them be written, its odd forms included.
func TestParseMoment(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-28T07:00:00Z":            "2026-11-28T07:00:00.000Z",
		"2026-11-28t07:00:00.25z":         "2026-11-28T07:00:00.250Z",
		"2026-11-28T08:00:00+01:00":       "2026-11-28T07:00:00.000Z",
		"2016-12-31T23:59:60Z":            "2017-01-01T00:00:00.000Z",
		"2016-12-31T15:59:60.5-08:00":     "2017-01-01T00:00:00.500Z",
		"2016-12-31T23:58:60Z":            "",
		"2016-12-31T23:59:61Z":            "",
		"2026-11-28":                      "",
		"":                                "",
		"2026-11-28T07:59:60":             "",
		"10000-01-01T00:00:00Z":           "",
		"2016-12-31T23:59:60Z and a word": "",
	} {
		got, err := audit.ParseMoment(text)
		if (err == nil) != (want != "") || err == nil && audit.FormatTime(got) != want {
			t.Errorf("%q is %v, %v, want %q", text, got, err, want)
		}
	}
}

func TestQuery(t *testing.T) {
	l := audittest.New(t, nil, nil)
	key := audittest.Key(t, 1)
	at := func(i int) time.Time { return time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC) }
	for i := 1; i <= 20; i++ { // entry i at minute i
		e := audittest.Intent(t, key.ID(), fmt.Sprintf("task%d", i%5))
		e.Attempt = 1
		if i%2 == 0 || i > 5 {
			e = denial
			e.Task, e.Decision = fmt.Sprintf("task%d", i%5), &audit.Decision{Reasons: []string{"role"}}
		}
		e.Actor, e.Time = fmt.Sprintf("agent:%d", i%3), audit.FormatTime(at(i))
		if got := l.Record(key, e); got != uint64(i) {
			t.Fatalf("entry %d at %d", i, got)
		}
	}
	for _, test := range []struct {
		name string
		f    audit.Filter
		want []uint64
	}{
		{"window", audit.Filter{Since: at(3), Until: at(6)}, []uint64{3, 4, 5}},
		{"newest", audit.Filter{Since: at(18), Newest: true}, []uint64{20, 19, 18}},
		{"actor", audit.Filter{Actor: "agent:1", Until: at(12)}, []uint64{1, 4, 7, 10}},
		{"task", audit.Filter{Task: "task1"}, []uint64{1, 6, 11, 16}},
		{"task, newest", audit.Filter{Task: "task1", Newest: true}, []uint64{16, 11, 6, 1}},
		{"task of none", audit.Filter{Task: "task"}, nil},
		{"kinds", audit.Filter{Kinds: []audit.Kind{audit.KindIntent, audit.KindGenesis}}, []uint64{0, 1, 3, 5}},
		{"allow", audit.Filter{Decision: "allow"}, []uint64{1, 3, 5}},
		{"deny", audit.Filter{Decision: "deny", Until: at(7)}, []uint64{2, 4, 6}},
		{"until beyond all years", audit.Filter{Until: time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600)), Task: "task1"}, []uint64{1, 6, 11, 16}},
		{"until the end of the last millisecond", audit.Filter{Until: time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), Task: "task1"}, []uint64{1, 6, 11, 16}},
		{"since beyond all years", audit.Filter{Since: time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600))}, nil},
		{"since before all years", audit.Filter{Since: time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600)), Task: "task1"}, []uint64{1, 6, 11, 16}},
		{"until before all years", audit.Filter{Until: time.Date(0, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600))}, nil},
		{"nothing", audit.Filter{Actor: "agent:9"}, nil},
	} {
		for _, limit := range []int{0, 1, 2, 3} {
			var got []uint64
			f := test.f
			f.Limit = limit
			for pages := 0; ; pages++ {
				page, err := l.Store.Query(deadline(t), f)
				if err != nil {
					t.Fatalf("%s: %v", test.name, err)
				}
				for _, one := range page.Entries {
					got = append(got, one.Index)
				}
				if f.Cursor = page.Next; f.Cursor == "" || pages > 30 {
					break
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%s, pages of %d: %v, want %v", test.name, limit, got, test.want)
			}
		}
	}
	for name, f := range map[string]audit.Filter{
		"decision": {Decision: "maybe"}, "limit": {Limit: audit.MaxLimit + 1}, "kind": {Kinds: []audit.Kind{"poem"}},
		"cursor": {Cursor: "o-1"}, "cursor of the other direction": {Cursor: "n3"}, "cursor text": {Cursor: "nono3"},
		"cursor of another log": {Cursor: "o1-00000000"}, "half a cursor": {Cursor: "o1-"}, "cursor beyond the end": {Cursor: fmt.Sprintf("o%d", l.Store.Size()+1)},
		"cursor at the end, backwards": {Cursor: fmt.Sprintf("n%d", l.Store.Size()), Newest: true},
	} {
		if _, err := l.Store.Query(deadline(t), f); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	done, stop := context.WithCancel(context.Background())
	stop()
	if _, err := l.Store.Query(done, audit.Filter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFollow(t *testing.T) {
	l := audittest.New(t, nil, nil)
	key := audittest.Key(t, 1)
	l.Record(key, denial)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	next := uint64(1)
	for one, err := range l.Store.Follow(ctx, 1) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
		if one.Index != next || one.Entry.Kind != audit.KindDenial {
			t.Fatalf("%+v, want entry %d", one, next)
		}
		if next++; next == 4 {
			cancel()
			continue
		}
		l.Record(key, denial)
	}
	if next != 4 {
		t.Errorf("followed to %d", next)
	}
}
