package http

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/export"
	"github.com/agenticraft/node/identity"
)

// Streams is what the door sends of the log in one go, however long it is.
type Streams interface {
	// Follow yields the entries from an index on, those that come included.
	Follow(ctx context.Context, from uint64) iter.Seq2[audit.Indexed, error]
	// Export yields the entries of the first size that fit f, oldest first.
	Export(ctx context.Context, f audit.Filter, size uint64) iter.Seq2[audit.Indexed, error]
	WriteExportProof(ctx context.Context, w io.Writer, f audit.Filter, format string, at audit.Checkpoint, note []byte) error
	WaitCheckpoint(ctx context.Context, index uint64) (audit.Checkpoint, []byte, error)
}

// Reads writes down who reads the log.
type Reads interface {
	// Note remembers a read; it is written afterwards, with others alike.
	Note(r audit.Reading)
	// Record returns when the read is durable on a quorum.
	Record(ctx context.Context, r audit.Reading) (audit.Ack, error)
}

const (
	maxStreams     = 64 // of the log, at one time
	streamWrite    = 30 * time.Second
	heartbeat      = 10 * time.Second
	exportWait     = 4 * time.Second // for the entry that says who exports
	checkpointWait = 10 * time.Second

	eventStream = "text/event-stream"
)

var errManyStreams = &a2a.Error{Code: a2a.CodeBusy, Message: "too many readers stream the log from this node", Hint: "ask another node", RetryAfter: 5 * time.Second}

// streams guards a handler that sends the log, or evidence, as a stream.
func (d *door) streams(action string, do func(w http.ResponseWriter, r *http.Request, caller identity.Principal) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := d.permit(r, action)
		if err != nil {
			d.fail(w, r, err)
			return
		}
		select {
		case d.streaming <- struct{}{}:
			defer func() { <-d.streaming }()
		default:
			d.fail(w, r, errManyStreams)
			return
		}
		// A stream outlasts the time that a request may take to be read.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not every writer has one
		out := &streamWriter{w: w, control: http.NewResponseController(w)}
		if err := do(out, r, caller); err != nil && !out.begun {
			d.fail(w, r, err)
		} else if err != nil && r.Context().Err() == nil {
			d.log.WarnContext(r.Context(), "stream of the log broke off", "path", r.URL.Path, "err", err)
			panic(http.ErrAbortHandler) // so that the reader sees that it is not whole
		}
	})
}

// streamWriter gives every write its own deadline.
type streamWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (s *streamWriter) Header() http.Header { return s.w.Header() }

func (s *streamWriter) WriteHeader(status int) {
	s.begun = true
	s.w.WriteHeader(status)
}

func (s *streamWriter) Write(p []byte) (int, error) {
	s.begun = true
	_ = s.control.SetWriteDeadline(time.Now().Add(streamWrite)) // not every writer has one
	return s.w.Write(p)
}

func (s *streamWriter) Flush() { _ = s.control.Flush() }

// follow sends the entries from an index on as they come: one JSON document a
// line, or server-sent events whose ids are the indexes.
func (d *door) follow(w http.ResponseWriter, r *http.Request, caller identity.Principal) error {
	q, err := parameters(r, append(slices.Clone(selectNames), "from")...)
	if err != nil {
		return err
	}
	f, err := filter(q)
	if err == nil {
		err = f.Check()
	}
	if err != nil {
		return logError(err)
	}
	from, err := followFrom(r, q.Get("from"))
	if err != nil {
		return err
	}
	reading := audit.Reading{By: caller, Action: audit.ReadFollowStart, Filter: f}
	d.cfg.Reads.Note(reading)
	reading.Action = audit.ReadFollowEnd
	defer func() { d.cfg.Reads.Note(reading) }()

	events := r.Header.Get("Accept") == eventStream
	w.Header().Set("Content-Type", "application/x-ndjson")
	if events {
		w.Header().Set("Content-Type", eventStream)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	flusher, _ := w.(http.Flusher)
	flusher.Flush()

	// The server ends streams when it stops.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(d.cfg.Stopping, cancel)()
	for {
		beat, stop := context.WithTimeout(ctx, heartbeat)
		from, err = d.followUntil(beat, w, f, from, events, &reading.Entries)
		stop()
		switch {
		case ctx.Err() != nil:
			return nil // the reader has gone, or the node stops
		case errors.Is(err, context.DeadlineExceeded):
			if err := beatTo(w, events); err != nil {
				return nil
			}
			flusher.Flush()
		case err != nil:
			return err
		}
	}
}

// followUntil sends entries until ctx is done, and says where to go on.
func (d *door) followUntil(ctx context.Context, w http.ResponseWriter, f audit.Filter, from uint64, events bool, sent *int) (uint64, error) {
	flusher, _ := w.(http.Flusher)
	for one, err := range d.cfg.Log.Follow(ctx, from) {
		if err != nil {
			return from, err
		}
		if f.Matches(one.Entry) {
			line := audit.EntryLine(one)
			if events {
				line = append([]byte("id: "+strconv.FormatUint(one.Index, 10)+"\nevent: entry\ndata: "), append(line, '\n')...)
			}
			if _, err := w.Write(line); err != nil {
				return from, err
			}
			*sent++
			flusher.Flush()
		}
		from = one.Index + 1
		if ctx.Err() != nil {
			return from, ctx.Err()
		}
	}
	return from, ctx.Err()
}

// beatTo shows a reader, and a proxy on the way, that the stream is alive.
func beatTo(w http.ResponseWriter, events bool) error {
	text := "\n"
	if events {
		text = ": alive\n\n"
	}
	_, err := w.Write([]byte(text))
	return err
}

// followFrom is the first index to send: the one asked for, or the one behind
// the last that the reader has seen.
func followFrom(r *http.Request, text string) (uint64, error) {
	add := uint64(0)
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		text, add = last, 1
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 53)
	if err != nil {
		return 0, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "from or Last-Event-ID is not an index"}
	}
	return n + add, nil
}

// export sends everything that fits the filter, or with proof=1 the proof of
// it. It waits until the log says who exports what.
func (d *door) export(w http.ResponseWriter, r *http.Request, caller identity.Principal) error {
	q, err := parameters(r, append(slices.Clone(selectNames), "cursor", "limit", "format", "proof")...)
	if err != nil {
		return err
	}
	limit, err := exportLimit(q)
	if err != nil {
		return err
	}
	f, err := filter(q)
	if err == nil {
		err = f.Check()
	}
	if err == nil && f.Cursor != "" {
		first := f
		first.Limit = 1
		_, err = d.cfg.Log.Query(r.Context(), first)
	}
	if err != nil {
		return logError(err)
	}
	f.Limit = limit
	format := q.Get("format")
	if format == "" {
		format = export.JSONL
	}
	if !export.Known(format) {
		return &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "format is none of jsonl, ocsf, cef, csv"}
	}
	wait, cancel := context.WithTimeout(r.Context(), exportWait)
	ack, err := d.cfg.Reads.Record(wait, audit.Reading{By: caller, Action: audit.ReadExport, Filter: f, Format: format})
	cancel()
	if err != nil {
		d.log.WarnContext(r.Context(), "export not recorded, so not given", "err", err)
		return &a2a.Error{Code: a2a.CodeUnavailable, Message: "an export is written down before it is given, and no quorum of keepers could do that; try again later"}
	}
	// Closing early on a stop: an export cut short is noticed by its reader.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(d.cfg.Stopping, cancel)()
	if q.Get("proof") == "1" {
		return d.exportProof(ctx, w, f, format, ack.Index)
	}
	w.Header().Set("Content-Type", export.ContentType(format))
	out, err := export.NewWriter(w, format)
	if err != nil {
		return err
	}
	for one, err := range d.cfg.Log.Export(ctx, f, ack.Index+1) {
		if err != nil {
			return err
		}
		if err := out.Write(one); err != nil {
			return err
		}
	}
	return out.Close()
}

// exportLimit takes the limit out of the query: that of an export is no page's.
func exportLimit(q url.Values) (int, error) {
	text := q.Get("limit")
	q.Del("limit")
	n := 0
	if text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			return 0, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "limit is not a number from 1 on"}
		}
	}
	if proof := q.Get("proof"); proof != "" && proof != "1" {
		return 0, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "proof is 1, or left out"}
	}
	if q.Get("proof") == "1" && (n > 0 || q.Get("cursor") != "") {
		return 0, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "the proof of an export is of all that fits the filter: leave limit and cursor out"}
	}
	return n, nil
}

func (d *door) exportProof(ctx context.Context, w http.ResponseWriter, f audit.Filter, format string, covering uint64) error {
	wait, cancel := context.WithTimeout(ctx, checkpointWait)
	at, note, err := d.cfg.Log.WaitCheckpoint(wait, covering)
	cancel()
	if err != nil {
		return &a2a.Error{Code: a2a.CodeUnavailable, Message: "no quorum of keepers has cosigned the newest entries yet; try again later"}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	return d.cfg.Log.WriteExportProof(ctx, w, f, format, at, note)
}
