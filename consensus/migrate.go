package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/internal/durable"
)

// Before segments, the raft log and vote were in raft.db, a bbolt file with the
// buckets "meta", "log" and "stable". Records of the latter two began with a
// big-endian CRC-32C over their key and what followed.
const (
	oldFile       = "raft.db"
	oldFormat     = 1
	movingName    = "raft.moving" // a folder that is being made of it
	moveAtOnce    = 1024          // entries in one append
	oldRecordHead = 4             // bytes of checksum
)

// moveOld makes the folder of a raft.db, if there is one and no folder yet. If
// we were to crash on the way, it would be made again.
func moveOld(dir string) error {
	old := filepath.Join(dir, oldFile)
	if _, err := os.Stat(old); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	to := filepath.Join(dir, raftFolder)
	if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
		moving := filepath.Join(dir, movingName)
		err := os.RemoveAll(moving)
		if err == nil {
			err = durable.Mkdir(moving, 0o700)
		}
		if err == nil {
			err = copyOld(old, moving)
		}
		if err == nil {
			err = os.Rename(moving, to)
		}
		if err == nil {
			err = durable.SyncDir(dir)
		}
		if err != nil {
			return fmt.Errorf("move %s to %s: %w", old, to, err)
		}
	}
	if err := os.Remove(old); err != nil {
		return fmt.Errorf("remove %s, which was moved to %s: %w", old, to, err)
	}
	return durable.SyncDir(dir)
}

func copyOld(name, dir string) (err error) {
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	values, err := openStable(filepath.Join(dir, stableName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, values.close()) }()
	segs, err := openSegments(dir, segmentBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, segs.close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		meta, log, votes := tx.Bucket([]byte("meta")), tx.Bucket([]byte("log")), tx.Bucket([]byte("stable"))
		if meta == nil || log == nil || votes == nil {
			return nil // a crash came before it was begun
		}
		if format := meta.Get([]byte("format")); format == nil {
			return nil // likewise
		} else if len(format) != 1 || format[0] != oldFormat {
			return fmt.Errorf("format %x is not known, want %d", format, oldFormat)
		}
		changes := map[string][]byte{keyFormat: {storeFormat}, keyKeepers: meta.Get([]byte("keepers"))}
		if mark := meta.Get([]byte("restored")); len(mark) == 8 {
			changes[keyRestored] = mark
		}
		err := votes.ForEach(func(key, value []byte) error {
			body, ok := unsealOld(key, value)
			if !ok {
				return fmt.Errorf("raft's %s: %w", key, ErrCorrupt)
			}
			changes[raftPrefix+string(key)] = append([]byte{}, body...)
			return nil
		})
		if err != nil {
			return err
		}
		var batch []record
		next := uint64(0)
		err = log.ForEach(func(key, value []byte) error {
			if len(key) != 8 {
				return fmt.Errorf("raft log: %w: a key", ErrCorrupt)
			}
			index := binary.BigEndian.Uint64(key)
			body, ok := unsealOld(key, value)
			if !ok || next != 0 && index != next {
				return fmt.Errorf("raft log entry %d: %w", max(next, 1), ErrCorrupt)
			}
			next = index + 1
			batch = append(batch, record{index: index, body: body})
			if len(batch) < moveAtOnce {
				return nil
			}
			err := segs.append(batch)
			batch = nil
			return err
		})
		if err == nil && len(batch) > 0 {
			err = segs.append(batch)
		}
		if err != nil {
			return err
		}
		return values.set(changes)
	})
}

func unsealOld(key, value []byte) (body []byte, ok bool) {
	if len(value) < oldRecordHead {
		return nil, false
	}
	body = value[oldRecordHead:]
	return body, binary.BigEndian.Uint32(value) == checksum(key, body)
}

const lockPoll = 20 * time.Millisecond
