// Package audit is the cluster's memory: an append-only log of what was asked,
// decided and done, in an RFC 6962 Merkle tree that a quorum of keepers
// cosigns, kept in bbolt and provable offline.
//
// An [Entry] is one statement by one node. A [Recorder] signs entries and has
// them committed; the [Store] of every keeper applies the same commands in the
// same order and therefore has the same tree. A [Checkpointer] lets the
// keepers cosign that tree; a [Receipt] carries one execution's entries with
// everything needed to check them without a cluster ([VerifyReceipt]), and
// [VerifyDir] checks a whole data folder.
//
// Hashing is done by golang.org/x/mod/sumdb/tlog, signatures on checkpoints
// follow C2SP tlog-checkpoint and tlog-cosignature, and the log is served as
// C2SP tlog-tiles, so that tools nobody here wrote can check it.
package audit

import (
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Errors that callers act on.
var (
	// ErrNotFound: no such entry, task or checkpoint.
	ErrNotFound = errors.New("not in the audit log")
	// ErrInvalid: an entry, command or file that breaks the format.
	ErrInvalid = errors.New("invalid audit data")
	// ErrConflict: the id or the at-most-once key was used for something else,
	// or the entry contradicts an earlier one. Nothing was written.
	ErrConflict = errors.New("conflicts with an earlier audit entry")
	// ErrUnavailable: no quorum in time, and the entry is surely not committed.
	ErrUnavailable = errors.New("audit log unavailable")
	// ErrUnknown: the time ran out while a commit was under way: the entry may
	// or may not be in the log. Recording it again with the same ID is safe.
	ErrUnknown = errors.New("audit commit unknown")
	// ErrOtherCluster: the data folder holds the log of another cluster.
	ErrOtherCluster = errors.New("audit log belongs to another cluster")
	// ErrFork: two histories contradict each other; somebody lies or a disk is bad.
	ErrFork = errors.New("audit log forked")
	// ErrDamaged: the disk gave back something else than what was written. It is
	// not served, and the store takes no more entries.
	ErrDamaged = errors.New("audit log is damaged")
	// ErrClosed: the store or recorder is closed.
	ErrClosed = errors.New("audit log closed")
)

// Refusal is the answer of the admission rules to an entry that its author may
// not write. Nothing was written.
type Refusal struct {
	Code    string // snake_case, from a fixed set
	Message string // for people; no outside free text
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("audit entry refused: %s: %s", r.Code, r.Message)
}

// Hash is a node of the Merkle tree (SHA-256, RFC 6962). Its text form is
// standard base64, as checkpoints write it.
type Hash [tlog.HashSize]byte

func (h Hash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// MarshalText writes the text form.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads exactly what [Hash.MarshalText] writes.
func (h *Hash) UnmarshalText(text []byte) error {
	raw, err := strict64.DecodeString(string(text))
	if err != nil || len(raw) != len(h) {
		return fmt.Errorf("%w: not a hash", ErrInvalid)
	}
	copy(h[:], raw)
	return nil
}

// strict64 refuses the alternative spellings that base64 otherwise allows.
var strict64 = base64.StdEncoding.Strict()

// LeafHash is the hash of an entry's leaf bytes in the tree.
func LeafHash(leaf []byte) Hash { return Hash(tlog.RecordHash(leaf)) }
