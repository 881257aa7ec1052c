// Package export writes entries of the log in the forms that other tools read:
// JSON lines with the leaf verbatim, OCSF, CEF and CSV. What it writes depends
// on the entry alone, so that whoever has the proof of an export can write the
// export again and compare.
package export

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/agenticraft/node/audit"
)

// The formats.
const (
	JSONL = "jsonl"
	OCSF  = "ocsf" // 1.6.0, class API Activity, one event a line
	CEF   = "cef"  // ArcSight Common Event Format, version 0
	CSV   = "csv"  // RFC 4180 with a head line
)

// Formats lists them.
func Formats() []string { return []string{JSONL, OCSF, CEF, CSV} }

// Known reports whether there is such a format.
func Known(format string) bool { return slices.Contains(Formats(), format) }

// ContentType is the media type of a format.
func ContentType(format string) string {
	switch format {
	case CSV:
		return "text/csv; charset=utf-8"
	case CEF:
		return "text/plain; charset=utf-8"
	}
	return "application/x-ndjson"
}

// Writer writes entries in one format. Close writes what is left; it does not
// close what it writes to.
type Writer interface {
	Write(one audit.Indexed) error
	Close() error
}

// NewWriter makes a writer, or says that there is no such format.
func NewWriter(w io.Writer, format string) (Writer, error) {
	switch format {
	case JSONL:
		return lines{w, func(one audit.Indexed) ([]byte, error) { return audit.EntryLine(one), nil }}, nil
	case OCSF:
		return lines{w, ocsf}, nil
	case CEF:
		return lines{w, cef}, nil
	case CSV:
		rows := csv.NewWriter(w)
		return table{rows}, rows.Write(csvColumns)
	}
	return nil, fmt.Errorf("format %q is none of %s", format, strings.Join(Formats(), ", "))
}

type lines struct {
	w      io.Writer
	render func(audit.Indexed) ([]byte, error) // with the end of the line
}

func (l lines) Write(one audit.Indexed) error {
	text, err := l.render(one)
	if err != nil {
		return err
	}
	_, err = l.w.Write(text)
	return err
}

func (l lines) Close() error { return nil }

type table struct{ rows *csv.Writer }

func (t table) Write(one audit.Indexed) error { return t.rows.Write(csvRow(one)) }

func (t table) Close() error {
	t.rows.Flush()
	return t.rows.Error()
}

var csvColumns = []string{
	"index", "time", "kind", "actor", "on_behalf", "tenant", "task", "attempt", "decision", "reasons", "status", "author", "id",
	"policy", "resources", "body",
}

func csvRow(one audit.Indexed) []string {
	e := one.Entry
	verdict, reasons := verdictOf(e)
	policy := ""
	if e.Decision != nil {
		policy = e.Decision.Policy
	}
	row := []string{
		strconv.FormatUint(one.Index, 10), e.Time, string(e.Kind), e.Actor, e.OnBehalf, e.Tenant, e.Task,
		strconv.Itoa(e.Attempt), verdict, strings.Join(reasons, " "), statusOf(e), string(e.Author), e.ID,
		policy, strings.Join(e.Resources(), " "), string(e.Body),
	}
	for i, cell := range row {
		row[i] = asText(cell)
	}
	return row
}

// asText keeps a spreadsheet from taking a cell for a formula: ids and names are
// what the authors of entries wrote.
func asText(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

func verdictOf(e audit.Entry) (verdict string, reasons []string) {
	switch {
	case e.Decision == nil:
		return "", nil
	case e.Decision.Allow:
		return "allow", e.Decision.Reasons
	}
	return "deny", e.Decision.Reasons
}

// connected is the verdict about a connection that came about and ended well.
const connected = "ok"

// statusOf is how a run or a connection ended.
func statusOf(e audit.Entry) string {
	if c, err := e.Connection(); err == nil {
		return c.Verdict
	}
	if out, err := e.Outcome(); err == nil {
		return out.Status
	}
	return ""
}

// failed reports whether the entry tells of something that was not done.
func failed(e audit.Entry) bool {
	s := statusOf(e)
	return e.Kind == audit.KindDenial || e.Kind == audit.KindGap || s != "" && s != audit.StatusSucceeded && s != connected
}

// cefEscape escapes the values of a CEF extension.
var cefEscape = strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`)

// cef is an entry in ArcSight's Common Event Format.
func cef(one audit.Indexed) ([]byte, error) {
	e := one.Entry
	at, err := audit.ParseTime(e.Time)
	if err != nil {
		return nil, err
	}
	verdict, reasons := verdictOf(e)
	var b strings.Builder
	fmt.Fprintf(&b, "CEF:0|AgentiCraft|node|%d|%s|%s|%d|", audit.EntryVersion, e.Kind, e.Kind, cefSeverity(e))
	fields := []struct{ key, value string }{
		{"rt", strconv.FormatInt(at.UnixMilli(), 10)},
		{"externalId", strconv.FormatUint(one.Index, 10)},
		{"suser", e.Actor},
		{"dvchost", string(e.Author)},
		{"act", verdict},
		{"outcome", statusOf(e)},
		{"reason", strings.Join(reasons, " ")},
		{"cs1Label", "task"},
		{"cs1", e.Task},
		{"cs2Label", "tenant"},
		{"cs2", e.Tenant},
		{"cs3Label", "body"},
		{"cs3", string(e.Body)},
	}
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(f.key + "=" + cefEscape.Replace(f.value))
	}
	b.WriteByte('\n')
	return []byte(b.String()), nil
}

// cefSeverity is from 0 to 10.
func cefSeverity(e audit.Entry) int {
	if alert, err := e.Alert(); err == nil {
		return map[string]int{audit.SeverityLow: 4, audit.SeverityMedium: 6, audit.SeverityHigh: 8}[alert.Severity]
	}
	if failed(e) {
		return 5
	}
	return 2
}

// Values of OCSF 1.6, class 6003 "API Activity".
const (
	ocsfVersion  = "1.6.0"
	ocsfClass    = 6003
	ocsfCategory = 6

	ocsfCreate = 1
	ocsfRead   = 2
	ocsfUpdate = 3
	ocsfDelete = 4
	ocsfOther  = 99

	ocsfSuccess = 1
	ocsfFailure = 2

	ocsfInfo   = 1 // severities
	ocsfLow    = 2
	ocsfMedium = 3
	ocsfHigh   = 4
)

// ocsf is an entry as an OCSF API Activity event; the entry itself is in
// unmapped, so that nothing is lost.
func ocsf(one audit.Indexed) ([]byte, error) {
	e := one.Entry
	at, err := audit.ParseTime(e.Time)
	if err != nil {
		return nil, err
	}
	activity, status, severity := ocsfActivity(e), ocsfSuccess, ocsfInfo
	if failed(e) {
		status, severity = ocsfFailure, ocsfMedium
	}
	if alert, err := e.Alert(); err == nil {
		severity = map[string]int{audit.SeverityLow: ocsfLow, audit.SeverityMedium: ocsfMedium, audit.SeverityHigh: ocsfHigh}[alert.Severity]
	}
	_, reasons := verdictOf(e)
	resources := []map[string]any{}
	for _, r := range e.Resources() {
		sort, name, _ := strings.Cut(r, ":")
		resources = append(resources, map[string]any{"type": sort, "name": name})
	}
	text, err := json.Marshal(map[string]any{
		"class_uid": ocsfClass, "category_uid": ocsfCategory, "activity_id": activity, "activity_name": string(e.Kind),
		"type_uid": ocsfClass*100 + activity, "time": at.UnixMilli(), "severity_id": severity, "status_id": status,
		"status_detail": strings.TrimSpace(strings.Join(reasons, " ") + " " + statusOf(e)),
		"metadata": map[string]any{
			"version": ocsfVersion, "uid": e.ID, "sequence": one.Index,
			"product": map[string]any{"name": "AgentiCraft node", "vendor_name": "AgentiCraft"},
		},
		"actor":        map[string]any{"user": map[string]any{"name": e.Actor, "org": map[string]any{"name": e.Tenant}}},
		"api":          map[string]any{"operation": string(e.Kind), "request": map[string]any{"uid": e.Task}},
		"resources":    resources,
		"src_endpoint": map[string]any{"uid": string(e.Author)},
		"unmapped":     map[string]any{"entry": json.RawMessage(one.Leaf)},
	})
	return append(text, '\n'), err
}

// ocsfActivity is what an entry tells of, in OCSF's words.
func ocsfActivity(e audit.Entry) int {
	switch e.Kind {
	case audit.KindGenesis:
		return ocsfCreate
	case audit.KindRead:
		return ocsfRead
	case audit.KindErasure:
		return ocsfDelete
	}
	var body struct {
		Action string `json:"action"`
	}
	if json.Unmarshal(e.Body, &body) != nil {
		return ocsfOther
	}
	switch body.Action {
	case "add", "create":
		return ocsfCreate
	case "set", "rotate", "grant", "apply":
		return ocsfUpdate
	case "remove", "revoke":
		return ocsfDelete
	}
	return ocsfOther
}
