package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// followPoll is how often follow asks for what is new.
const followPoll = 250 * time.Millisecond

// filterFlags are the flags that list, follow and export share.
func (f *auditFilter) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "RFC 3339 time, or a duration back from now such as 1h")
	flags.StringVar(&f.until, "until", "", "RFC 3339 time, or a duration back from now")
	flags.StringVar(&f.actor, "actor", "", "who asked, or on whose behalf")
	flags.StringVar(&f.onBehalf, "on-behalf", "", "on whose behalf only")
	flags.StringVar(&f.resource, "resource", "", "what it is about: language:python, sandbox:docker, node:ID, agent:NAME, key:NAME, tenant:NAME, role:NAME, mandate:ID, rule:NAME, …")
	flags.StringVar(&f.policy, "policy", "", "digest of the policy that decided or was applied")
	flags.StringVar(&f.task, "task", "", "one task")
	flags.StringVar(&f.kind, "kind", "", "kinds, comma-separated: "+kindNames())
	flags.StringVar(&f.decision, "decision", "", "allow or deny")
	flags.StringVar(&f.cursor, "cursor", "", "go on where an earlier page ended (its \"next\")")
	f.limit, f.order = audit.MaxLimit, "oldest"
}

func (a *app) auditFollowCommand() *cobra.Command {
	var f auditFilter
	cmd := &cobra.Command{
		Use: "follow", Short: "Print entries as they are written, one JSON document a line, until interrupted", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			for {
				err := a.pages(ctx, &f, func(e httpdoor.LogEntry) error { return a.line(e) })
				if ctx.Err() != nil {
					return nil // the user has seen enough
				}
				if err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(followPoll):
				}
			}
		},
	}
	f.register(cmd)
	return cmd
}

func (a *app) auditExportCommand() *cobra.Command {
	var f auditFilter
	var format string
	cmd := &cobra.Command{
		Use: "export --format jsonl|ocsf|cef|csv", Short: "Print every entry that fits the filter, oldest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, flush, err := a.exporter(format)
			if err != nil {
				return err
			}
			if err := a.pages(cmd.Context(), &f, write); err != nil {
				return err
			}
			return flush()
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl, ocsf (OCSF 1.6 API activity), cef (ArcSight) or csv")
	return cmd
}

// pages hands over every entry from the filter's cursor on, and leaves the
// cursor behind the last one.
func (a *app) pages(ctx context.Context, f *auditFilter, each func(httpdoor.LogEntry) error) error {
	for {
		query, err := f.query()
		if err != nil {
			return err
		}
		var page logPage
		if err := a.fetch(ctx, "/v1/audit/entries?"+query, &page); err != nil {
			return err
		}
		for _, e := range page.Entries {
			if err := each(e); err != nil {
				return err
			}
		}
		if page.After != "" {
			f.cursor = page.After
		}
		if page.Next == "" {
			return nil
		}
	}
}

// line prints an entry on one line, the leaf as it is in the log.
func (a *app) line(e httpdoor.LogEntry) error {
	var leaf bytes.Buffer
	if err := json.Compact(&leaf, e.Entry); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "{\"index\":%d,\"entry\":%s}\n", e.Index, leaf.Bytes())
	return err
}

func (a *app) exporter(format string) (write func(httpdoor.LogEntry) error, flush func() error, err error) {
	done := func() error { return nil }
	switch format {
	case "jsonl":
		return a.line, done, nil
	case "ocsf":
		return a.decoded(ocsf), done, nil
	case "cef":
		return a.decoded(cef), done, nil
	case "csv":
		w := csv.NewWriter(a.stdout)
		if err := w.Write(csvColumns); err != nil {
			return nil, nil, err
		}
		return func(e httpdoor.LogEntry) error {
				entry, err := decoded(e)
				if err != nil {
					return err
				}
				return w.Write(csvRow(e.Index, entry))
			}, func() error {
				w.Flush()
				return w.Error()
			}, nil
	}
	return nil, nil, usage("--format %q is none of jsonl, ocsf, cef, csv", format)
}

func (a *app) decoded(render func(index uint64, e audit.Entry) (string, error)) func(httpdoor.LogEntry) error {
	return func(raw httpdoor.LogEntry) error {
		e, err := decoded(raw)
		if err != nil {
			return err
		}
		text, err := render(raw.Index, e)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, text)
		return err
	}
}

func decoded(raw httpdoor.LogEntry) (audit.Entry, error) {
	var leaf bytes.Buffer
	if err := json.Compact(&leaf, raw.Entry); err != nil {
		return audit.Entry{}, fmt.Errorf("entry %d: %w", raw.Index, err)
	}
	e, err := audit.DecodeEntry(leaf.Bytes())
	if err != nil {
		return audit.Entry{}, &a2a.Error{Code: "failed", Message: fmt.Sprintf("entry %d is of a format that this version does not know: %v", raw.Index, err)}
	}
	return e, nil
}

var csvColumns = []string{"index", "time", "kind", "actor", "on_behalf", "tenant", "task", "attempt", "decision", "reasons", "status", "author", "id"}

func csvRow(index uint64, e audit.Entry) []string {
	verdict, reasons := verdictOf(e)
	return []string{
		strconv.FormatUint(index, 10), e.Time, string(e.Kind), e.Actor, e.OnBehalf, e.Tenant, e.Task,
		strconv.Itoa(e.Attempt), verdict, strings.Join(reasons, " "), statusOf(e), string(e.Author), e.ID,
	}
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

func statusOf(e audit.Entry) string {
	if out, err := e.Outcome(); err == nil {
		return out.Status
	}
	return ""
}

// Values of OCSF 1.6, class 6003 "API Activity".
const (
	ocsfClass    = 6003
	ocsfCategory = 6
	ocsfOther    = 99
	ocsfSuccess  = 1
	ocsfFailure  = 2
	ocsfInfo     = 1 // severity
	ocsfMedium   = 3
)

// ocsf is an entry as an OCSF API Activity event; the entry itself is in
// unmapped, so that nothing is lost.
func ocsf(index uint64, e audit.Entry) (string, error) {
	at, err := audit.ParseTime(e.Time)
	if err != nil {
		return "", err
	}
	status, severity := ocsfSuccess, ocsfInfo
	verdict, reasons := verdictOf(e)
	if s := statusOf(e); verdict == "deny" || (s != "" && s != audit.StatusSucceeded) {
		status, severity = ocsfFailure, ocsfMedium
	}
	text, err := json.Marshal(map[string]any{
		"class_uid": ocsfClass, "category_uid": ocsfCategory, "activity_id": ocsfOther, "activity_name": string(e.Kind),
		"type_uid": ocsfClass*100 + ocsfOther, "time": at.UnixMilli(), "severity_id": severity, "status_id": status,
		"status_detail": strings.Join(append(reasons, statusOf(e)), " "),
		"metadata":      map[string]any{"version": "1.6.0", "uid": e.ID, "sequence": index, "product": map[string]any{"name": "AgentiCraft node"}},
		"actor":         map[string]any{"user": map[string]any{"name": e.Actor, "org": map[string]any{"name": e.Tenant}}},
		"api":           map[string]any{"operation": string(e.Kind), "request": map[string]any{"uid": e.Task}},
		"src_endpoint":  map[string]any{"uid": string(e.Author)},
		"unmapped":      map[string]any{"entry": e},
	})
	return string(text), err
}

// cefEscape escapes the values of a CEF extension.
var cefEscape = strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\n", `\n`, "\r", `\r`)

// cef is an entry in ArcSight's Common Event Format, version 0.
func cef(index uint64, e audit.Entry) (string, error) {
	at, err := audit.ParseTime(e.Time)
	if err != nil {
		return "", err
	}
	severity := 2
	verdict, reasons := verdictOf(e)
	if s := statusOf(e); verdict == "deny" || (s != "" && s != audit.StatusSucceeded) {
		severity = 5
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CEF:0|AgentiCraft|node|%d|%s|%s|%d|", audit.EntryVersion, e.Kind, e.Kind, severity)
	fields := []struct{ key, value string }{
		{"rt", strconv.FormatInt(at.UnixMilli(), 10)},
		{"externalId", strconv.FormatUint(index, 10)},
		{"suser", e.Actor},
		{"dvchost", string(e.Author)},
		{"act", verdict},
		{"outcome", statusOf(e)},
		{"reason", strings.Join(reasons, " ")},
		{"cs1Label", "task"},
		{"cs1", e.Task},
		{"cs2Label", "tenant"},
		{"cs2", e.Tenant},
	}
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(f.key + "=" + cefEscape.Replace(f.value))
	}
	return b.String(), nil
}
