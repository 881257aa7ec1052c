package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// listing is the command that prints the JSON list at path; for people as a table,
// the first columns first, and behind them whatever else an item has.
func (a *app) listing(short, path string, first ...string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out map[string][]map[string]any
			if err := a.fetch(cmd.Context(), path, &out); err != nil {
				return err
			}
			if a.json {
				a.print(out)
				return nil
			}
			for _, items := range out {
				if err := printTable(a.stdout, items, first); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// printTable prints a header and a line an item; nothing if there are none.
func printTable(out io.Writer, items []map[string]any, first []string) error {
	if len(items) == 0 {
		return nil
	}
	columns := slices.Clone(first)
	all := map[string]any{}
	for _, item := range items {
		for name := range item {
			all[name] = nil
		}
	}
	for _, name := range sortedKeys(all) {
		if !slices.Contains(first, name) {
			columns = append(columns, name)
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.ReplaceAll(strings.Join(columns, "\t"), "_", " ")))
	cells := make([]string, len(columns))
	for _, item := range items {
		for i, name := range columns {
			cells[i] = cell(item[name])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// cell is a value in a table: in one line, and never empty, so that columns can be
// counted.
func cell(v any) string {
	var text string
	switch v := v.(type) {
	case nil:
	case string:
		text = v
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, cell(item))
		}
		text = strings.Join(items, ",")
	case map[string]any:
		var members []string
		for _, name := range sortedKeys(v) {
			members = append(members, name+"="+cell(v[name]))
		}
		text = strings.Join(members, ",")
	case float64:
		text = strconv.FormatFloat(v, 'f', -1, 64)
	default:
		text = fmt.Sprint(v)
	}
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' {
			return ' '
		}
		return r
	}, forTerminal(text))
}
