package http

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
)

// A query is a filter or an error of the caller's.
func FuzzFilter(f *testing.F) {
	f.Add("since=2026-11-23T00:00:00Z&kind=intent,outcome&limit=10&order=newest")
	f.Add("limit=-1")
	f.Add("since=yesterday&cursor=%00")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		got, err := filter(q)
		if known, ok := err.(*a2a.Error); err != nil && (!ok || known.Code != a2a.CodeInvalidRequest) { //nolint:errorlint // returned as it is
			t.Errorf("filter(%q) = %v", query, err)
		}
		if err == nil && (got.Limit < 0 || got.Limit > 1000) {
			t.Errorf("filter(%q) has limit %d", query, got.Limit)
		}
	})
}

// A body is what is expected, wholly, or an error of the caller's.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"x","role":"viewer"}`))
	f.Add([]byte(`{"name":"x"} {}`))
	f.Add([]byte(`{"nom":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var req KeyRequest
		if err := decode(bytes.NewReader(body), &req); err == nil && !json.Valid(bytes.TrimSpace(body)) {
			t.Errorf("decode(%q) = %+v", body, req)
		}
	})
}

// The strictness is [a2a.Decode]'s; that it reaches into each body is tried here.
func TestDecodeRefusesTwoMembersOfOneName(t *testing.T) {
	for text, says := range map[string]string{
		`{"name":"x","role":"viewer","role":"admin"}`:   `the body is not what is expected here: member "role" is there twice`,
		`{"name":"x","Role":"viewer"}`:                  `unknown field "Role"`,
		`{"name":"x","labels":{"Team":"a","team":"b"}}`: "",
	} {
		var req AgentRequest
		err := decode(strings.NewReader(text), &req)
		if err == nil && says != "" || err != nil && (says == "" || !strings.Contains(err.Error(), says)) {
			t.Errorf("%.80s: %v, want %q", text, err, says)
		}
	}
	var req ChangeRequest
	if err := decode(strings.NewReader(`{"kind":"key","body":{"a":[{"b":1,"b":2}]}}`), &req); err == nil || !strings.Contains(err.Error(), "body.a.b") {
		t.Errorf("twice in what is kept raw: %v", err)
	}
}

// What went wrong inside stays inside.
//
// INVARIANT: I10, no secret reaches an error text.
func TestInternalErrorsAreReferences(t *testing.T) {
	d := &door{log: slog.New(slog.DiscardHandler)}
	w := httptest.NewRecorder()
	d.fail(w, httptest.NewRequest("GET", "/v1/status", nil), errSecret{})
	if w.Code != 500 || strings.Contains(w.Body.String(), "hunter2") || !strings.Contains(w.Body.String(), "reference") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	p := ParseProblem(w.Code, w.Body.Bytes())
	if p.Code != a2a.CodeInternal || p.Message == "" {
		t.Errorf("read back as %+v", p)
	}
}

type errSecret struct{}

func (errSecret) Error() string { return "the password is hunter2" }
