package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/internal/durable"
)

// Fetcher gets what a store is missing from its peers.
type Fetcher interface {
	// Batches returns the next batches of a log of the given size from the
	// entry at index from on, as [Store.Batches] makes them: a part is enough.
	// It asks another peer than before if the last answer was of no use.
	Batches(ctx context.Context, from, size uint64) (Batches, error)
}

// Batches is a part of the log on its way to a store that catches up.
type Batches struct {
	Batches [][]byte // commands without the entries that were not admitted
	Proof   []Hash   // that the log with these is the beginning of the one asked for
}

const (
	usualPart   = 4 << 20 // bytes of batches sent at once to who asks for no number
	maxPart     = 8 << 20 // and at most
	maxBadPages = 5       // useless answers in a row after which Restore gives up
	metaVersion = 1
	maxMeta     = 4 << 10 // bytes
)

// snapshotMeta describes the state at a raft index; the log itself is never
// copied through raft.
type snapshotMeta struct {
	V     int    `json:"v"`
	Size  uint64 `json:"size"`
	Root  Hash   `json:"root"`
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// Snapshot describes the state at [Store.Applied] in a few bytes.
func (s *Store) Snapshot() ([]byte, error) {
	var meta snapshotMeta
	err := s.viewDurable(func(tx *bbolt.Tx) error {
		at, err := decodeApplied(tx.Bucket(bucketMeta).Get(keyApplied))
		if err != nil {
			return err
		}
		root, err := rootAt(tx, at.size)
		meta = snapshotMeta{V: metaVersion, Size: at.size, Root: root, Index: at.index, Term: at.term}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("describe audit store: %w", err)
	}
	return json.Marshal(meta)
}

// Restore brings the store up to the state that meta describes by fetching the
// missing batches from peers and applying them like any other. Each part is
// proved to belong to the described log before it is written. A store that is
// ahead stays as it is; one whose history contradicts meta is refused with
// [ErrFork] and not changed. It may be interrupted and called again.
//
// INVARIANT: I7, a restore never shrinks or forks the log.
func (s *Store) Restore(ctx context.Context, index, term uint64, meta []byte) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	var to snapshotMeta
	if len(meta) > maxMeta {
		return fmt.Errorf("restore audit store: %w: description is too long", ErrInvalid)
	}
	if err := decodeStrict(meta, &to); err != nil || to.V != metaVersion || to.Size == 0 || to.Size > maxNumber || to.Index != index {
		return fmt.Errorf("restore audit store: %w: malformed description", errors.Join(ErrInvalid, err))
	}
	if err := s.restore(ctx, to); err != nil {
		return fmt.Errorf("restore audit store to size %d: %w", to.Size, err)
	}
	return nil
}

func (s *Store) restore(ctx context.Context, to snapshotMeta) error {
	if err := errors.Join(s.stalled(), s.commit()); err != nil {
		return err
	}
	at, err := s.usable()
	if err != nil {
		return err
	}
	for bad := 0; at.size < to.Size; {
		before := at.size
		fault := s.fetchParts(ctx, at, to)
		if at, err = s.usable(); err != nil {
			return err
		}
		if at.size > before {
			bad = 0
		}
		switch {
		case fault == nil:
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), fault)
		default:
			// The peer may be the one that is wrong: Fetch asks another one.
			if bad++; bad == maxBadPages {
				return fault
			}
			s.log.WarnContext(ctx, "part of the audit log could not be used", "from", at.size, "err", fault)
		}
	}
	root, err := s.Root(to.Size) // all is durable: it needs no lock
	if err != nil {
		return err
	}
	if root != to.Root {
		return fmt.Errorf("%w: root at size %d is %s here and %s there", ErrFork, to.Size, root, to.Root)
	}
	if at.index >= to.Index {
		return nil
	}
	if at.size > to.Size {
		return fmt.Errorf("%w: raft index %d has %d entries here and %d there", ErrFork, to.Index, at.size, to.Size)
	}
	after := applied{index: to.Index, term: to.Term, size: at.size}
	err = guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyApplied, after.encode()) })
	})
	switch {
	case durable.NoSpace(err):
		return err // as before; raft asks again
	case err != nil:
		return s.fail(err)
	}
	s.advance(after)
	s.settle(after, 0)
	return nil
}

// Batches is what a peer needs to go from a log of from entries towards one of
// the given size, at most some MiB of it. from must be where a batch begins.
func (s *Store) Batches(from, size uint64) (Batches, error) { return s.part(from, size, usualPart) }

// part is Batches with about as many bytes as given.
func (s *Store) part(from, size uint64, most int) (Batches, error) {
	if from == 0 || from >= size || size > s.Size() {
		return Batches{}, fmt.Errorf("batches from %d to %d: %w", from, size, ErrNotFound)
	}
	if err := s.ready(size); err != nil {
		return Batches{}, err
	}
	var out Batches
	next := from
	err := s.viewDurable(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketBatches).Cursor()
		bytes := 0
		for key, value := c.Seek(key64(from)); key != nil && next < size && bytes < most; key, value = c.Next() {
			if string(key) != string(key64(next)) {
				break
			}
			b, err := batchAt(tx, next, value)
			if err != nil {
				return err
			}
			cmd := b.encode()
			bytes += len(cmd)
			out.Batches = append(out.Batches, cmd)
			for _, leaf := range b.leaves {
				if leaf != nil {
					next++
				}
			}
		}
		return nil
	})
	if err != nil {
		return Batches{}, err
	}
	if next == from || next > size {
		return Batches{}, fmt.Errorf("batches from %d to %d: %w: no batch begins or ends there", from, size, ErrNotFound)
	}
	out.Proof, err = s.ProveGrowth(next, size)
	return out, err
}

// batchAt puts an attestation and its entries together again.
func batchAt(tx *bbolt.Tx, first uint64, record []byte) (batch, error) {
	a, admitted, err := decodeRecord(record)
	if err != nil {
		return batch{}, err
	}
	b := batch{Attestation: a, leaves: make([][]byte, len(admitted))}
	for i, in := range admitted {
		if !in {
			continue
		}
		if b.leaves[i] = tx.Bucket(bucketEntries).Get(key64(first)); b.leaves[i] == nil {
			return batch{}, fmt.Errorf("entry %d: %w", first, ErrNotFound)
		}
		first++
	}
	return b, nil
}
