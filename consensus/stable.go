package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// The stable file holds a few values, among them raft's term and vote, twice:
// slots of stableSlot bytes, each
//
//	CRC-32C of what follows (4), length (4), sequence (8), then per value the
//	length of its name (1), name, length (2), value
//
// all little-endian. Both slots are written and flushed one after the other
// for each change, in place, so that a full disk does not keep a keeper from
// voting, and one damaged slot costs nothing.
const (
	stableName = "stable"
	stableSlot = 4096
	stableHead = 16
)

type stable struct {
	file *os.File

	mu     sync.Mutex // held over the write: what is read is durable
	seq    uint64
	values map[string][]byte
}

// openStable opens or makes the file, and holds it against other processes.
func openStable(name string) (*stable, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &stable{file: file, values: map[string][]byte{}}
	if err := errors.Join(lock(file), s.load()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

func (s *stable) load() error {
	raw := make([]byte, 2*stableSlot)
	n, err := s.file.ReadAt(raw, 0)
	if n == 0 {
		return s.write(s.values)
	}
	if n < len(raw) {
		return fmt.Errorf("%s: %w: it has %d bytes: %w", s.file.Name(), ErrCorrupt, n, err)
	}
	good := 0
	for _, slot := range [][]byte{raw[:stableSlot], raw[stableSlot:]} {
		seq, values, ok := decodeSlot(slot)
		if !ok {
			continue
		}
		good++
		if seq >= s.seq {
			s.seq, s.values = seq, values
		}
	}
	if good == 0 && !zeros(raw) {
		return fmt.Errorf("%s, which holds raft's vote: %w", s.file.Name(), ErrCorrupt)
	}
	return s.write(s.values) // both slots again
}

func (s *stable) get(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.values[key])
}

// names lists the values whose names begin so.
func (s *stable) names(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for key := range s.values {
		if strings.HasPrefix(key, prefix) {
			out = append(out, key)
		}
	}
	return out
}

// set makes values durable, all or none; a nil one is removed.
func (s *stable) set(changes map[string][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := maps.Clone(s.values)
	for key, value := range changes {
		if value == nil {
			delete(values, key)
		} else {
			values[key] = slices.Clone(value)
		}
	}
	return s.write(values)
}

func (s *stable) write(values map[string][]byte) error {
	slot, err := encodeSlot(s.seq+1, values)
	if err != nil {
		return err
	}
	for _, at := range []int64{0, stableSlot} {
		if _, err := s.file.WriteAt(slot, at); err != nil {
			return err
		}
		if err := s.file.Sync(); err != nil {
			return err
		}
	}
	s.seq, s.values = s.seq+1, values
	return nil
}

func (s *stable) close() error { return s.file.Close() }

func encodeSlot(seq uint64, values map[string][]byte) ([]byte, error) {
	out := make([]byte, stableHead, stableSlot)
	binary.LittleEndian.PutUint64(out[8:], seq)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if len(key) > 0xFF || len(values[key]) > 0xFFFF {
			return nil, fmt.Errorf("raft's %.32q is too long", key)
		}
		out = append(append(out, byte(len(key))), key...)
		out = append(binary.LittleEndian.AppendUint16(out, uint16(len(values[key]))), values[key]...)
	}
	if len(out) > stableSlot {
		return nil, fmt.Errorf("raft's own values have %d bytes, at most %d", len(out), stableSlot)
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-stableHead))
	binary.LittleEndian.PutUint32(out, crc32.Checksum(out[4:], castagnoli))
	return out[:stableSlot], nil
}

func decodeSlot(slot []byte) (seq uint64, values map[string][]byte, ok bool) {
	size := binary.LittleEndian.Uint32(slot[4:])
	if size > stableSlot-stableHead || binary.LittleEndian.Uint32(slot) != crc32.Checksum(slot[4:stableHead+size], castagnoli) {
		return 0, nil, false
	}
	values = map[string][]byte{}
	for rest := slot[stableHead : stableHead+size]; len(rest) > 0; {
		n := int(rest[0])
		if len(rest) < 1+n+2 {
			return 0, nil, false
		}
		key := string(rest[1 : 1+n])
		rest = rest[1+n:]
		m := int(binary.LittleEndian.Uint16(rest))
		if len(rest) < 2+m {
			return 0, nil, false
		}
		values[key] = slices.Clone(rest[2 : 2+m])
		if values[key] == nil {
			values[key] = []byte{}
		}
		rest = rest[2+m:]
	}
	return binary.LittleEndian.Uint64(slot[8:]), values, true
}
