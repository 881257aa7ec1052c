package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/agenticraft/node/identity"
)

// raft.db has three buckets. "meta" says the format's version, the keepers that
// the log was begun with and the mark of the last restore. "log" holds raft's
// entries, "stable" its term and vote. Each record of the latter two begins
// with a CRC-32C over its key and what follows.
var (
	bucketMeta   = []byte("meta")
	bucketLog    = []byte("log")
	bucketStable = []byte("stable")

	keyFormat   = []byte("format")
	keyKeepers  = []byte("keepers")
	keyRestored = []byte("restored")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const (
	storeFormat  byte = 1
	raftFile          = "raft.db"
	lockTimeout       = 2 * time.Second
	logCache          = 64       // entries kept in memory for followers
	mmapBytes         = 64 << 20 // address space, not memory
	deleteAtOnce      = 4096     // entries in one transaction, so that writes are not held up
	recordHead        = 4        // bytes of checksum
	entryHead         = recordHead + 1 + 8 + 8
)

var (
	errStalled    = errors.New("the disk does not finish a write")
	errTruncation = errors.New("refused to remove entries that are applied")
)

type storeConfig struct {
	Path    string
	Keepers []identity.ID
	Join    bool                        // a new file may go on from where the state machine stands
	Durable func() (index, term uint64) // of the state machine
	Timeout time.Duration               // of a write to the log
	Fail    func(error)
	Metrics *metrics
}

// store is raft's LogStore and StableStore in one bbolt file.
//
// raft panics where it cannot read its log or write its vote. Once live, the
// store reports such an error instead and parks raft's goroutine until the
// group closes, by which time the process is about to stop.
type store struct {
	cfg   storeConfig
	db    *bbolt.DB
	fresh bool        // the file was not begun with a configuration yet
	live  atomic.Bool // raft runs

	writes  chan storeWrite
	stopped chan struct{}
	once    sync.Once
	work    sync.WaitGroup

	mu          sync.Mutex
	first, last uint64 // of the log; 0 if it is empty
	restored    uint64
}

type storeWrite struct {
	records []storeRecord
	done    chan error
}

type storeRecord struct {
	index uint64
	value []byte
}

var (
	_ raft.LogStore    = (*store)(nil)
	_ raft.StableStore = (*store)(nil)
)

func openStore(cfg storeConfig) (*store, error) {
	db, err := bbolt.Open(cfg.Path, 0o600, &bbolt.Options{
		Timeout:         lockTimeout,
		NoFreelistSync:  true, // rebuilt at start; else it is written with every commit
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mmapBytes,
	})
	if err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			err = fmt.Errorf("%w: another process holds it", err)
		}
		return nil, fmt.Errorf("open %s: %w", cfg.Path, err)
	}
	s := &store{cfg: cfg, db: db, writes: make(chan storeWrite), stopped: make(chan struct{})}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", cfg.Path, err), db.Close())
	}
	s.work.Go(s.write)
	return s, nil
}

func keeperList(ids []identity.ID) string {
	var names []string
	for _, id := range ids {
		names = append(names, string(id))
	}
	return strings.Join(names, " ")
}

// load checks that the file, the configuration and the state machine belong
// together, and every record that raft is going to replay.
func (s *store) load() error {
	applied, _ := s.cfg.Durable()
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketLog, bucketStable} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("make bucket: %w", err)
			}
		}
		meta, log := tx.Bucket(bucketMeta), tx.Bucket(bucketLog)
		switch format := meta.Get(keyFormat); {
		case format == nil:
			s.fresh = true
		case len(format) != 1 || format[0] != storeFormat:
			return fmt.Errorf("format %x is not known, want %d", format, storeFormat)
		case string(meta.Get(keyKeepers)) != keeperList(s.cfg.Keepers):
			return fmt.Errorf("the log was begun with the keepers %s, now they are %s", meta.Get(keyKeepers), keeperList(s.cfg.Keepers))
		}
		if s.fresh {
			if s.cfg.Join && applied == 0 {
				return errors.New("a keeper that joins needs a copy of the state first")
			}
			if applied > 0 && !s.cfg.Join {
				return fmt.Errorf("raft's log and vote are missing, although entry %d is applied: a keeper must not vote without them", applied)
			}
			// A crash came before the first configuration was noted.
			return errors.Join(empty(tx, bucketLog), empty(tx, bucketStable))
		}
		if mark := meta.Get(keyRestored); len(mark) == 8 {
			s.restored = binary.BigEndian.Uint64(mark)
		}
		cursor := log.Cursor()
		if k, _ := cursor.First(); k != nil {
			s.first = binary.BigEndian.Uint64(k)
			k, _ = cursor.Last()
			s.last = binary.BigEndian.Uint64(k)
		}
		switch {
		case s.last < applied && s.restored < applied:
			return fmt.Errorf("the raft log ends at entry %d, although entry %d is applied: it is an older copy, and votes are lost with it", s.last, applied)
		case s.last < applied:
			// A crash came after a restore and before the first entry behind it.
			s.first, s.last = 0, 0
			return empty(tx, bucketLog)
		case s.first > applied+1:
			return fmt.Errorf("the raft log begins at entry %d, although only entry %d is applied: the state is an older copy", s.first, applied)
		}
		return s.check(log, max(applied+1, s.first))
	})
}

func empty(tx *bbolt.Tx, bucket []byte) error {
	if err := tx.DeleteBucket(bucket); err != nil {
		return fmt.Errorf("empty bucket: %w", err)
	}
	if _, err := tx.CreateBucket(bucket); err != nil {
		return fmt.Errorf("empty bucket: %w", err)
	}
	return nil
}

// check reads the entries from the given one to the last.
func (s *store) check(log *bbolt.Bucket, from uint64) error {
	for index := from; index <= s.last; index++ {
		var entry raft.Log
		if err := decodeEntry(index, log.Get(indexKey(index)), &entry); err != nil {
			return err
		}
	}
	return nil
}

// begun notes that the first configuration is in the log.
func (s *store) begun() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		return errors.Join(
			meta.Put(keyKeepers, []byte(keeperList(s.cfg.Keepers))),
			meta.Put(keyFormat, []byte{storeFormat}))
	})
}

// joins begins the file of a keeper that has no log yet, but the state that the
// entries up to now made.
func (s *store) joins() error {
	applied, _ := s.cfg.Durable()
	if err := s.restoring(applied); err != nil {
		return err
	}
	return s.begun()
}

// MarkRestored notes in a stopped keeper's folder that its state machine was
// given the state up to a raft entry from elsewhere, which may lie past the end
// of its raft log. Term and vote stay as they are.
func MarkRestored(dir string, index uint64) error {
	name := filepath.Join(dir, raftFile)
	if _, err := os.Stat(name); err != nil {
		return fmt.Errorf("note restore: %w", err)
	}
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("note restore: open %s: %w", name, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return nil // nothing was begun, so nothing is to be noted
		}
		return meta.Put(keyRestored, indexKey(index))
	})
	return errors.Join(err, db.Close())
}

// restoring notes that the state machine is about to move to index, past the
// end of the log.
func (s *store) restoring(index uint64) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyRestored, indexKey(index))
	})
	if err != nil {
		return fmt.Errorf("note restore: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restored = max(s.restored, index)
	return nil
}

func (s *store) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, nil
}

func (s *store) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

// GetLog reads one entry and checks it. A corrupt one is never served: not to
// the state machine, not to another keeper.
func (s *store) GetLog(index uint64, entry *raft.Log) error {
	err := s.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucketLog).Get(indexKey(index))
		if value == nil {
			return raft.ErrLogNotFound
		}
		return decodeEntry(index, value, entry)
	})
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return s.broken(err)
	}
	return err
}

func (s *store) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs writes the entries in one transaction, durable when it returns nil.
// If the disk has not finished after the time-out it returns an error, upon
// which a leader steps down; the write may still land. Entries that lie behind
// the written ones are removed: only such a late write can have left them.
func (s *store) StoreLogs(entries []*raft.Log) error {
	write := storeWrite{done: make(chan error, 1)}
	for i, entry := range entries {
		if i > 0 && entry.Index != entries[i-1].Index+1 {
			return fmt.Errorf("internal error: entry %d follows %d", entry.Index, entries[i-1].Index)
		}
		write.records = append(write.records, storeRecord{entry.Index, encodeEntry(entry)})
	}
	if len(write.records) == 0 {
		return nil
	}
	begin := time.Now()
	timer := time.NewTimer(s.cfg.Timeout)
	defer timer.Stop()
	select {
	case s.writes <- write:
	case <-timer.C:
		return fmt.Errorf("%w: an earlier one is under way", errStalled)
	case <-s.stopped:
		return raft.ErrRaftShutdown
	}
	select {
	case err := <-write.done:
		s.cfg.Metrics.write.Observe(time.Since(begin).Seconds())
		return err
	case <-timer.C:
		s.cfg.Metrics.stalls.Inc()
		return fmt.Errorf("%w: %d entries from %d, %v", errStalled, len(entries), entries[0].Index, s.cfg.Timeout)
	}
}

// write is the goroutine that waits for the disk, so that raft need not.
func (s *store) write() {
	for {
		select {
		case w := <-s.writes:
			w.done <- s.put(w.records)
		case <-s.stopped:
			return
		}
	}
}

func (s *store) put(records []storeRecord) error {
	from, to := records[0].index, records[len(records)-1].index
	s.mu.Lock()
	first, last, restored := s.first, s.last, s.restored
	s.mu.Unlock()
	gap := last > 0 && from > last+1
	if gap && from != restored+1 {
		return fmt.Errorf("internal error: entry %d follows %d", from, last)
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		if gap { // all that is there lies below the restored state
			if err := empty(tx, bucketLog); err != nil {
				return err
			}
		}
		log := tx.Bucket(bucketLog)
		log.FillPercent = 0.95 // keys only grow
		for _, r := range records {
			if err := log.Put(indexKey(r.index), r.value); err != nil {
				return err
			}
		}
		if last > to && !gap {
			return deleteEntries(log, to+1, last)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write raft log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if first == 0 || gap {
		s.first = from
	}
	s.first, s.last = min(s.first, from), to
	return nil
}

// DeleteRange removes a range at the front of the log, of which it keeps
// whatever the state machine has not made durable, or everything from lowest
// on, which must not be applied yet.
func (s *store) DeleteRange(lowest, highest uint64) error {
	applied, _ := s.cfg.Durable()
	s.mu.Lock()
	first, last := s.first, s.last
	s.mu.Unlock()
	switch {
	case first == 0 || lowest > last || highest < first:
		return nil
	case lowest <= first && highest < last:
		return s.deleteFront(min(highest, applied))
	case lowest <= applied:
		// INVARIANT: I7 an acknowledged entry is never lost.
		return s.broken(fmt.Errorf("%w: entries %d to %d, applied is %d", errTruncation, lowest, last, applied))
	}
	err := s.db.Update(func(tx *bbolt.Tx) error { return deleteEntries(tx.Bucket(bucketLog), lowest, last) })
	if err != nil {
		return fmt.Errorf("truncate raft log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last = lowest - 1; s.last < s.first {
		s.first, s.last = 0, 0
	}
	return nil
}

func (s *store) deleteFront(highest uint64) error {
	for {
		s.mu.Lock()
		from := s.first
		s.mu.Unlock()
		if from > highest {
			return nil
		}
		to := min(highest, from+deleteAtOnce-1)
		err := s.db.Update(func(tx *bbolt.Tx) error { return deleteEntries(tx.Bucket(bucketLog), from, to) })
		if err != nil {
			return fmt.Errorf("shorten raft log: %w", err)
		}
		s.mu.Lock()
		s.first = to + 1
		s.mu.Unlock()
	}
}

func deleteEntries(log *bbolt.Bucket, from, to uint64) error {
	for index := from; index <= to; index++ {
		if err := log.Delete(indexKey(index)); err != nil {
			return err
		}
	}
	return nil
}

// Set makes a value of raft's durable.
func (s *store) Set(key, value []byte) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketStable).Put(key, seal(key, value))
	})
	if err != nil {
		return s.broken(fmt.Errorf("write raft's %s: %w", key, err))
	}
	return nil
}

// Get returns a value, nil if it was never set.
func (s *store) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		record := tx.Bucket(bucketStable).Get(key)
		if record == nil {
			return nil
		}
		body, ok := unseal(key, record)
		if !ok {
			return fmt.Errorf("raft's %s: %w", key, ErrCorrupt)
		}
		value = append([]byte{}, body...)
		return nil
	})
	if err != nil {
		return nil, s.broken(err)
	}
	return value, nil
}

func (s *store) SetUint64(key []byte, value uint64) error { return s.Set(key, indexKey(value)) }

func (s *store) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil || value == nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, s.broken(fmt.Errorf("raft's %s: %w: %d bytes", key, ErrCorrupt, len(value)))
	}
	return binary.BigEndian.Uint64(value), nil
}

// broken reports an error after which this keeper must not go on. While raft
// runs it does not return, since raft would panic: it ends raft's goroutine
// when the group closes.
func (s *store) broken(err error) error {
	if !s.live.Load() {
		return err
	}
	s.cfg.Fail(err)
	<-s.stopped
	runtime.Goexit()
	return err
}

// stop releases whoever waits in the store; close, which follows once raft has
// ended, waits for the last write.
func (s *store) stop() { s.once.Do(func() { close(s.stopped) }) }

func (s *store) close() error {
	s.stop()
	s.work.Wait()
	return s.db.Close()
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func seal(key, body []byte) []byte {
	out := make([]byte, recordHead, recordHead+len(body))
	out = append(out, body...)
	binary.BigEndian.PutUint32(out, checksum(key, body))
	return out
}

func unseal(key, record []byte) (body []byte, ok bool) {
	if len(record) < recordHead {
		return nil, false
	}
	body = record[recordHead:]
	return body, binary.BigEndian.Uint32(record) == checksum(key, body)
}

func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

// encodeEntry: checksum, type (1 byte), term, time of append (Unix
// nanoseconds), length of extensions (uvarint), extensions, data.
func encodeEntry(entry *raft.Log) []byte {
	body := make([]byte, 0, entryHead+binary.MaxVarintLen32+len(entry.Extensions)+len(entry.Data))
	body = append(body, byte(entry.Type))
	body = binary.BigEndian.AppendUint64(body, entry.Term)
	var at int64
	if !entry.AppendedAt.IsZero() {
		at = entry.AppendedAt.UnixNano()
	}
	body = binary.BigEndian.AppendUint64(body, uint64(at))
	body = binary.AppendUvarint(body, uint64(len(entry.Extensions)))
	body = append(body, entry.Extensions...)
	return seal(indexKey(entry.Index), append(body, entry.Data...))
}

// decodeEntry copies the entry out of the record, which belongs to bbolt.
func decodeEntry(index uint64, record []byte, entry *raft.Log) error {
	corrupt := fmt.Errorf("raft log entry %d: %w", index, ErrCorrupt)
	body, ok := unseal(indexKey(index), record)
	if !ok || len(body) < entryHead-recordHead {
		return corrupt
	}
	*entry = raft.Log{Index: index, Type: raft.LogType(body[0]), Term: binary.BigEndian.Uint64(body[1:])}
	if at := int64(binary.BigEndian.Uint64(body[9:])); at != 0 {
		entry.AppendedAt = time.Unix(0, at)
	}
	rest := body[17:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > uint64(len(rest)-n) {
		return corrupt
	}
	rest = rest[n:]
	if size > 0 {
		entry.Extensions = append([]byte{}, rest[:size]...)
	}
	entry.Data = append([]byte{}, rest[size:]...)
	return nil
}
