package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/audit"
)

func TestReceipt(t *testing.T) {
	raw, trust := makeReceipt(t)
	checks, err := audit.VerifyReceipt(raw, trust, requestFacts)
	if err != nil {
		t.Fatal(err)
	}
	if len(checks) != 12 {
		t.Errorf("%d checks, want 12", len(checks))
	}
}

// What a receipt proves stands alone as C2SP tlog-proofs, too.
func TestReceiptHoldsTLogProofs(t *testing.T) {
	raw, trust := makeReceipt(t)
	r, err := audit.ParseReceipt(raw)
	if err != nil {
		t.Fatal(err)
	}
	intent, outcome := r.TLogProofs()
	for leaf, p := range map[string]audit.TLogProof{r.Intent.Leaf: intent, r.Outcome.Leaf: outcome} {
		again, err := audit.ParseTLogProof(p.Text())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Verify([]byte(leaf), trust); err != nil {
			t.Errorf("proof of entry %d: %v", again.Index, err)
		}
		if _, err := again.Verify([]byte(leaf+" "), trust); err == nil {
			t.Errorf("the proof of entry %d holds for other bytes", again.Index)
		}
	}
}

// TestReceiptNamesEveryEditedByte changes each byte, one after the other.
func TestReceiptNamesEveryEditedByte(t *testing.T) {
	raw, trust := makeReceipt(t)
	failed := make(map[string]int)
	step := 1
	if testing.Short() {
		step = 7
	}
	for at := 0; at < len(raw); at += step {
		mask := []byte{0x01, 0x20, 0x02, 0x80}[at%4]
		edited := bytes.Clone(raw)
		edited[at] ^= mask
		checks, err := audit.VerifyReceipt(edited, trust, requestFacts)
		if err == nil {
			t.Fatalf("byte %d ^ %#x goes unnoticed: …%s…", at, mask, raw[max(0, at-20):min(len(raw), at+20)])
		}
		for _, c := range checks {
			if !c.OK {
				failed[c.Name]++
				break
			}
		}
	}
	t.Logf("first failing checks: %v", failed)
}

// TestReceiptNamesForgeries edits a receipt so that it stays well formed.
func TestReceiptNamesForgeries(t *testing.T) {
	raw, trust := makeReceipt(t)
	for _, test := range []struct {
		name string
		edit func(r *audit.Receipt)
		want string
	}{
		{"outcome is another entry", func(r *audit.Receipt) { r.Outcome = r.Intent }, "entries"},
		{"status", func(r *audit.Receipt) {
			r.Outcome.Leaf = strings.Replace(r.Outcome.Leaf, `"succeeded"`, `"failed"`, 1)
		}, "outcome_inclusion"},
		{"actor", func(r *audit.Receipt) {
			r.Intent.Leaf = strings.Replace(r.Intent.Leaf, testIssuer, "did:key:z6Mkother", 1)
		}, "intent_inclusion"},
		{"index", func(r *audit.Receipt) { r.Intent.Index-- }, "intent_inclusion"},
		{"swapped signatures", func(r *audit.Receipt) {
			r.Intent.Attestation, r.Outcome.Attestation = r.Outcome.Attestation, r.Intent.Attestation
		}, "intent_signature"},
		{"signature", func(r *audit.Receipt) { r.Outcome.Attestation.Sig[0] ^= 1 }, "outcome_signature"},
		{"request", func(r *audit.Receipt) { r.Request = json.RawMessage(`{}`) }, "request_signature"},
		{"salt", func(r *audit.Receipt) {
			r.Openings["stdout"] = audit.Opening{Salt: audit.NewSalt(), Value: testDigest}
		}, "commitments"},
		{"output that was never committed to", func(r *audit.Receipt) {
			r.Openings["result"] = audit.Opening{Salt: audit.NewSalt(), Value: testDigest}
		}, "commitments"},
		{"no opening", func(r *audit.Receipt) { delete(r.Openings, "request") }, "commitments"},
		{"task", func(r *audit.Receipt) { r.Task = "0" + r.Task[1:] + "0" }, "outcome"},
		{"a signature less than a quorum", func(r *audit.Receipt) {
			lines := strings.SplitAfter(r.Checkpoint, "\n")
			r.Checkpoint = strings.Join(lines[:5], "")
		}, "checkpoint"},
		{"a signature of nobody known", func(r *audit.Receipt) {
			r.Checkpoint += "— nobody AAAAAAAAAAAAAAAA\n"
		}, "checkpoint"},
	} {
		r, err := audit.ParseReceipt(raw)
		if err != nil {
			t.Fatal(err)
		}
		test.edit(&r)
		edited, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		checks, err := audit.VerifyReceipt(edited, trust, requestFacts)
		if !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("%s: %v", test.name, err)
		}
		first := ""
		for _, c := range checks {
			if !c.OK && first == "" {
				first = c.Name
			}
		}
		if first != test.want {
			t.Errorf("%s: first failing check %q, want %q", test.name, first, test.want)
		}
	}
}

func TestReceiptIsBoundToItsRequest(t *testing.T) {
	raw, trust := makeReceipt(t)
	for name, facts := range map[string]audit.RequestFacts{
		"nothing known":  {},
		"another digest": {Issuer: testIssuer, Task: testTask, Digest: strings.Repeat("0", 64)},
		"another task":   {Issuer: testIssuer, Task: strings.Repeat("0", 32), Digest: testDigest},
		"another issuer": {Issuer: "did:key:z6Mkother", Task: testTask, Digest: testDigest},
	} {
		checks, err := audit.VerifyReceipt(raw, trust, func(json.RawMessage) (audit.RequestFacts, error) { return facts, nil })
		if err == nil || checks[len(checks)-1].OK {
			t.Errorf("%s: accepted", name)
		}
	}
	other := newCluster(t, 6).trust()
	if _, err := audit.VerifyReceipt(raw, other, requestFacts); err == nil {
		t.Error("signatures of 3 of 6 keepers make no quorum, yet accepted")
	}
}

func failed(c audit.Check) bool { return !c.OK }

func FuzzParseReceipt(f *testing.F) {
	raw, trust := makeReceipt(f)
	f.Add(raw)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := audit.ParseReceipt(in)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, in) {
			t.Errorf("%q encodes again as %q, %v", in, again, err)
		}
		if checks, err := audit.VerifyReceipt(in, trust, requestFacts); (err == nil) != (len(checks) == 12 && !slices.ContainsFunc(checks, failed)) {
			t.Errorf("%q: %v, %v", in, checks, err)
		}
	})
}
