package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/agenticraft/node/a2a"
)

// What the tools do.

func run(ctx context.Context, n Node, args json.RawMessage, said func(string)) (answer, error) {
	var in struct {
		a2a.Execution
		Detach bool `json:"detach"`
	}
	if err := errors.Join(required(args, "language", "code"), read(args, &in)); err != nil {
		return answer{}, err
	}
	rep, err := n.Run(ctx, in.Execution, in.Detach, said)
	return answer{rep, rep.Status != a2a.Succeeded && rep.Status != a2a.Running}, err
}

func report(ctx context.Context, n Node, args json.RawMessage, _ func(string)) (answer, error) {
	path, err := taskOf(args)
	if err != nil {
		return answer{}, err
	}
	var rep a2a.Report
	err = n.Do(ctx, http.MethodGet, path, nil, &rep)
	return answer{value: rep}, err
}

func status(ctx context.Context, n Node, args json.RawMessage, said func(string)) (answer, error) {
	got, err := report(ctx, n, args, said)
	if err != nil {
		return answer{}, err
	}
	rep, _ := got.value.(a2a.Report)
	return answer{value: map[string]any{"task": rep.Task, "status": rep.Status, "exit_code": rep.ExitCode, "node": rep.Node, "error": rep.Error}}, nil
}

func cancel(ctx context.Context, n Node, args json.RawMessage, _ func(string)) (answer, error) {
	path, err := taskOf(args)
	if err != nil {
		return answer{}, err
	}
	var rep a2a.Report
	err = n.Do(ctx, http.MethodPost, path+"/cancel", nil, &rep)
	return answer{value: rep}, err
}

func receipt(ctx context.Context, n Node, args json.RawMessage, _ func(string)) (answer, error) {
	path, err := taskOf(args)
	if err != nil {
		return answer{}, err
	}
	var text json.RawMessage
	err = n.Do(ctx, http.MethodGet, path+"/receipt", nil, &text)
	return answer{value: text}, err
}

func runtimes(ctx context.Context, n Node, args json.RawMessage, _ func(string)) (answer, error) {
	if err := read(args, &struct{}{}); err != nil {
		return answer{}, err
	}
	var text json.RawMessage
	err := n.Do(ctx, http.MethodGet, "/v1/sandboxes", nil, &text)
	return answer{value: text}, err
}

func peers(ctx context.Context, n Node, args json.RawMessage, _ func(string)) (answer, error) {
	var in struct {
		Language string `json:"language"`
	}
	if err := errors.Join(required(args, "language"), read(args, &in)); err != nil {
		return answer{}, err
	}
	nodes, err := n.Find(ctx, in.Language)
	return answer{value: map[string]any{"nodes": nodes}}, err
}

func verify(ctx context.Context, n Node, args json.RawMessage, _ func(string)) (answer, error) {
	var in struct {
		Receipt json.RawMessage `json:"receipt"`
		Trust   json.RawMessage `json:"trust"`
	}
	if err := errors.Join(required(args, "receipt"), read(args, &in)); err != nil {
		return answer{}, err
	}
	by := "the caller"
	if in.Trust == nil {
		by = "the node"
		if err := n.Do(ctx, http.MethodGet, "/v1/trust", nil, &in.Trust); err != nil {
			return answer{}, err
		}
	}
	ok, checks, err := n.Verify(in.Receipt, in.Trust)
	return answer{map[string]any{"verified": ok, "checks": checks, "trust_given_by": by}, !ok}, err
}
