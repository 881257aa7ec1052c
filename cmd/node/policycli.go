package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/authz"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

// maxPolicyFile bounds one file of a policy's folder, in bytes.
const maxPolicyFile = 1 << 20

func (a *app) policyCommand() *cobra.Command {
	return group("policy", "Look at the policy, test it, change it",
		a.policyShowCommand(), a.policyTestCommand(), a.policyExplainCommand(), a.policyReplayCommand(), a.policySignCommand(), a.policyApplyCommand())
}

func (a *app) policyShowCommand() *cobra.Command {
	var out string
	var additions bool
	show := &cobra.Command{
		Use: "show [--out DIR]", Short: "Show the policy in force, or write its files into a folder", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var p policyView
			if err := a.fetch(cmd.Context(), "/v1/policy", &p); err != nil {
				return err
			}
			modules := p.Modules
			if additions {
				modules = p.Added
			}
			if out != "" {
				return writePolicy(out, modules)
			}
			if a.json {
				a.print(p)
				return nil
			}
			fmt.Fprintf(a.stdout, "# policy %s\n", p.Digest)
			for _, name := range sortedKeys(modules) {
				fmt.Fprintf(a.stdout, "\n# ---- %s\n%s\n", name, strings.TrimSpace(modules[name]))
			}
			return nil
		},
	}
	show.Flags().StringVar(&out, "out", "", "write the files into this folder, to be changed and applied")
	show.Flags().BoolVar(&additions, "additions", false, "the operators' additions instead of the base")
	return show
}

func writePolicy(dir string, modules map[string]string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, name := range sortedKeys(modules) {
		if err := root.WriteFile(name, []byte(modules[name]), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// readPolicy reads a policy's folder: its .rego and .json files.
func readPolicy(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, failed("%v", err)
	}
	modules := map[string]string{}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || ext != ".rego" && ext != ".json" {
			continue
		}
		text, err := readSmall(filepath.Join(dir, e.Name()), maxPolicyFile)
		if err != nil {
			return nil, err
		}
		modules[e.Name()] = string(text)
	}
	if len(modules) == 0 {
		return nil, failed("%s holds no .rego and no .json files", dir)
	}
	return modules, nil
}

func (a *app) policyTestCommand() *cobra.Command {
	return &cobra.Command{
		Use: "test DIR", Short: "Compile a policy and run its tests, without a cluster", Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			modules, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			report, err := authz.Test(cmd.Context(), modules)
			if err != nil {
				return failed("%v", err)
			}
			if a.json {
				a.print(report)
			} else {
				for _, f := range report.Failures {
					fmt.Fprintf(a.stdout, "FAIL %s\n", f)
				}
				fmt.Fprintf(a.stdout, "policy %s: %d Rego tests and %d golden decisions hold\n", report.Digest, report.Rego, report.Golden)
			}
			if len(report.Failures) > 0 {
				return exitError(exitFailed)
			}
			return nil
		},
	}
}

func (a *app) policyExplainCommand() *cobra.Command {
	var req httpdoor.ExplainRequest
	var memory string
	q := &req.Question
	cmd := &cobra.Command{
		Use: "explain [--principal P | --role R] [--action A] …", Short: "Say why a request would be allowed or denied, and what would be allowed", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if memory != "" {
				n, err := parseBytes(memory)
				if err != nil {
					return usage("--memory %q: %v", memory, err)
				}
				q.MemoryBytes = n
			}
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			var e authz.Explanation
			if err := door.do(cmd.Context(), "POST", "/v1/policy/explain", req, &e); err != nil {
				return err
			}
			a.printExplanation(e)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Principal, "principal", "", "who asks: an agent or API key by name or ID")
	flags.StringSliceVar(&q.Roles, "role", nil, "roles to assume, beside those of --principal")
	flags.StringVar(&q.Kind, "kind", "", "agent, service or user (default agent)")
	flags.StringVar(&q.Tenant, "tenant", "", "tenant of who asks")
	flags.StringVar(&q.Of, "of", "", "tenant whose things are meant (default: the same)")
	flags.StringVar(&q.Action, "action", authz.ExecRun, "the act")
	flags.StringVar(&q.Language, "lang", "", "language (default python)")
	flags.StringVar(&q.Sandbox, "sandbox", "", "sandbox (default auto)")
	flags.StringVar(&q.Network, "network", "", "none, or allow=HOST:PORT,…")
	flags.StringVar(&q.DataClass, "data-class", "", "class of data (default unclassified)")
	flags.StringVar(&memory, "memory", "", "memory limit, such as 256MiB")
	flags.IntVar(&q.CPUPercent, "cpu", 0, "CPU limit in percent of one core")
	flags.Int64Var(&q.TimeoutMS, "timeout-ms", 0, "time limit in milliseconds")
	flags.BoolVar(&q.Vouched, "vouched", false, "a node signs for who asks")
	flags.BoolVar(&q.Suspended, "suspended", false, "assume that the tenant is suspended")
	return cmd
}

func (a *app) printExplanation(e authz.Explanation) {
	if a.json {
		a.print(e)
		return
	}
	answer := "denied"
	if e.Allow {
		answer = "allowed"
	}
	fmt.Fprintf(a.stdout, "%s by policy %s\n", answer, e.Policy)
	for _, r := range e.Reasons {
		fmt.Fprintf(a.stdout, "  %s: %s\n", r.Code, r.Message)
	}
	for _, way := range e.WouldAllow {
		fmt.Fprintf(a.stdout, "would be allowed with: %s\n", strings.Join(way, " and "))
	}
	if o := e.Obligations; o != nil {
		fmt.Fprintf(a.stdout, "  at most %d bytes of memory, %d ms, %d %% of a core; required: %s\n", o.MemoryBytes, o.TimeoutMS, o.CPUPercent, strings.Join(o.Required, ", "))
	}
}

func (a *app) policyReplayCommand() *cobra.Command {
	var req httpdoor.PolicyRequest
	var additions bool
	cmd := &cobra.Command{
		Use: "replay DIR [--last N]", Short: "Decide logged requests again under a candidate, and show what would change", Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("last") && req.Last < 1 {
				return usage("--last %d is not 1 to 10000", req.Last)
			}
			var err error
			if req.Modules, err = readPolicy(args[0]); err != nil {
				return err
			}
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			req.Layer = layerOf(additions)
			var view replayView
			if err := door.do(cmd.Context(), "POST", "/v1/policy/replay", req, &view); err != nil {
				return err
			}
			if a.json {
				a.print(view)
				return nil
			}
			fmt.Fprintf(a.stdout, "%d logged requests: %d decided alike, %d differently\n", view.Examined, view.Same, len(view.Differences))
			for _, d := range view.Differences {
				fmt.Fprintf(a.stdout, "  entry %d, %s: allowed was %v, would be %v %s\n", d.Index, d.Actor, d.Logged, d.Now, strings.Join(d.Reasons, ", "))
			}
			for _, why := range sortedKeys(view.NotDecided) {
				fmt.Fprintf(a.stdout, "  %d not decided again: %s\n", view.NotDecided[why], why)
			}
			fmt.Fprintln(a.stdout, view.Note)
			return nil
		},
	}
	cmd.Flags().BoolVar(&additions, "additions", false, "DIR is a candidate for the operators' additions")
	cmd.Flags().IntVar(&req.Last, "last", 0, "how many of the newest requests (default 100)")
	return cmd
}
