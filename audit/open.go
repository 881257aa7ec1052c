package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
)

// OpenStore opens or makes the log in cfg.Dir and checks its newest part. Only
// one process can have it open.
func OpenStore(cfg StoreConfig) (*Store, error) {
	s, err := openStore(cfg)
	if err != nil {
		return nil, fmt.Errorf("open audit store in %s: %w", cfg.Dir, err)
	}
	return s, nil
}

func openStore(cfg StoreConfig) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("no folder given")
	}
	s := &Store{
		dir: cfg.Dir, admit: cfg.Admit, fetch: cfg.Fetch, log: cfg.Log, metrics: newMetrics(),
		grown: make(chan struct{}), settled: make(chan struct{}), noted: make(chan struct{}),
		witnesses: make(map[identity.ID]countersigned), proofs: newProofMemory(),
		linger: cfg.Linger, kick: make(chan struct{}, 1), again: make(chan struct{}, 1),
	}
	s.recovered = sync.NewCond(&s.applying)
	if s.linger == 0 {
		s.linger = defaultLinger
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := durable.Mkdir(cfg.Dir, storeDirPerm); err != nil {
		return nil, err
	}
	db, err := openBolt(filepath.Join(cfg.Dir, storeFile))
	if err != nil {
		return nil, err
	}
	s.db = db
	if err := guard(func() error { return s.start(cfg.Genesis) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.index = startIndex(s)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.work.Go(func() { s.commits(ctx) })
	return s, nil
}

func openBolt(name string) (db *bbolt.DB, err error) {
	if err := uncut(name); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	err = guard(func() error {
		db, err = bbolt.Open(name, storeFilePerm, &bbolt.Options{
			// The list of free pages is kept in the file: without it bbolt reads
			// the whole file at start, and panics beyond our reach if it is damaged.
			Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType,
		})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s is in use by another process", name)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return db, nil
}

// guard turns a panic of bbolt over a damaged file, or a fault in its memory
// map, into an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return fn()
}

// start brings a new or old file into use.
func (s *Store) start(genesis []byte) error {
	fresh := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		fresh = meta == nil
		if fresh {
			return nil
		}
		if got := meta.Get(keySchema); string(got) != schema {
			return fmt.Errorf("%w: schema %q", ErrInvalid, clip(string(got)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if fresh {
		if genesis == nil {
			return fmt.Errorf("%w: the folder holds no log and no first entry was given", ErrNotFound)
		}
		if err := s.create(genesis); err != nil {
			return err
		}
	}
	return s.db.View(func(tx *bbolt.Tx) error { return s.load(tx, genesis) })
}

// create writes entry 0, with everything else empty, in one transaction.
func (s *Store) create(genesis []byte) error {
	e, err := DecodeEntry(genesis)
	if err != nil {
		return fmt.Errorf("first entry: %w", err)
	}
	if e.Kind != KindGenesis {
		return fmt.Errorf("%w: first entry is a %s entry", ErrInvalid, e.Kind)
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{
			bucketMeta, bucketEntries, bucketTree, bucketBatches, bucketIDs,
			bucketOnce, bucketTasks, bucketOpen, bucketState, bucketNotes,
		} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		a, err := newApplier(tx, s.admit, newAttested(OriginOf(genesis)), 0)
		if err != nil {
			return err
		}
		if err := a.admitted(e, ""); err != nil {
			return fmt.Errorf("first entry: %w", err)
		}
		if err := a.append(e, genesis, LeafHash(genesis)); err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta)
		return errors.Join(
			meta.Put(keySchema, []byte(schema)),
			meta.Put(keyGenesis, genesis),
			meta.Put(keyApplied, applied{size: a.size}.encode()))
	})
}

// load reads where the store is and checks its newest entries.
func (s *Store) load(tx *bbolt.Tx, genesis []byte) error {
	first := bytes.Clone(tx.Bucket(bucketMeta).Get(keyGenesis))
	if genesis != nil && !bytes.Equal(first, genesis) {
		return fmt.Errorf("%w: its first entry is %s, not %s", ErrOtherCluster, OriginOf(first), OriginOf(genesis))
	}
	s.origin = OriginOf(first)
	s.attested = newAttested(s.origin)
	at, err := decodeApplied(tx.Bucket(bucketMeta).Get(keyApplied))
	if err != nil {
		return err
	}
	s.applied, s.durable = at, at
	if err := checkTail(tx, at.size, first); err != nil {
		return err
	}
	s.latest, err = newestNote(tx)
	s.saved = s.latest.Size
	if s.latest.note != nil {
		s.recent = []cosigned{s.latest}
	}
	return err
}

// checkTail recomputes the hashes of the newest entries, and of others anywhere
// in the log all that lies between them and the root: all of it would take as
// long as [VerifyDir].
func checkTail(tx *bbolt.Tx, size uint64, first []byte) error {
	entries := tx.Bucket(bucketEntries)
	if key, _ := entries.Cursor().Last(); key == nil || size == 0 || !bytes.Equal(key, key64(size-1)) {
		return fmt.Errorf("%w: the newest entry is not the one at index %d", ErrDamaged, size-1)
	}
	if !bytes.Equal(entries.Get(key64(0)), first) {
		return fmt.Errorf("%w: entry 0 is not the first one of this log", ErrDamaged)
	}
	for i := size - min(size, tailCheck); i < size; i++ {
		if _, err := readLeaf(tx, i); err != nil {
			return err
		}
	}
	origin := OriginOf(first)
	for range sampleCheck {
		if err := checkOne(tx, rand.Uint64N(size), size, origin); err != nil {
			return err
		}
	}
	_, err := rootAt(tx, size)
	return err
}

// checkOne checks one entry with all that the store holds of it: its place in
// the tree, its author's signature, and where it is looked up.
func checkOne(tx *bbolt.Tx, index, size uint64, origin string) error {
	one, err := readEntry(tx, index)
	if err != nil {
		return err
	}
	if _, err := proveEntry(tx, proofMemory{}, index, size); err != nil {
		return err
	}
	if index == 0 {
		return nil
	}
	a, err := attestationOf(tx, index)
	if err != nil {
		return err
	}
	if !a.Verify(origin) || a.Author != one.Entry.Author || !slices.Contains(a.Hashes, LeafHash(one.Leaf)) {
		return fmt.Errorf("entry %d: %w: its author did not sign it", index, ErrDamaged)
	}
	if at := tx.Bucket(bucketIDs).Get(idKey(one.Entry)); !bytes.Equal(at, key64(index)) {
		return fmt.Errorf("entry %d: %w: it is not found by its id", index, ErrDamaged)
	}
	return nil
}
