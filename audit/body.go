package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/agenticraft/node/identity"
)

// IntentBody is what an intent says beyond the entry's own fields.
type IntentBody struct {
	Language     string           `json:"language"`
	Sandbox      string           `json:"sandbox"`                 // backend
	Runtime      string           `json:"runtime,omitempty"`       // digest or version of the language tree
	Limits       map[string]int64 `json:"limits,omitempty"`        // limit -> value in the limit's unit
	Network      string           `json:"network"`                 // "none" or the allowed places
	Required     []string         `json:"required,omitempty"`      // limits that must be enforced
	Door         identity.ID      `json:"door"`                    // the node that took the request in
	Executor     identity.ID      `json:"executor"`                // the node that runs it: the author
	DoorDecision *Decision        `json:"door_decision,omitempty"` // if the door is another node
	Request      string           `json:"request"`                 // [Commit] to the request's digest
	LeaseMS      int64            `json:"lease_ms"`                // after this the task may be declared lost
}

// OutcomeBody is how an execution ended. It is also the body of a late entry.
type OutcomeBody struct {
	Status     string            `json:"status"` // succeeded failed cancelled timed_out lost
	ExitCode   int               `json:"exit_code"`
	ErrorCode  string            `json:"error_code,omitempty"`
	Enforced   map[string]string `json:"enforced,omitempty"` // limit -> mechanism
	WallMS     int64             `json:"wall_ms"`
	CPUMS      int64             `json:"cpu_ms"`
	PeakMemory int64             `json:"peak_memory"`      // bytes
	Output     map[string]string `json:"output,omitempty"` // "stdout", "stderr", "result" -> [Commit] to its SHA-256
}

// DenialBody says why something was refused.
type DenialBody struct {
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
	if err := checkNumbers(text); err != nil {
		return nil, err
	}
	return canonical(text)
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
func (e Entry) Intent() (IntentBody, error) { return bodyOf[IntentBody](e, KindIntent) }

// Outcome is the body of an outcome or late entry.
func (e Entry) Outcome() (OutcomeBody, error) { return bodyOf[OutcomeBody](e, KindOutcome, KindLate) }

// Denial is the body of a denial entry.
func (e Entry) Denial() (DenialBody, error) { return bodyOf[DenialBody](e, KindDenial) }

func bodyOf[T any](e Entry, kinds ...Kind) (T, error) {
	var body T
	for _, k := range kinds {
		if e.Kind == k {
			err := DecodeBody(e.Body, &body)
			return body, err
		}
	}
	return body, fmt.Errorf("%w: a %s entry has no such body", ErrInvalid, e.Kind)
}

// checkBody holds the bodies that this package defines to their types; the
// others need only be objects here, their owner checks them on admission.
func checkBody(kind Kind, body json.RawMessage) error {
	var err error
	switch kind {
	case KindIntent:
		err = checkIntent(body)
	case KindOutcome, KindLate:
		err = checkOutcome(body)
	case KindDenial:
		err = checkDenial(body)
	case KindGap:
		var b GapBody
		if err = DecodeBody(body, &b); err == nil && (b.Code == "" || !plain(b.Code, maxName) || b.Count < 1) {
			err = fmt.Errorf("%w: gap needs a code and a count", ErrInvalid)
		}
	default:
		if len(body) > 0 {
			var members map[string]json.RawMessage
			err = decodeStrict(body, &members)
			if err == nil && members == nil {
				err = fmt.Errorf("%w: not an object", ErrInvalid)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s body: %w", kind, err)
	}
	return nil
}

func checkIntent(body json.RawMessage) error {
	var b IntentBody
	if err := DecodeBody(body, &b); err != nil {
		return err
	}
	ok := plain(b.Language, maxName) && plain(b.Sandbox, maxName) && plain(b.Runtime, maxName) && plain(b.Network, maxName)
	for name := range b.Limits {
		ok = ok && plain(name, maxName)
	}
	for _, name := range b.Required {
		ok = ok && plain(name, maxName)
	}
	for _, id := range []identity.ID{b.Door, b.Executor} {
		_, err := identity.ParseID(string(id))
		ok = ok && err == nil
	}
	if !ok || !isDigest(b.Request) || b.LeaseMS < 0 {
		return fmt.Errorf("%w: a member is missing or malformed", ErrInvalid)
	}
	return b.DoorDecision.check()
}

func checkOutcome(body json.RawMessage) error {
	var b OutcomeBody
	if err := DecodeBody(body, &b); err != nil {
		return err
	}
	ok := plain(b.ErrorCode, maxName)
	switch b.Status {
	case StatusSucceeded, StatusFailed, StatusCancelled, StatusTimedOut, StatusLost:
	default:
		ok = false
	}
	for limit, mechanism := range b.Enforced {
		ok = ok && plain(limit, maxName) && plain(mechanism, maxName)
	}
	for name, commitment := range b.Output {
		ok = ok && plain(name, maxName) && isDigest(commitment)
	}
	if !ok {
		return fmt.Errorf("%w: a member is missing or malformed", ErrInvalid)
	}
	return nil
}

func checkDenial(body json.RawMessage) error {
	var b DenialBody
	if err := DecodeBody(body, &b); err != nil {
		return err
	}
	ok := b.Code != "" && plain(b.Code, maxName) && b.Count >= 0
	if b.Door != "" {
		_, err := identity.ParseID(string(b.Door))
		ok = ok && err == nil
	}
	if !ok {
		return fmt.Errorf("%w: a member is missing or malformed", ErrInvalid)
	}
	return nil
}

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
