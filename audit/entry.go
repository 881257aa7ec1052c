package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gowebpki/jcs"

	"github.com/agenticraft/node/identity"
)

// EntryVersion is the version of the leaf format.
const EntryVersion = 1

// MaxLeaf is the size limit of a leaf in bytes: C2SP entry bundles frame a
// leaf with a 16-bit length.
const MaxLeaf = 65535

const (
	maxID       = 128     // bytes of Entry.ID and Entry.Task
	maxName     = 512     // bytes of every other name in an entry
	maxNumber   = 1 << 53 // magnitude above which JSON numbers lose digits
	maxDepth    = 32      // nesting of a leaf
	maxReasons  = 64      // reason codes in a decision
	maxAttempts = 1 << 20
	timeLayout  = "2006-01-02T15:04:05.000Z" // UTC, milliseconds: sorts as text
)

// Kind is what an entry states. The set is closed: a keeper that does not know
// a kind refuses the entry.
type Kind string

// The kinds of entries.
const (
	KindGenesis Kind = "genesis" // entry 0: the cluster and its first members
	KindIntent  Kind = "intent"  // this will run now, for this one, by this decision
	KindOutcome Kind = "outcome" // how it ended; exactly one per intent
	KindDenial  Kind = "denial"  // this was refused
	KindLate    Kind = "late"    // a result that came after the outcome
	KindGap     Kind = "gap"     // how many entries of a sort were left out, and why
	KindMember  Kind = "member"
	KindAgent   Kind = "agent"
	KindKey     Kind = "key"
	KindRole    Kind = "role"
	KindTenant  Kind = "tenant"
	KindPolicy  Kind = "policy"
	KindRead    Kind = "read"    // somebody read the log, or evidence
	KindErasure Kind = "erasure" // evidence was erased; its digests stay in the log
	KindAlert   Kind = "alert"   // a rule saw a pattern in the log
	KindEpoch   Kind = "epoch"   // from here on these keepers sign checkpoints
	KindMandate Kind = "mandate" // one was revoked
)

// KindConnection is a connection that a running program opened, or was refused.
const KindConnection Kind = "connection"

// Kinds lists all kinds in a fixed order.
func Kinds() []Kind {
	return []Kind{
		KindGenesis, KindIntent, KindOutcome, KindDenial, KindLate, KindConnection, KindGap,
		KindMember, KindAgent, KindKey, KindRole, KindTenant, KindPolicy,
		KindRead, KindErasure, KindAlert, KindEpoch, KindMandate,
	}
}

func (k Kind) known() bool {
	switch k {
	case KindGenesis, KindIntent, KindOutcome, KindDenial, KindLate, KindConnection, KindGap,
		KindMember, KindAgent, KindKey, KindRole, KindTenant, KindPolicy,
		KindRead, KindErasure, KindAlert, KindEpoch, KindMandate:
		return true
	}
	return false
}

// Entry is one statement in the log: ids, numbers, reason codes and salted
// commitments, never code, inputs, results or outside free text. Its leaf is
// its canonical JSON (RFC 8785), at most [MaxLeaf] bytes, stored verbatim.
//
// The fields stand in the order of their JSON names, here and in the typed
// bodies: encoding/json then writes canonical JSON, see [DecodeEntry].
type Entry struct {
	Actor   string      `json:"actor,omitempty"`   // principal who asked
	Attempt int         `json:"attempt,omitempty"` // from 1; of intent, outcome, late and connection
	Author  identity.ID `json:"author,omitempty"`  // the node that signed the batch; none on entry 0
	// Body is the kind's own part: a JSON object ([IntentBody], …).
	Body     json.RawMessage `json:"body,omitempty"`
	Decision *Decision       `json:"decision,omitempty"` // the policy's answer
	ID       string          `json:"id"`                 // idempotency: one ID of one author is written once
	Kind     Kind            `json:"kind"`
	OnBehalf string          `json:"on_behalf,omitempty"` // principal for whom
	Once     *Once           `json:"once,omitempty"`      // at most once in the cluster
	Ref      *uint64         `json:"ref,omitempty"`       // index of the entry that this one answers
	Task     string          `json:"task,omitempty"`
	Tenant   string          `json:"tenant,omitempty"`
	Time     string          `json:"time"` // the author's clock, UTC, "2006-01-02T15:04:05.000Z"
	V        int             `json:"v"`    // [EntryVersion]
}

// Once makes an entry happen at most once in the cluster: a second entry with
// the same Key and Digest is answered with the index of the first, one with
// another Digest is [ErrConflict].
type Once struct {
	Digest string `json:"digest"` // SHA-256, lower-case hex
	Key    string `json:"key"`    // SHA-256, lower-case hex
}

// Decision is a policy's answer, as it was given. The zero value denies.
type Decision struct {
	Allow  bool        `json:"allow"`
	Input  string      `json:"input,omitempty"`  // digest of the facts it saw
	Micros int64       `json:"micros,omitempty"` // time it took
	Node   identity.ID `json:"node,omitempty"`   // who decided
	// Obligations are what an allowed execution was bound to; nil: nothing, or an
	// entry from before they were written down.
	Obligations *Obligations `json:"obligations,omitempty"`
	Policy      string       `json:"policy,omitempty"`  // digest of the policy in force
	Reasons     []string     `json:"reasons,omitempty"` // codes
}

// Obligations bind whoever runs an execution beside its intent's Network and
// Required, which are what policy left of what was asked.
type Obligations struct {
	Limits  map[string]int64 `json:"limits,omitempty"`  // ceilings, in the limit's unit
	Sandbox string           `json:"sandbox,omitempty"` // the one that must run it
	Tier    string           `json:"tier,omitempty"`    // the weakest that may
}

// FormatTime writes t as entries do.
func FormatTime(t time.Time) string {
	if text, ok := writeTime(t); ok {
		return text
	}
	return t.UTC().Format(timeLayout)
}

// ParseTime reads what [FormatTime] wrote.
func ParseTime(s string) (time.Time, error) {
	t, ok := parseTime(s)
	if !ok {
		return time.Time{}, fmt.Errorf("%w: time %q", ErrInvalid, clip(s))
	}
	return t, nil
}

// parseTime takes nothing but what time.Time.Format writes with timeLayout.
func parseTime(s string) (time.Time, bool) {
	if len(s) != len(timeLayout) {
		return time.Time{}, false
	}
	ok := true
	number := func(from, to int) (n int) {
		for _, c := range []byte(s[from:to]) {
			ok = ok && c >= '0' && c <= '9'
			n = 10*n + int(c-'0')
		}
		return n
	}
	year, month, day := number(0, 4), number(5, 7), number(8, 10)
	hour, minute, second, milli := number(11, 13), number(14, 16), number(17, 19), number(20, 23)
	ok = ok && s[4] == '-' && s[7] == '-' && s[10] == 'T' && s[13] == ':' && s[16] == ':' && s[19] == '.' && s[23] == 'Z' &&
		hour < 24 && minute < 60 && second < 60
	if !ok {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, milli*int(time.Millisecond), time.UTC)
	// A day that is not in the calendar became another one.
	y, m, d := t.Date()
	return t, y == year && int(m) == month && d == day
}

// Encode makes the entry's leaf. It refuses what [DecodeEntry] would refuse.
func (e Entry) Encode() ([]byte, error) {
	if e.Body != nil && !strictBody(e.Kind, e.Body) {
		body, err := canonical(e.Body)
		if err != nil {
			return nil, err
		}
		if err := checkNumbers(e.Body); err != nil {
			return nil, err
		}
		e.Body = body
	}
	if _, err := e.check(); err != nil {
		return nil, err
	}
	leaf, ok := e.write()
	if !ok {
		var err error
		if leaf, err = marshal(e); err != nil {
			return nil, err
		}
	}
	if len(leaf) > MaxLeaf {
		return nil, fmt.Errorf("%w: entry has %d bytes, limit %d", ErrInvalid, len(leaf), MaxLeaf)
	}
	return leaf, nil
}

// DecodeEntry reads a leaf strictly: canonical JSON, no unknown or repeated
// member, a known kind with a body that fits it, and encoding the result again
// gives the same bytes.
func DecodeEntry(leaf []byte) (Entry, error) {
	e, _, err := decodeEntry(leaf)
	return e, err
}

// decodeEntry also gives the typed body, an [IntentBody] for instance; nil for
// a kind whose body is another package's.
func decodeEntry(leaf []byte) (e Entry, body any, err error) {
	if len(leaf) > MaxLeaf {
		return Entry{}, nil, fmt.Errorf("%w: entry has %d bytes, limit %d", ErrInvalid, len(leaf), MaxLeaf)
	}
	if quickly, ok := strictEntry(leaf); ok {
		body, err = quickly.check()
		return quickly, body, err
	}
	if depth(leaf) > maxDepth {
		return Entry{}, nil, fmt.Errorf("%w: entry nests too deeply", ErrInvalid)
	}
	// Unknown members are lost here and missed when the bytes are compared.
	if err := json.Unmarshal(leaf, &e); err != nil {
		return Entry{}, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if body, err = e.check(); err != nil {
		return Entry{}, nil, err
	}
	// check holds all names to printable ASCII, all numbers to the exact range
	// and the body to canonical JSON: what marshal writes of such an entry is
	// canonical, so nothing else equals it.
	again, err := marshal(e)
	if err != nil {
		return Entry{}, nil, err
	}
	if !bytes.Equal(again, leaf) {
		return Entry{}, nil, fmt.Errorf("%w: entry is not in canonical form", ErrInvalid)
	}
	return e, body, nil
}

// marshal writes JSON in the order of the fields, without HTML's escapes.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte{'\n'}), nil
}

// check holds the rules that need nothing but the entry, and returns its typed
// body.
func (e Entry) check() (body any, err error) {
	fail := func(what string) (any, error) { return nil, fmt.Errorf("%w: entry: %s", ErrInvalid, what) }
	if e.V != EntryVersion {
		return fail(fmt.Sprintf("version %d is not known", e.V))
	}
	if !e.Kind.known() {
		return fail(fmt.Sprintf("kind %q is not known", clip(string(e.Kind))))
	}
	if e.ID == "" || !plain(e.ID, maxID) {
		return fail("id is missing or malformed")
	}
	if _, err := ParseTime(e.Time); err != nil {
		return nil, err
	}
	if e.Author == "" && e.Kind != KindGenesis {
		return fail("author is missing")
	}
	if e.Author != "" && !named(e.Author) {
		return fail("author is malformed")
	}
	if !plain(e.Actor, maxName) || !plain(e.OnBehalf, maxName) || !plain(e.Tenant, maxName) {
		return fail("actor, on_behalf or tenant is malformed")
	}
	if !plain(e.Task, maxID) {
		return fail("task is malformed")
	}
	if e.Attempt < 0 || e.Attempt > maxAttempts {
		return fail("attempt is out of range")
	}
	if e.Once != nil && (!isDigest(e.Once.Key) || !isDigest(e.Once.Digest)) {
		return fail("once is not a pair of digests")
	}
	if e.Ref != nil && *e.Ref > maxNumber {
		return fail("ref is out of range")
	}
	if err := e.Decision.check(); err != nil {
		return nil, err
	}
	return e.checkKind()
}

func (e Entry) checkKind() (body any, err error) {
	fail := func(what string) (any, error) { return nil, fmt.Errorf("%w: %s entry: %s", ErrInvalid, e.Kind, what) }
	switch e.Kind {
	case KindIntent, KindOutcome, KindLate, KindConnection:
		if e.Task == "" || e.Attempt < 1 {
			return fail("needs a task and an attempt from 1 on")
		}
		if (e.Ref != nil) != (e.Kind != KindIntent) {
			return fail("ref must name the intent, and only there")
		}
	case KindDenial:
		if e.Decision != nil && e.Decision.Allow {
			return fail("its decision allows")
		}
	}
	if e.Kind == KindIntent && e.Decision != nil && !e.Decision.Allow {
		return fail("its decision denies")
	}
	return checkBody(e.Kind, e.Body)
}

func (d *Decision) check() error {
	if d == nil {
		return nil
	}
	ok := len(d.Reasons) <= maxReasons && plain(d.Policy, maxName) && plain(d.Input, maxName) && d.Micros >= 0 && d.Micros <= maxNumber
	for _, r := range d.Reasons {
		ok = ok && r != "" && plain(r, maxName)
	}
	if o := d.Obligations; o != nil {
		ok = ok && limited(o.Limits) && len(o.Limits) <= 16 && plain(o.Sandbox, maxName) && plain(o.Tier, maxName)
	}
	if !ok || d.Node != "" && !named(d.Node) {
		return fmt.Errorf("%w: entry: decision is malformed", ErrInvalid)
	}
	return nil
}

// canonical is RFC 8785, which also refuses repeated members.
func canonical(text []byte) ([]byte, error) {
	out, err := jcs.Transform(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return out, nil
}

// decodeStrict decodes exactly one JSON value without unknown members.
func decodeStrict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: bytes after the JSON value", ErrInvalid)
	}
	return nil
}

// checkNumbers refuses numbers that canonical JSON would silently change:
// integers beyond 2^53.
func checkNumbers(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		n, ok := token.(json.Number)
		if !ok {
			continue
		}
		// 2^53+1 is an integer that a float already rounds to 2^53.
		i, noInt := n.Int64()
		f, err := n.Float64()
		if err != nil || f > maxNumber || f < -maxNumber || noInt == nil && (i > maxNumber || i < -maxNumber) {
			return fmt.Errorf("%w: a number is out of range", ErrInvalid)
		}
	}
}

// depth is the nesting of a JSON text, counted before anything recursive sees it.
func depth(text []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// plain reports whether s is short printable ASCII without spaces: a name, not text.
func plain(s string, limit int) bool {
	if len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isDigest reports whether s is a SHA-256 in lower-case hex.
func isDigest(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

// clip shortens hostile text for an error message.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
