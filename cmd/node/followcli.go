package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

const (
	followSilence = 45 * time.Second // without a sign of life, the stream is opened anew
	followRetry   = 500 * time.Millisecond
	followGiveUp  = 60 * time.Second // without an answer
)

// register makes the flags that list, follow and export share.
func (f *auditFilter) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "RFC 3339 time, or a duration back from now such as 1h")
	flags.StringVar(&f.until, "until", "", "RFC 3339 time, or a duration back from now")
	flags.StringVar(&f.actor, "actor", "", "who asked, or on whose behalf")
	flags.StringVar(&f.onBehalf, "on-behalf", "", "on whose behalf only")
	flags.StringVar(&f.task, "task", "", "one task")
	flags.StringVar(&f.kind, "kind", "", "kinds, comma-separated: "+kindNames())
	flags.StringVar(&f.decision, "decision", "", "allow or deny")
	flags.StringVar(&f.resource, "resource", "", "what it is about: language:python, sandbox:docker, node:ID, agent:NAME, key:NAME, tenant:NAME, role:NAME, mandate:ID, rule:NAME, …")
	flags.StringVar(&f.policy, "policy", "", "digest of the policy that decided or was applied")
	flags.StringVar(&f.cursor, "cursor", "", "go on where an earlier page ended (its \"next\")")
	flags.IntVar(&f.limit, "limit", 0, "entries at most")
}

func (a *app) auditFollowCommand() *cobra.Command {
	var f auditFilter
	var from string
	cmd := &cobra.Command{
		Use: "follow", Short: "Print entries as they are written, one JSON document a line, until interrupted", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.follow(cmd.Context(), f, from) },
	}
	f.register(cmd)
	cmd.Flags().StringVar(&from, "from", "", "index of the first entry to print (default 0), or \"now\"")
	return cmd
}

// follow prints what comes and survives the node's absence: it goes on behind
// the last entry that it has printed.
func (a *app) follow(ctx context.Context, f auditFilter, from string) error {
	next, err := a.followStart(ctx, f, from)
	if err != nil {
		return err
	}
	limit := f.limit
	f.limit, f.cursor = 0, ""
	query, err := f.query()
	if err != nil {
		return err
	}
	door, err := a.api(ctx)
	if err != nil {
		return err
	}
	printed, heard := 0, time.Now()
	for {
		query.Set("from", strconv.FormatUint(next, 10))
		err := door.lines(ctx, http.MethodGet, "/v1/audit/follow?"+query.Encode(), func(line []byte) error {
			heard = time.Now()
			if len(line) == 0 {
				return nil // a sign of life
			}
			one, err := audit.ParseEntryLine(line)
			if err != nil {
				return failed("the node sent what is no entry: %v", err)
			}
			if one.Index < next {
				return nil
			}
			next = one.Index + 1
			if _, err := a.stdout.Write(append(line, '\n')); err != nil {
				return failed("print entry %d: %v", one.Index, err)
			}
			if printed++; printed == limit {
				return errEnough
			}
			return nil
		})
		switch known := new(a2a.Error); {
		case ctx.Err() != nil, errors.Is(err, errEnough):
			return nil // the user has seen enough
		case errors.As(err, &known) && known.Code != a2a.CodeUnavailable && known.Code != a2a.CodeBusy:
			return err
		case err != nil && time.Since(heard) > followGiveUp:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followRetry):
		}
	}
}

var errEnough = errors.New("enough")

// followStart is the index that --from or --cursor means.
func (a *app) followStart(ctx context.Context, f auditFilter, from string) (uint64, error) {
	switch {
	case from != "" && f.cursor != "":
		return 0, usage("--from and --cursor say the same: give one")
	case from == "now":
		var s statusView
		err := a.fetch(ctx, "/v1/status", &s)
		return s.LogSize, err
	case f.cursor != "":
		// The node knows whether it is of its log.
		q := url.Values{"cursor": {f.cursor}, "order": {"oldest"}, "limit": {"1"}}
		var page logPage
		if err := a.fetch(ctx, "/v1/audit/entries?"+q.Encode(), &page); err != nil {
			return 0, err
		}
		from, _, _ = strings.Cut(strings.TrimPrefix(f.cursor, "o"), "-")
	case from == "":
		return 0, nil
	}
	n, err := strconv.ParseUint(from, 10, 53)
	if err != nil {
		return 0, usage("%q is neither an index nor \"now\"", from)
	}
	// Whoever goes on with another cluster's index would wait without a word.
	var s statusView
	if a.fetch(ctx, "/v1/status", &s) == nil && n > s.LogSize {
		fmt.Fprintf(a.stderr, "agenticraft: the log has %d entries here: nothing is printed before entry %d is written\n", s.LogSize, n)
	}
	return n, nil
}

// stream opens an answer that may go on for ever.
func (c *api) stream(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return nil, usage("%v", err)
	}
	if err := c.authorize(ctx, req); err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode >= http.StatusBadRequest {
		defer res.Body.Close()
		text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		if err != nil {
			return nil, c.unreachable(err)
		}
		return nil, httpdoor.ParseProblem(res.StatusCode, text)
	}
	return res, nil
}

// lines hands over the lines of a stream until it breaks off, which is always
// an error, or each returns one.
func (c *api) lines(ctx context.Context, method, path string, each func(line []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(followSilence, cancel)
	defer quiet.Stop()
	res, err := c.stream(ctx, method, path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	for {
		line, err := audit.ReadLine(in)
		if err != nil {
			return c.unreachable(err)
		}
		quiet.Reset(followSilence)
		if err := each(line); err != nil {
			return err
		}
	}
}
