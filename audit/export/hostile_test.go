package export_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/audit/export"
)

// Whatever an author puts into an entry's names: either there can be no such
// entry, or each format is one record that says it, and no cell is a formula.
func TestHostileNamesStayText(t *testing.T) {
	key := audittest.Key(t, 1)
	taken := 0
	for _, name := range []string{
		`=HYPERLINK("http://example.org","x")`, `+1`, `-2+3`, `@SUM(A1)`, `=cmd|'/C'!A0`, `a,b`, `"`, `a"b,"c`, `a|b\=c`, `{"a":1}`, `,`, "'",
		"a\nb", "a\rb", "\x00", "a\x00", "\t=1", " =1", "\u202e", "\xff", "\u2028", strings.Repeat("=", 64<<10), strings.Repeat("x", 64<<10),
	} {
		for field, put := range map[string]func(e *audit.Entry){
			"id":     func(e *audit.Entry) { e.ID = name },
			"task":   func(e *audit.Entry) { e.Task = name },
			"actor":  func(e *audit.Entry) { e.Actor = name },
			"tenant": func(e *audit.Entry) { e.Tenant = name },
			"reason": func(e *audit.Entry) { e.Decision.Reasons = []string{name} },
		} {
			e := audittest.Intent(t, key.ID(), "task1")
			e.V, e.ID, e.Author, e.Time = audit.EntryVersion, "i1", key.ID(), "2026-01-01T00:00:00.000Z"
			d := *e.Decision
			e.Decision = &d
			put(&e)
			leaf, err := e.Encode()
			if err != nil {
				continue // no keeper takes it
			}
			if _, err := audit.DecodeEntry(leaf); err != nil {
				continue
			}
			taken++
			for _, format := range []string{"csv", "cef", "ocsf", "jsonl"} {
				var out bytes.Buffer
				w, err := export.NewWriter(&out, format)
				if err == nil {
					err = w.Write(audit.Indexed{Index: 8, Entry: e, Leaf: leaf})
				}
				if err == nil {
					err = w.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
				text := out.String()
				switch format {
				case "csv":
					rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
					if err != nil || len(rows) != 2 {
						t.Errorf("%s %.20q: %d rows, %v", field, name, len(rows), err)
						continue
					}
					said := false
					for _, cell := range rows[1] {
						said = said || cell == name || cell == "'"+name
						if cell != "" && strings.Contains("=+-@\t\r", cell[:1]) {
							t.Errorf("%s %.20q: a cell is %.20q", field, name, cell)
						}
					}
					if !said {
						t.Errorf("%s %.20q is not in %.200q", field, name, rows[1])
					}
				case "cef":
					if strings.Count(text, "\n") != 1 || strings.Count(text, "\r") != 0 {
						t.Errorf("%s %.20q: more than a line of CEF: %.200q", field, name, text)
					}
				default:
					if !json.Valid([]byte(text)) || strings.Count(text, "\n") != 1 {
						t.Errorf("%s %.20q: not a line of JSON: %.200q", field, name, text)
					}
				}
			}
		}
	}
	if taken == 0 {
		t.Error("no hostile name is taken: this test tests nothing")
	}
	t.Logf("%d hostile entries", taken)
}
