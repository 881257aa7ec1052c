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
		proof, err = proveEntry(tx, s.proofs, index, size)
		return err
	})
	return proof, err
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
