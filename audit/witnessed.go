package audit

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/mod/sumdb/note"

	"github.com/agenticraft/node/identity"
)

const (
	recentNotes   = 64 // quorum checkpoints kept in memory for countersignatures that are late
	maxPublished  = 90 // signatures on a checkpoint that is served; package note reads 100
	maxWitnessing = maxKeys
)

// countersigned is a witness's newest signature.
type countersigned struct {
	at  Checkpoint
	sig note.Signature
}

// countersign keeps what a witness in force signed, verified, if it is no older
// than what it signed before.
func (s *Store) countersign(by identity.ID, at Checkpoint, sig note.Signature) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.witnesses[by]
	if at.Size < before.at.Size || !known && len(s.witnesses) >= maxWitnessing {
		return
	}
	s.witnesses[by] = countersigned{at, sig}
	s.metrics.witnessed.Set(float64(at.Size))
}

// Witnessed is what auditors have countersigned, as this node was told.
func (s *Store) Witnessed() map[identity.ID]Checkpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[identity.ID]Checkpoint, len(s.witnesses))
	for id, w := range s.witnesses {
		out[id] = w.at
	}
	return out
}

// Published is the newest quorum checkpoint with the countersignatures of the
// auditors that have signed it, as the log is served to the world. Auditors come
// a moment after the keepers; witnessed asks for the newest checkpoint that has
// at least one of theirs, or [ErrNotFound].
func (s *Store) Published(witnessed bool) (Checkpoint, []byte, error) {
	s.mu.Lock()
	at := s.latest
	if witnessed {
		at = cosigned{}
		for _, w := range s.witnesses {
			for _, c := range s.recent {
				if c.Checkpoint == w.at && c.Size > at.Size {
					at = c
				}
			}
		}
	}
	var sigs []note.Signature
	for _, id := range slices.Sorted(maps.Keys(s.witnesses)) {
		if w := s.witnesses[id]; w.at == at.Checkpoint {
			sigs = append(sigs, w.sig)
		}
	}
	s.mu.Unlock()
	if at.note == nil {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint: %w", ErrNotFound)
	}
	text, err := withSignatures(at.note, sigs)
	return at.Checkpoint, text, err
}

// withSignatures puts more signatures under a checkpoint. Those of keys that
// have signed it already are left out.
func withSignatures(text []byte, more []note.Signature) ([]byte, error) {
	if len(more) == 0 {
		return bytes.Clone(text), nil
	}
	n, err := note.Open(text, nil)
	if unsigned, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		n, err = unsigned.Note, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: checkpoint: %w", ErrInvalid, err)
	}
	for _, sig := range more {
		again := slices.ContainsFunc(n.UnverifiedSigs, func(s note.Signature) bool { return s.Name == sig.Name && s.Hash == sig.Hash })
		if !again && len(n.UnverifiedSigs) < maxPublished {
			n.UnverifiedSigs = append(n.UnverifiedSigs, sig)
		}
	}
	return note.Sign(n)
}
