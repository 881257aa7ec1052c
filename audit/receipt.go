package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	receiptVersion = 1
	// MaxReceipt is the size limit of a receipt in bytes.
	MaxReceipt      = 4 << 20
	maxReceiptDepth = 64
	maxOpenings     = 16
)

// Receipt is the evidence of one execution: the signed request, the intent and
// the outcome with their authors' signatures, and proof that both are in a log
// that a quorum of keepers signed. Its file is one line of canonical JSON
// (RFC 8785) and a newline, so that no byte of it can change unnoticed.
type Receipt struct {
	V          int             `json:"v"`
	Task       string          `json:"task"`
	Request    json.RawMessage `json:"request"` // as it was signed
	Intent     Evidence        `json:"intent"`
	Outcome    Evidence        `json:"outcome"`
	Checkpoint string          `json:"checkpoint"` // cosigned note
	// Steps lead from the first keepers to those who signed the checkpoint.
	Steps    []Step             `json:"steps,omitempty"`
	Openings map[string]Opening `json:"openings"` // "request", "stdout", "stderr", "result"
}

// Evidence is one entry, who signed it, and its proof against the checkpoint.
type Evidence struct {
	Index       uint64      `json:"index"`
	Leaf        string      `json:"leaf"` // as stored
	Attestation Attestation `json:"attestation"`
	Proof       []Hash      `json:"proof"`
}

// Opening opens a commitment in the log: [Commit](Salt, []byte(Value)).
type Opening struct {
	Salt  string `json:"salt"`
	Value string `json:"value"` // a digest
}

// ReceiptExtra is what the executor keeps outside the log for a receipt.
type ReceiptExtra struct {
	Request  json.RawMessage
	Openings map[string]Opening // "request" is needed, the outputs are welcome
}

// BuildReceipt makes the receipt of the newest attempt of a task, waiting until
// ctx ends for a checkpoint that covers its outcome.
func BuildReceipt(ctx context.Context, s *Store, task string, extra ReceiptExtra) ([]byte, error) {
	text, err := buildReceipt(ctx, s, task, extra)
	if err != nil {
		return nil, fmt.Errorf("build receipt: %w", err)
	}
	return text, nil
}

func buildReceipt(ctx context.Context, s *Store, task string, extra ReceiptExtra) ([]byte, error) {
	rec, err := s.Task(task)
	if err != nil {
		return nil, err
	}
	if rec.Intent == nil || rec.Outcome == nil {
		return nil, fmt.Errorf("outcome of the task: %w", ErrNotFound)
	}
	at, text, err := s.WaitCheckpoint(ctx, *rec.Outcome)
	if err != nil {
		return nil, err
	}
	r := Receipt{V: receiptVersion, Task: task, Request: extra.Request, Checkpoint: string(text), Openings: extra.Openings}
	if r.Openings == nil {
		r.Openings = map[string]Opening{}
	}
	if r.Intent, err = s.evidence(*rec.Intent, at.Size); err != nil {
		return nil, err
	}
	if r.Outcome, err = s.evidence(*rec.Outcome, at.Size); err != nil {
		return nil, err
	}
	if r.Steps, err = s.Steps(at.Size); err != nil {
		return nil, err
	}
	return r.encode()
}

func (s *Store) evidence(index, size uint64) (Evidence, error) {
	_, leaf, err := s.Entry(index)
	if err != nil {
		return Evidence{}, err
	}
	a, err := s.Attestation(index)
	if err != nil {
		return Evidence{}, err
	}
	proof, err := s.ProveEntry(index, size)
	return Evidence{Index: index, Leaf: string(leaf), Attestation: a, Proof: proof}, err
}

func (r Receipt) encode() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if text, err = canonical(text); err != nil {
		return nil, err
	}
	if len(text) >= MaxReceipt {
		return nil, fmt.Errorf("%w: receipt has %d bytes, limit %d", ErrInvalid, len(text), MaxReceipt)
	}
	return append(text, '\n'), nil
}

// SpellReceipt gives a receipt that came within other JSON the one spelling that
// it must have: who passes JSON on may spell it otherwise. It verifies nothing.
func SpellReceipt(text []byte) ([]byte, error) {
	if len(text) > MaxReceipt || depth(text) > maxReceiptDepth {
		return nil, fmt.Errorf("%w: not a receipt", ErrInvalid)
	}
	out, err := canonical(text)
	return append(out, '\n'), err
}

// ParseReceipt reads a receipt strictly. It verifies nothing.
func ParseReceipt(raw []byte) (Receipt, error) {
	var r Receipt
	text, ended := bytes.CutSuffix(raw, []byte{'\n'})
	if len(raw) > MaxReceipt || !ended || depth(text) > maxReceiptDepth {
		return Receipt{}, fmt.Errorf("%w: not a receipt", ErrInvalid)
	}
	if err := decodeStrict(text, &r); err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	again, err := r.encode()
	if err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	switch {
	case !bytes.Equal(again, raw):
		return Receipt{}, fmt.Errorf("%w: receipt is not in canonical form", ErrInvalid)
	case r.V != receiptVersion:
		return Receipt{}, fmt.Errorf("%w: receipt version %d is not known", ErrInvalid, r.V)
	case len(r.Openings) > maxOpenings:
		return Receipt{}, fmt.Errorf("%w: receipt has too many openings", ErrInvalid)
	}
	return r, nil
}

// RequestFacts are what a request's own signature proves.
type RequestFacts struct {
	Issuer string // did:key that signed
	Task   string // the id of the task that it makes
	Digest string // the idempotency digest that intents commit to
}

// Check is one thing that a verifier looked at.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was found, or what is wrong
}

// VerifyReceipt checks a receipt against trust and nothing else: no clock, no
// network. verifyRequest checks the request's own signature. It returns what it
// checked, in order, and an error wrapping [ErrInvalid] that names the first
// check that failed.
func VerifyReceipt(raw []byte, trust Trust, verifyRequest func(request json.RawMessage) (RequestFacts, error)) ([]Check, error) {
	v := &receiptCheck{trust: trust}
	receipt, err := ParseReceipt(raw)
	v.note("format", err, "canonical receipt, version 1")
	if err == nil {
		v.receipt = receipt
		v.run(verifyRequest)
	}
	for _, c := range v.checks {
		if !c.OK {
			return v.checks, fmt.Errorf("%w: receipt: %s: %s", ErrInvalid, c.Name, c.Detail)
		}
	}
	return v.checks, nil
}

// receiptCheck is one verification under way.
type receiptCheck struct {
	trust   Trust
	receipt Receipt
	checks  []Check

	intent, outcome Entry
	intentBody      IntentBody
	outcomeBody     OutcomeBody
	facts           RequestFacts
}

func (v *receiptCheck) note(name string, err error, found string) {
	c := Check{Name: name, OK: err == nil, Detail: found}
	if err != nil {
		c.Detail = err.Error()
	}
	v.checks = append(v.checks, c)
}

func (v *receiptCheck) run(verifyRequest func(json.RawMessage) (RequestFacts, error)) {
	at, found, err := v.checkpoint()
	v.note("checkpoint", err, found)
	v.note("entries", v.entries(), "intent and outcome are well-formed entries")
	for _, one := range []struct {
		name string
		e    Evidence
	}{{"intent_inclusion", v.receipt.Intent}, {"outcome_inclusion", v.receipt.Outcome}} {
		err := CheckEntry(one.e.Proof, one.e.Index, at.Size, LeafHash([]byte(one.e.Leaf)), at.Root)
		v.note(one.name, err, fmt.Sprintf("entry %d is in the log of %d entries that the keepers signed", one.e.Index, at.Size))
	}
	v.note("intent_signature", v.signed(v.receipt.Intent, v.intent, true), "signed by the executor "+string(v.intentBody.Executor))
	lost := v.outcomeBody.Status == StatusLost
	v.note("outcome_signature", v.signed(v.receipt.Outcome, v.outcome, !lost), "signed by "+string(v.outcome.Author))
	v.note("outcome", v.answers(), fmt.Sprintf("%s, answers the intent at %d", v.outcomeBody.Status, v.receipt.Intent.Index))
	v.note("decision", v.decided(), "the policy allowed it before it ran")
	v.note("commitments", v.openings(), fmt.Sprintf("%d commitments in the log are opened", len(v.receipt.Openings)))
	if v.facts, err = verifyRequest(v.receipt.Request); err != nil {
		v.facts = RequestFacts{}
	}
	v.note("request_signature", err, "signed by "+v.facts.Issuer)
	found, err = v.request()
	v.note("request", err, found)
}

func (v *receiptCheck) checkpoint() (Checkpoint, string, error) {
	text := []byte(v.receipt.Checkpoint)
	if err := v.trust.check(); err != nil {
		return Checkpoint{}, "", err
	}
	trust, _, _, err := v.trust.Follow(v.receipt.Steps, text)
	if err != nil {
		return Checkpoint{}, "", err
	}
	at, n, by, err := trust.verify(text)
	if err != nil {
		return Checkpoint{}, "", err
	}
	if !exactNote(text, n) {
		return Checkpoint{}, "", fmt.Errorf("%w: the checkpoint holds more than signatures of known keepers", ErrInvalid)
	}
	_, quorum := trust.at(at.Size)
	found := fmt.Sprintf("log of %d entries, signed by %d keepers, needed are %d", at.Size, len(by), quorum)
	if more := trust.Epoch - v.trust.Epoch; more > 0 {
		found += fmt.Sprintf("; %d changes of keepers since the trust file, each signed by the quorum before", more)
	}
	return at, found, nil
}

func (v *receiptCheck) entries() (err error) {
	if v.intent, err = DecodeEntry([]byte(v.receipt.Intent.Leaf)); err != nil {
		return fmt.Errorf("intent: %w", err)
	}
	if v.outcome, err = DecodeEntry([]byte(v.receipt.Outcome.Leaf)); err != nil {
		return fmt.Errorf("outcome: %w", err)
	}
	if v.intentBody, err = v.intent.Intent(); err != nil {
		return err
	}
	if v.outcome.Kind != KindOutcome {
		return fmt.Errorf("%w: the outcome is a %s entry", ErrInvalid, v.outcome.Kind)
	}
	v.outcomeBody, err = v.outcome.Outcome()
	return err
}

// signed checks the author's signature over the batch of an entry.
func (v *receiptCheck) signed(e Evidence, entry Entry, byExecutor bool) error {
	a := e.Attestation
	switch {
	case !slices.Contains(a.Hashes, LeafHash([]byte(e.Leaf))):
		return fmt.Errorf("%w: the signature is not about this entry", ErrInvalid)
	case !a.Verify(v.trust.Origin):
		return fmt.Errorf("%w: signature of %s", ErrInvalid, clip(string(a.Author)))
	case a.Author != entry.Author:
		return fmt.Errorf("%w: signed by another than its author", ErrInvalid)
	case byExecutor && a.Author != v.intentBody.Executor:
		return fmt.Errorf("%w: signed by another than the executor", ErrInvalid)
	}
	return nil
}

func (v *receiptCheck) answers() error {
	i, o := v.intent, v.outcome
	switch {
	case i.Task != v.receipt.Task || o.Task != v.receipt.Task || i.Task == "":
		return fmt.Errorf("%w: the entries are of another task", ErrInvalid)
	case o.Ref == nil || *o.Ref != v.receipt.Intent.Index || o.Attempt != i.Attempt:
		return fmt.Errorf("%w: the outcome is not of this intent", ErrInvalid)
	case v.receipt.Outcome.Index <= v.receipt.Intent.Index:
		return fmt.Errorf("%w: the outcome comes before the intent", ErrInvalid)
	}
	return nil
}

func (v *receiptCheck) decided() error {
	if d := v.intent.Decision; d == nil || !d.Allow {
		return fmt.Errorf("%w: the intent holds no decision that allows", ErrInvalid)
	}
	if d := v.intentBody.DoorDecision; d != nil && !d.Allow {
		return fmt.Errorf("%w: the door's decision denies", ErrInvalid)
	}
	return nil
}

// openings holds every claimed value against the commitment in the log.
func (v *receiptCheck) openings() error {
	var wrong []error
	for name, open := range v.receipt.Openings {
		commitment := v.outcomeBody.Output[name]
		if name == "request" {
			commitment = v.intentBody.Request
		}
		if commitment == "" || Commit(open.Salt, []byte(open.Value)) != commitment {
			wrong = append(wrong, fmt.Errorf("%w: %q does not open its commitment", ErrInvalid, clip(name)))
		}
	}
	if _, ok := v.receipt.Openings["request"]; !ok {
		wrong = append(wrong, fmt.Errorf("%w: the commitment to the request is not opened", ErrInvalid))
	}
	return errors.Join(wrong...)
}

// request ties the signed request to the intent.
func (v *receiptCheck) request() (string, error) {
	_, actor, _ := strings.Cut(v.intent.Actor, ":")
	switch {
	case v.facts.Issuer == "" || v.facts.Digest == "":
		return "", fmt.Errorf("%w: nothing is known of the request", ErrInvalid)
	case v.receipt.Openings["request"].Value != v.facts.Digest:
		return "", fmt.Errorf("%w: the intent is for another request", ErrInvalid)
	case v.facts.Task != v.receipt.Task:
		return "", fmt.Errorf("%w: the task is of another request", ErrInvalid)
	case v.facts.Issuer == actor || v.facts.Issuer == v.intent.Actor:
		return "asked by " + v.intent.Actor + " itself", nil
	case v.facts.Issuer == v.intentBody.Door.DID():
		return "asked by " + v.intent.Actor + ", for whom the door " + string(v.intentBody.Door) + " vouches", nil
	}
	return "", fmt.Errorf("%w: signed by another than %s or the door", ErrInvalid, clip(v.intent.Actor))
}
