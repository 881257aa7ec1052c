package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/agenticraft/node/internal/durable"
)

// contradictionFile keeps a checkpoint that a quorum of keepers signed and that
// the log beside it contradicts. While it is there, the log is not to be
// believed, whatever else verifies.
const contradictionFile = "contradicted.note"

// KeepContradiction writes such a checkpoint into a node's data folder.
func KeepContradiction(dir string, text []byte) error {
	if err := durable.WriteFile(filepath.Join(dir, contradictionFile), text, storeFilePerm); err != nil {
		return fmt.Errorf("keep what contradicts the log: %w", err)
	}
	return nil
}

// Contradiction reads the checkpoint that contradicts the log in dir, or
// returns [ErrNotFound]. Its signatures are not verified again.
func Contradiction(dir string) (Checkpoint, []byte, error) {
	name := filepath.Join(dir, contradictionFile)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Checkpoint{}, nil, fmt.Errorf("%s: %w", contradictionFile, ErrNotFound)
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxNote) {
		err = fmt.Errorf("%w: not such a file", ErrInvalid)
	}
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("read %s: %w", contradictionFile, err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("read %s: %w", contradictionFile, err)
	}
	at, _, _, err := openNote(text, nil)
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("read %s: %w", contradictionFile, err)
	}
	return at, text, nil
}

// SetAside moves the log in dir, and what goes with it, into the folder to,
// which must not exist: as evidence, and to make room for a sound copy. The
// last that this node signed goes along, for it may have signed what is wrong;
// what contradicts the log stays until the new copy is sound, see [Clear].
func SetAside(dir, to string) error {
	if err := os.Mkdir(to, storeDirPerm); err != nil {
		return fmt.Errorf("set the log aside: %w", err)
	}
	for _, name := range []string{indexFile, cosignedFile, storeFile} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the log aside: %w", err)
		}
	}
	return errors.Join(durable.SyncDir(to), durable.SyncDir(dir))
}

// Clear moves what contradicted the log in dir to the evidence in the folder
// to, if the store there now has the root that the quorum signed.
func (s *Store) Clear(to string) error {
	at, _, err := Contradiction(s.dir)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	root, err := s.Root(at.Size)
	if err != nil {
		return err
	}
	if root != at.Root {
		return fmt.Errorf("%w: at size %d the root is %s, a quorum signed %s", ErrFork, at.Size, root, at.Root)
	}
	if err := os.Rename(filepath.Join(s.dir, contradictionFile), filepath.Join(to, contradictionFile)); err != nil {
		return fmt.Errorf("set the contradiction aside: %w", err)
	}
	return errors.Join(durable.SyncDir(to), durable.SyncDir(s.dir))
}
