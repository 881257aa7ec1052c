// Package taskstore keeps A2A tasks in a bbolt file, so that a task outlives
// the process that ran it.
//
// Every change is on disk when the call that made it returns. Each task counts
// its changes (its generation); indexes by owner, owner and state, context, and time
// serve lists in pages without reading the tasks that are left out.
package taskstore

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/a2a"
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
	bucketTasks      = []byte("tasks")      // id -> head task
	bucketOwners     = []byte("owners")     // owner 0x00 order id -> summary
	bucketStates     = []byte("states")     // owner 0x00 state 0x00 order id -> summary
	bucketContexts   = []byte("contexts")   // length context order id -> summary
	bucketTimes      = []byte("times")      // order id -> summary
	bucketCounts     = []byte("counts")     // owner 0x00 state 0x00 door -> how many
	bucketUnfinished = []byte("unfinished") // id -> nothing, or owner of one that waits for him
	bucketEvents     = []byte("events")     // id 0x00 number -> event
	bucketPushes     = []byte("pushes")     // id 0x00 configuration -> configuration, secrets and all
	bucketNotices    = []byte("notices")    // id 0x00 configuration 0x00 number -> time body
	bucketMeta       = []byte("meta")
	keyFormat        = []byte("format")
	format           = []byte("4")
	formatUncounted  = []byte("3") // had no counts
	formatWhole      = []byte("2") // its records are not split, either; they are read, and split when they change
	formatNarrow     = []byte("1") // had no states and contexts, either
)

// Config of a store.
type Config struct {
	Dir string // folder of the file; must exist
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
	pace    time.Duration
	commits sync.WaitGroup

	mu         sync.Mutex // guards what follows; see write
	waiting    []job
	committing bool
	urgent     bool      // somebody waits for one of them
	began      time.Time // the last commit
	closed     bool

	wake chan struct{} // has room for one: urgent or closed was set
}

// Change is what comes with a new state of a task, in the same moment.
type Change struct {
	Events  []Event  // added to the task's log
	Notices [][]byte // queued for each of the task's push configurations
	// Soon: nobody waits for it yet. It is on disk when the call returns, some
	// milliseconds later than else if the store is busy.
	Soon bool
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
	return &Store{db: db, pace: defaultPace, wake: make(chan struct{}, 1)}, nil
}

func prepare(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketTasks, bucketOwners, bucketStates, bucketContexts, bucketTimes, bucketCounts, bucketUnfinished, bucketEvents, bucketPushes, bucketNotices, bucketMeta} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	switch have := meta.Get(keyFormat); {
	case have == nil:
		return meta.Put(keyFormat, format)
	case bytes.Equal(have, formatNarrow), bytes.Equal(have, formatWhole), bytes.Equal(have, formatUncounted):
		return errors.Join(indexAnew(tx, bytes.Equal(have, formatNarrow)), meta.Put(keyFormat, format))
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
	s.hurry()
	s.mu.Unlock()
	s.commits.Wait()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close task store: %w", err)
	}
	return nil
}

// Create adds a task, generation 1. A task with its id is [ErrExists].
func (s *Store) Create(task *sdk.Task, owner string, now time.Time) (Record, error) {
	return s.CreatePlaced(task, owner, "", now, false)
}

// CreatePlaced adds a task that another node, its door, placed here; "" for none.
// It returns when the task is on disk: at once, or soon, see [Change].
func (s *Store) CreatePlaced(task *sdk.Task, owner, door string, now time.Time, soon bool) (Record, error) {
	if strings.ContainsRune(owner, 0) {
		return Record{}, fmt.Errorf("create task %s: bad owner %q", task.ID, owner)
	}
	body, err := a2a.MarshalTask(task)
	if err != nil {
		return Record{}, fmt.Errorf("create task %s: %w", task.ID, err)
	}
	h := head{Owner: owner, Door: door, Generation: 1, Updated: now.UTC()}.describe(task)
	err = s.enqueue(!soon, func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketTasks).Get([]byte(task.ID)) != nil {
			return ErrExists
		}
		return put(tx, task.ID, h, body)
	})
	if err != nil {
		return Record{}, fmt.Errorf("create task %s: %w", task.ID, err)
	}
	return h.record(task), nil
}

// Update replaces a task that exists; its owner stays and its generation grows
// by one. More comes with it in the same moment.
func (s *Store) Update(task *sdk.Task, now time.Time, more Change) (Record, error) {
	body, err := a2a.MarshalTask(task)
	if err != nil {
		return Record{}, fmt.Errorf("update task %s: %w", task.ID, err)
	}
	var h head
	err = s.enqueue(!more.Soon, func(tx *bbolt.Tx) error {
		old, err := readHead(tx, task.ID)
		if err != nil {
			return err
		}
		if err := unindex(tx, task.ID, old); err != nil {
			return err
		}
		h = head{Owner: old.Owner, Door: old.Door, Generation: old.Generation + 1, Updated: now.UTC()}.describe(task)
		return errors.Join(put(tx, task.ID, h, body), putEvents(tx, task.ID, more.Events), putNotices(tx, task.ID, now, more.Notices))
	})
	if err != nil {
		return Record{}, fmt.Errorf("update task %s: %w", task.ID, err)
	}
	return h.record(task), nil
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
