package http

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// LogEntry is one entry as the interface shows it: its index and the leaf
// exactly as it is in the log.
type LogEntry struct {
	Index uint64          `json:"index"`
	Entry json.RawMessage `json:"entry"`
}

func (d *door) entries(ctx context.Context, caller identity.Principal, r *http.Request) (any, error) {
	q, err := parameters(r, filterNames...)
	if err != nil {
		return nil, err
	}
	f, err := filter(q)
	if err != nil {
		return nil, err
	}
	page, err := d.cfg.Log.Query(ctx, f)
	if err != nil {
		return nil, logError(err)
	}
	out := struct {
		Entries []LogEntry `json:"entries"`
		Next    string     `json:"next"`
		After   string     `json:"after,omitempty"`
	}{Entries: []LogEntry{}, Next: page.Next, After: page.After}
	for _, e := range page.Entries {
		out.Entries = append(out.Entries, LogEntry{e.Index, e.Leaf})
	}
	d.cfg.Reads.Note(audit.Reading{By: caller, Action: audit.ReadList, Filter: f, Entries: len(page.Entries)})
	return out, nil
}

func (d *door) entry(_ context.Context, caller identity.Principal, r *http.Request) (any, error) {
	index, err := indexOf(r)
	if err != nil {
		return nil, err
	}
	_, leaf, err := d.cfg.Log.Entry(index)
	if err != nil {
		return nil, logError(err)
	}
	d.cfg.Reads.Note(audit.Reading{By: caller, Action: audit.ReadShow, Entries: 1})
	return LogEntry{index, leaf}, nil
}

func (d *door) proof(ctx context.Context, caller identity.Principal, r *http.Request) (any, error) {
	index, err := indexOf(r)
	if err != nil {
		return nil, err
	}
	proof, err := d.cfg.Cluster.Prove(ctx, index)
	d.cfg.Reads.Note(audit.Reading{By: caller, Action: audit.ReadProofs})
	return proof, logError(err)
}

func filter(q url.Values) (audit.Filter, error) {
	f := audit.Filter{
		Actor: q.Get("actor"), OnBehalf: q.Get("on_behalf"), Task: q.Get("task"), Decision: q.Get("decision"),
		Resource: q.Get("resource"), Policy: q.Get("policy"), Cursor: q.Get("cursor"),
		Newest: q.Get("order") == "newest",
	}
	bad := func(what string) (audit.Filter, error) {
		return audit.Filter{}, &a2a.Error{Code: "invalid_request", Message: what}
	}
	if order := q.Get("order"); order != "" && order != "newest" && order != "oldest" {
		return bad("order is newest or oldest")
	}
	for key, into := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		if text := q.Get(key); text != "" {
			t, err := audit.ParseMoment(text)
			if err != nil {
				return bad(key + " is not an RFC 3339 time")
			}
			if t.IsZero() {
				t = t.Add(time.Millisecond) // for the filter the zero time is none, and no entry is that old
			}
			*into = t
		}
	}
	if text := q.Get("kind"); text != "" {
		for k := range strings.SplitSeq(text, ",") {
			f.Kinds = append(f.Kinds, audit.Kind(k))
		}
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return bad("limit is not a number from 1 to 1000")
		}
		f.Limit = n
	}
	return f, nil
}

func indexOf(r *http.Request) (uint64, error) {
	n, ok := parseIndex(r.PathValue("index"))
	if !ok {
		return 0, &a2a.Error{Code: "invalid_request", Message: "the index is not a number"}
	}
	return n, nil
}

// parseIndex reads an index. One that is out of range is the largest, of which
// there is no entry.
func parseIndex(text string) (n uint64, ok bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return n, err == nil || errors.Is(err, strconv.ErrRange)
}

// logError turns the log's answers into those of the interface.
func logError(err error) error {
	switch {
	case errors.Is(err, audit.ErrNotFound):
		return &a2a.Error{Code: "not_found", Message: "the log has no such entry"}
	case errors.Is(err, audit.ErrInvalid):
		return &a2a.Error{Code: "invalid_request", Message: strings.TrimPrefix(err.Error(), audit.ErrInvalid.Error()+": ")}
	default:
		return err
	}
}

// story tells everything that the log has of a task.
func (d *door) story(ctx context.Context, caller identity.Principal, r *http.Request) (any, error) {
	story, err := d.cfg.Log.Story(ctx, r.PathValue("id"))
	if err != nil {
		return nil, logError(err)
	}
	d.cfg.Reads.Note(audit.Reading{By: caller, Action: audit.ReadShow, Filter: audit.Filter{Task: story.Task}, Entries: len(story.Entries)})
	return story, nil
}

// state tells who could do what at an index or a time.
func (d *door) state(ctx context.Context, caller identity.Principal, r *http.Request) (any, error) {
	q, err := parameters(r, "at")
	if err != nil {
		return nil, err
	}
	index, err := d.moment(ctx, q.Get("at"))
	if err != nil {
		return nil, err
	}
	state, err := d.cfg.Cluster.State(ctx, index)
	if err != nil {
		return nil, logError(err)
	}
	d.cfg.Reads.Note(audit.Reading{By: caller, Action: audit.ReadState, At: strconv.FormatUint(index, 10)})
	return state, nil
}

// momentSkew is how far a caller's clock may be ahead of this node's.
const momentSkew = time.Minute

// moment is the index of the newest entry at a moment: an index, a time, or
// now.
func (d *door) moment(ctx context.Context, at string) (uint64, error) {
	f := audit.Filter{Newest: true, Limit: 1}
	if index, ok := parseIndex(at); ok {
		if _, _, err := d.cfg.Log.Entry(index); err != nil {
			return 0, logError(err)
		}
		return index, nil
	}
	if at != "" {
		t, err := audit.ParseMoment(at)
		if err != nil {
			return 0, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "at is neither an index nor an RFC 3339 time"}
		}
		if t.After(time.Now().Add(momentSkew)) {
			return 0, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "at is a time that is still to come"}
		}
		f.Until = t.Truncate(time.Millisecond).Add(time.Millisecond) // what was written at that time counts
	}
	page, err := d.cfg.Log.Query(ctx, f)
	if err != nil {
		return 0, logError(err)
	}
	if len(page.Entries) == 0 {
		return 0, &a2a.Error{Code: "not_found", Message: "the log began after that time"}
	}
	return page.Entries[0].Index, nil
}
