package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// auditCheckCommand has a running node check its own log.
func (a *app) auditCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Have a running node recompute all of its own copy of the log", Args: noArgs,
		Long: `Have the node of --server recompute all of its own copy of the log while it serves:
every entry with its author's signature, the tree, every signed root, the rules and all
look-ups, as audit verify does with a stopped node's folder. It says how far it is on
stderr, and exits with 5 if something is bad; the node then serves its log no more.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.auditCheck(cmd.Context()) },
	}
}

func (a *app) auditCheck(ctx context.Context) error {
	door, err := a.api(ctx)
	if err != nil {
		return err
	}
	var rep *audit.DirReport
	err = door.lines(ctx, http.MethodPost, "/v1/audit/check", func(text []byte) error {
		var line httpdoor.CheckLine
		if err := json.Unmarshal(text, &line); err != nil {
			return failed("the node sent what is no line of a check: %v", err)
		}
		if rep = line.Report; rep != nil {
			return errEnough
		}
		if !a.json {
			fmt.Fprintf(a.stderr, "agenticraft: checked %d of %d entries\n", line.Checked, line.Size)
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return a.printReport(*rep)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}
