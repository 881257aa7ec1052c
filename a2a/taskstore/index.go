package taskstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
)

// index enters a task into every index.
func index(tx *bbolt.Tx, id sdk.TaskID, h head) error {
	sum := summary{State: h.State, Context: h.Context, Door: h.Door}
	plain, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	order := h.order(id)
	return errors.Join(
		tx.Bucket(bucketOwners).Put(append(ownerPrefix(h.Owner), order...), plain),
		tx.Bucket(bucketTimes).Put(order, plain),
		indexFurther(tx, h.Owner, order, sum, plain),
		tally(tx, h, 1),
	)
}

// indexFurther enters a task into the indexes that format 1 did not have.
func indexFurther(tx *bbolt.Tx, owner string, order []byte, sum summary, plain []byte) error {
	sum.Owner = owner
	owned, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	return errors.Join(
		tx.Bucket(bucketStates).Put(append(statePrefix(owner, sum.State), order...), plain),
		tx.Bucket(bucketContexts).Put(append(contextPrefix(sum.Context), order...), owned),
	)
}

// unindex takes a task, as it was indexed, out of every index.
func unindex(tx *bbolt.Tx, id sdk.TaskID, h head) error {
	order := h.order(id)
	return errors.Join(
		tx.Bucket(bucketOwners).Delete(append(ownerPrefix(h.Owner), order...)),
		tx.Bucket(bucketStates).Delete(append(statePrefix(h.Owner, h.State), order...)),
		tx.Bucket(bucketContexts).Delete(append(contextPrefix(h.Context), order...)),
		tx.Bucket(bucketTimes).Delete(order),
		tally(tx, h, -1),
	)
}

// indexAnew makes from the index by owner what formats before 4 did not have:
// counts, and if narrow the further indexes.
func indexAnew(tx *bbolt.Tx, narrow bool) error {
	return tx.Bucket(bucketOwners).ForEach(func(k, v []byte) error {
		owner, order, found := bytes.Cut(k, []byte{0}) // no owner holds the separator
		var sum summary
		if !found || len(order) <= orderBytes {
			return fmt.Errorf("bad index key %x", k)
		}
		if err := json.Unmarshal(v, &sum); err != nil {
			return fmt.Errorf("index key %x: %w", k, err)
		}
		if err := tally(tx, head{Owner: string(owner), State: sum.State, Door: sum.Door}, 1); err != nil || !narrow {
			return err
		}
		return indexFurther(tx, string(owner), order, sum, v)
	})
}

func ownerPrefix(owner string) []byte { return append([]byte(owner), 0) }

func statePrefix(owner string, state sdk.TaskState) []byte {
	return append(append(ownerPrefix(owner), state...), 0)
}

// contextPrefix begins with the length: a context may hold anything.
func contextPrefix(context string) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(context))), context...)
}

// narrowest is the index that leaves out most of what the filter does, and the
// prefix of what is left.
func (f Filter) narrowest(tx *bbolt.Tx) (*bbolt.Cursor, []byte) {
	switch {
	case f.Context != "":
		return tx.Bucket(bucketContexts).Cursor(), contextPrefix(f.Context)
	case f.Any:
		return tx.Bucket(bucketTimes).Cursor(), nil
	case f.State != "":
		return tx.Bucket(bucketStates).Cursor(), statePrefix(f.Owner, f.State)
	}
	return tx.Bucket(bucketOwners).Cursor(), ownerPrefix(f.Owner)
}
