package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agenticraft/node/internal/durable"
)

// evidenceLog keeps the evidence of small runs one behind the other in a few files,
// its segments: a file for each would cost more than the run. A record is
//
//	state 1, length 4, task 16, time 8, CRC-32C 4 of length, task and time,
//	CRC-32C 4 of the evidence, the evidence
//
// with numbers in big-endian. Evidence is erased by zeros over it, in its place, and
// a segment is removed when nothing in it is kept. A process never adds to a segment
// of an earlier one, which may end in the middle of a record. Safe for concurrent use.
type evidenceLog struct {
	dir string

	mu   sync.Mutex // guards the rest; never held over a flush
	at   map[taskKey]place
	kept map[uint32]int // how many records of a segment are not gone
	last uint32         // number of the newest segment
	open *segment       // that one; nil until something is added, and after a fault
}

// segment is one to which this process adds.
type segment struct {
	number uint32
	file   *os.File

	size int64 // guarded by the log's mu, as are the next two
	uses int   // of file; nobody begins one after it was left
	left bool

	// flushing is held over a flush: who waits for it finds his record flushed, or
	// flushes all that were written meanwhile. It is taken before the log's mu.
	flushing sync.Mutex
	flushed  int64
}

type taskKey [taskBytes]byte

// place is where a record is.
type place struct {
	segment uint32
	offset  int64 // of the record
	length  uint32
	since   time.Time
	state   byte
}

// States of a record.
const (
	recordKept    byte = 'K'
	recordErasing byte = 'E'
	recordGone    byte = 'X'
)

const (
	segmentPrefix = "log-"
	segmentMagic  = "agenticraft evidence 1\n"
	segmentBytes  = 8 << 20  // then the next one is begun
	maxRecord     = 64 << 10 // bytes; more has a file of its own
	recordHead    = 1 + 4 + taskBytes + 8 + 4 + 4
)

// openEvidenceLog reads which evidence the segments in dir hold. What cannot be read
// of them stays as it is.
func openEvidenceLog(dir string) (*evidenceLog, error) {
	l := &evidenceLog{dir: dir, at: map[taskKey]place{}, kept: map[uint32]int{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open evidence: %w", err)
	}
	var numbers []uint32
	for _, e := range entries {
		hexed, ok := strings.CutPrefix(e.Name(), segmentPrefix)
		if n, err := strconv.ParseUint(hexed, 16, 32); ok && err == nil && segmentName(uint32(n)) == e.Name() {
			numbers = append(numbers, uint32(n))
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		if err := l.scan(n); err != nil {
			return nil, err
		}
		l.last = n
	}
	for _, n := range numbers {
		if l.kept[n] == 0 {
			if err := l.discard(n); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

func segmentName(n uint32) string { return fmt.Sprintf(segmentPrefix+"%08x", n) }

func (l *evidenceLog) path(n uint32) string { return filepath.Join(l.dir, segmentName(n)) }

// scan reads the heads of a segment. Behind one that is damaged it looks for the next.
func (l *evidenceLog) scan(n uint32) error {
	f, err := os.Open(l.path(n))
	if err != nil {
		return fmt.Errorf("open evidence: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open evidence: %w", err)
	}
	var in io.ReaderAt = f
	for at, damaged := int64(len(segmentMagic)), false; at < info.Size(); {
		task, p, ok := parseHead(in, at)
		if !ok || at+recordHead+int64(p.length) > info.Size() {
			if !damaged { // or a crash cut it off
				damaged = true
				l.kept[n]++ // what it was is not known: the segment stays
				text, err := os.ReadFile(l.path(n))
				if err != nil {
					return fmt.Errorf("open evidence: %w", err)
				}
				in = bytes.NewReader(text)
			}
			at++
			continue
		}
		p.segment, p.offset = n, at
		at += recordHead + int64(p.length)
		if p.state == recordGone {
			continue
		}
		if old, twice := l.at[task]; twice {
			l.kept[old.segment]-- // a crash kept it from being erased
		}
		l.at[task] = p
		l.kept[n]++
	}
	return nil
}

func parseHead(in io.ReaderAt, at int64) (task taskKey, p place, ok bool) {
	head := make([]byte, recordHead)
	if _, err := in.ReadAt(head, at); err != nil {
		return task, p, false
	}
	p.state = head[0]
	sum := binary.BigEndian.Uint32(head[29:])
	p.length = binary.BigEndian.Uint32(head[1:])
	p.since = time.Unix(0, int64(binary.BigEndian.Uint64(head[21:])))
	known := p.state == recordKept || p.state == recordErasing || p.state == recordGone
	return taskKey(head[5:21]), p, known && p.length <= maxRecord && crc32.Checksum(head[1:29], digestTable) == sum
}

// keyOf is a task in binary; it matches taskName.
func keyOf(task string) taskKey {
	id, err := hex.DecodeString(task)
	if err != nil || len(id) != taskBytes {
		panic("internal error: evidence of no task: " + task)
	}
	return taskKey(id)
}

// put adds evidence durably, in place of what there was of its task.
func (l *evidenceLog) put(task string, text []byte, now time.Time) error {
	key := keyOf(task)
	record := make([]byte, recordHead, recordHead+len(text))
	record[0] = recordKept
	binary.BigEndian.PutUint32(record[1:], uint32(len(text)))
	copy(record[5:], key[:])
	binary.BigEndian.PutUint64(record[21:], uint64(now.UnixNano()))
	binary.BigEndian.PutUint32(record[29:], crc32.Checksum(record[1:29], digestTable))
	binary.BigEndian.PutUint32(record[33:], crc32.Checksum(text, digestTable))
	record = append(record, text...)

	p, seg, err := l.write(record)
	if err != nil {
		return err
	}
	defer l.release(seg)
	if err := l.flush(seg, p.offset+int64(len(record))); err != nil {
		return err
	}
	p.length, p.since, p.state = uint32(len(text)), now, recordKept
	l.mu.Lock()
	old, twice := l.at[key]
	l.at[key] = p
	l.mu.Unlock()
	if twice {
		return l.wipe(old)
	}
	return nil
}

// write appends a record to the open segment, which it begins if need be. The
// segment is the caller's to release.
func (l *evidenceLog) write(record []byte) (place, *segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil || l.open.size >= segmentBytes {
		if err := l.begin(); err != nil {
			return place{}, nil, err
		}
	}
	seg := l.open
	if _, err := seg.file.WriteAt(record, seg.size); err != nil {
		l.leave()
		return place{}, nil, fmt.Errorf("write evidence: %w", err)
	}
	p := place{segment: seg.number, offset: seg.size}
	seg.size += int64(len(record))
	seg.uses++
	l.kept[p.segment]++
	return p, seg, nil
}

// begin opens the next segment. It is called with mu held.
func (l *evidenceLog) begin() error {
	f, err := os.OpenFile(l.path(l.last+1), os.O_CREATE|os.O_EXCL|os.O_WRONLY, evidencePerm)
	if err != nil {
		return fmt.Errorf("begin a file of evidence: %w", err)
	}
	_, err = f.WriteString(segmentMagic)
	if err == nil {
		err = durable.SyncDir(l.dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("begin a file of evidence: %w", err), f.Close(), os.Remove(f.Name()))
	}
	l.leave()
	l.last++
	l.open = &segment{number: l.last, file: f, size: int64(len(segmentMagic))}
	return nil
}

// leave has the next record begin another segment. It is called with mu held.
func (l *evidenceLog) leave() {
	if l.open == nil {
		return
	}
	seg := l.open
	l.open, seg.left = nil, true
	if seg.uses == 0 {
		_ = seg.file.Close() // what was added is flushed
	}
}

// release ends a use of a segment.
func (l *evidenceLog) release(seg *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seg.uses--; seg.uses == 0 && seg.left {
		_ = seg.file.Close() // as above
	}
}

// flush returns when the segment is on disk up to an offset.
func (l *evidenceLog) flush(seg *segment, upTo int64) error {
	seg.flushing.Lock()
	defer seg.flushing.Unlock()
	if seg.flushed >= upTo {
		return nil
	}
	l.mu.Lock()
	size := seg.size
	l.mu.Unlock()
	if err := seg.file.Sync(); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if seg == l.open {
			l.leave() // what of it is on disk is not known
		}
		return fmt.Errorf("flush evidence: %w", err)
	}
	seg.flushed = size
	return nil
}

// find is where the evidence of a task is that has this state.
func (l *evidenceLog) find(task string, state byte) (place, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.at[keyOf(task)]
	return p, ok && p.state == state
}

// read gives a task's evidence; [fs.ErrNotExist] if there is none.
func (l *evidenceLog) read(task string) ([]byte, error) {
	p, ok := l.find(task, recordKept)
	if !ok {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(l.path(p.segment))
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	defer f.Close()
	record := make([]byte, recordHead+int(p.length))
	if _, err := f.ReadAt(record, p.offset); err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	text := record[recordHead:]
	if crc32.Checksum(text, digestTable) != binary.BigEndian.Uint32(record[33:]) {
		return nil, fmt.Errorf("read evidence: that of task %s in %s is damaged", task, segmentName(p.segment))
	}
	return text, nil
}

// list adds what is kept, and what is being erased.
func (l *evidenceLog) list(kept []stored, erasing []string) ([]stored, []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, p := range l.at {
		task := hex.EncodeToString(key[:])
		if p.state == recordErasing {
			erasing = append(erasing, task)
			continue
		}
		kept = append(kept, stored{task, p.since, int64(p.length)})
	}
	return kept, erasing
}

// tasks adds those whose evidence is kept.
func (l *evidenceLog) tasks(to map[taskKey]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, p := range l.at {
		if p.state == recordKept {
			to[key] = true
		}
	}
}

// mark changes the state of a task's record durably, and says how large it is; false
// if there is none in a state to change.
func (l *evidenceLog) mark(task string, from, to byte) (int64, bool, error) {
	p, ok := l.find(task, from)
	if !ok {
		return 0, false, nil
	}
	if err := l.change(p, func(f *os.File) error { return setState(f, p, to) }); err != nil {
		return 0, true, err
	}
	p.state = to
	l.mu.Lock()
	l.at[keyOf(task)] = p
	l.mu.Unlock()
	return int64(p.length), true, nil
}

// remove erases what was marked for it.
func (l *evidenceLog) remove(task string) error {
	p, ok := l.find(task, recordErasing)
	if !ok {
		return nil
	}
	if err := l.wipe(p); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.at, keyOf(task))
	return nil
}

// wipe writes zeros over a record, and removes its segment if it was the last in it.
func (l *evidenceLog) wipe(p place) error {
	err := l.change(p, func(f *os.File) error {
		if _, err := f.WriteAt(make([]byte, p.length), p.offset+recordHead); err != nil {
			return err
		}
		return setState(f, p, recordGone)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.kept[p.segment]--
	empty := l.kept[p.segment] == 0 && (l.open == nil || l.open.number != p.segment)
	l.mu.Unlock()
	if !empty {
		return nil
	}
	return l.discard(p.segment)
}

// discard removes a segment in which nothing is kept.
func (l *evidenceLog) discard(n uint32) error {
	if err := os.Remove(l.path(n)); err != nil {
		return fmt.Errorf("erase evidence: %w", err)
	}
	return durable.SyncDir(l.dir)
}

// change writes to the segment of a record durably.
func (l *evidenceLog) change(p place, do func(*os.File) error) error {
	f, err := os.OpenFile(l.path(p.segment), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("erase evidence: %w", err)
	}
	if err = errors.Join(do(f), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("erase evidence: %w", err)
	}
	return nil
}

func setState(f *os.File, p place, to byte) error {
	_, err := f.WriteAt([]byte{to}, p.offset)
	return err
}

// close ends adding to the log.
func (l *evidenceLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leave()
}
