package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

var eraser = identity.Principal{Kind: identity.Service, Name: serviceID, Tenant: "acme"}

// kept are the tasks of which there is evidence, oldest first.
func (w *world) kept() []string {
	w.t.Helper()
	out, err := w.store.Kept()
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// erasures are the bodies of the log's erasure entries.
func (w *world) erasures() []audit.ErasureBody {
	w.t.Helper()
	var out []audit.ErasureBody
	for _, e := range w.entries(audit.KindErasure) {
		body, err := e.Erasure()
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, body)
	}
	return out
}

func TestEvidenceIsHeldAgainstTheLog(t *testing.T) {
	w := newWorld(t)
	rep := w.run(w.signed(w.caller, nil))
	view, err := w.agent.ShowEvidence(t.Context(), rep.Task, eraser)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	for _, p := range view.Parts {
		parts[p.Name] = string(p.Data)
	}
	if parts["code"] != "result = 1" || parts["result"] != "1" || parts["request"] == "" || view.Node != w.node.ID() {
		t.Errorf("%+v", view)
	}
	name := w.file(rep.Task)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, forged := range map[string]string{
		"result":  strings.Replace(string(text), `"result":"MQ=="`, `"result":"Mg=="`, 1),
		"request": strings.Replace(string(text), "result = 1", "result = 2", 1),
	} {
		if forged == string(text) {
			t.Fatalf("%s is not in the evidence", what)
		}
		if err := os.WriteFile(name, []byte(forged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.agent.ShowEvidence(t.Context(), rep.Task, eraser); err == nil {
			t.Errorf("a forged %s is shown", what)
		}
	}
}

func TestErasureLeavesAnEntryAndTheCommitments(t *testing.T) {
	w := newWorld(t)
	rep := w.run(w.signed(w.caller, nil))
	index, err := w.agent.EraseEvidence(t.Context(), rep.Task, eraser)
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := w.log.Store.Entry(index)
	if err != nil || e.Kind != audit.KindErasure || e.Actor != eraser.String() || e.Task != rep.Task || e.Tenant != "acme" {
		t.Errorf("%+v, %v", e, err)
	}
	if got := w.kept(); len(got) != 0 {
		t.Errorf("left over: %v", got)
	}
	if known := new(a2a.Error); !errors.As(func() error { _, err := w.agent.OwnReceipt(t.Context(), rep.Task); return err }(), &known) || known.Code != a2a.CodeNotFound {
		t.Errorf("its receipt: %v", known)
	}
	if _, err := w.agent.EraseEvidence(t.Context(), rep.Task, eraser); err == nil {
		t.Error("it is erased twice")
	}
	if got := w.entries(audit.KindOutcome); len(got) != 1 {
		t.Error("the outcome is gone")
	}
	// No quorum, no erasure: what cannot be written down is not done.
	other := w.run(w.signed(w.caller, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.agent.EraseEvidence(ctx, other.Task, eraser); err == nil {
		t.Error("erased without an entry")
	}
	if got := w.kept(); len(got) != 1 || got[0] != other.Task {
		t.Errorf("kept: %v", got)
	}
	// A crash after the entry: the next sweep removes what is left, and the log
	// has one entry about it.
	if err := os.Rename(w.file(other.Task), filepath.Join(w.evidence, other.Task+".erasing")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.agent.SweepEvidence(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.erasures(); len(got) != 2 || len(w.kept()) != 0 {
		t.Errorf("%+v, kept %v", got, w.kept())
	}
}

func TestEvidenceDoesNotGrowWithoutBound(t *testing.T) {
	w := newWorld(t)
	w.retention, w.space = 48*time.Hour, 1<<30
	w.build()
	var tasks []string
	var size int64
	for i := range 6 {
		rep := w.run(w.signed(w.caller, nil))
		tasks = append(tasks, rep.Task)
		name := w.file(rep.Task)
		at := time.Now().Add(-time.Duration(10-i) * 8 * time.Hour) // 80, 72, 64, 56, 48, 40 hours old
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		size = info.Size()
	}
	now := time.Now().Add(-time.Minute) // the fifth is not quite 48 hours old
	if err := w.agent.SweepEvidence(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	got := w.erasures()
	if len(got) != 1 || got[0].Reason != audit.ErasedByAge || len(got[0].Tasks) != 4 || got[0].Tasks[0] != tasks[0] || len(w.kept()) != 2 {
		t.Fatalf("%+v, kept %v", got, w.kept())
	}
	w2 := newWorld(t)
	w2.space = 3 * size
	w2.build()
	tasks = nil
	for i := range 6 {
		rep := w2.run(w2.signed(w2.caller, nil))
		tasks = append(tasks, rep.Task)
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(w2.file(rep.Task), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := w2.agent.SweepEvidence(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	got = w2.erasures()
	if len(got) != 1 || got[0].Reason != audit.ErasedForSpace || got[0].Tasks[0] != tasks[0] || len(w2.kept()) > 3 || len(w2.kept()) < 2 {
		t.Errorf("%+v, kept %v", got, w2.kept())
	}
}
