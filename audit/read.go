package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

// Indexed is an entry with its place in the log.
type Indexed struct {
	Index uint64
	Entry Entry
	Leaf  []byte // as stored
}

// Entry reads the entry at index, as a struct and as the bytes in the tree.
func (s *Store) Entry(index uint64) (e Entry, leaf []byte, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		one, err := readEntry(tx, index)
		e, leaf = one.Entry, one.Leaf
		return err
	})
	return e, leaf, err
}

func readEntry(tx *bbolt.Tx, index uint64) (Indexed, error) {
	leaf, err := readLeaf(tx, index)
	if err != nil {
		return Indexed{}, err
	}
	e, err := storedEntry(leaf)
	if err != nil {
		return Indexed{}, fmt.Errorf("entry %d: %w", index, err)
	}
	return Indexed{Index: index, Leaf: leaf, Entry: e}, nil
}

// readLeaf reads a copy of a leaf.
func readLeaf(tx *bbolt.Tx, index uint64) ([]byte, error) {
	leaf := bytes.Clone(tx.Bucket(bucketEntries).Get(key64(index)))
	if leaf == nil {
		return nil, fmt.Errorf("entry %d: %w", index, ErrNotFound)
	}
	return leaf, soundLeaf(tx, index, leaf)
}

// soundLeaf checks that a leaf is the one that was hashed into the tree.
//
// INVARIANT: I7, an entry that the disk changed is not served.
func soundLeaf(tx *bbolt.Tx, index uint64, leaf []byte) error {
	hash := LeafHash(leaf)
	stored := tx.Bucket(bucketTree).Get(key64(uint64(tlog.StoredHashIndex(0, int64(index)))))
	if !bytes.Equal(hash[:], stored) {
		return fmt.Errorf("entry %d: %w: it is not what its hash in the tree says", index, ErrDamaged)
	}
	return nil
}

// storedEntry reads a leaf that was decoded strictly when it came in.
func storedEntry(leaf []byte) (Entry, error) {
	e, ok := strictEntry(leaf)
	if ok {
		return e, nil
	}
	e = Entry{}
	if err := json.Unmarshal(leaf, &e); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return e, nil
}

// Attestation is the signature of the author of the entry at index over the
// batch that it came in. Entry 0 has none: the name of the log binds it.
func (s *Store) Attestation(index uint64) (a Attestation, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		a, err = attestationOf(tx, index)
		return err
	})
	return a, err
}

func attestationOf(tx *bbolt.Tx, index uint64) (Attestation, error) {
	c := tx.Bucket(bucketBatches).Cursor()
	key, value := c.Seek(key64(index))
	if key == nil || binary.BigEndian.Uint64(key) != index {
		key, value = c.Prev()
	}
	if key == nil {
		return Attestation{}, fmt.Errorf("attestation of entry %d: %w", index, ErrNotFound)
	}
	a, admitted, err := decodeRecord(value)
	if err != nil {
		return Attestation{}, err
	}
	next := binary.BigEndian.Uint64(key)
	for _, in := range admitted {
		if in {
			next++
		}
	}
	if index >= next {
		return Attestation{}, fmt.Errorf("attestation of entry %d: %w", index, ErrNotFound)
	}
	a.Sig = bytes.Clone(a.Sig)
	return a, nil
}

// TaskRecord says which entries an attempt of a task has; nil: none.
type TaskRecord struct {
	Attempt int // 0: no intent was ever written
	Intent  *uint64
	Outcome *uint64
	Late    []uint64 // at most 100, the oldest
	Denial  *uint64  // the newest denial of the task, whatever the attempt
}

const maxLateListed = 100

// Task finds the entries of the task's newest attempt, or [ErrNotFound].
func (s *Store) Task(task string) (t TaskRecord, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		t, err = readTask(tx, task)
		return err
	})
	return t, err
}

func readTask(tx *bbolt.Tx, task string) (TaskRecord, error) {
	var t TaskRecord
	found := false
	prefix := append([]byte(task), 0)
	c := tx.Bucket(bucketTasks).Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		rest := k[len(prefix):]
		if len(rest) != 4+1+8 {
			continue
		}
		found = true
		attempt, index := int(binary.BigEndian.Uint32(rest)), binary.BigEndian.Uint64(rest[5:])
		role := rest[4]
		if role == roleDenial {
			t.Denial = &index
		}
		if role == roleDenial || role == roleOther {
			continue
		}
		if attempt > t.Attempt {
			t = TaskRecord{Attempt: attempt, Denial: t.Denial}
		}
		switch role {
		case roleIntent:
			t.Intent = &index
		case roleOutcome:
			t.Outcome = &index
		case roleLate:
			if len(t.Late) < maxLateListed {
				t.Late = append(t.Late, index)
			}
		}
	}
	if !found {
		return TaskRecord{}, fmt.Errorf("task: %w", ErrNotFound)
	}
	return t, nil
}

// Once finds the entry that used an at-most-once key, and the digest it used
// it with, or [ErrNotFound].
func (s *Store) Once(key string) (index uint64, digest string, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		var ok bool
		if index, digest, ok = splitOnce(tx.Bucket(bucketOnce).Get([]byte(key))); !ok {
			return fmt.Errorf("at-most-once key: %w", ErrNotFound)
		}
		return nil
	})
	return index, digest, err
}

// OpenIntents lists the intents that have no outcome yet, oldest first.
func (s *Store) OpenIntents() ([]Indexed, error) {
	var out []Indexed
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketOpen).ForEach(func(k, _ []byte) error {
			one, err := readEntry(tx, binary.BigEndian.Uint64(k))
			out = append(out, one)
			return err
		})
	})
	return out, err
}

// Follow yields the entries from index on, first those that are there and then
// those that come, until ctx ends; the last pair then holds its error.
func (s *Store) Follow(ctx context.Context, from uint64) iter.Seq2[Indexed, error] {
	return func(yield func(Indexed, error) bool) {
		for next := from; ; {
			if err := s.durably(ctx, next); err != nil {
				yield(Indexed{}, err)
				return
			}
			page, err := s.read(next, next+scanStep)
			if err != nil {
				yield(Indexed{}, err)
				return
			}
			for _, one := range page {
				if !yield(one, nil) {
					return
				}
				next = one.Index + 1
			}
		}
	}
}

// freshEntries are the newest ones, which are still in memory.
const freshEntries = 4096

// read reads the durable entries from index on, up to but without the index until.
func (s *Store) read(from, until uint64) ([]Indexed, error) {
	var out []Indexed
	size := s.durableSize()
	err := s.viewDurable(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketEntries).Cursor()
		for k, v := c.Seek(key64(from)); k != nil; k, v = c.Next() {
			index := binary.BigEndian.Uint64(k)
			if index >= until {
				return nil
			}
			// What was just written is not read from the disk, and is read by many.
			if index+freshEntries < size {
				if err := soundLeaf(tx, index, v); err != nil {
					return err
				}
			}
			e, err := storedEntry(v)
			if err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
			out = append(out, Indexed{Index: index, Leaf: bytes.Clone(v), Entry: e})
		}
		return nil
	})
	return out, err
}
