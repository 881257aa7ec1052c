package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/audit"
	mcpdoor "github.com/agenticraft/node/bridges/mcp"
	"github.com/agenticraft/node/sandbox/process"
)

func (a *app) mcpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "mcp", Short: "Serve the cluster's tools to an MCP client over standard input and output", Args: noArgs,
		Long: `Serve the cluster's tools to an MCP client over standard input and output.

The client starts this command; its tools act as whoever the context, or
--api-key-file or --agent-key, says. A client that speaks Streamable HTTP needs no
command: every node has the same tools at /mcp, for an API key.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			cfg := mcpdoor.Config{Version: buildVersion().Version}
			return mcpdoor.Serve(cmd.Context(), cfg, mcpNode{door}, io.NopCloser(a.stdin), noClose{a.stdout})
		},
	}
}

// noClose leaves the process's own output open.
type noClose struct{ io.Writer }

func (noClose) Close() error { return nil }

// mcpDoor is the MCP door of this node: its tools send requests to inner, in this
// process, with the credential of whoever called them.
func mcpDoor(inner http.Handler, log *slog.Logger) http.Handler {
	return mcpdoor.Handler(mcpdoor.Config{Version: buildVersion().Version, Logger: log}, func(r *http.Request) mcpdoor.Node {
		_, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ") // the door has seen that it is one
		return mcpNode{&api{base: "http://node", key: strings.TrimSpace(bearer), http: &http.Client{Transport: inProcess{inner, r}}}}
	})
}

// mcpNode is a node as MCP's tools speak to it.
type mcpNode struct{ door *api }

func (n mcpNode) Do(ctx context.Context, method, path string, body, into any) error {
	return n.door.do(ctx, method, path, body, into)
}

func (n mcpNode) Run(ctx context.Context, e a2a.Execution, detach bool, said func(string)) (a2a.Report, error) {
	cl, err := n.door.client(ctx)
	if err != nil {
		return a2a.Report{}, err
	}
	rep, err := submit(ctx, cl, e, detach, client.Watcher{
		Output:   func(_ string, _ int64, data []byte) { said(string(data)) },
		Progress: func(line string) { said(process.Printable(line)) },
	}, func(error) {})
	if err != nil {
		return a2a.Report{}, n.door.unreachable(err)
	}
	return rep, nil
}

func (n mcpNode) Find(ctx context.Context, language string) (any, error) {
	return n.door.find(ctx, language)
}

func (n mcpNode) Verify(receipt, trust json.RawMessage) (bool, any, error) {
	whom, err := audit.ParseTrust(trust)
	if err != nil {
		return false, nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: fmt.Sprintf("trust: %v", err)}
	}
	text, err := audit.SpellReceipt(receipt)
	if err != nil {
		return false, nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: fmt.Sprintf("receipt: %v", err)}
	}
	checks, err := audit.VerifyReceipt(text, whom, requestFacts)
	return err == nil, checks, nil
}
