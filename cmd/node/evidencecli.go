package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/agent"
)

func (a *app) auditEvidenceCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "show TASK", Short: "List what the node that ran a task keeps of it, each held against the log", Args: exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			view, err := a.evidence(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				a.print(view)
				return nil
			}
			fmt.Fprintf(a.stdout, "task %s, evidence on %s\n", view.Task, view.Node)
			for _, p := range view.Parts {
				fmt.Fprintf(a.stdout, "%s  %10d  %s\n", p.SHA256, p.Bytes, p.Name)
			}
			return nil
		},
	}
	get := &cobra.Command{
		Use: "get TASK NAME|SHA256, or get sha256:SHA256", Short: "Print one part: request, code, stdin, file:PATH, stdout, stderr, result",
		Long: `Print one part of what is kept of a task, by its name (request, code, stdin, file:PATH,
stdout, stderr, result) or by its SHA-256; or, by the SHA-256 alone, as sha256:HEX, from
whichever node keeps it. What comes is held against the digest, and by the node that is
asked against the log.`,
		Args: firstArgs(1, "TASK", "NAME|SHA256"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return a.evidencePart(cmd.Context(), args[0], args[1])
			}
			found, err := a.findEvidence(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			for _, one := range found.Found {
				if err = a.evidencePart(cmd.Context(), one.Task, found.SHA256); err == nil {
					return nil
				}
			}
			return err
		},
	}
	find := &cobra.Command{
		Use: "find sha256:SHA256", Short: "Say which nodes keep content with this digest, of which tasks", Args: exactArgs("sha256:SHA256"),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := a.findEvidence(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				a.print(found)
				return nil
			}
			for _, one := range found.Found {
				fmt.Fprintf(a.stdout, "task %s, on %s  %10d  %s\n", one.Task, one.Node, one.Bytes, one.Part)
			}
			for _, id := range found.Unasked {
				fmt.Fprintf(a.stderr, "agenticraft: node %s could not be asked\n", id)
			}
			return nil
		},
	}
	erase := &cobra.Command{
		Use: "erase TASK", Short: "Erase what is kept of a task beyond the log; the log says so and keeps its commitments", Args: exactArgs("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			door, err := a.api(cmd.Context())
			if err != nil {
				return err
			}
			var out struct {
				Task  string `json:"task"`
				Entry uint64 `json:"entry"`
			}
			if err := door.do(cmd.Context(), "DELETE", "/v1/evidence/"+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			if a.json {
				a.print(out)
				return nil
			}
			fmt.Fprintf(a.stdout, "erased, as entry %d says\n", out.Entry)
			return nil
		},
	}
	return group("evidence", "See and erase what nodes keep of tasks beyond the log", show, find, get, erase)
}

func (a *app) evidence(ctx context.Context, task string) (view agent.EvidenceView, err error) {
	err = a.fetch(ctx, "/v1/evidence/"+url.PathEscape(task), &view)
	return view, err
}

// findEvidence looks for content by its digest, written as sha256:HEX.
func (a *app) findEvidence(ctx context.Context, text string) (found agent.EvidenceSearch, err error) {
	digest, ok := strings.CutPrefix(text, "sha256:")
	if !ok {
		return found, usage("%.80q is no digest, such as sha256:9f86d0…, and a task needs the name of a part", text)
	}
	err = a.fetch(ctx, "/v1/evidence?sha256="+url.QueryEscape(strings.ToLower(digest)), &found)
	return found, err
}

// evidencePart prints the bytes of a part, once they are those of its digest.
func (a *app) evidencePart(ctx context.Context, task, part string) error {
	view, err := a.evidence(ctx, task)
	if err != nil {
		return err
	}
	door, err := a.api(ctx)
	if err != nil {
		return err
	}
	res, err := door.stream(ctx, http.MethodGet, "/v1/evidence/"+url.PathEscape(task)+"/part?part="+url.QueryEscape(part))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return door.unreachable(err)
	}
	sum := sha256.Sum256(data)
	for _, p := range view.Parts {
		if (p.Name == part || p.SHA256 == part) && p.SHA256 == hex.EncodeToString(sum[:]) {
			_, err := a.stdout.Write(data)
			return err
		}
	}
	return failed("what the node sent is not what the log committed to")
}
