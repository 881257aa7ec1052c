package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

const followEvery = 250 * time.Millisecond

func (a *app) taskCommand() *cobra.Command {
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List your tasks, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 100 {
				return usage("--limit %d is not from 1 to 100", limit)
			}
			var page struct {
				Tasks []httpdoor.TaskSummary `json:"tasks"`
				Next  string                 `json:"next"`
			}
			if err := a.fetch(cmd.Context(), "/v1/tasks?limit="+strconv.Itoa(limit), &page); err != nil {
				return err
			}
			if a.json {
				a.print(page)
				return nil
			}
			for _, t := range page.Tasks {
				fmt.Fprintf(a.stdout, "%s  %-10s %s\n", t.Task, t.Status, t.Updated)
			}
			return nil
		},
	}
	list.Flags().IntVar(&limit, "limit", 50, "at most this many, 1 to 100")
	show := &cobra.Command{
		Use: "show TASK", Short: "Show a task's report", Args: exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			rep, err := a.task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.reportTask(rep)
		},
	}
	cancel := &cobra.Command{
		Use: "cancel TASK", Short: "Cancel a running task and wait for its end", Args: exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			var rep a2a.Report
			if err := door.do(cmd.Context(), "POST", "/v1/tasks/"+url.PathEscape(args[0])+"/cancel", nil, &rep); err != nil {
				return err
			}
			return a.reportTask(rep)
		},
	}
	follow := &cobra.Command{
		Use: "follow TASK", Short: "Wait for a task's end and show its report", Args: exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for {
				rep, err := a.task(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if rep.Status != a2a.Running {
					if !a.json {
						a.rest(printed{}, rep)
					}
					return a.show(rep)
				}
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-time.After(followEvery):
				}
			}
		},
	}
	return group("task", "Look after tasks", list, show, cancel, follow)
}

func (a *app) task(ctx context.Context, id string) (a2a.Report, error) {
	var rep a2a.Report
	err := a.fetch(ctx, "/v1/tasks/"+url.PathEscape(id), &rep)
	return rep, err
}

// reportTask shows a report without turning it into this command's exit code.
func (a *app) reportTask(rep a2a.Report) error {
	if a.json {
		a.print(rep)
		return nil
	}
	fmt.Fprint(a.stdout, rep.Stdout)
	if len(rep.Result) > 0 && string(rep.Result) != "null" {
		fmt.Fprintf(a.stdout, "result: %s\n", rep.Result)
	}
	fmt.Fprintln(a.stdout, summary(rep))
	return nil
}

// fetch GETs a path of the /v1 interface.
func (a *app) fetch(ctx context.Context, path string, into any) error {
	door, err := a.api(ctx)
	if err != nil {
		return err
	}
	return door.do(ctx, "GET", path, nil, into)
}
