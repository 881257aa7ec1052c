package http

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// Evidence is what nodes keep of tasks beyond the log: requests with their
// code, and outputs.
type Evidence interface {
	// Show gives what is kept of a task, as JSON; each part was held against
	// the log. Part gives the bytes of one, by its name or its SHA-256.
	Show(ctx context.Context, task string, by identity.Principal) (any, error)
	Part(ctx context.Context, task, part string, by identity.Principal) ([]byte, error)
	// Find says which nodes keep what has a SHA-256 digest, as JSON, and how much
	// was found.
	Find(ctx context.Context, sha256 string, by identity.Principal) (any, int, error)
	// Erase erases it, and returns the index of the entry that says so.
	Erase(ctx context.Context, task string, by identity.Principal) (uint64, error)
}

func (d *door) showEvidence(ctx context.Context, caller identity.Principal, r *http.Request) (any, error) {
	task := r.PathValue("id")
	view, err := d.cfg.Evidence.Show(ctx, task, caller)
	if err == nil {
		d.cfg.Reads.Note(audit.Reading{By: caller, Action: audit.ReadEvidence, Filter: audit.Filter{Task: task}, Entries: 1})
	}
	return view, err
}

// findEvidence looks for content by its digest. The digest is not written down: whoever
// reads the log could guess what it is of.
func (d *door) findEvidence(ctx context.Context, caller identity.Principal, r *http.Request) (any, error) {
	q, err := parameters(r, "sha256")
	if err != nil {
		return nil, err
	}
	found, n, err := d.cfg.Evidence.Find(ctx, q.Get("sha256"), caller)
	if err == nil {
		d.cfg.Reads.Note(audit.Reading{By: caller, Action: audit.ReadEvidence, Entries: n})
	}
	return found, err
}

// evidencePart sends the bytes of one part. Whoever takes code or output away
// is written down before he has it.
func (d *door) evidencePart(w http.ResponseWriter, r *http.Request, caller identity.Principal) error {
	q, err := parameters(r, "part")
	if err != nil {
		return err
	}
	task := r.PathValue("id")
	data, err := d.cfg.Evidence.Part(r.Context(), task, q.Get("part"), caller)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(r.Context(), exportWait)
	defer cancel()
	if _, err := d.cfg.Reads.Record(wait, audit.Reading{By: caller, Action: audit.ReadEvidence, Filter: audit.Filter{Task: task}, Entries: 1}); err != nil {
		d.log.WarnContext(r.Context(), "reading of evidence not recorded, so not given", "err", err)
		return &a2a.Error{Code: a2a.CodeUnavailable, Message: "who reads evidence is written down before, and no quorum of keepers could do that; try again later"}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, err = w.Write(data)
	return err
}

func (d *door) eraseEvidence(ctx context.Context, caller identity.Principal, r *http.Request) (any, error) {
	index, err := d.cfg.Evidence.Erase(ctx, r.PathValue("id"), caller)
	if err != nil {
		return nil, err
	}
	return map[string]any{"task": r.PathValue("id"), "entry": index}, nil
}

// Fail answers with what the caller may know of err, as the door does.
func Fail(w http.ResponseWriter, r *http.Request, err error, log *slog.Logger) {
	(&door{log: log}).fail(w, r, err)
}
