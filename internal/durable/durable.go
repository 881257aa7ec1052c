// Package durable writes files that survive power loss.
//
// A file written by [WriteFile] is either the old one or the new one after a
// crash, never a mixture: data goes to a temporary file in the same folder, is
// flushed to disk, renamed over the name, and the folder is flushed as well.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// WriteFile replaces the named file with data, atomically and durably, and
// gives it exactly the permissions perm whatever the umask. When it returns
// nil, a power loss cannot undo it. Concurrent calls for one name are safe;
// one of them wins. What [Target] refuses is not replaced.
func WriteFile(name string, data []byte, perm os.FileMode) (err error) {
	if name, err = Target(name); err != nil {
		return err
	}
	dir := filepath.Dir(name)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(name)+".tmp-")
	if err != nil {
		return fmt.Errorf("create temporary file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(os.Remove(tmp.Name())))
		}
	}()
	if err := fill(tmp, data, perm); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("close temporary file: %w", err)
	}
	// If we were to crash before the rename, the old file is whole; after it,
	// the new one is, since its bytes are already on disk.
	if err := os.Rename(tmp.Name(), name); err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	return SyncDir(dir)
}

// openFile are the names that Linux and others give to files that are open: what a
// shell writes to under such a name would be lost with the file.
var openFile = regexp.MustCompile(`^/(dev/(stdin|stdout|stderr|fd)|proc)(/|$)`)

// Target is the file that a rename to name should replace: name, or the file that
// it links to. What is there and no regular file, such as a device, a pipe or a
// folder, is an error: a rename by root would replace /dev/null for the whole machine.
func Target(name string) (string, error) {
	if openFile.MatchString(filepath.Clean(name)) {
		return "", fmt.Errorf("%s is a file that is open already, and is not replaced", name)
	}
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return name, nil
	case err != nil:
		return "", fmt.Errorf("look at what is there: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a regular file, and is not replaced", name)
	}
	file, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", fmt.Errorf("follow the link: %w", err)
	}
	return file, nil
}

// Mkdir makes the folder and its parents with permissions perm and flushes the
// parent, so that the folder itself survives power loss.
func Mkdir(dir string, perm os.FileMode) error {
	if err := os.MkdirAll(dir, perm); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	return SyncDir(filepath.Dir(dir))
}

// SyncDir flushes a folder, which makes the creation, renaming or removal of
// the names in it durable.
func SyncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("flush folder: %w", err)
	}
	return nil
}

func fill(f *os.File, data []byte, perm os.FileMode) error {
	if err := f.Chmod(perm); err != nil {
		return fmt.Errorf("set permissions: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write temporary file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flush temporary file: %w", err)
	}
	return nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
