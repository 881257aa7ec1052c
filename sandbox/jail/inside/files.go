//go:build linux

package inside

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/agenticraft/node/sandbox/jail/wire"
)

// placeFiles writes the files that the node sends into the working folder.
// The node has checked paths and sizes; the root keeps them inside all the same.
func placeFiles(j *wire.Jail) error {
	in := os.NewFile(FilesFD, "files")
	root, err := os.OpenRoot("/work")
	if err != nil {
		return errors.Join(err, in.Close())
	}
	for range j.Start.Files {
		if err = placeFile(root, in, j.WorkerID); err != nil {
			break
		}
	}
	return errors.Join(err, root.Close(), in.Close())
}

func placeFile(root *os.Root, in io.Reader, owner int) error {
	var head [10]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return fmt.Errorf("read head: %w", err)
	}
	name := make([]byte, binary.BigEndian.Uint16(head[:2]))
	size := int64(binary.BigEndian.Uint64(head[2:]))
	if _, err := io.ReadFull(in, name); err != nil {
		return fmt.Errorf("read path: %w", err)
	}
	if err := folders(root, path.Dir(string(name)), owner); err != nil {
		return err
	}
	f, err := root.OpenFile(string(name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, in, size)
	return errors.Join(err, f.Chown(owner, owner), f.Chmod(0o644), f.Close())
}

// folders makes dir and its parents, owned by the worker.
func folders(root *os.Root, dir string, owner int) error {
	if dir == "." {
		return nil
	}
	if err := folders(root, path.Dir(dir), owner); err != nil {
		return err
	}
	err := root.Mkdir(dir, 0o755)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return errors.Join(err, root.Chmod(dir, 0o755), root.Lchown(dir, owner, owner))
}
