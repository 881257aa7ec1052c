//go:build linux

package docker

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/agenticraft/node/sandbox"
	"github.com/agenticraft/node/sandbox/process"
)

// source is where a container comes from.
type source struct {
	image, digest string
	argv          []string
	path          string // PATH inside
}

// interpreters are what named images call them, by language.
var interpreters = map[string]string{process.Python: "python3", process.JavaScript: "node", process.Shell: "sh"}

// source finds the image for a run, and makes or pulls it if need be, of which its
// caller is told.
func (b *Backend) source(ctx context.Context, spec sandbox.Spec) (source, error) {
	progress := spec.Progress
	if progress == nil {
		progress = func(string) {}
	}
	if name := b.cfg.Images[spec.Language]; name != "" && spec.Runtime == "" {
		id, err := b.ensureNamed(ctx, name, progress)
		return source{image: id, digest: id, argv: []string{interpreters[spec.Language]}, path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, err
	}
	dir, digest, argv, err := b.cfg.Runtimes.Select(spec.Language, spec.Runtime)
	if err != nil {
		return source{}, fmt.Errorf("find runtime: %w", err)
	}
	name, err := b.ensureImage(ctx, dir, digest, progress)
	return source{image: name, digest: digest, argv: argv, path: "/usr/bin:/bin"}, err
}

// ensureNamed returns the id of a named image, and pulls it if the engine lacks
// it. Runs keep to the id: a name may come to mean another image.
func (b *Backend) ensureNamed(ctx context.Context, name string, progress func(string)) (string, error) {
	b.importing.Lock()
	defer b.importing.Unlock()
	id, err := b.imageID(ctx, name)
	if err == nil || !errdefs.IsNotFound(err) {
		return id, b.imageError("look for image "+name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
	defer cancel()
	progress("pulling the image " + name)
	out, err := b.api.ImagePull(ctx, name, image.PullOptions{})
	if err != nil {
		return "", b.imageError("pull image "+name, err)
	}
	err = b.follow(ctx, name, out, progress)
	if err == nil {
		id, err = b.imageID(ctx, name)
	}
	return id, b.imageError("pull image "+name, err)
}

func (b *Backend) imageID(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := b.api.ImageInspect(ctx, name)
	return info.ID, err
}

func (b *Backend) imageError(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", sandbox.ErrUnavailable, doing, cut(err.Error()))
}

// progressEvery is how often the log and who waits hear of a long pull.
const progressEvery = 2 * time.Second

// follow reads what the engine says of a pull, hands on a line now and then, and
// returns its error.
func (b *Backend) follow(ctx context.Context, name string, out io.ReadCloser, progress func(string)) error {
	defer func() { _ = out.Close() }() // read to its end, or of no more use
	said := time.Time{}
	in := json.NewDecoder(io.LimitReader(out, maxPullText))
	for {
		var line struct {
			Status, Progress, Error string
		}
		err := in.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case line.Error != "":
			return errors.New(line.Error)
		case time.Since(said) >= progressEvery:
			said = time.Now()
			b.cfg.Log.InfoContext(ctx, "pulling an image", "image", name, "status", cut(line.Status), "progress", cut(line.Progress))
			progress(process.Printable("pulling the image " + name + ": " + line.Status + " " + line.Progress))
		}
	}
}

// maxPullText bounds what the engine may say of one pull, in bytes.
const maxPullText = 64 << 20

// ImageOf is the name of the image of a language tree.
func ImageOf(digest string) string { return "agenticraft/runtime:" + digest }

// ensureImage makes the image of a language tree unless the engine has it, and
// returns its name, which bears the tree's digest.
func (b *Backend) ensureImage(ctx context.Context, dir, digest string, progress func(string)) (string, error) {
	name := ImageOf(digest)
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
	began := time.Now()
	b.cfg.Log.InfoContext(ctx, "making the image of a runtime, once", "image", name)
	progress("making the image of a runtime, once")
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
	b.cfg.Log.InfoContext(ctx, "image of a runtime made", "image", name, "elapsed", time.Since(began))
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
