// Command agenticraft runs agents' code under policy, in sandboxes, with a
// replicated log of who asked, what was decided and what ran.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{to: stdout}
	app := &app{stdin: stdin, stdout: out, stderr: stderr, env: os.Getenv}
	root := app.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	// A faulty flag ends the parsing of those behind it, --json among them.
	app.json = app.json || (err != nil && slices.Contains(args, "--json"))
	return out.finish(app.finish(err), err != nil && !app.json, stderr)
}

// app is what every command shares.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string

	json       bool
	server     string
	apiKeyFile string
	agentKey   string
	caFile     string
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "agenticraft",
		Short: "Run agents' code under policy, in sandboxes, on the record",
		Long: `agenticraft runs code that agents ask for: policy decides, a sandbox runs it
within limits, and a replicated log keeps the proof.

Start with:  agenticraft dev`,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%v", err) })
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print one JSON document and nothing else")
	flags.StringVar(&a.server, "server", "", "URL of a node's HTTP door (else AGENTICRAFT_SERVER, else the current context)")
	flags.StringVar(&a.apiKeyFile, "api-key-file", "", "file holding an API key (else AGENTICRAFT_API_KEY, else the current context)")
	flags.StringVar(&a.agentKey, "agent-key", "", "sign with this agent key file; without it the node signs for you")
	flags.StringVar(&a.caFile, "ca-file", "", "file of authorities that sign the node's certificate (else AGENTICRAFT_CA_FILE, the current context, the system's)")
	root.AddCommand(
		a.devCommand(), a.initCommand(), a.serveCommand(), a.inviteCommand(), a.joinCommand(), a.leaveCommand(),
		a.execCommand(), a.taskCommand(), a.nodesCommand(), a.statusCommand(), a.findCommand(), a.doctorCommand(),
		a.verifyCommand(), a.trustCommand(), a.auditCommand(),
		a.keyCommand(), a.agentCommand(), a.mandateCommand(), a.roleCommand(), a.tenantCommand(), a.policyCommand(),
		a.sandboxCommand(), a.runtimeCommand(), a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.contextCommand(), a.mcpCommand(), a.versionCommand(),
	)
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args, cmd.RunE = nil, onlyGroups // else a shell that there is not gets help and exit 0
		}
	}
	return root
}
