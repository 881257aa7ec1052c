package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/agenticraft/node/internal/durable"
)

const (
	segmentSuffix = ".seg"
	spareName     = "spare.tmp"
	maxSegment    = 64 << 20 // bytes of a file that is read
)

// segments are the entries of the raft log, in files. One goroutine at a time
// may change them; reads may go on beside it.
type segments struct {
	dir  string
	size int64 // of a new file

	mu    sync.RWMutex // guards what follows; not held over a flush
	files []*segment   // in order, without gaps
	last  uint64       // 0: the log is empty

	filling bool           // the next file is, or is being, filled with zeros
	spare   sync.WaitGroup // the goroutine that does
	ready   chan *os.File  // that file; has room for one
}

type segment struct {
	file    *os.File
	name    string
	first   uint64
	offsets []int64 // where each entry begins, or corruptAt
	end     int64
	size    int64
	dirty   bool // an append failed: something may be behind end
}

func (s *segment) last() uint64 { return s.first + uint64(len(s.offsets)) - 1 }

func segmentName(first uint64) string { return fmt.Sprintf("%016x%s", first, segmentSuffix) }

// openSegments reads what is in dir. Damage is marked, not mended, except that
// the rest of an append that was cut short is wiped.
func openSegments(dir string, size int64) (*segments, error) {
	s := &segments{dir: dir, size: size, ready: make(chan *os.File, 1)}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, n := range names {
		if text, ok := strings.CutSuffix(n.Name(), segmentSuffix); ok {
			first, err := strconv.ParseUint(text, 16, 64)
			if err != nil || segmentName(first) != n.Name() || first == 0 {
				return nil, fmt.Errorf("%s is not a segment of the raft log", n.Name())
			}
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	for i, first := range firsts {
		if err := s.load(first, i == len(firsts)-1); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// load adds a file to the end of the log.
func (s *segments) load(first uint64, last bool) error {
	name := filepath.Join(s.dir, segmentName(first))
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	seg := &segment{file: file, name: name, first: first}
	data, err := seg.read()
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", name, err), file.Close())
	}
	found := scanSegment(data, first, last)
	seg.offsets, seg.end = found.offsets, found.end
	if len(s.files) > 0 {
		before := s.files[len(s.files)-1]
		if first <= before.last() || first-before.last() > maxSegment/recordHeader {
			return errors.Join(fmt.Errorf("%s: %w: it does not follow entry %d", name, ErrCorrupt, before.last()), file.Close())
		}
		for before.last()+1 < first { // a finished append was in the file before
			before.offsets = append(before.offsets, corruptAt)
		}
	}
	if found.torn && last {
		if err := seg.wipe(found.end); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", name, err), file.Close())
		}
	}
	s.files = append(s.files, seg)
	s.last = seg.last()
	if len(seg.offsets) == 0 {
		s.last = first - 1 // a crash came before its first append
		if len(s.files) == 1 {
			s.last = 0
		}
	}
	return nil
}

// read reads the whole file.
func (s *segment) read() ([]byte, error) {
	info, err := s.file.Stat()
	if err != nil {
		return nil, err
	}
	if s.size = info.Size(); s.size < segmentHead || s.size > maxSegment {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrCorrupt, s.size)
	}
	data := make([]byte, s.size)
	if _, err := s.file.ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	first, size, ok := decodeSegmentHead(data)
	switch {
	case !ok || first != s.first:
		return nil, fmt.Errorf("%w: its head", ErrCorrupt)
	case size != s.size:
		return nil, fmt.Errorf("%w: it has %d bytes, it was made with %d", ErrCorrupt, s.size, size)
	}
	return data, nil
}

// wipe makes everything from an offset on zeros.
func (s *segment) wipe(from int64) error {
	if _, err := s.file.WriteAt(make([]byte, s.size-from), from); err != nil {
		return err
	}
	return flush(s.file)
}

// prepare fills the file after the next with zeros, so that an append need not.
func (s *segments) prepare() {
	if s.filling {
		return
	}
	s.filling = true
	s.spare.Go(func() {
		file, err := s.zeroed()
		if err != nil {
			return // the append that needs it tries again, and tells
		}
		select {
		case s.ready <- file:
		default:
			_ = file.Close() // there is one already
		}
	})
}

func (s *segments) zeroed() (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(s.dir, spareName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = file.Write(make([]byte, s.size)); err == nil {
		err = file.Sync()
	}
	if err != nil {
		// What there is of it must not keep others from the last of the space.
		return nil, errors.Join(err, file.Truncate(0), file.Close())
	}
	return file, nil
}

// reserve has the next file ready, unless there is no space for it.
func (s *segments) reserve() error {
	s.spare.Wait()
	if len(s.ready) > 0 {
		return nil
	}
	file, err := s.zeroed()
	if err != nil {
		return err
	}
	s.filling = true
	s.ready <- file
	return nil
}

// add begins a new file with the entry first.
func (s *segments) add(first uint64) error {
	s.spare.Wait()
	s.filling = false
	var file *os.File
	select {
	case file = <-s.ready:
	default:
		var err error
		if file, err = s.zeroed(); err != nil {
			return err
		}
	}
	name := filepath.Join(s.dir, segmentName(first))
	_, err := file.WriteAt(encodeSegmentHead(first, s.size), 0)
	if err == nil {
		err = flush(file)
	}
	if err == nil {
		err = os.Rename(filepath.Join(s.dir, spareName), name)
	}
	if err == nil {
		err = durable.SyncDir(s.dir)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	s.mu.Lock()
	s.files = append(s.files, &segment{file: file, name: name, first: first, end: segmentHead, size: s.size})
	s.mu.Unlock()
	return nil
}

// append writes entries that follow the last one, durable when it returns nil.
// After an error some of them may be there after the next start.
func (s *segments) append(records []record) error {
	for len(records) > 0 {
		n, err := s.appendSome(records)
		if err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

// appendSome writes as many entries as go into one file.
func (s *segments) appendSome(records []record) (int, error) {
	if n := len(s.files); n == 0 || s.files[n-1].end+int64(recordSize(len(records[0].body))) > s.files[n-1].size {
		if err := s.add(records[0].index); err != nil {
			return 0, err
		}
	}
	seg := s.files[len(s.files)-1]
	var out []byte
	var offsets []int64
	for i, r := range records {
		if seg.end+int64(len(out)+recordSize(len(r.body))) > seg.size {
			break
		}
		r.first = i == 0
		offsets = append(offsets, seg.end+int64(len(out)))
		out = appendRecord(out, r)
	}
	if len(offsets) == 0 {
		return 0, fmt.Errorf("internal error: a record of %d bytes", len(records[0].body))
	}
	if seg.dirty {
		// What a failed append left must not be taken for entries that follow.
		if err := seg.wipe(seg.end); err != nil {
			return 0, err
		}
	}
	seg.dirty = true
	if _, err := seg.file.WriteAt(out, seg.end); err != nil {
		return 0, err
	}
	if err := flush(seg.file); err != nil {
		return 0, err
	}
	seg.dirty = false
	if seg.end > seg.size/2 {
		s.prepare()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.offsets = append(seg.offsets, offsets...)
	seg.end += int64(len(out))
	s.last = seg.last()
	return len(offsets), nil
}

// read returns the body of an entry, nil if it is not there, or [ErrCorrupt].
func (s *segments) read(index uint64) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock() // over the read: the file must not be closed meanwhile
	i, found := slices.BinarySearchFunc(s.files, index, func(f *segment, at uint64) int {
		switch {
		case at < f.first:
			return 1
		case at > f.last():
			return -1
		}
		return 0
	})
	if !found {
		return nil, nil
	}
	seg := s.files[i]
	corrupt := fmt.Errorf("raft log entry %d: %w", index, ErrCorrupt)
	at, end := seg.offsets[index-seg.first], seg.end
	if at == corruptAt {
		return nil, corrupt
	}
	for _, next := range seg.offsets[index-seg.first+1:] {
		if next != corruptAt {
			end = next
			break
		}
	}
	raw := make([]byte, end-at)
	if _, err := seg.file.ReadAt(raw, at); err != nil {
		return nil, fmt.Errorf("%w: %w", corrupt, err)
	}
	r, ok := readRecord(raw)
	if !ok || r.index != index {
		return nil, corrupt
	}
	return r.body, nil
}

// cut removes the entries from the given one on. It is not atomic: whoever calls
// it notes first that it is under way.
func (s *segments) cut(from uint64) error {
	for len(s.files) > 0 && s.files[len(s.files)-1].first >= from {
		if err := s.drop(len(s.files) - 1); err != nil {
			return err
		}
	}
	if len(s.files) == 0 {
		return nil
	}
	seg := s.files[len(s.files)-1]
	if seg.last() < from {
		return nil
	}
	keep := from - seg.first
	end, err := seg.begins(keep)
	if err != nil {
		return fmt.Errorf("remove entries from %d: %w", from, err)
	}
	if err := seg.wipe(end); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.offsets, seg.end = seg.offsets[:keep:keep], end
	s.last = seg.last()
	return nil
}

// begins is where the i-th entry of the file begins, or would if it were readable.
func (s *segment) begins(i uint64) (int64, error) {
	if s.offsets[i] != corruptAt {
		return s.offsets[i], nil
	}
	if i == 0 {
		return segmentHead, nil
	}
	before := s.offsets[i-1]
	if before == corruptAt {
		return 0, ErrCorrupt
	}
	head := make([]byte, recordHeader)
	if _, err := s.file.ReadAt(head, before); err != nil {
		return 0, err
	}
	return before + int64(recordSize(int(binary.LittleEndian.Uint32(head[4:])))), nil
}

// dropFront removes the files all of whose entries are at most upTo.
func (s *segments) dropFront(upTo uint64) error {
	for len(s.files) > 1 && s.files[1].first <= upTo+1 {
		if err := s.drop(0); err != nil {
			return err
		}
	}
	return nil
}

// clear removes everything, oldest first: what a crash leaves has no gap.
func (s *segments) clear() error {
	for len(s.files) > 0 {
		if err := s.drop(0); err != nil {
			return err
		}
	}
	return nil
}

func (s *segments) drop(i int) error {
	seg := s.files[i]
	if err := os.Remove(seg.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = slices.Delete(s.files, i, i+1)
	s.last = 0
	if len(s.files) > 0 {
		s.last = s.files[len(s.files)-1].last()
	}
	return seg.file.Close()
}

// room is how many bytes of records the last file still takes. Its blocks are
// there: writing them needs no space.
func (s *segments) room() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.files) == 0 {
		return 0
	}
	seg := s.files[len(s.files)-1]
	return seg.size - seg.end
}

// span is the oldest and the newest entry; 0: there is none.
func (s *segments) span() (first, last uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.last == 0 || len(s.files) == 0 {
		return 0, 0
	}
	return s.files[0].first, s.last
}

func (s *segments) close() error {
	s.spare.Wait()
	var faults []error
	select {
	case file := <-s.ready:
		faults = append(faults, file.Close())
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.files {
		faults = append(faults, seg.file.Close())
	}
	s.files = nil
	return errors.Join(faults...)
}
