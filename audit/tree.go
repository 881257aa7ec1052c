package audit

import (
	"fmt"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

// treeReader reads stored hashes from a transaction, including those that it
// has just written.
func treeReader(tx *bbolt.Tx) tlog.HashReader {
	bucket := tx.Bucket(bucketTree)
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			raw := bucket.Get(key64(uint64(index)))
			if len(raw) != len(out[i]) {
				return nil, fmt.Errorf("%w: tree hash %d is missing", ErrDamaged, index)
			}
			copy(out[i][:], raw)
		}
		return out, nil
	})
}

// upperLevel is the lowest level of the tree whose hashes are remembered: each is
// of 256 entries or more, so that those of a million entries are 8,000, and what
// a proof reads from the disk does not grow with the log.
const (
	upperLevel = 8
	upperHalf  = 8192 // hashes
)

// reader is [treeReader] with a memory for the upper levels. A hash of a full
// subtree never changes, and whoever makes a proof of those that are remembered
// checks it as any.
func (s *Store) reader(tx *bbolt.Tx) tlog.HashReader {
	disk := treeReader(tx)
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		var missing []int64
		var at []int
		for i, index := range indexes {
			if level, _ := tlog.SplitStoredHashIndex(index); level >= upperLevel {
				if h, ok := s.upper.Get(index); ok {
					out[i] = h
					continue
				}
			}
			missing, at = append(missing, index), append(at, i)
		}
		read, err := disk.ReadHashes(missing)
		if err != nil {
			return nil, err
		}
		for i, h := range read {
			out[at[i]] = h
			if level, _ := tlog.SplitStoredHashIndex(missing[i]); level >= upperLevel {
				s.upper.Put(missing[i], h)
			}
		}
		return out, nil
	})
}

// rootAt is the root of the tree when it had size entries.
func rootAt(tx *bbolt.Tx, size uint64) (Hash, error) {
	if size == 0 {
		return Hash{}, fmt.Errorf("%w: no tree of size 0", ErrNotFound)
	}
	h, err := tlog.TreeHash(int64(size), treeReader(tx))
	return Hash(h), err
}

// Tree is the size of the log and the root of its Merkle tree at that size.
func (s *Store) Tree() (size uint64, root Hash, err error) {
	if err := s.flush(); err != nil {
		return 0, Hash{}, err
	}
	return s.durableTree()
}

// durableTree is the durable size of the log and its root.
func (s *Store) durableTree() (size uint64, root Hash, err error) {
	err = s.viewDurable(func(tx *bbolt.Tx) error {
		at, err := decodeApplied(tx.Bucket(bucketMeta).Get(keyApplied))
		if err != nil {
			return err
		}
		size = at.size
		root, err = rootAt(tx, size)
		return err
	})
	return size, root, err
}

// Root is the root that the tree had at an earlier size, or [ErrNotFound] if
// the log is not that long yet.
func (s *Store) Root(size uint64) (root Hash, err error) {
	if size == 0 || size > s.Size() {
		return Hash{}, fmt.Errorf("%w: no tree of size %d here", ErrNotFound, size)
	}
	if err := s.ready(size); err != nil {
		return Hash{}, err
	}
	err = s.viewDurable(func(tx *bbolt.Tx) error {
		root, err = rootAt(tx, size)
		return err
	})
	return root, err
}

// ProveEntry proves that the entry at index is in the tree of the given size.
func (s *Store) ProveEntry(index, size uint64) (proof []Hash, err error) {
	if index >= size || size > s.Size() {
		return nil, fmt.Errorf("%w: no entry %d in a tree of size %d here", ErrNotFound, index, size)
	}
	if err := s.ready(size); err != nil {
		return nil, err
	}
	err = s.viewDurable(func(tx *bbolt.Tx) error {
		proof, err = proveEntry(s.reader(tx), index, size)
		return err
	})
	return proof, err
}

// proveEntry makes a proof that holds: what the disk changed makes none.
func proveEntry(hashes tlog.HashReader, index, size uint64) ([]Hash, error) {
	p, err := tlog.ProveRecord(int64(size), int64(index), hashes)
	if err != nil {
		return nil, err
	}
	leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(index))})
	if err != nil {
		return nil, err
	}
	root, err := tlog.TreeHash(int64(size), hashes)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(p, int64(size), root, int64(index), leaf[0]); err != nil {
		return nil, fmt.Errorf("%w: hashes of the tree above entry %d: %w", ErrDamaged, index, err)
	}
	return fromTlog(p), nil
}

// ProveGrowth proves that the tree of size old is the beginning of the tree of
// the given size.
func (s *Store) ProveGrowth(old, size uint64) (proof []Hash, err error) {
	if old == 0 || old > size || size > s.Size() {
		return nil, fmt.Errorf("%w: no trees of size %d and %d here", ErrNotFound, old, size)
	}
	if err := s.ready(size); err != nil {
		return nil, err
	}
	err = s.viewDurable(func(tx *bbolt.Tx) error {
		p, err := tlog.ProveTree(int64(size), int64(old), treeReader(tx))
		proof = fromTlog(p)
		return err
	})
	return proof, err
}

// CheckEntry verifies a proof of [Store.ProveEntry] for an entry's leaf hash.
func CheckEntry(proof []Hash, index, size uint64, leaf, root Hash) error {
	if index >= size || size > maxNumber {
		return fmt.Errorf("%w: entry %d is not in a tree of size %d", ErrInvalid, index, size)
	}
	if err := tlog.CheckRecord(toTlog(proof), int64(size), tlog.Hash(root), int64(index), tlog.Hash(leaf)); err != nil {
		return fmt.Errorf("%w: entry %d is not in the tree of size %d with root %s", ErrInvalid, index, size, root)
	}
	return nil
}

// CheckGrowth verifies a proof of [Store.ProveGrowth].
func CheckGrowth(proof []Hash, old uint64, oldRoot Hash, size uint64, root Hash) error {
	if old == 0 || old > size || size > maxNumber {
		return fmt.Errorf("%w: a tree of size %d does not grow to size %d", ErrFork, old, size)
	}
	if err := tlog.CheckTree(toTlog(proof), int64(size), tlog.Hash(root), int64(old), tlog.Hash(oldRoot)); err != nil {
		return fmt.Errorf("%w: the tree of size %d does not begin with the one of size %d", ErrFork, size, old)
	}
	return nil
}

func fromTlog(in []tlog.Hash) []Hash {
	out := make([]Hash, len(in))
	for i, h := range in {
		out[i] = Hash(h)
	}
	return out
}

func toTlog(in []Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i, h := range in {
		out[i] = tlog.Hash(h)
	}
	return out
}
