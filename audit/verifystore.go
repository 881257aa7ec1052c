package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

// checkStep is how many entries, or keys of a look-up, are checked in one
// transaction: while one is open, bbolt neither uses again what it frees nor
// grows its memory map, for which commits would wait.
const (
	checkStep     = 4096
	checkStepKeys = 16 * checkStep
)

// Verify checks the store's own file while it is used, as [VerifyReplay] checks
// a folder, but for bbolt's list of free pages: every entry up to the one that
// is durable when the check gets there, and everything that is derived from
// them. It tells progress, if not nil, now and then how many entries of how many
// it has checked.
//
// A fault is told in the report's Bad; the store is then broken, like one that
// read what the disk changed, and goes no further. An error is a check that did
// not come to its end, as when ctx ends.
func (s *Store) Verify(ctx context.Context, trust *Trust, rules Rules, progress func(checked, size uint64)) (DirReport, error) {
	v := &dirCheck{rules: &rules, progress: progress}
	v.begin(ctx, trust)
	report, err := v.result(guard(func() error { return s.inspect(v) }))
	if err != nil {
		return DirReport{}, fmt.Errorf("verify the log in %s: %w", s.dir, err)
	}
	if report.Bad != nil {
		_ = s.distrust(fmt.Errorf("%w: %s", ErrDamaged, report.Bad)) // it gives back what it is given
	}
	return report, nil
}

// inspect checks the file step by step. What stands in it for an entry never
// changes, so that a step can look at a later state of the file than the one
// before.
func (s *Store) inspect(v *dirCheck) error {
	for whole := false; !whole; {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		// What this node signed was durable before, so it is in the state that comes next.
		if err := v.signed(s.dir); err != nil {
			return err
		}
		err := s.pinned(v, func() error {
			if whole = v.applied.size-v.report.Size <= checkStep; whole {
				return v.entries(math.MaxUint64, v.newest)
			}
			return v.entries(v.report.Size+checkStep, func() error { return nil })
		})
		if err != nil {
			return err
		}
	}
	v.check = "lookup"
	for _, name := range [][]byte{bucketIDs, bucketOnce, bucketTasks} {
		if err := s.inspectKeys(v, name); err != nil {
			return err
		}
	}
	return nil
}

// pinned runs fn while v.file is one state of the file, which a read transaction
// keeps bbolt from writing over.
func (s *Store) pinned(v *dirCheck, fn func() error) error {
	f, err := os.Open(filepath.Join(s.dir, storeFile))
	if err != nil {
		return err
	}
	defer f.Close()
	tx, err := s.pin(v, f)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // of a transaction that reads
	if err := v.start(); err != nil {
		return err
	}
	return fn()
}

// pin opens the file at the state that a read transaction sees: nothing is
// committed between the two.
func (s *Store) pin(v *dirCheck, f *os.File) (tx *bbolt.Tx, err error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	if _, err := s.usable(); err != nil {
		return nil, err
	}
	if tx, err = s.db.Begin(false); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		v.file, err = openBoltFile(f, info.Size())
		err = faulty(err)
	}
	if err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	return tx, nil
}

// newest checks what changes as the log grows, in a state of the file whose
// entries are those that were checked: the checkpoints, which may have come
// after the entries that they cover were checked, the open intents, and what the
// rules keep.
func (v *dirCheck) newest() error {
	if err := v.complete(); err != nil {
		return err
	}
	v.check = "checkpoint"
	if err := v.notesOf(); err != nil {
		return err
	}
	for _, size := range slices.Sorted(maps.Keys(v.notes)) {
		if size == 0 || size > v.report.Size {
			return bad(v.report.Size, fmt.Sprintf("the entry is missing, a log of %d entries was signed", size))
		}
		signed, err := v.checkpoint(size, v.notes[size])
		if err != nil {
			return err
		}
		if err := v.rootThen(size, signed, "it, or one since the checkpoint before, is not what the keepers signed: root"); err != nil {
			return err
		}
	}
	if v.pledge.Size > 0 {
		if err := v.rootThen(v.pledge.Size, v.pledge.Root, "it, or one before, is not what this node signed ("+cosignedFile+"): root"); err != nil {
			return err
		}
	}
	v.check = "lookup"
	if err := v.keys(string(bucketOpen)); err != nil {
		return err
	}
	v.check = "state"
	if err := v.replayed(); err != nil {
		return err
	}
	return v.conclude()
}

// rootThen compares the root at an earlier size, by the hashes in the file, which
// were checked, with what was signed.
func (v *dirCheck) rootThen(size uint64, signed Hash, what string) error {
	stored := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			raw, err := v.file.get(v.buckets[string(bucketTree)], key64(uint64(index)))
			if err != nil {
				return nil, fmt.Errorf("tree hash %d: %w", index, err)
			}
			if len(raw) != len(out[i]) {
				return nil, fmt.Errorf("%w: tree hash %d is missing", ErrDamaged, index)
			}
			copy(out[i][:], raw)
		}
		return out, nil
	})
	root, err := tlog.TreeHash(int64(size), stored)
	if err != nil {
		return bad(size-1, err.Error())
	}
	if Hash(root) != signed {
		return badHash(size-1, what, Hash(root), signed)
	}
	return nil
}

// inspectKeys counts the keys of a look-up that lead to the entries which were
// checked. Each of those was found by its own, so that no other may be there.
func (s *Store) inspectKeys(v *dirCheck, name []byte) error {
	count, next := 0, []byte{}
	for more := true; more; {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		err := s.pinned(v, func() error {
			more = false
			seen := 0
			if v.progress != nil {
				v.progress(v.report.Size, v.applied.size)
			}
			for e, err := range v.file.since(v.buckets[string(name)], next) {
				if err != nil {
					return v.unreadable(string(name), err)
				}
				if seen++; seen > checkStepKeys {
					next, more = bytes.Clone(e.key), true
					return nil
				}
				at, ok := leadsTo(name, e)
				if !ok {
					return v.unreadable(string(name), errDamaged)
				}
				if at < v.report.Size {
					count++
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return v.counted(string(name), count)
}

// leadsTo is the entry that a key of a look-up leads to.
func leadsTo(name []byte, e boltElem) (index uint64, ok bool) {
	at := e.value
	if bytes.Equal(name, bucketTasks) {
		at = e.key[max(0, len(e.key)-8):]
	}
	if len(at) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(at), true
}
