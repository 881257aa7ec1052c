package taskstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
)

// Event is one entry of a task's log. The log serves readers who come back:
// they name the last number that they have seen.
type Event struct {
	Number uint64 // rises within a task; what it counts is the caller's
	Data   []byte
}

// Events reads the log of a task, in order; none if there is none. The caller
// owns them.
func (s *Store) Events(id sdk.TaskID) ([]Event, error) {
	var events []Event
	err := s.db.View(func(tx *bbolt.Tx) error {
		prefix := prefixOf(id)
		c := tx.Bucket(bucketEvents).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			number := k[len(prefix):]
			if len(number) != numberBytes {
				return fmt.Errorf("bad key %x", k)
			}
			events = append(events, Event{binary.BigEndian.Uint64(number), slices.Clone(v)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("events of task %s: %w", id, err)
	}
	return events, nil
}

const numberBytes = 8

func putEvents(tx *bbolt.Tx, id sdk.TaskID, events []Event) error {
	for _, e := range events {
		if err := tx.Bucket(bucketEvents).Put(binary.BigEndian.AppendUint64(prefixOf(id), e.Number), e.Data); err != nil {
			return err
		}
	}
	return nil
}

// prefixOf begins the keys of what belongs to a task.
func prefixOf(id sdk.TaskID) []byte { return append([]byte(id), 0) }
