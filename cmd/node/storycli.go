package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	httpdoor "github.com/agenticraft/node/bridges/http"
)

func (a *app) auditShow(ctx context.Context, what string) error {
	if !isIndex(what) {
		if !taskID.MatchString(what) {
			return usage("%q is neither the index of an entry nor the id of a task, which has 32 digits from 0 to f", what)
		}
		var story audit.Story
		err := a.fetch(ctx, "/v1/audit/tasks/"+url.PathEscape(what), &story)
		if known := new(a2a.Error); errors.As(err, &known) && known.Code == a2a.CodeNotFound {
			return &a2a.Error{Code: a2a.CodeNotFound, Message: "the log has no entries of task " + what}
		}
		if err != nil {
			return err
		}
		if a.json {
			a.print(story)
			return nil
		}
		printTree(a.stdout, storyTree(story), "")
		return nil
	}
	var e httpdoor.LogEntry
	if err := a.fetch(ctx, "/v1/audit/entries/"+what, &e); err != nil {
		return err
	}
	a.print(e)
	return nil
}

var taskID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// isIndex reports whether a text is the index of an entry; one of 32 digits is a
// task's id.
func isIndex(text string) bool {
	return text != "" && len(text) < 32 && strings.Trim(text, "0123456789") == ""
}

// branch is a line of a tree and what hangs on it.
type branch struct {
	text string
	subs []branch
}

func (b *branch) add(format string, args ...any) *branch {
	b.subs = append(b.subs, branch{text: fmt.Sprintf(format, args...)})
	return &b.subs[len(b.subs)-1]
}

func printTree(w io.Writer, b branch, indent string) {
	fmt.Fprintln(w, b.text)
	for i, sub := range b.subs {
		edge, below := "├─ ", "│  "
		if i == len(b.subs)-1 {
			edge, below = "└─ ", "   "
		}
		fmt.Fprint(w, indent+edge)
		printTree(w, sub, indent+below)
	}
}

func storyTree(s audit.Story) branch {
	root := branch{text: "task " + s.Task}
	asked := root.add("asked by %s, tenant %s", orNone(s.Actor), orNone(s.Tenant))
	if r := s.Request; r != nil {
		asked.add("%s, network %s, through door %s", r.Language, r.Network, r.Door)
		if len(r.Limits) > 0 {
			var limits []string
			for _, name := range sortedKeys(r.Limits) {
				limits = append(limits, fmt.Sprintf("%s=%d", name, r.Limits[name]))
			}
			asked.add("limits %s", strings.Join(limits, " "))
		}
		asked.add("request committed to as %s", r.Commitment)
	}
	if s.OnBehalf != "" {
		chain := root.add("on behalf of %s, by a mandate of %d blocks from the root down", s.OnBehalf, len(s.Mandate))
		for _, m := range s.Mandate {
			chain.add("block %s, budget %s runs, %s ms", m.ID, budget(m.Runs), budget(m.WallMS))
		}
	}
	for _, d := range s.Denials {
		denial := root.add("[%d] %s denied: %s", d.Index, d.Time, d.Code)
		if d.Decision != nil {
			denial.add("%s", decisionLine(d.Decision))
		}
	}
	for _, at := range s.Attempts {
		attemptTree(root.add("attempt %d on %s in %s", at.Attempt, at.Executor, at.Sandbox), at)
	}
	for _, e := range s.Erasures {
		by := ""
		if e.By != "" {
			by = ", asked for by " + e.By
		}
		root.add("[%d] %s evidence erased on %s: %s%s", e.Index, e.Time, e.Node, e.Reason, by)
	}
	if s.Receipt.Available {
		root.add("receipt: to be had, made of the evidence on %s", s.Receipt.Node)
	} else {
		root.add("receipt: none: %s", s.Receipt.Why)
	}
	return root
}

func attemptTree(b *branch, at audit.StoryAttempt) {
	intent := b.add("[%d] %s intent", at.Intent, at.Time)
	if at.DoorDecision != nil {
		intent.add("door: %s", decisionLine(at.DoorDecision))
	}
	if at.Decision != nil {
		intent.add("executor: %s", decisionLine(at.Decision))
	}
	if at.Runtime != "" {
		intent.add("runtime %s", at.Runtime)
	}
	for _, c := range at.Connections {
		to := "a place that is not on its list"
		if c.Host != "" {
			to = net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
		}
		b.add("[%d] %s connection to %s: %s, %d bytes sent, %d received, %d ms", c.Index, c.Time, to, c.Verdict, c.Sent, c.Received, c.MS)
	}
	if o := at.Outcome; o == nil {
		b.add("no outcome yet")
	} else {
		line := fmt.Sprintf("[%d] %s %s, exit %d, %d ms, %d ms of CPU, %d bytes at most", o.Index, o.Time, o.Status, o.ExitCode, o.WallMS, o.CPUMS, o.PeakMemory)
		if o.ErrorCode != "" {
			line += ", " + o.ErrorCode
		}
		outcome := b.add("%s", line)
		for _, limit := range sortedKeys(o.Enforced) {
			outcome.add("%s held by %s", limit, o.Enforced[limit])
		}
		for _, name := range sortedKeys(o.Output) {
			outcome.add("%s committed to as %s", name, o.Output[name])
		}
	}
	for _, index := range at.Late {
		b.add("[%d] a result that came too late, kept", index)
	}
}

func decisionLine(d *audit.Decision) string {
	verdict := "denied"
	if d.Allow {
		verdict = "allowed"
	}
	if len(d.Reasons) > 0 {
		verdict += " (" + strings.Join(d.Reasons, ", ") + ")"
	}
	line := fmt.Sprintf("%s by policy %s on %s, in %d µs", verdict, orNone(d.Policy), orNone(string(d.Node)), d.Micros)
	if d.Obligations != nil {
		line += ", bound to" + bounds(*d.Obligations)
	}
	return line
}

func bounds(o audit.Obligations) string {
	var b strings.Builder
	for _, name := range sortedKeys(o.Limits) {
		fmt.Fprintf(&b, " %s %d", name, o.Limits[name])
	}
	if o.Sandbox != "" {
		b.WriteString(" sandbox " + o.Sandbox)
	}
	if o.Tier != "" {
		b.WriteString(" tier " + o.Tier)
	}
	return b.String()
}

func budget(n int64) string {
	if n == 0 {
		return "any"
	}
	return strconv.FormatInt(n, 10)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func (a *app) auditState(ctx context.Context, at string) error {
	q := url.Values{}
	if back, err := time.ParseDuration(at); err == nil && strings.Trim(at, "0123456789") != "" {
		if back < 0 {
			return usage("--at %s is still to come: a duration goes back from now, without a sign", at)
		}
		at = time.Now().Add(-back).UTC().Format(time.RFC3339Nano)
	}
	if at != "" {
		q.Set("at", at)
	}
	var s stateView
	if err := a.fetch(ctx, "/v1/audit/state?"+q.Encode(), &s); err != nil {
		return err
	}
	if a.json {
		a.print(s)
		return nil
	}
	root := branch{text: fmt.Sprintf("cluster %s after entry %d, %s", s.Cluster.Name, s.At, s.Time)}
	members := root.add("%d members", len(s.Members))
	for _, m := range s.Members {
		members.add("%s %s %s", m.ID, m.Role, m.Name)
	}
	tenants := root.add("%d tenants", len(s.Tenants))
	for _, t := range s.Tenants {
		state := ""
		if t.Suspended {
			state = ", suspended"
		}
		tenants.add("%s%s", t.Name, state)
	}
	agents := root.add("%d agents", len(s.Agents))
	for _, g := range s.Agents {
		agents.add("%s %s, tenant %s, %s", g.ID, g.Name, g.Tenant, rolesLine(g.Roles, g.Revoked))
	}
	keys := root.add("%d API keys", len(s.Keys))
	for _, k := range s.Keys {
		expires := ""
		if k.Expires != "" {
			expires = ", expires " + k.Expires
		}
		keys.add("%s %s, tenant %s, %s%s", k.ID, k.Name, k.Tenant, rolesLine(k.Roles, k.Revoked), expires)
	}
	if s.Policy == nil {
		root.add("policy: the built-in one")
	} else {
		root.add("policy %s, since entry %d", s.Policy.Digest, s.Policy.Since)
	}
	if s.Additions != nil {
		root.add("additions to the policy %s, since entry %d", s.Additions.Digest, s.Additions.Since)
	}
	printTree(a.stdout, root, "")
	return nil
}

func rolesLine(roles []string, revoked *uint64) string {
	if revoked != nil {
		return fmt.Sprintf("revoked by entry %d", *revoked)
	}
	return "roles " + orNone(strings.Join(roles, ", "))
}
