package agent_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/identity"
)

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// found are the tasks that a look-up gives, and the code of its error.
func (w *world) found(digest string) (tasks []string, code string) {
	w.t.Helper()
	got, err := w.agent.FindEvidence(w.t.Context(), digest, eraser)
	if known := new(a2a.Error); errors.As(err, &known) {
		code = known.Code
	} else if err != nil {
		w.t.Fatal(err)
	}
	for _, one := range got.Found {
		tasks = append(tasks, one.Task)
	}
	return tasks, code
}

// What was run and what came of it is found by its digest alone, as long as it is
// kept, and only while it is what the log committed to.
func TestEvidenceIsFoundByItsDigest(t *testing.T) {
	w := newWorld(t)
	code := sha("result = 1")
	if tasks, said := w.found(code); tasks != nil || said != a2a.CodeNotFound {
		t.Errorf("before anything ran: %v, %s", tasks, said)
	}
	first, second := w.run(w.signed(w.caller, nil)), w.run(w.signed(w.caller, nil))
	if tasks, said := w.found(code); len(tasks) != 2 || said != "" {
		t.Errorf("the code of two tasks: %v, %s", tasks, said)
	}
	for digest, want := range map[string]string{
		sha("1"):                      "",               // the result
		sha(""):                       a2a.CodeNotFound, // nothing is nobody's
		code[:63] + "x":               a2a.CodeInvalidRequest,
		strings.ToUpper(code):         a2a.CodeInvalidRequest,
		code[:16] + sha("other")[16:]: a2a.CodeNotFound, // begins alike
		"":                            a2a.CodeInvalidRequest,
	} {
		if tasks, said := w.found(digest); said != want || (want == "") != (len(tasks) == 2) {
			t.Errorf("%.20q…: %v, %q, want %q", digest, tasks, said, want)
		}
	}

	// Another start, and an index that is damaged at every place: it is made anew.
	name := filepath.Join(w.evidence, "digests")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		bad := append([]byte(nil), whole...)
		bad[at] ^= 0x40
		for _, text := range [][]byte{bad, whole[:at]} {
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if tasks, said := w.found(code); len(tasks) != 2 {
				t.Fatalf("damaged at %d: %v, %s", at, tasks, said)
			}
		}
	}

	// What is not what the log committed to is not found, nor what was erased.
	file := w.file(first.Task)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), `"result":"MQ=="`, `"result":"Mg=="`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if tasks, _ := w.found(code); len(tasks) != 1 || tasks[0] != second.Task {
		t.Errorf("with a forged result: %v", tasks)
	}
	if _, err := w.agent.EraseEvidence(t.Context(), second.Task, eraser); err != nil {
		t.Fatal(err)
	}
	if tasks, said := w.found(code); tasks != nil || said != a2a.CodeNotFound {
		t.Errorf("erased: %v, %s", tasks, said)
	}
	if text, err = os.ReadFile(name); err != nil || strings.Contains(hex.EncodeToString(text), second.Task) {
		t.Errorf("the index remembers what was erased: %x, %v", text, err)
	}
}

// Other nodes are asked, and count as far as the log bears them out; one that
// cannot be asked is named.
func TestEvidenceIsLookedForOnAllNodes(t *testing.T) {
	w := newWorld(t)
	rep := w.run(w.signed(w.caller, nil))
	near, far := identity.ID("near"), identity.ID("far")
	w.peers.others = []identity.ID{near, far}
	asked := map[identity.ID]string{}
	w.peers.find = func(at identity.ID, digest string, by identity.Principal) ([]agent.FoundEvidence, error) {
		if at == far {
			return nil, agent.ErrUnreachable
		}
		asked[at] = digest + " " + by.String()
		return []agent.FoundEvidence{{Task: rep.Task, Node: at, Part: "code", Bytes: 1}, {Task: strings.Repeat("0", 32), Node: at, Part: "code"}}, nil
	}
	got, err := w.agent.FindEvidence(t.Context(), sha("result = 1"), eraser)
	if err != nil || len(got.Found) != 1 || got.Found[0].Node != w.node.ID() || len(got.Unasked) != 1 || got.Unasked[0] != far {
		t.Errorf("%+v, %v", got, err)
	}
	if asked[near] != sha("result = 1")+" "+eraser.String() {
		t.Errorf("asked %v", asked)
	}
	if tasks, said := w.found(sha("elsewhere")); tasks != nil || said != a2a.CodeUnavailable {
		t.Errorf("not found, and a node was not asked: %v, %s", tasks, said)
	}
}
