package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/recent"
)

// IntentBody is what an intent says beyond the entry's own fields.
type IntentBody struct {
	Asked        *Asked           `json:"asked,omitempty"`         // before policy and defaults bounded it
	Door         identity.ID      `json:"door"`                    // the node that took the request in
	DoorDecision *Decision        `json:"door_decision,omitempty"` // if the door is another node
	Executor     identity.ID      `json:"executor"`                // the node that runs it: the author
	Language     string           `json:"language"`
	LeaseMS      int64            `json:"lease_ms"`         // after this the task may be declared lost
	Limits       map[string]int64 `json:"limits,omitempty"` // limit -> value in the limit's unit
	// Mandate is the budgets, from the root down, under which it runs.
	Mandate  []MandateUse `json:"mandate,omitempty"`
	Network  string       `json:"network"`            // "none" or the allowed places
	Request  string       `json:"request"`            // [Commit] to the request's digest
	Required []string     `json:"required,omitempty"` // limits that must be enforced
	Runtime  string       `json:"runtime,omitempty"`  // digest or version of the language tree
	Sandbox  string       `json:"sandbox"`            // backend
}

// Asked is what policy was asked about beside who asked, so that it can be asked
// again (policy replay). It holds words of fixed sets and numbers: what a caller
// may word freely is withheld.
type Asked struct {
	CodeBytes int              `json:"code_bytes,omitempty"`
	DataClass string           `json:"data_class,omitempty"`
	Language  string           `json:"language,omitempty"`
	Limits    map[string]int64 `json:"limits,omitempty"`  // those named, as in an intent
	Network   string           `json:"network,omitempty"` // "none"; of an intent, its own says more
	Sandbox   string           `json:"sandbox,omitempty"`
	Tier      string           `json:"tier,omitempty"`     // of the sandbox that would have run it
	Via       string           `json:"via,omitempty"`      // the kind of door: http, mcp, mesh, nats
	Withheld  []string         `json:"withheld,omitempty"` // facts that are not in the log, sorted
}

// MandateUse is one block of a mandate and what it allows in all: the keepers
// count one run and its wall limit against each. Zero is not counted.
type MandateUse struct {
	ID     string `json:"id"` // hex SHA-256
	Runs   int64  `json:"runs,omitempty"`
	WallMS int64  `json:"wall_ms,omitempty"`
}

// MaxMandate is the most blocks of a mandate in an intent.
const MaxMandate = 5

// OutcomeBody is how an execution ended. It is also the body of a late entry.
type OutcomeBody struct {
	CPUMS      int64             `json:"cpu_ms"`
	Enforced   map[string]string `json:"enforced,omitempty"` // limit -> mechanism
	ErrorCode  string            `json:"error_code,omitempty"`
	ExitCode   int               `json:"exit_code"`
	Output     map[string]string `json:"output,omitempty"` // "stdout", "stderr", "result" -> [Commit] to its SHA-256
	PeakMemory int64             `json:"peak_memory"`      // bytes
	Status     string            `json:"status"`           // succeeded failed cancelled timed_out lost
	WallMS     int64             `json:"wall_ms"`
}

// ConnectionBody is one connection that a jailed program asked its proxy for.
type ConnectionBody struct {
	Host     string `json:"host,omitempty"` // on the run's list; absent where what was asked for is not
	MS       int64  `json:"ms"`
	Port     int    `json:"port,omitempty"`
	Received int64  `json:"received"` // bytes
	Sent     int64  `json:"sent"`     // bytes
	Verdict  string `json:"verdict"`  // "ok", or why not
}

// DenialBody says why something was refused.
type DenialBody struct {
	// Action is what was asked, of acts that run no code: "key.create", …; of a
	// change that the keepers refused, its kind.
	Action string `json:"action,omitempty"`

	Asked *Asked      `json:"asked,omitempty"`
	Code  string      `json:"code"`            // snake_case
	Count int         `json:"count,omitempty"` // how many alike this entry stands for; 0 means 1
	Door  identity.ID `json:"door,omitempty"`
}

// GapBody counts what was left out of the log on purpose.
type GapBody struct {
	Code  string `json:"code"`  // what was left out
	Count int    `json:"count"` // how many
	From  string `json:"from"`  // as Entry.Time
	Until string `json:"until"`
}

// Outcome statuses.
const (
	StatusSucceeded = "succeeded"
	StatusFailed    = "failed"
	StatusCancelled = "cancelled"
	StatusTimedOut  = "timed_out"
	StatusLost      = "lost"
)

// MarshalBody encodes a typed body for [Entry.Body].
func MarshalBody(body any) (json.RawMessage, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("%w: body: %w", ErrInvalid, err)
	}
	if strictBody(kindOf(body), text) {
		return text, nil // is canonical already
	}
	if err := checkNumbers(text); err != nil {
		return nil, err
	}
	return canonical(text)
}

// kindOf is a kind whose body has that type, "" if the short cut knows none.
func kindOf(body any) Kind {
	switch body.(type) {
	case IntentBody:
		return KindIntent
	case OutcomeBody:
		return KindOutcome
	case DenialBody:
		return KindDenial
	}
	return ""
}

// DecodeBody reads a body strictly into a typed struct: no unknown or repeated
// member, and encoding the result again gives the same canonical bytes, so that
// nothing in a body goes unread. A nil body is not accepted.
func DecodeBody(body json.RawMessage, into any) error {
	if err := decodeStrict(body, into); err != nil {
		return err
	}
	again, err := MarshalBody(into)
	if err != nil {
		return err
	}
	given, err := canonical(body)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, given) {
		return fmt.Errorf("%w: body is not what its type would encode", ErrInvalid)
	}
	return nil
}

// Intent is the body of an intent entry.
func (e Entry) Intent() (IntentBody, error) { return bodyOf(e, strictIntent, KindIntent) }

// Outcome is the body of an outcome or late entry.
func (e Entry) Outcome() (OutcomeBody, error) {
	return bodyOf(e, strictOutcome, KindOutcome, KindLate)
}

// Connection is the body of a connection entry.
func (e Entry) Connection() (ConnectionBody, error) {
	return bodyOf[ConnectionBody](e, nil, KindConnection)
}

// Denial is the body of a denial entry.
func (e Entry) Denial() (DenialBody, error) { return bodyOf(e, strictDenial, KindDenial) }

func bodyOf[T any](e Entry, quick func([]byte) (T, bool), kinds ...Kind) (T, error) {
	var body T
	if slices.Contains(kinds, e.Kind) {
		if quick != nil {
			if quickly, ok := quick(e.Body); ok {
				return quickly, nil
			}
		}
		err := DecodeBody(e.Body, &body)
		return body, err
	}
	return body, fmt.Errorf("%w: a %s entry has no such body", ErrInvalid, e.Kind)
}

// checkBody holds the bodies that this package defines to their types and
// returns them; the others need only be canonical objects here, their owner
// checks them on admission.
func checkBody(kind Kind, text json.RawMessage) (body any, err error) {
	switch kind {
	case KindIntent:
		body, err = typed(text, strictIntent, IntentBody.check)
	case KindOutcome, KindLate:
		body, err = typed(text, strictOutcome, OutcomeBody.check)
	case KindConnection:
		body, err = typed(text, nil, ConnectionBody.check)
	case KindDenial:
		body, err = typed(text, strictDenial, DenialBody.check)
	case KindGap:
		body, err = typed(text, nil, GapBody.check)
	case KindRead:
		body, err = typed(text, nil, ReadBody.check)
	case KindErasure:
		body, err = typed(text, nil, ErasureBody.check)
	case KindAlert:
		body, err = typed(text, nil, AlertBody.check)
	case KindEpoch:
		body, err = typed(text, nil, EpochBody.check)
	default:
		if text != nil {
			err = checkObject(text)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s body: %w", kind, err)
	}
	return body, nil
}

// typed decodes a body that must be exactly what marshal makes of its type. quick
// is a short cut for most of them, or nil.
func typed[T any](text json.RawMessage, quick func([]byte) (T, bool), check func(T) bool) (any, error) {
	if quick != nil {
		if quickly, ok := quick(text); ok && check(quickly) {
			return quickly, nil
		}
	}
	var body T
	if err := json.Unmarshal(text, &body); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !check(body) {
		return nil, fmt.Errorf("%w: a member is missing or malformed", ErrInvalid)
	}
	again, err := marshal(body)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, text) {
		return nil, fmt.Errorf("%w: it is not what its type would encode", ErrInvalid)
	}
	return body, nil
}

func checkObject(text json.RawMessage) error {
	again, err := canonical(text)
	if err != nil {
		return err
	}
	if len(text) == 0 || text[0] != '{' || !bytes.Equal(again, text) {
		return fmt.Errorf("%w: it is not a canonical object", ErrInvalid)
	}
	return checkNumbers(text)
}

func (b IntentBody) check() bool {
	ok := plain(b.Language, maxName) && plain(b.Sandbox, maxName) && plain(b.Runtime, maxName) && plain(b.Network, maxName) && limited(b.Limits)
	for _, name := range b.Required {
		ok = ok && plain(name, maxName)
	}
	for _, m := range b.Mandate {
		ok = ok && isDigest(m.ID) && m.Runs >= 0 && exact(m.Runs) && m.WallMS >= 0 && exact(m.WallMS)
	}
	return ok && b.Asked.check() && len(b.Mandate) <= MaxMandate && named(b.Door) && named(b.Executor) && isDigest(b.Request) &&
		b.LeaseMS >= 0 && exact(b.LeaseMS) && b.DoorDecision.check() == nil
}

func limited(limits map[string]int64) bool {
	for name, limit := range limits {
		if !plain(name, maxName) || !exact(limit) {
			return false
		}
	}
	return true
}

func (a *Asked) check() bool {
	if a == nil {
		return true
	}
	ok := a.CodeBytes >= 0 && exact(int64(a.CodeBytes))
	for _, word := range slices.Concat([]string{a.DataClass, a.Language, a.Network, a.Sandbox, a.Tier, a.Via}, a.Withheld) {
		ok = ok && plain(word, maxName)
	}
	return ok && limited(a.Limits) && len(a.Limits) <= 16 && len(a.Withheld) <= 16
}

func (b OutcomeBody) check() bool {
	switch b.Status {
	case StatusSucceeded, StatusFailed, StatusCancelled, StatusTimedOut, StatusLost:
	default:
		return false
	}
	ok := plain(b.ErrorCode, maxName)
	for limit, mechanism := range b.Enforced {
		ok = ok && plain(limit, maxName) && plain(mechanism, maxName)
	}
	for name, commitment := range b.Output {
		ok = ok && plain(name, maxName) && isDigest(commitment)
	}
	return ok && exact(int64(b.ExitCode)) && exact(b.WallMS) && exact(b.CPUMS) && exact(b.PeakMemory)
}

func (b ConnectionBody) check() bool {
	return plain(b.Host, maxName) && b.Port >= 0 && b.Port <= 65535 && (b.Host == "") == (b.Port == 0) && b.Verdict != "" && plain(b.Verdict, maxName) &&
		b.MS >= 0 && exact(b.MS) && b.Received >= 0 && exact(b.Received) && b.Sent >= 0 && exact(b.Sent)
}

func (b DenialBody) check() bool {
	return b.Asked.check() && b.Code != "" && plain(b.Code, maxName) && b.Count >= 0 && exact(int64(b.Count)) && (b.Door == "" || named(b.Door))
}

func (b GapBody) check() bool {
	_, from := ParseTime(b.From)
	_, until := ParseTime(b.Until)
	return b.Code != "" && plain(b.Code, maxName) && b.Count > 0 && exact(int64(b.Count)) && from == nil && until == nil
}

// wellFormed are IDs that were parsed lately: a log names the same few nodes
// over and over, and parsing one costs as much as the rest of an entry.
var wellFormed = recent.Map[identity.ID, struct{}]{Half: 1024}

// named reports whether id is the ID of a key.
func named(id identity.ID) bool {
	if _, ok := wellFormed.Get(id); ok {
		return true
	}
	parsed, err := identity.ParseID(string(id))
	if err != nil {
		return false
	}
	wellFormed.Put(parsed, struct{}{}) // a text of its own, not a part of a larger one
	return true
}

// exact reports whether canonical JSON, whose numbers are floats, keeps n.
func exact(n int64) bool { return -maxNumber <= n && n <= maxNumber }

// saltBytes is the length of a salt: enough that nobody guesses what was
// committed to by trying likely values.
const saltBytes = 16

// NewSalt is a fresh random salt in lower-case hex.
func NewSalt() string {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	return hex.EncodeToString(salt)
}

// Commit is the salted commitment to data that the log holds in its stead:
// lower-case hex of SHA-256(label, salt, data). It reveals nothing about data
// to who lacks the salt. Commit to a digest rather than to the bytes, so that
// a receipt can open the commitment without carrying the bytes.
func Commit(salt string, data []byte) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "agenticraft audit commitment v1\x00%d\x00%s\x00", len(salt), salt) // a hash never fails
	_, _ = h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}
