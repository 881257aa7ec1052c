package a2a

import (
	"bufio"
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// otherForms are vectors in forms of ProtoJSON that a reader of plain JSON does
// not understand; what they show is that ours does.
var otherForms = map[string]string{
	"bad-duplicate-name-forms": "one member under both of its ProtoJSON names",
	"good-snake-case":          "members under their names in the proto",
	"good-unknown-member":      "members that the proto does not have, which are dropped",
}

// A second implementation, in JavaScript and after docs/signed-message.md,
// makes of every vector what ours does.
func TestVectorsInJavaScript(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		skip := t.Skipf
		if os.Getenv("CI") != "" {
			skip = t.Fatalf
		}
		skip("the second implementation needs Node.js: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), "node", "testdata/verify.mjs", vectorsDir).Output()
	if err != nil {
		var text []byte
		if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // of this very command
			text = e.Stderr
		}
		t.Fatalf("%v\n%s", err, text)
	}
	seen := 0
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); seen++ {
		var got struct {
			Name string
			Why  string
			want
		}
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(filepath.Join(vectorsDir, got.Name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		if _, other := otherForms[got.Name]; other == (got.want == v.Want) {
			t.Errorf("%s: JavaScript says %+v (%s), want %+v", got.Name, got.want, got.Why, v.Want)
		}
	}
	if files, err := filepath.Glob(filepath.Join(vectorsDir, "*.json")); err != nil || seen != len(files) {
		t.Errorf("%d of %d vectors, %v", seen, len(files), err)
	}
	for _, name := range slices.Sorted(maps.Keys(otherForms)) {
		if _, err := os.Stat(filepath.Join(vectorsDir, name+".json")); err != nil {
			t.Errorf("%v", err)
		}
	}
}
