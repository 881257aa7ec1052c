package taskstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
)

// Record is one task and what the store knows about it.
type Record struct {
	Task       *sdk.Task `json:"task"`
	Owner      string    `json:"owner"`
	Generation uint64    `json:"generation"` // 1 when created, one more with each change
	Updated    time.Time `json:"updated"`
	Door       string    `json:"door,omitempty"` // the node that placed it here; "" if it came in here
}

// head is what a change has to know of the state before it: all but the task,
// which may be large.
type head struct {
	Owner      string        `json:"owner"`
	Generation uint64        `json:"generation"`
	Updated    time.Time     `json:"updated"`
	Door       string        `json:"door,omitempty"`
	State      sdk.TaskState `json:"state"`
	Context    string        `json:"context"`
}

// headEnd ends the head in the bytes of a record; JSON that was written by
// encoding/json does not hold it. A record of a format before 3 is one JSON object.
const headEnd = '\n'

func (h head) describe(task *sdk.Task) head {
	h.State, h.Context = task.Status.State, task.ContextID
	return h
}

func (h head) record(task *sdk.Task) Record {
	return Record{Task: task, Owner: h.Owner, Generation: h.Generation, Updated: h.Updated, Door: h.Door}
}

// order is the place of the task in every index.
func (h head) order(id sdk.TaskID) []byte { return order(h.Updated, id) }

// readHead reads what is before the task.
func readHead(tx *bbolt.Tx, id sdk.TaskID) (head, error) {
	raw := tx.Bucket(bucketTasks).Get([]byte(id))
	if raw == nil {
		return head{}, ErrNotFound
	}
	h, _, err := split(raw)
	if err != nil {
		return head{}, fmt.Errorf("record of task %s: %w", id, err)
	}
	return h, nil
}

// get reads a task; the caller owns it.
func get(tx *bbolt.Tx, id sdk.TaskID) (Record, error) {
	raw := tx.Bucket(bucketTasks).Get([]byte(id))
	if raw == nil {
		return Record{}, ErrNotFound
	}
	h, body, err := split(raw)
	if err != nil {
		return Record{}, fmt.Errorf("record of task %s: %w", id, err)
	}
	task := new(sdk.Task)
	if err := json.Unmarshal(body, task); err != nil {
		return Record{}, fmt.Errorf("record of task %s: %w", id, err)
	}
	return h.record(task), nil
}

// split gives the two parts of a record, the second as JSON.
func split(raw []byte) (h head, task []byte, err error) {
	first, task, found := bytes.Cut(raw, []byte{headEnd})
	if found {
		return h, task, json.Unmarshal(first, &h)
	}
	var whole struct {
		head
		Task json.RawMessage `json:"task"`
	}
	if err := json.Unmarshal(raw, &whole); err != nil {
		return head{}, nil, err
	}
	var described sdk.Task
	if err := json.Unmarshal(whole.Task, &described); err != nil {
		return head{}, nil, err
	}
	return whole.describe(&described), whole.Task, nil
}

// put writes a task, whose JSON is body, with its head, and enters it into the
// indexes.
func put(tx *bbolt.Tx, id sdk.TaskID, h head, body []byte) error {
	first, err := json.Marshal(h)
	if err != nil {
		return err
	}
	key := []byte(id)
	switch {
	case h.State.Terminal():
		err = tx.Bucket(bucketUnfinished).Delete(key)
	case h.State == sdk.TaskStateInputRequired, h.State == sdk.TaskStateAuthRequired:
		err = tx.Bucket(bucketUnfinished).Put(key, []byte(h.Owner))
	default:
		err = tx.Bucket(bucketUnfinished).Put(key, nil)
	}
	raw := slices.Concat(first, []byte{headEnd}, body)
	return errors.Join(err, tx.Bucket(bucketTasks).Put(key, raw), index(tx, id, h))
}

const orderBytes = 8

// order sorts newest first, then by id.
func order(updated time.Time, id sdk.TaskID) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, orderBytes+len(id)), timeOrder(updated))
	return append(key, id...)
}

// orderOf is the place of a record in every index.
func orderOf(r Record) []byte { return order(r.Updated, r.Task.ID) }

// timeOrder falls as time rises; it is exact to the nanosecond until 2262.
func timeOrder(t time.Time) uint64 { return ^uint64(t.UnixNano()) }

// timeOf is the time in an order key.
func timeOf(order []byte) time.Time {
	return time.Unix(0, int64(^binary.BigEndian.Uint64(order))).UTC()
}
