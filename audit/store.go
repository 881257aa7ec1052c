package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/identity"
)

// The files of a store in its folder.
const (
	storeFile    = "audit.db"
	cosignedFile = "cosigned.json"

	storeFilePerm = 0o600
	storeDirPerm  = 0o700
	lockTimeout   = 2 * time.Second // a store that is open elsewhere is refused after this
	schema        = "agenticraft audit store v1"
	tailCheck     = 256 // newest entries that OpenStore hashes again
	sampleCheck   = 64  // entries from anywhere that it checks up to the root
)

// The buckets of audit.db. Integers in keys are 8 bytes, big-endian.
var (
	bucketMeta    = []byte("meta")        // "schema"; "genesis" -> leaf; "applied" -> raft index, term, size, checksum
	bucketEntries = []byte("entries")     // index -> leaf
	bucketTree    = []byte("tree")        // tlog stored-hash index -> hash
	bucketBatches = []byte("batches")     // index of the first admitted entry -> attestation
	bucketIDs     = []byte("ids")         // author NUL id -> index
	bucketOnce    = []byte("once")        // key -> index, digest
	bucketTasks   = []byte("tasks")       // task NUL attempt role index -> author
	bucketOpen    = []byte("open")        // index of an intent without outcome -> nothing
	bucketState   = []byte("state")       // the admission rules' own
	bucketNotes   = []byte("checkpoints") // size -> cosigned note; not part of the replicated state

	keySchema  = []byte("schema")
	keyGenesis = []byte("genesis")
	keyApplied = []byte("applied")
	keyEpochs  = []byte("epochs") // indexes of the entries that begin one
)

// StoreConfig says where a log lives and whose it is.
type StoreConfig struct {
	Dir string // holds audit.db and cosigned.json; made if missing
	// Genesis is the leaf of entry 0. It is written into an empty store; a
	// store that begins otherwise is refused with ErrOtherCluster. Nil: open
	// whatever is there, and refuse an empty folder.
	Genesis []byte
	Admit   Admission // nil admits every well-formed entry
	Fetch   Fetcher   // who to catch up from; needed by Restore only
	// Linger is how long applied entries may wait to share one flush of the
	// disk, unless a checkpoint or a reader has them flushed before. 0: 1 s;
	// less than 0: each Apply is durable when it returns, for
	// those who have no other log to apply again from.
	Linger time.Duration
	Log    *slog.Logger // nil: none
}

// Admission decides which entries may be written, and by whom. It is called in
// log order with the state as of that index.
//
// INVARIANT: I4, Admit is pure: no clock, random, map order or I/O but tx.
type Admission interface {
	// Admit returns nil to admit e as the entry at index, a [*Refusal] to
	// refuse it (what it wrote to tx is then undone), any other error if the
	// state is broken, which stops the keeper. author signed the batch; it is
	// empty for entry 0.
	Admit(tx Tx, index uint64, author identity.ID, e Entry) error
}

// Tx is the admission rules' state: a sorted map kept in the same transaction
// as the entries. Slices are the caller's to keep. It is valid during the call
// that it was given to.
type Tx interface {
	Get(key string) []byte // nil if there is none
	Put(key string, value []byte) error
	Delete(key string) error
	// Each calls fn for the keys with the prefix, in order, until fn returns an
	// error, which it then returns. fn must not write.
	Each(prefix string, fn func(key string, value []byte) error) error
}

// Store is a replica of the log. It is the state machine that consensus drives
// through Apply, Snapshot and Restore; everything else reads. All methods may
// be called concurrently.
//
// What is applied becomes durable a moment later; every reader sees it at once,
// except that nothing is signed, served to other nodes or followed before it is
// durable. A reader must not call the store again from within [Store.View].
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered:
// entries, tree, state and the applied raft index become durable in one
// transaction, and nothing overwrites an entry.
type Store struct {
	dir      string
	db       *bbolt.DB
	admit    Admission
	fetch    Fetcher
	log      *slog.Logger
	origin   string
	attested *attested
	proofs   proofMemory // of the tree; see prover
	metrics  *metrics
	index    *index
	fault    func(stage string) error // tests make Apply fail here; else nil

	linger time.Duration
	kick   chan struct{} // holds one token: there is something to commit
	again  chan struct{} // holds one token: a commit failed and is due again
	stop   context.CancelFunc
	work   sync.WaitGroup // commits, and verifications that Check began

	// applying is held for a whole Apply, Restore or commit, which must not mix,
	// and by whoever reads the open transaction. It guards the fields below.
	applying    sync.Mutex
	recovered   *sync.Cond // of applying: the store stalls no more, is broken or released
	open        *openTx    // nil while all is durable
	undone      []undone   // the calls of Apply in it, or in the one that failed
	undoneCmds  int
	undoneBytes int
	released    bool

	mu      sync.Mutex // guards the fields below
	applied applied
	durable applied       // of it, what a power loss does not undo
	full    error         // why the disk takes nothing now; nil
	broken  error         // why Apply must not go on; nil
	grown   chan struct{} // closed and replaced when the size grows
	settled chan struct{} // closed and replaced when the durable size grows
	latest  cosigned      // newest quorum checkpoint
	noted   chan struct{} // closed and replaced when latest changes
	saved   uint64        // size of the newest note on disk
	recent  []cosigned    // the newest few, oldest first
	// witnesses are auditors' newest countersignatures.
	witnesses map[identity.ID]countersigned
	ending    bool // Close was called: nothing more is begun
	closed    bool
}

// applied says what of raft's log is in the store.
type applied struct {
	index, term uint64 // of raft
	size        uint64 // entries
}

// Origin names the log: it is derived from entry 0, so that two logs which
// begin differently have different names, and it is the first line of every
// checkpoint.
func (s *Store) Origin() string { return s.origin }

// OriginOf names the log that begins with the leaf genesis.
func OriginOf(genesis []byte) string {
	hash := LeafHash(genesis)
	return fmt.Sprintf("agenticraft/%x", hash[:])
}

// Size is the number of entries that are applied.
func (s *Store) Size() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied.size
}

// Applied says up to which raft entry the store is durable.
func (s *Store) Applied() (index, term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable.index, s.durable.term
}

// Changed waits until the log has more than size entries.
func (s *Store) Changed(ctx context.Context, size uint64) error {
	return s.await(ctx, size, func() (uint64, <-chan struct{}) { return s.applied.size, s.grown })
}

// durably waits until more than size entries are durable.
func (s *Store) durably(ctx context.Context, size uint64) error {
	return s.await(ctx, size, func() (uint64, <-chan struct{}) { return s.durable.size, s.settled })
}

// await waits until what now gives is more than size. now is called under mu and
// also gives a channel that is closed at the next change.
func (s *Store) await(ctx context.Context, size uint64, now func() (uint64, <-chan struct{})) error {
	for {
		s.mu.Lock()
		is, changed := now()
		closed := s.closed
		s.mu.Unlock()
		switch {
		case is > size:
			return nil
		case closed:
			return ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Metrics are the store's, to be registered once.
func (s *Store) Metrics() []prometheus.Collector { return s.metrics.all() }

// Close makes durable what is applied and ends the use of the store. Waiting
// calls return ErrClosed.
func (s *Store) Close() error {
	s.stop()
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.work.Wait()
	s.applying.Lock() // lets an Apply end
	defer s.applying.Unlock()
	s.released = true
	s.recovered.Broadcast()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	broken := s.broken
	close(s.grown)
	close(s.settled)
	close(s.noted)
	s.mu.Unlock()
	saved := s.saveNoteLocked()
	committed := s.commit() // what fails here is in raft's log
	if broken != nil {
		saved, committed = nil, s.discard()
	}
	return errors.Join(saved, committed, s.index.close(), s.db.Close())
}

// beside does something that Close waits for, unless that has been called.
func (s *Store) beside(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ending {
		s.work.Go(do)
	}
}

// discard gives up the open transaction. The caller holds s.applying.
func (s *Store) discard() error {
	if s.open == nil {
		return nil
	}
	o := s.open
	s.open = nil
	return guard(o.tx.Rollback)
}

// Apply applies the commands of raft entries up to index, in order. Every
// reader sees them when it returns; they become durable together with index a
// moment later, see [Store.Applied]. The answers are as many as the commands,
// for the proposers' recorders. Commands up to the index applied last are not
// applied again; their answers are then nil. While the disk is full it waits.
// An error is a broken store or a command of an unknown version: nothing of the
// call is kept, and the process must stop.
//
// INVARIANT: I4, Apply is pure: same commands, same root, on every keeper.
func (s *Store) Apply(index, term uint64, cmds [][]byte) ([][]byte, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	for s.stalled() != nil && !s.released && s.isBroken() == nil {
		s.recovered.Wait()
	}
	before, err := s.usable()
	if err == nil {
		err = s.stalled()
	}
	if err != nil {
		return nil, err
	}
	if index <= before.index {
		return make([][]byte, len(cmds)), nil
	}
	started := time.Now()
	if err := s.begin(before.size); err != nil {
		return nil, s.fail(fmt.Errorf("apply audit commands at raft index %d: %w", index, err))
	}
	call := undone{index: index, term: term, cmds: cmds}
	answers, after, err := s.open.commands(call)
	if err != nil {
		return nil, s.fail(fmt.Errorf("apply audit commands at raft index %d: %w", index, errors.Join(err, s.discard())))
	}
	s.undone = append(s.undone, call)
	s.undoneCmds += len(cmds)
	for _, cmd := range cmds {
		s.undoneBytes += len(cmd)
	}
	s.advance(after)
	s.metrics.applySecs.Observe(time.Since(started).Seconds())
	if s.linger < 0 || s.undoneCmds >= maxOpenCmds || s.undoneBytes >= maxOpenBytes {
		if err := s.commit(); err != nil && s.stalled() == nil {
			return nil, err
		}
		return answers, nil // a full disk costs the next call, not this one: raft's log has it
	}
	s.commitSoon()
	return answers, nil
}

func (s *Store) isBroken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// Broken is why the store must be opened again; nil: it need not.
func (s *Store) Broken() error { return s.isBroken() }

func (s *Store) failpoint(stage string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(stage)
}

func (s *Store) usable() (applied, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return applied{}, ErrClosed
	}
	return s.applied, s.broken
}

// fail marks the store as broken: what is on disk and what is in memory may
// differ, so only opening it again makes it usable.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
	return err
}

// advance publishes what is applied.
func (s *Store) advance(to applied) {
	s.mu.Lock()
	defer s.mu.Unlock()
	grew := to.size > s.applied.size
	s.applied = to
	if grew && !s.closed {
		close(s.grown)
		s.grown = make(chan struct{})
	}
}

// encode writes the three numbers and their CRC-32C: nothing else in the file
// tells what raft had applied, and a wrong number would have commands skipped or
// applied twice.
func (a applied) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, a.index)
	out = binary.BigEndian.AppendUint64(out, a.term)
	out = binary.BigEndian.AppendUint64(out, a.size)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// appliedBytes are the numbers alone: all there was before the checksum.
const appliedBytes = 24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func decodeApplied(raw []byte) (applied, error) {
	if len(raw) != appliedBytes &&
		(len(raw) != appliedBytes+4 || binary.BigEndian.Uint32(raw[appliedBytes:]) != crc32.Checksum(raw[:appliedBytes], castagnoli)) {
		return applied{}, fmt.Errorf("%w: store state is damaged", ErrInvalid)
	}
	return applied{
		index: binary.BigEndian.Uint64(raw),
		term:  binary.BigEndian.Uint64(raw[8:]),
		size:  binary.BigEndian.Uint64(raw[16:]),
	}, nil
}

func key64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
