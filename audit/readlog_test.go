package audit_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
)

// reader is who reads in these tests.
var reader = identity.Principal{Kind: identity.Service, Name: "inspector", Tenant: "acme"}

// readsOf gives what a read log writes while do runs and until it ends.
func readsOf(t *testing.T, fail *error, do func(l *audit.ReadLog)) []audit.Entry {
	t.Helper()
	var out []audit.Entry
	synctest.Test(t, func(t *testing.T) {
		l := audit.NewReadLog(audit.ReadLogConfig{Node: audittest.Key(t, 1).ID(), Record: func(_ context.Context, e audit.Entry) (audit.Ack, error) {
			if fail != nil && *fail != nil {
				return audit.Ack{}, *fail
			}
			out = append(out, e)
			return audit.Ack{Index: uint64(len(out))}, nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		do(l)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return out
}

func TestReadsAlikeAreOneEntryAMinute(t *testing.T) {
	written := 0
	entries := readsOf(t, nil, func(l *audit.ReadLog) {
		for range 30 {
			l.Note(audit.Reading{By: reader, Action: audit.ReadList, Filter: audit.Filter{Actor: "agent:x", Cursor: "o7"}, Entries: 2})
			l.Note(audit.Reading{By: reader, Action: audit.ReadList, Filter: audit.Filter{Actor: "agent:y"}})
			time.Sleep(time.Second)
		}
		time.Sleep(2 * audit.ReadWindow)
		l.Note(audit.Reading{By: reader, Action: audit.ReadList, Filter: audit.Filter{Actor: "agent:x"}})
	})
	for _, e := range entries {
		body, err := e.Read()
		if err != nil || e.Kind != audit.KindRead || e.Actor != reader.String() || e.Tenant != "acme" {
			t.Fatalf("%+v: %v", e, err)
		}
		if body.Filter.Actor == "agent:x" && body.Count == 30 && body.Entries == 60 && body.From < body.Until {
			written++
		}
	}
	if len(entries) != 3 || written != 1 {
		t.Errorf("%d entries, %d with 30 reads", len(entries), written)
	}
}

// I10, no secret reaches a log: what was typed into a search is written down
// only if it can be no secret.
func TestReadsHoldNoSecret(t *testing.T) {
	const secret = "ac_k3xk3xk3xk_abcdefghijklmnop"
	entries := readsOf(t, nil, func(l *audit.ReadLog) {
		for _, f := range []audit.Filter{{Actor: secret}, {Task: secret}, {Resource: "key:" + secret}, {Policy: secret}, {OnBehalf: secret}, {Actor: "service:k3x"}} {
			l.Note(audit.Reading{By: reader, Action: audit.ReadList, Filter: f})
		}
	})
	known := 0
	for _, e := range entries {
		if strings.Contains(string(e.Body), "ac_") {
			t.Errorf("%s", e.Body)
		}
		if strings.Contains(string(e.Body), `"actor":"service:k3x"`) {
			known++
		}
	}
	if len(entries) != 6 || known != 1 {
		t.Errorf("%d entries, %d tell the actor", len(entries), known)
	}
}

// Nobody floods the log by reading it, and what could not be written is
// written later.
func TestReadsDoNotFloodTheLog(t *testing.T) {
	down := audit.ErrUnavailable
	entries := readsOf(t, &down, func(l *audit.ReadLog) {
		for i := range 5000 {
			l.Note(audit.Reading{By: reader, Action: audit.ReadList, Filter: audit.Filter{Task: fmt.Sprintf("%032x", i)}, Entries: 1})
		}
		time.Sleep(2 * audit.ReadWindow)
		synctest.Wait() // nobody looks at it now
		down = nil
	})
	reads := 0
	for _, e := range entries {
		body, err := e.Read()
		if err != nil {
			t.Fatal(err)
		}
		reads += body.Count
	}
	if len(entries) != 21 || reads != 5000 {
		t.Errorf("%d entries of %d reads", len(entries), reads)
	}
}
