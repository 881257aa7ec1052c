package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) findCommand() *cobra.Command {
	var lang string
	cmd := &cobra.Command{
		Use: "find --lang LANGUAGE", Short: "List the nodes that can run a language now, the least busy first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lang == "" {
				return usage("find needs --lang")
			}
			var out struct {
				Nodes []nodeView `json:"nodes"`
			}
			if err := a.fetch(cmd.Context(), "/v1/nodes", &out); err != nil {
				return err
			}
			out.Nodes = slices.DeleteFunc(out.Nodes, func(n nodeView) bool { return !n.Connected || len(n.offering(lang)) == 0 })
			slices.SortStableFunc(out.Nodes, func(x, y nodeView) int {
				return (x.Busy+x.Queued)*max(y.Slots, 1) - (y.Busy+y.Queued)*max(x.Slots, 1)
			})
			if a.json {
				a.print(out)
				return nil
			}
			for _, n := range out.Nodes {
				fmt.Fprintf(a.stdout, "%s  %s  %d/%d busy\n", n.ID, strings.Join(n.offering(lang), ","), n.Busy, n.Slots)
			}
			if len(out.Nodes) == 0 {
				fmt.Fprintf(a.stderr, "agenticraft: no connected node runs %s\n", lang)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&lang, "lang", "", "python, starlark, javascript, sh or wasm")
	return cmd
}

// languages are those that the node runs in one of its sandboxes, sorted.
func (n nodeView) languages() []string {
	all := map[string]bool{}
	for _, list := range n.Sandboxes {
		for _, l := range list {
			all[l] = true
		}
	}
	return sortedKeys(all)
}

// offering are the node's sandboxes that run the language, sorted.
func (n nodeView) offering(lang string) []string {
	var out []string
	if !n.Runs {
		return nil
	}
	for _, name := range sortedKeys(n.Sandboxes) {
		if slices.Contains(n.Sandboxes[name], lang) {
			out = append(out, name)
		}
	}
	return out
}
