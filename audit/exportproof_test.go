package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/audit"
)

// exported is a log of some tasks, the proof of an export of its outcomes, and
// whom to trust.
func exported(tb testing.TB, f audit.Filter) (proof []byte, trust audit.Trust, want []audit.Indexed, size uint64) {
	tb.Helper()
	c := newCluster(tb, 3)
	c.run()
	var last uint64
	for i := range 11 {
		_, last = c.execution(0, fmt.Sprintf("task%d", i))
	}
	s := c.stores[0]
	at, note, err := s.WaitCheckpoint(deadline(tb), last)
	if err != nil {
		tb.Fatal(err)
	}
	for one, err := range s.Export(deadline(tb), f, at.Size) {
		if err != nil {
			tb.Fatal(err)
		}
		want = append(want, one)
	}
	var out bytes.Buffer
	if err := s.WriteExportProof(deadline(tb), &out, f, "csv", at, note); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes(), c.trust(), want, at.Size
}

func TestExportProof(t *testing.T) {
	for name, f := range map[string]audit.Filter{
		"all": {}, "outcomes": {Kinds: []audit.Kind{audit.KindOutcome}}, "one task": {Task: "task3"}, "none": {Task: "nothing"},
		"first": {Kinds: []audit.Kind{audit.KindGenesis}}, "last": {Task: "task10"},
	} {
		proof, trust, want, size := exported(t, f)
		var got []audit.Indexed
		report, err := audit.VerifyExport(deadline(t), bytes.NewReader(proof), trust, func(one audit.Indexed) error {
			got = append(got, one)
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, proof)
		}
		same := slices.EqualFunc(got, want, func(a, b audit.Indexed) bool {
			return a.Index == b.Index && bytes.Equal(a.Leaf, b.Leaf)
		})
		if !same || report.Size != size || report.Count != uint64(len(want)) || report.Head.Format != "csv" {
			t.Errorf("%s: %d of %d entries, report %+v", name, len(got), len(want), report)
		}
		complete := slices.ContainsFunc(report.Checks, func(c audit.Check) bool { return c.Name == "complete" })
		if complete != (name == "all") {
			t.Errorf("%s: complete %v", name, complete)
		}
	}
}

// One byte anywhere, or one line more, less or elsewhere, and the proof fails.
func TestExportProofNoticesEveryChange(t *testing.T) {
	proof, trust, _, _ := exported(t, audit.Filter{Kinds: []audit.Kind{audit.KindOutcome}})
	verify := func(text []byte) error {
		report, err := audit.VerifyExport(deadline(t), bytes.NewReader(text), trust, func(audit.Indexed) error { return nil })
		last := report.Checks[len(report.Checks)-1]
		if (err != nil) == last.OK {
			t.Fatalf("%v, but the last check says %+v", err, last)
		}
		return err
	}
	// The format's name is not signed: it only says which file this belongs to.
	free := bytes.Index(proof, []byte(`"format":"csv"`)) + len(`"format":"`)
	for i := 0; i < len(proof); i += 5 {
		if i >= free && i < free+len("csv") {
			continue
		}
		changed := bytes.Clone(proof)
		changed[i] ^= 1
		if err := verify(changed); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("byte %d of %d changed: %v", i, len(proof), err)
		}
	}
	lines := strings.SplitAfter(string(proof), "\n")
	for i := range lines[:len(lines)-1] {
		for name, text := range map[string][]string{
			"left out": slices.Concat(lines[:i], lines[i+1:]),
			"twice":    slices.Concat(lines[:i+1], lines[i:]),
			"cut":      lines[:i],
		} {
			if verify([]byte(strings.Join(text, ""))) == nil {
				t.Errorf("line %d %s goes unnoticed", i+1, name)
			}
		}
	}
	long := append(bytes.Repeat([]byte{'{'}, 2*audit.MaxProofLine), '\n')
	if err := verify(long); !errors.Is(err, audit.ErrInvalid) {
		t.Errorf("a long line: %v", err)
	}
}

func FuzzVerifyExport(f *testing.F) {
	proof, trust, _, _ := exported(f, audit.Filter{Kinds: []audit.Kind{audit.KindOutcome}})
	f.Add(proof)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		count := 0
		report, err := audit.VerifyExport(t.Context(), bytes.NewReader(text), trust, func(audit.Indexed) error { count++; return nil })
		if err == nil && (report.Count != uint64(count) || report.Size == 0) {
			t.Errorf("verified: %+v", report)
		}
	})
}
