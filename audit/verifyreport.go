package audit

import (
	"errors"
	"fmt"

	"github.com/agenticraft/node/identity"
)

// ErrInUse: a running node has the folder open; verify a copy of it.
var ErrInUse = errors.New("audit store is in use by a running node: verify a copy of the folder, or stop the node")

// DirReport is what [VerifyDir] found in a folder.
type DirReport struct {
	Origin string `json:"origin"`
	Size   uint64 `json:"size"` // entries verified
	Root   Hash   `json:"root"` // of their tree
	// Checkpoint is the newest stored one; nil if there is none.
	Checkpoint  *Checkpoint   `json:"checkpoint,omitempty"`
	Checkpoints int           `json:"checkpoints"`         // how many were verified
	SignedBy    []identity.ID `json:"signed_by,omitempty"` // of the newest; only with a Trust
	// Unsigned entries came after the newest checkpoint: only their authors'
	// signatures vouch for them.
	Unsigned uint64    `json:"unsigned"`
	Bad      *BadEntry `json:"bad,omitempty"` // nil: everything is in order
}

// BadEntry is the first fault, by the index of the entry that it concerns.
type BadEntry struct {
	Index uint64 `json:"index"` // 0-based
	Check string `json:"check"` // which found it: one of those in docs/auditors.md
	What  string `json:"what"`
	Got   string `json:"got,omitempty"`
	Want  string `json:"want,omitempty"`
}

func (b *BadEntry) String() string {
	s := fmt.Sprintf("entry %d: %s: %s", b.Index, b.Check, b.What)
	switch {
	case b.Got != "" && b.Want != "":
		s += fmt.Sprintf(" (it is %s, it should be %s)", b.Got, b.Want)
	case b.Want != "":
		s += fmt.Sprintf(" (it should be %s)", b.Want)
	}
	return s
}

// badError carries a fault up to the report.
type badError struct{ BadEntry }

func (e *badError) Error() string { return e.String() }

func bad(index uint64, what string) error { return &badError{BadEntry{Index: index, What: what}} }

func badHash(index uint64, what string, got, want Hash) error {
	return &badError{BadEntry{Index: index, What: what, Got: got.String(), Want: want.String()}}
}

// badLeaf tells of a leaf by its hashes, as far as they are known.
func badLeaf(at uint64, what, got, want string) error {
	return &badError{BadEntry{Index: at, What: what, Got: got, Want: want}}
}
