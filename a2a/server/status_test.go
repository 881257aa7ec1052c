package server

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/agenticraft/node/a2a"
)

// Each code has the numbers that docs/formats.md gives it, which are those of the
// specification (A2A 1.0.1, 5.4) where it knows the error.
func TestNumbersOfErrors(t *testing.T) {
	spec := map[string]int{
		a2a.CodeNotFound: -32001, a2a.CodeNotCancelable: -32002, a2a.CodePushUnsupported: -32003, a2a.CodeUnsupported: -32004,
		a2a.CodeContentType: -32005, a2a.CodeExtension: -32008, a2a.CodeVersion: -32009, a2a.CodeInvalidRequest: -32602, a2a.CodeInternal: -32603,
	}
	text, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (-\\d+) \\| (\\d+) \\| ([A-Z_]+) \\|").FindAllStringSubmatch(string(text), -1) {
		rows[row[1]] = row[2:]
	}
	if len(rows) != len(statuses) {
		t.Errorf("docs/formats.md lists %d codes, there are %d", len(rows), len(statuses))
	}
	for code, status := range statuses {
		e := &rpcError{err: a2a.Errorf(code, "x")}
		var answer struct{ Error struct{ Code int } }
		if err := json.Unmarshal(e.body(nil), &answer); err != nil {
			t.Fatal(err)
		}
		number := answer.Error.Code
		if want, ok := spec[code]; ok && number != want {
			t.Errorf("%s is %d over JSON-RPC, the specification says %d", code, number, want)
		}
		row := rows[code]
		if len(row) != 3 || row[0] != strconv.Itoa(number) || row[1] != strconv.Itoa(status.http) || row[2] != status.rpc {
			t.Errorf("%s: %d, %+v; docs/formats.md says %q", code, number, status, row)
		}
	}
}
