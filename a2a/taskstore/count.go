package taskstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
)

// The store keeps how many tasks an owner has in each state from each door, so
// that a page need not count what is not on it.

// countKey is where the tasks are counted that are alike in what a list filters by
// without reading them.
func countKey(owner string, state sdk.TaskState, door string) []byte {
	return append(statePrefix(owner, state), door...)
}

// tally adds to the number of tasks like h.
func tally(tx *bbolt.Tx, h head, by int64) error {
	b, key := tx.Bucket(bucketCounts), countKey(h.Owner, h.State, h.Door)
	n, err := readCount(key, b.Get(key))
	switch n += by; {
	case err != nil:
		return err
	case n < 0:
		return fmt.Errorf("count %x: less than none", key)
	case n == 0:
		return b.Delete(key)
	}
	return b.Put(key, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

func readCount(key, raw []byte) (int64, error) {
	switch len(raw) {
	case 0:
		return 0, nil
	case 8:
		return int64(binary.BigEndian.Uint64(raw)), nil
	}
	return 0, fmt.Errorf("count %x: bad value", key)
}

// counted reports whether a filter leaves out only what counts tell apart.
func (f Filter) counted() bool { return f.Context == "" && f.After.IsZero() }

// total is how many tasks a filter admits that is counted.
func (f Filter) total(tx *bbolt.Tx) (int, error) {
	var prefix []byte
	switch {
	case f.Any:
	case f.State != "":
		prefix = statePrefix(f.Owner, f.State)
	default:
		prefix = ownerPrefix(f.Owner)
	}
	sum := int64(0)
	c := tx.Bucket(bucketCounts).Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		parts := bytes.SplitN(k, []byte{0}, 3) // neither owner nor state holds the separator
		if len(parts) != 3 {
			return 0, fmt.Errorf("count %x: bad key", k)
		}
		if f.State != "" && string(parts[1]) != string(f.State) || len(parts[2]) > 0 && slices.Contains(f.Present, string(parts[2])) {
			continue
		}
		n, err := readCount(k, v)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return int(sum), nil
}
