package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"golang.org/x/mod/sumdb/note"
)

// keptNotes is how many of the newest checkpoints a store keeps on disk.
const keptNotes = 10_000

// Checkpoint is the newest checkpoint that a quorum of keepers cosigned, as a
// signed note, or [ErrNotFound].
func (s *Store) Checkpoint() (Checkpoint, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest.note == nil {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint: %w", ErrNotFound)
	}
	return s.latest.Checkpoint, bytes.Clone(s.latest.note), nil
}

// WaitCheckpoint waits for a quorum checkpoint that covers the entry at index.
func (s *Store) WaitCheckpoint(ctx context.Context, index uint64) (Checkpoint, []byte, error) {
	for {
		s.mu.Lock()
		latest, noted, closed := s.latest, s.noted, s.closed
		s.mu.Unlock()
		switch {
		case latest.Size > index:
			return latest.Checkpoint, bytes.Clone(latest.note), nil
		case closed:
			return Checkpoint{}, nil, ErrClosed
		}
		select {
		case <-noted:
		case <-ctx.Done():
			return Checkpoint{}, nil, fmt.Errorf("wait for a checkpoint of entry %d: %w", index, ctx.Err())
		}
	}
}

// addNote takes a verified checkpoint if it is newer than what is there. The
// store must have its root at that size.
func (s *Store) addNote(c Checkpoint, text []byte) error {
	root, err := s.Root(c.Size)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("%w: root at size %d is %s here and %s in the checkpoint", ErrFork, c.Size, root, c.Root)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if c.Size <= s.latest.Size {
		return nil
	}
	s.latest = cosigned{c, bytes.Clone(text)}
	if s.recent = append(s.recent, s.latest); len(s.recent) > recentNotes {
		s.recent = slices.Clone(s.recent[1:])
	}
	close(s.noted)
	s.noted = make(chan struct{})
	s.metrics.checkpoint.Set(float64(c.Size))
	s.metrics.checkpoints.Inc()
	return nil
}

// saveNote writes the newest checkpoint to disk if it is not there yet, or into
// the open transaction. What a crash loses of it the keepers sign again.
func (s *Store) saveNote() error {
	s.applying.Lock()
	defer s.applying.Unlock()
	return s.saveNoteLocked()
}

func (s *Store) saveNoteLocked() error {
	s.mu.Lock()
	latest, saved := s.latest, s.saved
	s.mu.Unlock()
	if latest.Size <= saved || s.stalled() != nil {
		return nil
	}
	put := func(tx *bbolt.Tx) error {
		notes := tx.Bucket(bucketNotes)
		if err := notes.Put(key64(latest.Size), latest.note); err != nil {
			return err
		}
		return pruneNotes(notes)
	}
	err := guard(func() error {
		if s.open == nil {
			return s.db.Update(put)
		}
		if s.open.note == latest.Size {
			return nil
		}
		s.open.note = latest.Size
		return put(s.open.tx)
	})
	if err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	if s.open == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.saved = max(s.saved, latest.Size)
	}
	return nil
}

// pruneNotes drops the oldest checkpoints beyond the number to keep; the
// bucket's sequence counts what was ever put in.
func pruneNotes(notes *bbolt.Bucket) error {
	count, err := notes.NextSequence()
	if err != nil || count <= keptNotes {
		return err
	}
	oldest, _ := notes.Cursor().First()
	return notes.Delete(oldest)
}

func newestNote(tx *bbolt.Tx) (cosigned, error) {
	key, text := tx.Bucket(bucketNotes).Cursor().Last()
	if key == nil {
		return cosigned{}, nil
	}
	n, err := note.Open(text, nil)
	if unsigned, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		n, err = unsigned.Note, nil
	}
	if err != nil {
		return cosigned{}, fmt.Errorf("%w: stored checkpoint: %w", ErrInvalid, err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return cosigned{}, err
	}
	if binary.BigEndian.Uint64(key) != c.Size {
		return cosigned{}, fmt.Errorf("%w: stored checkpoint is of another size", ErrInvalid)
	}
	return cosigned{c, bytes.Clone(text)}, nil
}
