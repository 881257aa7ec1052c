package http

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agenticraft/node/a2a"
)

// Problem is an error answer (RFC 9457), with the code and hint that the
// command line shows.
type Problem struct {
	Type       string        `json:"type"`
	Title      string        `json:"title"`
	Status     int           `json:"status"`
	Code       string        `json:"code"`
	Message    string        `json:"detail"`
	Hint       string        `json:"hint,omitempty"`
	RetryAfter time.Duration `json:"-"`
}

// denial is a no of policy, whose code is the first reason's.
type denial struct{ reason *a2a.Error }

func (d *denial) Error() string { return d.reason.Error() }
func (d *denial) Unwrap() error { return d.reason }

var (
	errNoCredential = &a2a.Error{Code: "unauthenticated", Message: "this needs a credential", Hint: "send an API key as Authorization: Bearer ac_…"}
	errScheme       = &a2a.Error{Code: "unauthenticated", Message: "the Authorization header is not of the Bearer scheme", Hint: "send an API key as Authorization: Bearer ac_…"}
)

// statuses are the HTTP statuses of error codes; what is not listed is the
// caller's mistake.
var statuses = map[string]int{
	"unauthenticated":   http.StatusUnauthorized,
	"signature_missing": http.StatusUnauthorized,
	"signature_invalid": http.StatusUnauthorized,
	"expired":           http.StatusUnauthorized,
	"not_yet_valid":     http.StatusUnauthorized,
	"wrong_audience":    http.StatusUnauthorized,
	"denied":            http.StatusForbidden,
	"not_found":         http.StatusNotFound,
	"conflict":          http.StatusConflict,
	"too_large":         http.StatusRequestEntityTooLarge,
	"busy":              http.StatusTooManyRequests,
	"unavailable":       http.StatusServiceUnavailable,
	"internal":          http.StatusInternalServerError,
	codeKeyReused:       http.StatusUnprocessableEntity,
}

// fail answers with what the caller may know of err. The cause of an internal
// error goes to the log under a reference, never to the caller (I10).
func (d *door) fail(w http.ResponseWriter, r *http.Request, err error) {
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		err = &a2a.Error{Code: "too_large", Message: "the request body is over " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes"}
	}
	known := new(a2a.Error)
	if !errors.As(err, &known) {
		ref := a2a.NewJTI()[:8]
		d.log.ErrorContext(r.Context(), "request failed", "ref", ref, "path", r.URL.Path, "err", err)
		known = &a2a.Error{Code: "internal", Message: "internal error; the node's log has it under reference " + ref}
	}
	status, ok := statuses[known.Code]
	if !ok {
		status = http.StatusBadRequest
	}
	if _, refused := errors.AsType[*denial](err); refused {
		status = http.StatusForbidden
	}
	problem(w, &Problem{Status: status, Code: known.Code, Message: known.Message, Hint: known.Hint, RetryAfter: known.RetryAfter})
}

func problem(w http.ResponseWriter, p *Problem) {
	p.Type = "https://agenticraft.dev/problems/" + strings.ReplaceAll(p.Code, "_", "-")
	p.Title = http.StatusText(p.Status)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="agenticraft"`)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(p.Status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(p)
}

func writeJSON(w http.ResponseWriter, v any) {
	if v == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// What is JSON already goes out as it is: a receipt or a leaf of the log is
	// canonical, and escaping a single character would break it.
	if raw, ok := v.(json.RawMessage); ok {
		_, _ = w.Write(raw)
		return
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text))
}

// ParseProblem reads an error answer of this door, on the client's side.
func ParseProblem(status int, body []byte) *a2a.Error {
	var p Problem
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		return &a2a.Error{Code: "failed", Message: "the server answered with HTTP status " + strconv.Itoa(status)}
	}
	return &a2a.Error{Code: p.Code, Message: p.Message, Hint: p.Hint}
}
