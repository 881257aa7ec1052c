package main

import (
	"bytes"
	"testing"
)

// A list is a table: aligned, nothing left out, nothing that a terminal obeys.
func TestListsAreTables(t *testing.T) {
	var out bytes.Buffer
	err := printTable(&out, []map[string]any{
		{"name": "build", "roles": []any{"runner", "viewer"}, "since": 1e6, "labels": map[string]any{"b": "2", "a": "1"}},
		{"name": "a\x1b[2J\tname\n", "since": 7.0, "expires": "2027-01-01T00:00:00Z"},
	}, []string{"name", "roles"})
	want := "NAME         ROLES          EXPIRES               LABELS   SINCE\n" +
		"build        runner,viewer  -                     a=1,b=2  1000000\n" +
		"a\ufffd[2J name   -              2027-01-01T00:00:00Z  -        7\n"
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}
	out.Reset()
	if err := printTable(&out, nil, []string{"name"}); err != nil || out.Len() > 0 {
		t.Errorf("of nothing: %q, %v", out.String(), err)
	}
}
