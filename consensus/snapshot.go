package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// A snapshot on the wire: version (1 byte), index and term (8 bytes each,
// big-endian), then the machine's description.
const (
	snapshotVersion byte = 1
	snapshotHead         = 1 + 8 + 8
	snapshotTries        = 1000 // attempts to describe a state that moves on
)

var errSnapshot = errors.New("snapshot is not understood")

// snapshots is raft's view of the machine: one snapshot, always, which is the
// machine's own durable state. Only what another keeper sends is kept, in
// memory, until it is restored.
type snapshots struct {
	machine StateMachine
	members *membership

	mu       sync.Mutex
	number   uint64
	received map[string]*sink // closed and not opened yet; at most one
}

const liveSnapshot = "live"

func (s *snapshots) meta(id string, index, term uint64, size int) *raft.SnapshotMeta {
	members, since := s.members.get()
	return &raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		ID:                 id,
		Index:              index,
		Term:               term,
		Configuration:      members,
		ConfigurationIndex: since,
		Size:               int64(size),
	}
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	index, term := s.machine.Applied()
	if index == 0 {
		return nil, nil
	}
	return []*raft.SnapshotMeta{s.meta(liveSnapshot, index, term, 0)}, nil
}

func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if id != liveSnapshot {
		s.mu.Lock()
		got := s.received[id]
		delete(s.received, id)
		s.mu.Unlock()
		if got == nil {
			return nil, nil, fmt.Errorf("open snapshot %s: not there", id)
		}
		return s.meta(id, got.index, got.term, got.data.Len()), io.NopCloser(&got.data), nil
	}
	for range snapshotTries {
		index, term := s.machine.Applied()
		meta, err := s.machine.Snapshot()
		if err != nil {
			return nil, nil, fmt.Errorf("describe state: %w", err)
		}
		if len(meta) > maxSnapshot {
			return nil, nil, fmt.Errorf("describe state: %d bytes, at most %d", len(meta), maxSnapshot)
		}
		// The machine moves on while it is described: the description must
		// belong to the index.
		if after, _ := s.machine.Applied(); after == index {
			text := packSnapshot(index, term, meta)
			return s.meta(id, index, term, len(text)), io.NopCloser(bytes.NewReader(text)), nil
		}
	}
	return nil, nil, errors.New("describe state: it changes too fast")
}

func (s *snapshots) Create(_ raft.SnapshotVersion, index, term uint64, members raft.Configuration, since uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	return &sink{of: s, id: fmt.Sprintf("received-%d", s.number), index: index, term: term, members: members, since: since}, nil
}

type sink struct {
	of          *snapshots
	id          string
	index, term uint64
	members     raft.Configuration
	since       uint64 // index of the entry that says who the members are
	data        bytes.Buffer
}

func (s *sink) ID() string    { return s.id }
func (s *sink) Cancel() error { return nil }

func (s *sink) Write(p []byte) (int, error) {
	if s.data.Len()+len(p) > snapshotHead+maxSnapshot {
		return 0, fmt.Errorf("%w: more than %d bytes", errSnapshot, maxSnapshot)
	}
	return s.data.Write(p)
}

// Close keeps what was received. A snapshot of our own writes nothing.
func (s *sink) Close() error {
	if s.data.Len() == 0 {
		return nil
	}
	index, term, _, err := unpackSnapshot(s.data.Bytes())
	if err != nil {
		return err
	}
	if index != s.index || term != s.term {
		return fmt.Errorf("%w: it is of entry %d, its sender said %d", errSnapshot, index, s.index)
	}
	// Who the members are was committed, whatever becomes of the restore.
	if err := s.of.members.keep(s.since, s.members); err != nil {
		return err
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.received = map[string]*sink{s.id: s}
	return nil
}

func packSnapshot(index, term uint64, meta []byte) []byte {
	out := append(make([]byte, 0, snapshotHead+len(meta)), snapshotVersion)
	out = binary.BigEndian.AppendUint64(out, index)
	out = binary.BigEndian.AppendUint64(out, term)
	return append(out, meta...)
}

func unpackSnapshot(text []byte) (index, term uint64, meta []byte, err error) {
	if len(text) < snapshotHead || len(text) > snapshotHead+maxSnapshot {
		return 0, 0, nil, fmt.Errorf("%w: %d bytes", errSnapshot, len(text))
	}
	if text[0] != snapshotVersion {
		return 0, 0, nil, fmt.Errorf("%w: version %d", errSnapshot, text[0])
	}
	return binary.BigEndian.Uint64(text[1:]), binary.BigEndian.Uint64(text[9:]), text[snapshotHead:], nil
}
