package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/registry"
)

// auditFilter are the filter flags, as the user wrote them.
type auditFilter struct {
	since, until, actor, onBehalf, task, kind, decision, resource, policy, cursor, order string
	limit                                                                                int
}

const (
	maxTrustFile   = 1 << 20 // bytes
	maxReceiptFile = 4 << 20
)

func (a *app) auditCommand() *cobra.Command {
	var f auditFilter
	list := &cobra.Command{
		Use: "list", Short: "List entries of the log, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.auditList(cmd.Context(), f) },
	}
	f.register(list)
	f.limit = 50
	list.Flags().Lookup("limit").DefValue = "50"
	list.Flags().StringVar(&f.order, "order", "newest", "newest or oldest first")

	show := &cobra.Command{
		Use: "show INDEX|TASK", Short: "Show one entry, or the whole story of a task", Args: exactArgs("INDEX or TASK"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.auditShow(cmd.Context(), args[0]) },
	}
	var at string
	state := &cobra.Command{
		Use: "state [--at INDEX|TIME]", Short: "Show who could do what at a moment: members, tenants, agents, keys, roles, policy", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.auditState(cmd.Context(), at) },
	}
	state.Flags().StringVar(&at, "at", "", "index of an entry, RFC 3339 time, or a duration back from now (default: now)")
	var tlogProof bool
	prove := &cobra.Command{
		Use: "prove INDEX", Short: "Prove that an entry is in the log, under a quorum's checkpoint", Args: exactArgs("INDEX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !isIndex(args[0]) {
				return usage("%q is not the index of an entry", args[0])
			}
			var proof json.RawMessage
			if err := a.fetch(cmd.Context(), "/v1/audit/proof/"+url.PathEscape(args[0]), &proof); err != nil {
				return err
			}
			if a.json || !tlogProof {
				a.print(proof)
				return nil
			}
			var p entryProof
			if err := json.Unmarshal(proof, &p); err != nil {
				return failed("the node sent what is no proof: %v", err)
			}
			_, err := fmt.Fprint(a.stdout, p.TLogProof)
			return err
		},
	}
	prove.Flags().BoolVar(&tlogProof, "tlog-proof", false, "print it as C2SP tlog-proof, for other tools")
	checkpoint := &cobra.Command{
		Use: "checkpoint", Short: "Print the newest checkpoint that a quorum cosigned", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var note json.RawMessage
			if err := a.fetch(cmd.Context(), "/log/checkpoint", &note); err != nil {
				return err
			}
			if a.json {
				a.print(map[string]string{"checkpoint": string(note)})
				return nil
			}
			fmt.Fprint(a.stdout, string(note))
			return nil
		},
	}
	var trust string
	var hashes bool
	verify := &cobra.Command{
		Use: "verify DIR", Short: "Check a data folder, or a copy of one, without any cluster", Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.auditVerify(cmd.Context(), args[0], trust, hashes)
		},
	}
	verify.Flags().StringVar(&trust, "trust", "", "trust file: also check the keepers' cosignatures")
	verify.Flags().BoolVar(&hashes, "hashes", false, "check only what hashes tell: none missing, the tree, the signed roots; faster")
	return group("audit", "Read and check the replicated log", list, show, state, a.auditThreatsCommand(), a.auditEvidenceCommand(),
		a.auditFollowCommand(), a.auditExportCommand(), prove, checkpoint, verify, a.auditCheckCommand(), a.auditRepairCommand())
}

func kindNames() string {
	var names []string
	for _, k := range audit.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, " ")
}

// query is the filter in a URL. A limit of 0 is none; pages have one.
func (f *auditFilter) query() (url.Values, error) {
	q := url.Values{}
	for key, text := range map[string]string{"since": f.since, "until": f.until} {
		if text == "" {
			continue
		}
		t, err := audit.ParseMoment(text)
		if err != nil {
			back, err := time.ParseDuration(text)
			if err != nil {
				return nil, usage("--%s %q is neither an RFC 3339 time nor a duration", key, text)
			}
			if back < 0 {
				return nil, usage("--%s %s is still to come: a duration goes back from now, without a sign", key, text)
			}
			t = time.Now().Add(-back)
		}
		q.Set(key, t.Format(time.RFC3339Nano))
	}
	if f.limit < 0 {
		return nil, usage("--limit %d is not a number from 1 on", f.limit)
	}
	if f.decision != "" && f.decision != "allow" && f.decision != "deny" {
		return nil, usage("--decision %q is neither allow nor deny", f.decision)
	}
	for key, text := range map[string]string{
		"actor": f.actor, "on_behalf": f.onBehalf, "task": f.task, "kind": f.kind, "decision": f.decision,
		"resource": f.resource, "policy": f.policy, "cursor": f.cursor, "order": f.order,
	} {
		if text != "" {
			q.Set(key, text)
		}
	}
	if f.limit > 0 {
		q.Set("limit", strconv.Itoa(f.limit))
	}
	return q, nil
}

type logPage struct {
	Entries []httpdoor.LogEntry `json:"entries"`
	Next    string              `json:"next"`            // "": nothing more now
	After   string              `json:"after,omitempty"` // where to go on later, oldest first
}

func (a *app) auditList(ctx context.Context, f auditFilter) error {
	if f.limit < 1 || f.limit > audit.MaxLimit {
		return usage("--limit %d is not from 1 to %d", f.limit, audit.MaxLimit)
	}
	if f.order != "newest" && f.order != "oldest" {
		return usage("--order %q is neither newest nor oldest", f.order)
	}
	query, err := f.query()
	if err != nil {
		return err
	}
	var page logPage
	if err := a.fetch(ctx, "/v1/audit/entries?"+query.Encode(), &page); err != nil {
		return err
	}
	if a.json {
		a.print(page)
		return nil
	}
	for _, e := range page.Entries {
		fmt.Fprintln(a.stdout, entryLine(e))
	}
	if page.Next != "" {
		fmt.Fprintf(a.stderr, "agenticraft: more with --cursor %s\n", page.Next)
	}
	return nil
}

func entryLine(e httpdoor.LogEntry) string {
	entry, err := audit.DecodeEntry(e.Entry)
	if err != nil {
		return fmt.Sprintf("%6d  (%v)", e.Index, err)
	}
	verdict := ""
	if d := entry.Decision; d != nil {
		verdict = "allow"
		if !d.Allow {
			verdict = "deny " + strings.Join(d.Reasons, ",")
		}
	}
	if den, err := entry.Denial(); err == nil {
		verdict = denialLine(den, entry.Decision)
	}
	if out, err := entry.Outcome(); err == nil {
		verdict = out.Status
		if out.ErrorCode != "" && out.ErrorCode != out.Status {
			verdict += " " + out.ErrorCode
		}
	}
	if c, err := entry.Connection(); err == nil {
		verdict = c.Verdict
		if c.Host != "" {
			verdict += " " + net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) + fmt.Sprintf(" sent %d received %d", c.Sent, c.Received)
		}
	}
	return fmt.Sprintf("%6d  %s  %-8s %-32s  %s %s", e.Index, entry.Time, entry.Kind, entry.Task, entry.Actor, verdict)
}

// denialLine says what was refused, by which code, and for which of policy's
// reasons.
func denialLine(den audit.DenialBody, by *audit.Decision) string {
	words := []string{"deny"}
	if den.Action != "" {
		words = append(words, den.Action)
	}
	words = append(words, den.Code)
	if by != nil && len(by.Reasons) > 0 {
		words = append(words, strings.Join(by.Reasons, ","))
	}
	if den.Count > 1 {
		words = append(words, fmt.Sprintf("(%d times)", den.Count))
	}
	return strings.Join(words, " ")
}

func (a *app) auditVerify(ctx context.Context, dir, trustFile string, hashes bool) error {
	var trust *audit.Trust
	if trustFile != "" {
		t, err := readTrust(trustFile)
		if err != nil {
			return err
		}
		trust = &t
	}
	check := verifyFolder
	if hashes {
		check = audit.VerifyHashes
	}
	rep, err := check(ctx, dir, trust)
	if errors.Is(err, audit.ErrNotFound) {
		return &a2a.Error{Code: "failed", Message: dir + " holds no log: there is no audit.db in it", Hint: "give the data folder of a node that is stopped, or a copy of one"}
	}
	if errors.Is(err, audit.ErrInUse) {
		return &a2a.Error{Code: "failed", Message: err.Error(), Hint: "agenticraft audit check has the running node check itself"}
	}
	if err != nil {
		return err
	}
	return a.printReport(rep)
}

// printReport prints what a check of a log found.
func (a *app) printReport(rep audit.DirReport) error {
	if a.json {
		a.print(rep)
	} else if rep.Bad == nil {
		fmt.Fprintf(a.stdout, "ok: %d entries, root %s\n", rep.Size, rep.Root)
	} else {
		fmt.Fprintf(a.stdout, "BAD: %s\n", rep.Bad)
	}
	if rep.Bad != nil {
		return exitError(exitUnverified)
	}
	return nil
}

// verifyFolder checks everything that can be told of a data folder.
func verifyFolder(ctx context.Context, dir string, trust *audit.Trust) (audit.DirReport, error) {
	return audit.VerifyReplay(ctx, dir, trust, logRules())
}

// logRules are the rules by which logs are written.
func logRules() audit.Rules {
	return audit.Rules{
		Admit: func(origin string) audit.Admission { return registry.Admission{Origin: origin} },
		State: registry.EmptyState(),
	}
}

func readTrust(name string) (audit.Trust, error) {
	text, err := readSmall(name, maxTrustFile)
	if err != nil {
		return audit.Trust{}, err
	}
	t, err := audit.ParseTrust(text)
	if err != nil {
		return t, failed("%s is not a trust file: %v", name, err)
	}
	return t, nil
}
