package taskstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
)

// pruneBatch is how many tasks one commit forgets, so that others need not wait
// long for theirs.
const pruneBatch = 64

// Prune forgets ended tasks, with all that belongs to them: those last changed
// before a time, and the oldest beyond the keep youngest. It returns how many.
// A task that has not ended stays, however old.
func (s *Store) Prune(before time.Time, keep int) (int, error) {
	total := 0
	for {
		n, err := s.pruneSome(before, keep)
		total += n
		if err != nil {
			return total, fmt.Errorf("prune tasks: %w", err)
		}
		if n < pruneBatch {
			return total, nil
		}
	}
}

func (s *Store) pruneSome(before time.Time, keep int) (int, error) {
	n := 0
	err := s.write(func(tx *bbolt.Tx) error {
		n = 0
		ids, err := prunable(tx, before, keep)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := forget(tx, id); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// prunable lists ended tasks to forget, oldest first, one batch of them.
func prunable(tx *bbolt.Tx, before time.Time, keep int) ([]sdk.TaskID, error) {
	surplus := tx.Bucket(bucketTimes).Stats().KeyN - keep
	var ids []sdk.TaskID
	c := tx.Bucket(bucketTimes).Cursor()
	for k, _ := c.Last(); k != nil && len(ids) < pruneBatch; k, _ = c.Prev() {
		if len(k) <= orderBytes {
			return nil, fmt.Errorf("bad index key %x", k)
		}
		old := timeOf(k).Before(before)
		if !old && len(ids) >= surplus {
			break
		}
		id := slices.Clone(k[orderBytes:])
		if !has(tx.Bucket(bucketUnfinished), id) {
			ids = append(ids, sdk.TaskID(id))
		}
	}
	return ids, nil
}

// has reports whether a bucket holds a key, if with an empty value.
func has(b *bbolt.Bucket, key []byte) bool {
	k, _ := b.Cursor().Seek(key)
	return slices.Equal(k, key)
}

// forget removes a task and all that belongs to it.
func forget(tx *bbolt.Tx, id sdk.TaskID) error {
	h, err := readHead(tx, id)
	if err != nil {
		return err
	}
	if err := unindex(tx, id, h); err != nil {
		return err
	}
	for _, bucket := range [][]byte{bucketEvents, bucketPushes, bucketNotices} {
		if err := clear(tx.Bucket(bucket), prefixOf(id)); err != nil {
			return err
		}
	}
	return errors.Join(tx.Bucket(bucketUnfinished).Delete([]byte(id)), tx.Bucket(bucketTasks).Delete([]byte(id)))
}

// Forget removes a task, ended or not, with all that belongs to it. One that is not
// there is no error.
func (s *Store) Forget(id sdk.TaskID) error {
	err := s.write(func(tx *bbolt.Tx) error {
		if err := forget(tx, id); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget task %s: %w", id, err)
	}
	return nil
}
