package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
)

// The raft folder holds the entries of raft's log as segments, and the stable
// file, which holds raft's term and vote, the format's version, the keepers that
// the log was begun with, the mark of the last restore and that of a removal of
// entries that is under way.
const (
	raftFolder  = "raft"
	keyFormat   = "format"
	keyKeepers  = "keepers"
	keyRestored = "restored"
	keyCutting  = "cutting"
	raftPrefix  = "raft."        // of raft's own values
	keyTerm     = "CurrentTerm"  // one of them
	keyVoteTerm = "LastVoteTerm" // the one of them that is written first when it votes

	storeFormat byte = 2
	lockTimeout      = 2 * time.Second
	logCache         = 64 // entries kept in memory for followers
)

var (
	errStalled    = errors.New("the disk does not finish a write")
	errMute       = errors.New("this keeper gives no vote yet")
	errTruncation = errors.New("refused to remove entries that are applied")
)

type storeConfig struct {
	Dir     string // in which the raft folder is
	Keepers []identity.ID
	Join    bool                        // a new file may go on from where the state machine stands
	Durable func() (index, term uint64) // of the state machine
	MayVote func(term uint64) bool      // see Config
	Timeout time.Duration               // of a write to the log
	Segment int64                       // bytes of a file; 0: segmentBytes
	Fail    func(error)
	Metrics *metrics
}

// store is raft's LogStore and StableStore.
//
// raft panics where it cannot read its log or write its vote. Once live, the
// store reports such an error instead and parks raft's goroutine until the
// group closes, by which time the process is about to stop.
type store struct {
	cfg    storeConfig
	log    *segments
	values *stable
	fresh  bool                  // the folder was not begun with a configuration yet
	live   atomic.Bool           // raft runs
	full   atomic.Pointer[error] // why the log took nothing the last time, if that may change
	trying atomic.Bool           // whether it does now, see unwritable

	stopped chan struct{}
	once    sync.Once
	work    sync.WaitGroup

	disk sync.Mutex // held while the log is changed

	mu          sync.Mutex
	first, last uint64 // of the log, with what is on its way to the disk; 0 if it is empty
	flushed     uint64 // the last entry that is on the disk; 0 if there is none
	restored    uint64
	unwritten   unwritten
}

var (
	_ raft.LogStore    = (*store)(nil)
	_ raft.StableStore = (*store)(nil)
)

func openStore(cfg storeConfig) (*store, error) {
	s := &store{cfg: cfg, unwritten: newUnwritten(), stopped: make(chan struct{})}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open raft's log in %s: %w", cfg.Dir, err), s.closeFiles())
	}
	s.work.Go(s.write)
	return s, nil
}

func (s *store) open() error {
	if err := moveOld(s.cfg.Dir); err != nil {
		return err
	}
	dir := filepath.Join(s.cfg.Dir, raftFolder)
	err := durable.Mkdir(dir, 0o700)
	if err != nil {
		return err
	}
	if s.values, err = openStable(filepath.Join(dir, stableName)); err != nil {
		return err
	}
	if s.log, err = openSegments(dir, orDefault(s.cfg.Segment, segmentBytes)); err != nil {
		return err
	}
	return s.load()
}

func (s *store) closeFiles() error {
	var faults []error
	if s.log != nil {
		faults = append(faults, s.log.close())
	}
	if s.values != nil {
		faults = append(faults, s.values.close())
	}
	return errors.Join(faults...)
}

func keeperList(ids []identity.ID) string {
	var names []string
	for _, id := range ids {
		names = append(names, string(id))
	}
	return strings.Join(names, " ")
}

// load checks that the files, the configuration and the state machine belong
// together, and every entry that raft is going to replay.
func (s *store) load() error {
	applied, _ := s.cfg.Durable()
	switch format := s.values.get(keyFormat); {
	case format == nil:
		s.fresh = true
	case len(format) != 1 || format[0] != storeFormat:
		return fmt.Errorf("format %x is not known, want %d", format, storeFormat)
	case string(s.values.get(keyKeepers)) != keeperList(s.cfg.Keepers):
		return fmt.Errorf("the log was begun with the keepers %s, now they are %s", s.values.get(keyKeepers), keeperList(s.cfg.Keepers))
	}
	if s.fresh {
		if s.cfg.Join && applied == 0 {
			return errors.New("a keeper that joins needs a copy of the state first")
		}
		if applied > 0 && !s.cfg.Join {
			return fmt.Errorf("raft's log and vote are missing, although entry %d is applied: a keeper must not vote without them", applied)
		}
		// A crash came before the first configuration was noted.
		changes := map[string][]byte{}
		for _, key := range s.values.names(raftPrefix) {
			changes[key] = nil
		}
		return errors.Join(s.log.clear(), s.values.set(changes))
	}
	if mark := s.values.get(keyRestored); len(mark) == 8 {
		s.restored = binary.BigEndian.Uint64(mark)
	}
	if mark := s.values.get(keyCutting); len(mark) == 8 {
		if err := s.cut(binary.BigEndian.Uint64(mark)); err != nil {
			return err
		}
	}
	s.first, s.last = s.log.span()
	s.flushed = s.last
	switch {
	case s.last < applied && s.restored < applied:
		return fmt.Errorf("the raft log ends at entry %d, although entry %d is applied: it is an older copy, and votes are lost with it", s.last, applied)
	case s.last < applied:
		// A crash came after a restore and before the first entry behind it.
		s.first, s.last, s.flushed = 0, 0, 0
		return s.log.clear()
	case s.first > applied+1:
		return fmt.Errorf("the raft log begins at entry %d, although only entry %d is applied: the state is an older copy", s.first, applied)
	}
	for index := max(applied+1, s.first); index <= s.last; index++ {
		if err := s.read(index, new(raft.Log)); err != nil {
			return err
		}
	}
	return nil
}

// cut removes the entries from the given one on. If we were to crash on the way,
// the mark has it done at the next start.
func (s *store) cut(from uint64) error {
	if err := s.values.set(map[string][]byte{keyCutting: indexKey(from)}); err != nil {
		return err
	}
	if err := s.log.cut(from); err != nil {
		return err
	}
	return s.values.set(map[string][]byte{keyCutting: nil})
}

// read reads and checks one entry.
func (s *store) read(index uint64, entry *raft.Log) error {
	body, err := s.log.read(index)
	switch {
	case err != nil:
		return err
	case body == nil:
		return raft.ErrLogNotFound
	}
	return decodeEntry(index, body, entry)
}

// begun notes that the first configuration is in the log.
func (s *store) begun() error {
	return s.values.set(map[string][]byte{keyKeepers: []byte(keeperList(s.cfg.Keepers)), keyFormat: {storeFormat}})
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

// restoring notes that the state machine is about to move to index, past the
// end of the log.
func (s *store) restoring(index uint64) error {
	if err := s.values.set(map[string][]byte{keyRestored: indexKey(index)}); err != nil {
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
	s.mu.Lock()
	in := s.first > 0 && index >= s.first && index <= s.last
	body := s.unwritten.body(index)
	s.mu.Unlock()
	if !in {
		return raft.ErrLogNotFound
	}
	if body != nil {
		return decodeEntry(index, body, entry)
	}
	err := s.read(index, entry)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return s.broken(err)
	}
	return err
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
	if err := s.settled(context.Background()); err != nil {
		return fmt.Errorf("truncate raft log: %w", err)
	}
	s.disk.Lock()
	defer s.disk.Unlock()
	err := s.cut(lowest)
	if lowest <= first {
		first = 0
	}
	if err != nil {
		s.settle()
		if errors.Is(err, ErrCorrupt) {
			return s.broken(err)
		}
		return fmt.Errorf("truncate raft log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first, s.last = first, lowest-1; first == 0 {
		s.last = 0
	}
	s.flushed = s.last
	return nil
}

// deleteFront forgets entries; their files go when nothing else is in them.
func (s *store) deleteFront(highest uint64) error {
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.log.dropFront(highest); err != nil {
		return fmt.Errorf("shorten raft log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = max(s.first, highest+1)
	return nil
}

// Set makes a value of raft's durable.
func (s *store) Set(key, value []byte) error {
	if err := s.values.set(map[string][]byte{raftPrefix + string(key): append([]byte{}, value...)}); err != nil {
		return s.broken(fmt.Errorf("write raft's %s: %w", key, err))
	}
	return nil
}

// Get returns a value, nil if it was never set.
func (s *store) Get(key []byte) ([]byte, error) { return s.values.get(raftPrefix + string(key)), nil }

// SetUint64 is [store.Set]. A vote that is not to be given is refused: raft
// writes down the term of each vote, that for itself included, before it gives
// it, and gives none that it cannot write down.
func (s *store) SetUint64(key []byte, value uint64) error {
	if string(key) == keyVoteTerm && !s.cfg.MayVote(value) {
		return errMute
	}
	return s.Set(key, indexKey(value))
}

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
	return s.closeFiles()
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}
