package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// alertView is one alert as `audit threats` shows it.
type alertView struct {
	Index uint64 `json:"index"`
	Time  string `json:"time"`
	Actor string `json:"actor,omitempty"` // whom it is about
	audit.AlertBody
}

func (a *app) auditThreatsCommand() *cobra.Command {
	f := auditFilter{kind: string(audit.KindAlert), order: "newest"}
	var rule string
	cmd := &cobra.Command{
		Use: "threats", Short: "List what the detectors saw in the log, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.limit < 1 || f.limit > audit.MaxLimit {
				return usage("--limit %d is not from 1 to %d", f.limit, audit.MaxLimit)
			}
			if rule != "" {
				f.resource = "rule:" + rule
			}
			query, err := f.query()
			if err != nil {
				return err
			}
			var page logPage
			if err := a.fetch(cmd.Context(), "/v1/audit/entries?"+query.Encode(), &page); err != nil {
				return err
			}
			alerts := []alertView{}
			for _, e := range page.Entries {
				entry, err := audit.DecodeEntry(e.Entry)
				if err != nil {
					return failed("entry %d: %v", e.Index, err)
				}
				body, err := entry.Alert()
				if err != nil {
					return failed("entry %d: %v", e.Index, err)
				}
				alerts = append(alerts, alertView{e.Index, entry.Time, entry.Actor, body})
			}
			if a.json {
				a.print(map[string]any{"alerts": alerts, "next": page.Next})
				return nil
			}
			for _, v := range alerts {
				fmt.Fprintln(a.stdout, v.line())
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&rule, "rule", "", "one rule, such as denied_then_allowed")
	flags.StringVar(&f.actor, "actor", "", "whom it is about")
	flags.StringVar(&f.since, "since", "", "RFC 3339 time, or a duration back from now such as 24h")
	flags.StringVar(&f.until, "until", "", "RFC 3339 time, or a duration back from now")
	flags.StringVar(&f.cursor, "cursor", "", "go on where an earlier page ended (its \"next\")")
	flags.IntVar(&f.limit, "limit", 50, "alerts at most, 1 to 1000")
	return cmd
}

func (v alertView) line() string {
	about := cmp.Or(v.Actor, nodeName(v.Node), "(nobody)")
	if v.Actor != "" && v.Node != "" {
		about += " on " + string(v.Node)
	}
	line := fmt.Sprintf("%6d  %s  %-6s %-26s %s  %d events", v.Index, v.Time, v.Severity, v.Rule, about, v.Count)
	if len(v.Entries) > 0 {
		entries, _ := json.Marshal(v.Entries) // numbers marshal
		line += ", entries " + strings.Trim(string(entries), "[]")
	}
	return line
}

func nodeName(id identity.ID) string {
	if id == "" {
		return ""
	}
	return "node " + string(id)
}
