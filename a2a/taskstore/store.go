// Package taskstore keeps A2A tasks in a bbolt file, so that a task outlives
// the process that ran it.
//
// Every change is on disk when the call that made it returns. Each task counts
// its changes (its generation); indexes by owner, owner and state, context, and time
// serve lists in pages without reading the tasks that are left out.
package taskstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"
)

// Errors that callers act on.
var (
	// ErrNotFound: there is no such task.
	ErrNotFound = errors.New("task not found")
	// ErrExists: the task is there already.
	ErrExists = errors.New("task exists")
	// ErrCursor: the cursor is not one that List made.
	ErrCursor = errors.New("bad cursor")
)

// FileName is the name of the store's file in its folder.
const FileName = "tasks.db"

const (
	fileMode    = 0o600
	lockTimeout = 2 * time.Second
)

var (
	bucketTasks      = []byte("tasks")      // id -> record
	bucketOwners     = []byte("owners")     // owner 0x00 order id -> summary
	bucketStates     = []byte("states")     // owner 0x00 state 0x00 order id -> summary
	bucketContexts   = []byte("contexts")   // length context order id -> summary
	bucketTimes      = []byte("times")      // order id -> summary
	bucketUnfinished = []byte("unfinished") // id -> nothing, or owner of one that waits for him
	bucketEvents     = []byte("events")     // id 0x00 number -> event
	bucketPushes     = []byte("pushes")     // id 0x00 configuration -> configuration, secrets and all
	bucketNotices    = []byte("notices")    // id 0x00 configuration 0x00 number -> time body
	bucketMeta       = []byte("meta")
	keyFormat        = []byte("format")
	format           = []byte("2")
	formatBefore     = []byte("1") // had no states and contexts
)

// Config of a store.
type Config struct {
	Dir string // folder of the file; must exist
}

// Record is one task and what the store knows about it.
type Record struct {
	Task       *sdk.Task `json:"task"`
	Owner      string    `json:"owner"`
	Generation uint64    `json:"generation"` // 1 when created, one more with each change
	Updated    time.Time `json:"updated"`
	Door       string    `json:"door,omitempty"` // the node that placed it here; "" if it came in here
}

// summary is what a list filters by.
type summary struct {
	State   sdk.TaskState `json:"state"`
	Context string        `json:"context"`
	Door    string        `json:"door,omitempty"`
	Owner   string        `json:"owner,omitempty"` // in contexts, whose keys do not have it
}

// Store is an open task store. It may be used concurrently.
type Store struct {
	db      *bbolt.DB
	commits sync.WaitGroup

	mu         sync.Mutex // guards what follows; see write
	waiting    []job
	committing bool
	closed     bool
}

// Change is what comes with a new state of a task, in the same moment.
type Change struct {
	Events  []Event  // added to the task's log
	Notices [][]byte // queued for each of the task's push configurations
}

// Open opens or makes the store. Another process having it open is an error.
func Open(cfg Config) (*Store, error) {
	db, err := bbolt.Open(filepath.Join(cfg.Dir, FileName), fileMode, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("open task store: %w", err)
	}
	if err := db.Update(prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("open task store: %w", err), db.Close())
	}
	return &Store{db: db}, nil
}

func prepare(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketTasks, bucketOwners, bucketStates, bucketContexts, bucketTimes, bucketUnfinished, bucketEvents, bucketPushes, bucketNotices, bucketMeta} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	switch have := meta.Get(keyFormat); {
	case have == nil:
		return meta.Put(keyFormat, format)
	case bytes.Equal(have, formatBefore):
		return errors.Join(indexAnew(tx), meta.Put(keyFormat, format))
	case !bytes.Equal(have, format):
		return fmt.Errorf("format %q is not known to this version", have)
	}
	return nil
}

// Close closes the file when the writes under way are on disk; later ones are
// refused. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.commits.Wait()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close task store: %w", err)
	}
	return nil
}

// Create adds a task, generation 1. A task with its id is [ErrExists].
func (s *Store) Create(task *sdk.Task, owner string, now time.Time) (Record, error) {
	return s.CreatePlaced(task, owner, "", now)
}

// CreatePlaced adds a task that another node, its door, placed here.
func (s *Store) CreatePlaced(task *sdk.Task, owner, door string, now time.Time) (Record, error) {
	if strings.ContainsRune(owner, 0) {
		return Record{}, fmt.Errorf("create task %s: bad owner %q", task.ID, owner)
	}
	r := Record{Task: task, Owner: owner, Door: door, Generation: 1, Updated: now.UTC()}
	err := s.write(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketTasks).Get([]byte(task.ID)) != nil {
			return ErrExists
		}
		return put(tx, r)
	})
	if err != nil {
		return Record{}, fmt.Errorf("create task %s: %w", task.ID, err)
	}
	return r, nil
}

// Update replaces a task that exists; its owner stays and its generation grows
// by one. More comes with it in the same moment.
func (s *Store) Update(task *sdk.Task, now time.Time, more Change) (Record, error) {
	var r Record
	err := s.write(func(tx *bbolt.Tx) error {
		old, err := get(tx, task.ID)
		if err != nil {
			return err
		}
		if err := unindex(tx, old); err != nil {
			return err
		}
		r = Record{Task: task, Owner: old.Owner, Door: old.Door, Generation: old.Generation + 1, Updated: now.UTC()}
		return errors.Join(put(tx, r), putEvents(tx, task.ID, more.Events), putNotices(tx, task.ID, now, more.Notices))
	})
	if err != nil {
		return Record{}, fmt.Errorf("update task %s: %w", task.ID, err)
	}
	return r, nil
}

// Get reads a task; the caller owns it. An unknown one is [ErrNotFound].
func (s *Store) Get(id sdk.TaskID) (Record, error) {
	var r Record
	err := s.db.View(func(tx *bbolt.Tx) error {
		var err error
		r, err = get(tx, id)
		return err
	})
	if err != nil {
		return Record{}, fmt.Errorf("get task: %w", err)
	}
	return r, nil
}

// Unfinished lists the tasks that are at work: after a restart, those that ran
// when the process died.
func (s *Store) Unfinished() ([]sdk.TaskID, error) {
	return s.open(func(owner []byte) bool { return len(owner) == 0 })
}

// Waiting lists the tasks that wait for their owner, who has to say or to prove
// something; for any owner if it is "".
func (s *Store) Waiting(owner string) ([]sdk.TaskID, error) {
	return s.open(func(o []byte) bool { return len(o) > 0 && (owner == "" || string(o) == owner) })
}

func (s *Store) open(is func(waitsFor []byte) bool) ([]sdk.TaskID, error) {
	var ids []sdk.TaskID
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketUnfinished).ForEach(func(k, v []byte) error {
			if is(v) {
				ids = append(ids, sdk.TaskID(k))
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list unfinished tasks: %w", err)
	}
	return ids, nil
}

func get(tx *bbolt.Tx, id sdk.TaskID) (Record, error) {
	raw := tx.Bucket(bucketTasks).Get([]byte(id))
	if raw == nil {
		return Record{}, ErrNotFound
	}
	var r Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return Record{}, fmt.Errorf("record of task %s: %w", id, err)
	}
	return r, nil
}

func put(tx *bbolt.Tx, r Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	id := []byte(r.Task.ID)
	switch state := r.Task.Status.State; {
	case state.Terminal():
		err = tx.Bucket(bucketUnfinished).Delete(id)
	case state == sdk.TaskStateInputRequired, state == sdk.TaskStateAuthRequired:
		err = tx.Bucket(bucketUnfinished).Put(id, []byte(r.Owner))
	default:
		err = tx.Bucket(bucketUnfinished).Put(id, nil)
	}
	return errors.Join(err, tx.Bucket(bucketTasks).Put(id, raw), index(tx, r))
}

const orderBytes = 8

// orderKey sorts newest first, then by id.
func orderKey(r Record) []byte {
	key := binary.BigEndian.AppendUint64(nil, timeOrder(r.Updated))
	return append(key, r.Task.ID...)
}

// timeOrder falls as time rises; it is exact to the nanosecond until 2262.
func timeOrder(t time.Time) uint64 { return ^uint64(t.UnixNano()) }

// timeOf is the time in an order key.
func timeOf(order []byte) time.Time {
	return time.Unix(0, int64(^binary.BigEndian.Uint64(order))).UTC()
}
