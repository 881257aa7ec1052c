package http

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// CheckLine is a line of the answer to POST /v1/audit/check: how far the check
// is, and in the last one what it found.
type CheckLine struct {
	Checked uint64           `json:"checked"` // entries
	Size    uint64           `json:"size"`    // of the log, which may grow meanwhile
	Report  *audit.DirReport `json:"report,omitempty"`
}

// checkBeat is how often a check says how far it is.
const checkBeat = time.Second

// check recomputes all of this node's copy of the log while it serves, and says
// how far it is: one JSON document a line.
func (d *door) check(w http.ResponseWriter, r *http.Request, _ identity.Principal) error {
	if _, err := parameters(r); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(d.cfg.Stopping, cancel)()
	var told time.Time
	say := func(line CheckLine) error {
		text, err := json.Marshal(line)
		if err != nil {
			return err
		}
		if told.IsZero() {
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("Cache-Control", "no-store")
		}
		told = time.Now()
		if _, err := w.Write(append(text, '\n')); err != nil {
			cancel() // nobody hears what it finds
			return err
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		return nil
	}
	report, err := d.cfg.Cluster.Check(ctx, func(checked, size uint64) {
		if time.Since(told) >= checkBeat {
			_ = say(CheckLine{Checked: checked, Size: size}) // which ends the check if it fails
		}
	})
	if err != nil {
		return logError(err)
	}
	return say(CheckLine{Checked: report.Size, Size: report.Size, Report: &report})
}
