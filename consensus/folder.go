package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// HasLog reports whether a folder holds the raft log and vote of a keeper, or of
// one that was about to begin.
func HasLog(dir string) (bool, error) {
	for _, name := range []string{filepath.Join(raftFolder, stableName), oldFile} {
		switch _, err := os.Stat(filepath.Join(dir, name)); {
		case err == nil:
			return true, nil
		case !errors.Is(err, fs.ErrNotExist):
			return false, fmt.Errorf("look for raft's log: %w", err)
		}
	}
	return false, nil
}

// ReadTerm reads raft's term from a stopped keeper's folder; 0 if it holds no
// raft log.
func ReadTerm(dir string) (term uint64, err error) {
	begun, err := HasLog(dir)
	if err != nil || !begun {
		return 0, err
	}
	values, err := openValues(dir)
	if err != nil {
		return 0, fmt.Errorf("read term: %w", err)
	}
	defer func() { err = errors.Join(err, values.close()) }()
	text := values.get(raftPrefix + keyTerm)
	if len(text) == 0 {
		return 0, nil
	}
	if len(text) != 8 {
		return 0, fmt.Errorf("read term: %w: %d bytes", ErrCorrupt, len(text))
	}
	return binary.BigEndian.Uint64(text), nil
}

// openValues opens the stable file of a folder that has a raft log.
func openValues(dir string) (*stable, error) {
	if err := moveOld(dir); err != nil {
		return nil, err
	}
	return openStable(filepath.Join(dir, raftFolder, stableName))
}

// MarkRestored notes in a stopped keeper's folder that its state machine was
// given the state up to a raft entry from elsewhere, which may lie past the end
// of its raft log. Term and vote stay as they are.
func MarkRestored(dir string, index uint64) (err error) {
	begun, err := HasLog(dir)
	switch {
	case err != nil:
		return fmt.Errorf("note restore: %w", err)
	case !begun:
		return fmt.Errorf("note restore: %s holds no raft log", dir)
	}
	values, err := openValues(dir)
	if err != nil {
		return fmt.Errorf("note restore: %w", err)
	}
	defer func() { err = errors.Join(err, values.close()) }()
	if values.get(keyFormat) == nil {
		return nil // nothing was begun, so nothing is to be noted
	}
	if err := values.set(map[string][]byte{keyRestored: indexKey(index)}); err != nil {
		return fmt.Errorf("note restore: %w", err)
	}
	return nil
}
