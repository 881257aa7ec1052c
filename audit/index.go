package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/internal/durable"
)

// index.db makes queries fast. It holds nothing that the log does not: it is
// written behind the log, without waiting for the disk, and thrown away and
// made anew whenever there is a doubt about it. Queries read what it does not
// cover yet from the log itself.
const (
	indexFile      = "index.db"
	indexStateFile = "index.json"
	indexVersion   = 2 // of the terms, too: another one makes the index anew
	indexLinger    = 200 * time.Millisecond
	indexAtOnce    = 4096     // entries in one transaction
	indexQueue     = 64 << 10 // entries kept in memory for it; beyond, it reads the log
	indexRetry     = time.Second
	maxIndexState  = 4 << 10 // bytes
)

var (
	bucketPostings = []byte("postings") // term, block -> entries
	bucketZones    = []byte("zones")    // block -> earliest and latest time
	keyMark        = []byte("mark")     // entries indexed, leaf hash of the last one

	errIndexDamaged = fmt.Errorf("%w: index is damaged", ErrInvalid)
)

// indexState says whether the file can be trusted. It was never flushed to
// disk: it is whole if it was closed properly, or if the machine has not been
// down since, for then the writes are in its memory; and only where it lies
// itself, for a copy may have been taken while it was written.
type indexState struct {
	V      int    `json:"v"`
	Origin string `json:"origin"`
	Boot   string `json:"boot"` // of the kernel that wrote it; "": not known
	File   string `json:"file"` // device and inode
	Clean  bool   `json:"clean"`
}

// index is the file and the goroutine that writes it.
type index struct {
	store *Store
	log   *slog.Logger

	stop context.CancelFunc
	work sync.WaitGroup

	mu   sync.RWMutex // held for writing while the file is replaced
	db   *bbolt.DB    // nil while there is none
	mark uint64       // entries indexed; guarded by mu

	doubted atomic.Bool // a query found it damaged

	queueMu sync.Mutex   // guards queue
	queue   []*indexable // newest entries, without gaps
}

// indexable is an entry on its way into the index.
type indexable struct {
	index uint64
	hash  Hash // of the leaf
	entry Entry
}

// startIndex opens or makes the index of s and keeps it up with the log.
func startIndex(s *Store) *index {
	ctx, cancel := context.WithCancel(context.Background())
	x := &index{store: s, log: s.log, stop: cancel}
	x.work.Go(func() { x.run(ctx) })
	return x
}

// offer hands over entries that have just become durable.
func (x *index) offer(entries []*indexable) {
	x.queueMu.Lock()
	defer x.queueMu.Unlock()
	if len(x.queue)+len(entries) > indexQueue {
		x.queue = nil // the goroutine is behind and reads the log
		return
	}
	if len(x.queue) > 0 && len(entries) > 0 && x.queue[len(x.queue)-1].index+1 != entries[0].index {
		x.queue = nil
	}
	x.queue = append(x.queue, entries...)
}

// close writes what is missing to disk; the file is then good for the next start.
func (x *index) close() error {
	x.stop()
	x.work.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db == nil {
		return nil
	}
	db := x.db
	x.db = nil
	if err := guard(db.Sync); err != nil {
		return errors.Join(err, db.Close())
	}
	if err := db.Close(); err != nil {
		return err
	}
	return x.note(true)
}

func (x *index) run(ctx context.Context) {
	for {
		err := x.follow(ctx)
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return
		}
		x.log.WarnContext(ctx, "query index stands still, queries read the log meanwhile", "err", err)
		if errors.Is(err, ErrInvalid) || errors.Is(err, ErrDamaged) {
			x.discard()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(indexRetry):
		}
	}
}

// follow opens the file and adds entries as they come.
func (x *index) follow(ctx context.Context) error {
	if err := x.open(); err != nil {
		return err
	}
	for {
		if err := x.store.durably(ctx, x.covered()); err != nil {
			return err
		}
		if err := x.advance(ctx); err != nil {
			return err
		}
		timer := time.NewTimer(indexLinger)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func (x *index) covered() uint64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.mark
}

func (x *index) path(name string) string { return filepath.Join(x.store.dir, name) }

// open opens the file, or makes a new one if there is a doubt about it.
func (x *index) open() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db != nil {
		return nil
	}
	why := x.trusted()
	if why == nil {
		if why = x.load(); why == nil {
			return x.note(false)
		}
	}
	if !errors.Is(why, fs.ErrNotExist) {
		x.log.Info("query index is made anew", "why", why)
	}
	if err := os.Remove(x.path(indexFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := x.create(); err != nil {
		return err
	}
	return x.note(false)
}

// trusted reads the state of the file.
func (x *index) trusted() error {
	text, err := os.ReadFile(x.path(indexStateFile))
	if err != nil {
		return err
	}
	var state indexState
	if len(text) > maxIndexState || json.Unmarshal(text, &state) != nil {
		return errors.New("its state cannot be read")
	}
	file, err := fileID(x.path(indexFile))
	switch boot := bootID(); {
	case err != nil:
		return err
	case state.V != indexVersion:
		return fmt.Errorf("it is of version %d", state.V)
	case state.Origin != x.store.origin:
		return errors.New("it is of another log")
	case state.File != file:
		return errors.New("it was copied")
	case !state.Clean && (boot == "" || state.Boot != boot):
		return errors.New("the machine went down while it was written")
	}
	return nil
}

func (x *index) note(clean bool) error {
	file, err := fileID(x.path(indexFile))
	if err != nil {
		return err
	}
	text, err := json.Marshal(indexState{V: indexVersion, Origin: x.store.origin, Boot: bootID(), File: file, Clean: clean})
	if err != nil {
		return err
	}
	return durable.WriteFile(x.path(indexStateFile), append(text, '\n'), storeFilePerm)
}

func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (x *index) bolt() (db *bbolt.DB, err error) {
	err = guard(func() error {
		db, err = bbolt.Open(x.path(indexFile), storeFilePerm, &bbolt.Options{
			// The list of free pages is kept in the file for the reason that openBolt gives.
			Timeout: lockTimeout, NoSync: true, NoGrowSync: true, FreelistType: bbolt.FreelistMapType,
		})
		return err
	})
	return db, err
}

// load opens an old file and holds its end against the log.
func (x *index) load() error {
	db, err := x.bolt()
	if err != nil {
		return err
	}
	mark := uint64(0)
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			if tx.Bucket(bucketPostings) == nil || tx.Bucket(bucketZones) == nil || tx.Bucket(bucketMeta) == nil {
				return errIndexDamaged
			}
			raw := tx.Bucket(bucketMeta).Get(keyMark)
			if len(raw) != 8+len(Hash{}) {
				return errIndexDamaged
			}
			mark = binary.BigEndian.Uint64(raw)
			if mark == 0 {
				return nil
			}
			last, err := x.store.read(mark-1, mark)
			if err != nil {
				return err
			}
			if len(last) == 0 {
				return errors.New("it is ahead of the log")
			}
			if hash := LeafHash(last[0].Leaf); !bytes.Equal(hash[:], raw[8:]) {
				return errors.New("it is of another history")
			}
			return nil
		})
	})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	x.use(db, mark)
	return nil
}

func (x *index) create() error {
	db, err := x.bolt()
	if err != nil {
		return err
	}
	err = guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			for _, name := range [][]byte{bucketPostings, bucketZones, bucketMeta} {
				if _, err := tx.CreateBucket(name); err != nil {
					return err
				}
			}
			return tx.Bucket(bucketMeta).Put(keyMark, make([]byte, 8+len(Hash{})))
		})
	})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	x.use(db, 0)
	return nil
}

// use begins to use a file that covers so many entries. The caller holds x.mu.
func (x *index) use(db *bbolt.DB, mark uint64) {
	x.db, x.mark = db, mark
	x.store.metrics.indexed.Set(float64(mark))
}

// discard closes a file that proved to be bad; the next open makes another one.
func (x *index) discard() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db != nil {
		_ = guard(x.db.Close) // it is thrown away
		x.db, x.mark = nil, 0
	}
	_ = os.Remove(x.path(indexStateFile)) // without it the file is not trusted
}

// advance indexes all that is durable.
func (x *index) advance(ctx context.Context) error {
	for ctx.Err() == nil {
		entries, err := x.take()
		if err != nil || len(entries) == 0 {
			return err
		}
		if err := x.add(entries); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// take returns the next entries, from memory or from the log.
func (x *index) take() ([]*indexable, error) {
	mark := x.covered()
	x.queueMu.Lock()
	for len(x.queue) > 0 && x.queue[0].index < mark {
		x.queue = x.queue[1:]
	}
	if len(x.queue) > 0 && x.queue[0].index == mark {
		n := min(len(x.queue), indexAtOnce)
		out := x.queue[:n:n]
		if x.queue = x.queue[n:]; len(x.queue) == 0 {
			x.queue = nil
		}
		x.queueMu.Unlock()
		return out, nil
	}
	x.queueMu.Unlock()
	entries, err := x.store.read(mark, min(mark+indexAtOnce, x.store.durableSize()))
	out := make([]*indexable, len(entries))
	for i, one := range entries {
		out[i] = &indexable{one.Index, LeafHash(one.Leaf), one.Entry}
	}
	return out, err
}

func (x *index) add(entries []*indexable) error {
	if x.doubted.Swap(false) {
		return errIndexDamaged
	}
	fresh := newPostings{sets: make(map[posting]*set), zones: make(map[uint64]times)}
	for _, one := range entries {
		if err := fresh.add(one); err != nil {
			return fmt.Errorf("entry %d: %w", one.index, err)
		}
	}
	last := entries[len(entries)-1]
	err := guard(func() error {
		return x.db.Update(func(tx *bbolt.Tx) error {
			if err := fresh.write(tx.Bucket(bucketPostings), tx.Bucket(bucketZones)); err != nil {
				return err
			}
			return tx.Bucket(bucketMeta).Put(keyMark, append(key64(last.index+1), last.hash[:]...))
		})
	})
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mark = last.index + 1
	x.store.metrics.indexed.Set(float64(x.mark))
	return nil
}

// find returns the entries of the nearest block that may match f, at or behind
// the entry at, in the direction of f, and where to go on. groups are those of f.
// ok reports whether the index could be asked: from at on it covers the log, or
// back from it.
func (x *index) find(ctx context.Context, f Filter, groups []group, at uint64) (hits []uint64, next uint64, more, ok bool, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.db == nil || at >= x.mark || x.doubted.Load() {
		return nil, 0, false, false, nil
	}
	last := int64(x.mark-1) >> blockBits
	err = guard(func() error {
		return x.db.View(func(tx *bbolt.Tx) error {
			s := finder{
				cursor: tx.Bucket(bucketPostings).Cursor(), zones: tx.Bucket(bucketZones),
				groups: groups, times: f.times(), newest: f.Newest,
			}
			for block := int64(at >> blockBits); block >= 0 && block <= last; {
				if err := ctx.Err(); err != nil {
					return err
				}
				found, any, to, err := s.block(block)
				if err != nil {
					return err
				}
				if !any {
					block = to
					continue
				}
				low, high := at, x.mark-1
				if f.Newest {
					low, high = 0, at
				}
				hits = found.indexes(uint64(block), low, high)
				if f.Newest {
					next, more = uint64(block)<<blockBits-1, block > 0
				} else {
					next, more = min(uint64(block+1)<<blockBits, x.mark), true
				}
				return nil
			}
			// Oldest first, what the index does not cover comes next.
			next, more = x.mark, !f.Newest
			return nil
		})
	})
	if errors.Is(err, ErrInvalid) || errors.Is(err, ErrDamaged) {
		x.doubted.Store(true)
		x.log.WarnContext(ctx, "query index is damaged, queries read the log until it is made anew", "err", err)
		return nil, 0, false, false, nil
	}
	return hits, next, more, err == nil, err
}
