//go:build linux

package docker

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/agenticraft/node/sandbox"
)

// ensureImage makes the image of a language tree unless the engine has it, and
// returns its name, which bears the tree's digest.
func (b *Backend) ensureImage(ctx context.Context, dir, digest string) (string, error) {
	name := "agenticraft/runtime:" + digest
	b.importing.Lock()
	defer b.importing.Unlock()
	short, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := b.api.ImageInspect(short, name)
	if err == nil {
		return name, nil
	}
	if !errdefs.IsNotFound(err) {
		return "", fmt.Errorf("%w: look for image: %w", sandbox.ErrUnavailable, err)
	}
	b.cfg.Log.InfoContext(ctx, "making the image of a runtime", "image", name)
	ctx, cancelImport := context.WithTimeout(ctx, importTimeout)
	defer cancelImport()
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.CloseWithError(writeTree(w, dir)) // never fails
	}()
	out, err := b.api.ImageImport(ctx, image.ImportSource{Source: r, SourceName: "-"}, name, image.ImportOptions{})
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(out, 1<<20))
		err = errors.Join(err, out.Close())
	}
	_ = r.Close() // ends the writer, if it has not ended
	<-done
	if err != nil {
		return "", fmt.Errorf("%w: make image: %w", sandbox.ErrUnavailable, err)
	}
	return name, nil
}

// writeTree writes a language tree as a tar archive in which all belongs to root.
func writeTree(w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		link := ""
		if e.Type() == fs.ModeSymlink {
			if link, err = os.Readlink(name); err != nil {
				return err
			}
		}
		head, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		head.Name = filepath.ToSlash(rel)
		head.Uid, head.Gid, head.Uname, head.Gname = 0, 0, "", ""
		if err := t.WriteHeader(head); err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(t, f)
		return errors.Join(err, f.Close())
	})
	return errors.Join(err, t.Close())
}
