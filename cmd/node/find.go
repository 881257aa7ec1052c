package main

import (
	"context"
	"fmt"
	"net/http"
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
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			nodes, err := door.find(cmd.Context(), lang)
			if err != nil {
				return err
			}
			if a.json {
				a.print(map[string]any{"nodes": nodes})
				return nil
			}
			for _, n := range nodes {
				fmt.Fprintf(a.stdout, "%s  %s  %d/%d busy\n", n.ID, strings.Join(n.offering(lang), ","), n.Busy, n.Slots)
			}
			if len(nodes) == 0 {
				fmt.Fprintf(a.stderr, "agenticraft: no connected node runs %s\n", lang)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&lang, "lang", "", "python, starlark, javascript, sh or wasm")
	return cmd
}

// find lists the connected nodes that can run a language now, the least busy first.
func (c *api) find(ctx context.Context, lang string) ([]nodeView, error) {
	var out struct {
		Nodes []nodeView `json:"nodes"`
	}
	if err := c.do(ctx, http.MethodGet, "/v1/nodes", nil, &out); err != nil {
		return nil, err
	}
	out.Nodes = slices.DeleteFunc(out.Nodes, func(n nodeView) bool { return !n.Connected || len(n.offering(lang)) == 0 })
	slices.SortStableFunc(out.Nodes, func(x, y nodeView) int {
		return (x.Busy+x.Queued)*max(y.Slots, 1) - (y.Busy+y.Queued)*max(x.Slots, 1)
	})
	return out.Nodes, nil
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
