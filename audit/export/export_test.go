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

// What a program's connection came to is in every format.
func TestConnectionsHaveTheirVerdict(t *testing.T) {
	key := audittest.Key(t, 1)
	ref := uint64(7)
	for verdict, ocsfStatus := range map[string]float64{"ok": 1, "not_allowed": 2} {
		body, err := audit.MarshalBody(audit.ConnectionBody{Host: "example.org", Port: 443, Verdict: verdict})
		if err != nil {
			t.Fatal(err)
		}
		e := audit.Entry{
			V: audit.EntryVersion, Kind: audit.KindConnection, ID: "c1", Author: key.ID(), Time: "2026-01-01T00:00:00.000Z",
			Task: "task1", Attempt: 1, Ref: &ref, Body: body,
		}
		leaf, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		written := map[string]string{}
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
			if written[format] = out.String(); !strings.Contains(written[format], verdict) {
				t.Errorf("%s of %s: %s", format, verdict, written[format])
			}
		}
		rows, err := csv.NewReader(strings.NewReader(written["csv"])).ReadAll()
		if err != nil || len(rows) != 2 {
			t.Fatalf("%v, %v", rows, err)
		}
		for i, column := range rows[0] {
			if column == "status" && rows[1][i] != verdict {
				t.Errorf("status is %q, not %q", rows[1][i], verdict)
			}
		}
		var event map[string]any
		if err := json.Unmarshal([]byte(written["ocsf"]), &event); err != nil || event["status_id"] != ocsfStatus {
			t.Errorf("%s: status_id %v, %v", verdict, event["status_id"], err)
		}
	}
}
