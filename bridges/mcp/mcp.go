// Package mcp is the MCP door: a node's work as tools of the Model Context
// Protocol, over standard input and output or over Streamable HTTP.
//
// INVARIANT: I5, a door decides nothing. A tool speaks for whoever called it,
// with the caller's own credential, to the interface that every client has.
package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/agenticraft/node/a2a"
)

// Node is the node that the tools speak to, for one caller. A refusal is an
// [a2a.Error]. Its methods may be called concurrently.
type Node interface {
	// Do performs one request of the /v1 interface.
	Do(ctx context.Context, method, path string, body, into any) error
	// Run runs a program and waits for its end, unless detach; said is told of
	// output and progress as they come. When ctx ends the task is cancelled.
	Run(ctx context.Context, e a2a.Execution, detach bool, said func(text string)) (a2a.Report, error)
	// Find lists the nodes that can run a language now.
	Find(ctx context.Context, language string) (any, error)
	// Verify checks a receipt and says whether it holds and what was checked.
	Verify(receipt, trust json.RawMessage) (ok bool, checks any, err error)
}

// Config of a server.
type Config struct {
	Version string       // of the program
	Logger  *slog.Logger // default: none
}

const (
	// maxMessage is the most that one message may be, in bytes: a request with its
	// files, and JSON-RPC around it.
	maxMessage = a2a.MaxRequestBytes + 1<<20

	instructions = "Runs code in sandboxes, under policy and on the record. " +
		"Give run_code a whole program; the value of its variable result comes back as JSON, beside what it printed. " +
		"Programs have no network unless policy lets them, and their files are gone when they end: return what matters."
)

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// server has the tools, for one caller.
func (c Config) server(n Node) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "agenticraft", Title: "AgentiCraft node", Version: c.Version}, &sdk.ServerOptions{
		Instructions: instructions, Logger: c.logger(), Capabilities: &sdk.ServerCapabilities{},
	})
	for _, t := range tools() {
		s.AddTool(t.describe(), t.handler(n))
	}
	return s
}

// Serve speaks over in and out, a message a line, until in ends or ctx is done.
func Serve(ctx context.Context, c Config, n Node, in io.ReadCloser, out io.WriteCloser) error {
	err := c.server(n).Run(ctx, &sdk.IOTransport{Reader: in, Writer: out, MaxLineLength: maxMessage})
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// Handler speaks Streamable HTTP, without sessions: each request stands for
// itself, and any node answers it. caller gives the node as the sender of a
// request may use it; whoever mounts the handler has proved the sender.
func Handler(c Config, caller func(*http.Request) Node) http.Handler {
	streams := sdk.NewStreamableHTTPHandler(func(r *http.Request) *sdk.Server { return c.server(caller(r)) }, &sdk.StreamableHTTPOptions{
		Stateless: true, Logger: c.logger(), MaxRequestBodyBytes: maxMessage, PropagateRequestCancellation: true,
	})
	return http.NewCrossOriginProtection().Handler(streams)
}
