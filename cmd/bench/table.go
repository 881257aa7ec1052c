package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Table is the whole result.
type Table struct {
	Machine  []string `json:"machine"` // facts without which the figures say little
	Sections []Group  `json:"sections"`
	Targets  []Target `json:"targets"`
	Problems []string `json:"problems,omitempty"` // what could not be measured, and why
}

// Group are rows about one question.
type Group struct {
	Name string `json:"name"`
	Rows []Row  `json:"rows"`
}

// Row is one figure. Numbers that were not measured are zero or NaN and are
// left out.
type Row struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"` // of p50 and p99
	N     int     `json:"n"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Rate  float64 `json:"rate_per_second"`
	Peers []Ratio `json:"peers,omitempty"`
	Note  string  `json:"note,omitempty"`
}

// Ratio compares a row with one measured beside it in the same run.
type Ratio struct {
	Peer  string  `json:"peer"`
	Times float64 `json:"times"` // this row's value over the peer's
	Of    string  `json:"of"`    // "p50" or "rate"
}

// Target is a goal that a figure is compared with; missing it fails nothing.
type Target struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Most  float64 `json:"most,omitempty"`  // the goal is at most this,
	Least float64 `json:"least,omitempty"` // or, if Most is 0, at least this
	Got   float64 `json:"got"`             // NaN: not measured
}

// Verdict says whether the goal was reached.
func (t Target) Verdict() string {
	switch {
	case math.IsNaN(t.Got):
		return "not measured"
	case t.Most > 0 && t.Got <= t.Most, t.Most == 0 && t.Got >= t.Least:
		return "met"
	}
	return "missed"
}

func (t Target) goal() string {
	if t.Most > 0 {
		return "at most " + number(t.Most)
	}
	return "at least " + number(t.Least)
}

// MarshalJSON leaves out what is not a number, which JSON does not have.
func (t Target) MarshalJSON() ([]byte, error) {
	m := map[string]any{"name": t.Name, "unit": t.Unit, "verdict": t.Verdict()}
	putNumber(m, "most", t.Most)
	putNumber(m, "least", t.Least)
	putNumber(m, "got", t.Got)
	return json.Marshal(m)
}

// MarshalJSON leaves out what is not a number, which JSON does not have.
func (r Row) MarshalJSON() ([]byte, error) {
	m := map[string]any{"name": r.Name, "unit": r.Unit, "n": r.N}
	putNumber(m, "p50", r.P50)
	putNumber(m, "p99", r.P99)
	putNumber(m, "rate_per_second", r.Rate)
	if len(r.Peers) > 0 {
		m["peers"] = r.Peers
	}
	if r.Note != "" {
		m["note"] = r.Note
	}
	return json.Marshal(m)
}

func putNumber(m map[string]any, name string, v float64) {
	if v != 0 && !math.IsNaN(v) && !math.IsInf(v, 0) {
		m[name] = v
	}
}

// printJSON prints the table as one JSON document.
func (t *Table) printJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(t); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}

// blank is a line that does not end the columns.
const blank = "\t\t\t\t\t\t\n"

// printText prints the table for people.
func (t *Table) printText(out io.Writer) error {
	for _, line := range t.Machine {
		fmt.Fprintf(out, "%s\n", line)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, g := range t.Sections {
		fmt.Fprintf(w, "%s%s\tn\tp50\tp99\tunit\tper second\tagainst its peers\n", blank, strings.ToUpper(g.Name))
		for _, r := range g.Rows {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, count(r.N), number(r.P50), number(r.P99), r.Unit, number(r.Rate), r.remarks())
		}
	}
	fmt.Fprintf(w, "%sFIRST TARGETS\t\tmeasured\tgoal\tunit\t\t\n", blank)
	for _, g := range t.Targets {
		fmt.Fprintf(w, "%s\t\t%s\t%s\t%s\t%s\t\n", g.Name, number(g.Got), g.goal(), g.Unit, g.Verdict())
	}
	for _, p := range t.Problems {
		fmt.Fprintf(w, "\nnot measured: %s\n", p)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}

func (r Row) remarks() string {
	var all []string
	for _, p := range r.Peers {
		all = append(all, fmt.Sprintf("%s x %s (%s)", number(p.Times), p.Peer, p.Of))
	}
	if r.Note != "" {
		all = append(all, r.Note)
	}
	return strings.Join(all, "; ")
}

func count(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// number writes three significant digits, or a dash.
func number(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return strconv.FormatFloat(v, 'f', min(max(digits, 0), 3), 64)
}
