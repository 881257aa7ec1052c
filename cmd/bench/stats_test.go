package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPercentileIsNearestRank(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[99-i] = float64(i + 1)
	}
	for _, c := range []struct {
		values []float64
		p      float64
		want   float64
	}{
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
		{[]float64{7}, 50, 7},
		{[]float64{7}, 99, 7},
		{[]float64{3, 1, 2}, 50, 2},
		{[]float64{4, 1, 3, 2}, 50, 2},
		{[]float64{1, 2}, 0, 1},
	} {
		if got := percentile(c.values, c.p); got != c.want {
			t.Errorf("percentile(%v, %v) = %v, want %v", c.values, c.p, got, c.want)
		}
	}
	if got := percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("percentile of nothing = %v, want NaN", got)
	}
	if hundred[0] != 100 {
		t.Error("percentile sorted its caller's values")
	}
}

// turns are slices of constant operations, in milliseconds.
func turns(ms ...int) []slice {
	var all []slice
	for _, m := range ms {
		d := time.Duration(m) * time.Millisecond
		all = append(all, slice{Each: []time.Duration{d, d, d}, Elapsed: 3 * d})
	}
	return all
}

// A machine that slows down for both changes no ratio.
func TestRatiosComparePerRound(t *testing.T) {
	a, b := &contender{slices: turns(10, 100, 30)}, &contender{slices: turns(5, 50, 10)}
	if got := times(a, b); got != 2 {
		t.Errorf("times = %v, want 2, the median of 2, 2 and 3", got)
	}
	if got := rates(b, a); got != 2 {
		t.Errorf("rates = %v, want 2", got)
	}
	if got := times(a, &contender{}); !math.IsNaN(got) {
		t.Errorf("times against nothing = %v, want NaN", got)
	}
}

func TestInterleaveTakesTurnsBackAndForth(t *testing.T) {
	var order strings.Builder
	var all []*contender
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, &contender{name: name, run: func(context.Context, time.Duration) (slice, error) {
			order.WriteString(name)
			return slice{Each: []time.Duration{time.Millisecond}, Elapsed: 2 * time.Millisecond}, nil
		}})
	}
	if err := interleave(t.Context(), 3, time.Second, all); err != nil {
		t.Fatal(err)
	}
	if got, want := order.String(), "abc"+"abc"+"cba"+"abc"; got != want {
		t.Errorf("the turns were %q, want %q: one that does not count, then back and forth", got, want)
	}
	r := all[0].row()
	if r.N != 3 || r.P50 != 1 || r.P99 != 1 || r.Rate != 500 || r.Unit != "ms" {
		t.Errorf("row = %+v", r)
	}
	broken := errors.New("broken")
	all[1].run = func(context.Context, time.Duration) (slice, error) { return slice{}, broken }
	if err := interleave(t.Context(), 1, time.Second, all); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "b: ") {
		t.Errorf("error = %v, want one that names b", err)
	}
}

func TestRepeatedRunsAtLeastOnce(t *testing.T) {
	n := 0
	s, err := repeated(func(context.Context) error { n++; return nil })(t.Context(), 0)
	if err != nil || n != 1 || len(s.Each) != 1 || s.Elapsed < s.Each[0] {
		t.Errorf("ran %d times: %+v, %v", n, s, err)
	}
}

func TestTargetsAreComputed(t *testing.T) {
	for _, c := range []struct {
		got  float64
		want string
	}{{9.99, "met"}, {10, "met"}, {10.01, "missed"}, {math.NaN(), "not measured"}} {
		if v := (Target{Most: 10, Got: c.got}).Verdict(); v != c.want {
			t.Errorf("verdict of %v = %q, want %q", c.got, v, c.want)
		}
	}
}

func TestNumberKeepsThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "-", math.NaN(): "-", math.Inf(1): "-", 0.0123: "0.012", 0.5: "0.500", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345: "12345",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestTablePrintsBothWays(t *testing.T) {
	table := &Table{
		Machine:  []string{"2 cores"},
		Sections: []Group{{Name: "starts", Rows: []Row{{Name: "one", Unit: "ms", N: 2, P50: 1.5, P99: math.NaN(), Peers: []Ratio{{Peer: "two", Times: 3, Of: "p50"}}, Note: "a note"}}}},
		Targets:  []Target{{Name: "quick", Unit: "ms", Most: 1, Got: math.NaN()}},
		Problems: []string{"no time"},
	}
	var text, doc bytes.Buffer
	if err := errors.Join(table.printText(&text), table.printJSON(&doc)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 cores", "STARTS", "1.50", "3.00 x two (p50); a note", "not measured", "no time"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, text.String())
		}
	}
	var back struct {
		Sections []struct{ Rows []map[string]any }
	}
	if err := json.Unmarshal(doc.Bytes(), &back); err != nil || len(back.Sections) != 1 {
		t.Fatalf("no JSON: %v\n%s", err, doc.String())
	}
	row := back.Sections[0].Rows[0]
	if _, ok := row["p99"]; ok || row["p50"] != 1.5 {
		t.Errorf("row = %v, want p50 and no p99", row)
	}
}

func TestProcessTree(t *testing.T) {
	parents := map[int]int{10: 1, 11: 10, 12: 11, 13: 10, 20: 1, 21: 20}
	if got := below(parents, 10); !slices.Equal(got, []int{10, 11, 12, 13}) {
		t.Errorf("below(10) = %v", got)
	}
}
