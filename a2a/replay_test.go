package a2a

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const replaysDir = "testdata/replays"

// replay is one file: requests that a verifier gets one after the other, and
// what it must make of each.
type replay struct {
	Comment   string   `json:"comment"`
	Now       int64    `json:"now"`
	Audiences []string `json:"audiences"`
	Requests  []string `json:"requests"` // as in a vector's raw
	Want      []string `json:"want"`     // of each: "new", "same" task as before, or "conflict"
}

// check is the rule of the extension: who signs the same again under a jti gets
// the same task, who signs something else is refused.
func (r replay) check(t *testing.T) []string {
	t.Helper()
	seen := map[string]string{}
	var got []string
	for _, raw := range r.Requests {
		req, err := ParseRequest([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Verify(req, VerifyOptions{Audiences: r.Audiences, Now: time.Unix(r.Now, 0)})
		if err != nil {
			t.Fatal(err)
		}
		switch digest, known := seen[s.Task()]; {
		case !known:
			seen[s.Task()] = s.Digest
			got = append(got, "new")
		case digest == s.Digest:
			got = append(got, "same")
		default:
			got = append(got, CodeConflict)
		}
	}
	return got
}

func makeReplays(t *testing.T) map[string]replay {
	t.Helper()
	sign := func(seed byte, code, jti string, iat int64, mandate ...MandateBlock) string {
		req, err := NewRequest(Execution{Language: "starlark", Code: code})
		if err != nil {
			t.Fatal(err)
		}
		req.Message.ID = "m-1"
		signed, err := Sign(vectorKey(t, seed), req, SignOptions{Audience: "agenticraft:vectors", JTI: jti, Now: time.Unix(iat, 0), Mandate: mandate})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := MarshalRequest(signed)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	const other = "ffeeddccbbaa99887766554433221100"
	first, later := sign(1, "result = 1", vectorJTI, vectorNow), sign(1, "result = 1", vectorJTI, vectorNow+10)
	changed, fresh, stranger := sign(1, "result = 2", vectorJTI, vectorNow), sign(1, "result = 1", other, vectorNow), sign(2, "result = 2", vectorJTI, vectorNow)
	vouched := func(seed byte, code, jti, subject, key string) string {
		return sign(seed, code, jti, vectorNow, MandateBlock{Subject: subject, Tenant: "acme", Via: vectorKey(t, seed).ID().DID(), Once: OnceOf(key)})
	}
	return map[string]replay{
		"once": {Comment: "a principal without a key repeats his request by a key, through two nodes; then asks for something else by it, then another principal uses it", Requests: []string{
			vouched(1, "result = 1", vectorJTI, "service:k1", "k"), vouched(2, "result = 1", other, "service:k1", "k"),
			vouched(2, "result = 2", other, "service:k1", "k"), vouched(1, "result = 1", vectorJTI, "service:k2", "k"), vouched(1, "result = 1", vectorJTI, "service:k1", "l"),
		}, Want: []string{"new", "same", CodeConflict, "new", "new"}},
		"same":        {Comment: "the same bytes again", Requests: []string{first, first}, Want: []string{"new", "same"}},
		"same-signed": {Comment: "signed again later with the same jti: claims and signature differ, the digest does not", Requests: []string{first, later}, Want: []string{"new", "same"}},
		"other":       {Comment: "another request under a jti that was used, and the first again", Requests: []string{first, changed, first}, Want: []string{"new", CodeConflict, "same"}},
		"fresh":       {Comment: "the same code under a new jti is a new task; messageId plays no part", Requests: []string{first, fresh}, Want: []string{"new", "new"}},
		"stranger":    {Comment: "a jti belongs to its issuer: another one may use it", Requests: []string{first, stranger}, Want: []string{"new", "new"}},
	}
}

func TestReplays(t *testing.T) {
	for name, made := range makeReplays(t) {
		made.Now, made.Audiences = vectorNow, []string{"agenticraft:vectors"}
		file := filepath.Join(replaysDir, name+".json")
		if _, err := os.Stat(file); *addVectors && err != nil {
			raw, err := json.MarshalIndent(made, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, append(raw, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v; run go test -run Replays -add", err)
			continue
		}
		var r replay
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		if got := r.check(t); !slices.Equal(got, r.Want) || !slices.Equal(r.Requests, made.Requests) {
			t.Errorf("%s: %v, want %v; made as in the file: %t", name, got, r.Want, slices.Equal(r.Requests, made.Requests))
		}
	}
}
