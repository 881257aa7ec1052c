package runtime

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agenticraft/node/sandbox"
)

// Bounds of a tree that comes from elsewhere.
const (
	maxForeignBytes = 2 << 30
	maxEntries      = 200_000
	maxPathBytes    = 4096
	maxPathParts    = 64
)

// AddTreeConfig says which tree to add.
type AddTreeConfig struct {
	// Path of a folder, or of a tar archive: a root file system, or an image as
	// "docker save" writes it or in an OCI layout.
	Path        string
	Name        string
	Language    string       // "": the first of python, javascript and sh that is there
	Interpreter string       // path in the tree; "": looked for
	Progress    func(string) // receives one line per step; may be nil
}

// interpreters are the patterns of where trees keep them, the best first.
var interpreters = []struct {
	language string
	patterns []string
}{
	{"python", []string{"usr/local/bin/python3", "usr/bin/python3", "usr/local/bin/python3.[0-9]*", "usr/bin/python3.[0-9]*", "bin/python3", "bin/python3.[0-9]*"}},
	{"javascript", []string{"usr/local/bin/node", "usr/bin/node", "bin/node", "usr/bin/nodejs"}},
	{"sh", []string{"bin/dash", "usr/bin/dash", "bin/sh", "usr/bin/sh", "bin/busybox"}},
}

// AddTree copies a language tree into the store. What is in it is not trusted:
// paths and links that lead out of it, devices, and more than a tree may hold are
// refused with an error wrapping [sandbox.ErrSpec]; who runs a file, and as whom,
// is forgotten.
func (s *Store) AddTree(ctx context.Context, cfg AddTreeConfig) (Runtime, error) {
	info, err := os.Stat(cfg.Path)
	if err != nil {
		return Runtime{}, fmt.Errorf("%w: %w", sandbox.ErrSpec, err)
	}
	tell := orSilent(cfg.Progress)
	tell("copying " + cfg.Path)
	return s.add(ctx, recipe{
		draft: Runtime{Name: cfg.Name},
		fill: func(stage string, r *Runtime) error {
			t, err := openTree(ctx, stage)
			if err != nil {
				return err
			}
			defer t.close()
			x := &taker{ctx: ctx, root: t.root}
			if info.IsDir() {
				err = x.folder(cfg.Path)
			} else {
				err = x.archive(cfg.Path, stage)
			}
			if err != nil {
				return err
			}
			return r.find(t.root, cfg)
		},
		progress: tell,
	})
}

// find looks for the interpreter of a tree.
func (r *Runtime) find(root *os.Root, cfg AddTreeConfig) error {
	for _, in := range interpreters {
		if cfg.Language != "" && in.language != cfg.Language {
			continue
		}
		patterns := in.patterns
		if cfg.Interpreter != "" {
			if cfg.Language == "" {
				return fmt.Errorf("%w: which language does %s run? say --language", sandbox.ErrSpec, cfg.Interpreter)
			}
			patterns = []string{local(cfg.Interpreter)}
		}
		for _, pattern := range patterns {
			found, err := fs.Glob(root.FS(), pattern)
			if err != nil {
				continue // it names nothing
			}
			slices.Reverse(found) // the newest of several
			for _, name := range found {
				if info, err := root.Stat(name); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
					continue
				}
				r.Languages, r.Argv = []string{in.language}, []string{"/" + name}
				if path.Base(name) == "busybox" {
					r.Argv = append(r.Argv, "sh")
				}
				return nil
			}
		}
	}
	what := "python3, node or sh"
	if cfg.Language != "" {
		what = "interpreter of " + cfg.Language
	}
	return fmt.Errorf("%w: the tree has no %s that can be executed", sandbox.ErrSpec, what)
}

// taker writes a tree of unknown origin below root, and nowhere else.
type taker struct {
	ctx     context.Context
	root    *os.Root
	bytes   int64
	entries int
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", sandbox.ErrSpec, fmt.Sprintf(format, args...))
}

// inside is the path of an entry relative to the tree's root; "" is the root.
func inside(name string) (string, error) {
	if len(name) > maxPathBytes || strings.ContainsRune(name, 0) {
		return "", refuse("a path of the tree is too long or holds a NUL")
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxPathParts {
		return "", refuse("%.80q has more than %d folders", name, maxPathParts)
	}
	if slices.Contains(parts, "..") {
		return "", refuse("%.80q leads out of the tree", name)
	}
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean != "" && !filepath.IsLocal(clean) {
		return "", refuse("%.80q leads out of the tree", name)
	}
	return clean, nil
}

// mounted says that a jail mounts its own over this part of a tree.
func mounted(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return top == "sys" || slices.Contains(mountPoints, top)
}

// take writes one entry.
func (x *taker) take(name string, mode fs.FileMode, link string, content io.Reader) error {
	if err := x.ctx.Err(); err != nil {
		return err
	}
	if x.entries++; x.entries > maxEntries {
		return refuse("the tree has more than %d entries", maxEntries)
	}
	name, err := inside(name)
	switch {
	case err != nil:
		return err
	case mode&fs.ModeType&^(fs.ModeDir|fs.ModeSymlink) != 0:
		return refuse("%.80q is a device, pipe or socket", name)
	case name == "" || mounted(name):
		return nil
	}
	if dir := path.Dir(name); dir != "." {
		if err := x.root.MkdirAll(dir, 0o755); err != nil {
			return refuse("%.80q: %v", name, err)
		}
	}
	switch {
	case mode.IsDir():
		if old, err := x.root.Lstat(name); err == nil && !old.IsDir() {
			if err := x.root.Remove(name); err != nil {
				return refuse("%.80q: %v", name, err)
			}
		}
		if err := x.root.MkdirAll(name, 0o755); err != nil {
			return refuse("%.80q: %v", name, err)
		}
		return x.root.Chmod(name, mode.Perm()|0o700)
	case mode&fs.ModeSymlink != 0:
		return x.link(name, link)
	}
	return x.file(name, mode, content)
}

// clear makes room for an entry that replaces another.
func (x *taker) clear(name string) error {
	if _, err := x.root.Lstat(name); err != nil {
		return nil
	}
	return x.root.RemoveAll(name)
}

func (x *taker) file(name string, mode fs.FileMode, content io.Reader) (err error) {
	if err := x.clear(name); err != nil {
		return refuse("%.80q: %v", name, err)
	}
	out, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return refuse("%.80q: %v", name, err)
	}
	n, err := io.Copy(out, io.LimitReader(content, maxForeignBytes-x.bytes+1))
	// Neither setuid nor setgid: nobody runs it as somebody else.
	if err := errors.Join(err, out.Chmod(mode.Perm()|0o400), out.Close()); err != nil {
		return fmt.Errorf("copy %.80q: %w", name, err)
	}
	if x.bytes += n; x.bytes > maxForeignBytes {
		return refuse("the tree has more than %d bytes", int64(maxForeignBytes))
	}
	return nil
}

// link makes a symbolic link that stays inside, wherever the tree lies: one that
// begins at the root is written from its own place.
func (x *taker) link(name, target string) error {
	if len(target) > maxPathBytes || target == "" || strings.ContainsRune(target, 0) {
		return refuse("the target of the link %.80q is empty or too long", name)
	}
	to := path.Join(path.Dir(name), target)
	if path.IsAbs(target) {
		to = local(target)
	}
	if to != "" && to != "." && !filepath.IsLocal(to) {
		return refuse("the link %.80q leads out of the tree, to %.80q", name, target)
	}
	rel, err := filepath.Rel(path.Dir(name), path.Join(".", to))
	if err != nil {
		return refuse("the link %.80q: %v", name, err)
	}
	if err := x.clear(name); err != nil {
		return refuse("%.80q: %v", name, err)
	}
	if err := x.root.Symlink(rel, name); err != nil {
		return refuse("%.80q: %v", name, err)
	}
	return nil
}

// folder takes the tree in a folder of the host.
func (x *taker) folder(dir string) error {
	from, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open tree: %w", err)
	}
	defer func() { _ = from.Close() }() // only read
	return fs.WalkDir(from.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read tree: %w", err)
		}
		if mounted(name) && d.IsDir() {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("read tree: %w", err)
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := from.Readlink(name)
			if err != nil {
				return fmt.Errorf("read tree: %w", err)
			}
			return x.take(name, info.Mode(), target, nil)
		case info.Mode().IsRegular():
			f, err := from.Open(name)
			if err != nil {
				return fmt.Errorf("read tree: %w", err)
			}
			return errors.Join(x.take(name, info.Mode(), "", f), f.Close())
		}
		return x.take(name, info.Mode(), "", nil)
	})
}

// Whiteouts: how a layer of an image takes away what is in those below it
// (OCI image specification, layer.md).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// layer takes one tar stream. In an image, layers may take away.
func (x *taker) layer(r io.Reader, image bool) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return refuse("the archive cannot be read: %v", err)
		}
		if base := path.Base(h.Name); image && strings.HasPrefix(base, whiteout) {
			if err := x.remove(h.Name, base); err != nil {
				return err
			}
			continue
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
			mode := fs.FileMode(h.Mode) & fs.ModePerm
			switch h.Typeflag {
			case tar.TypeDir:
				mode |= fs.ModeDir
			case tar.TypeSymlink:
				mode |= fs.ModeSymlink
			}
			err = x.take(h.Name, mode, h.Linkname, in)
		case tar.TypeLink:
			err = x.hardLink(h.Name, h.Linkname)
		case tar.TypeXGlobalHeader:
		default:
			err = refuse("%.80q is neither file, folder nor link (type %q)", h.Name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func (x *taker) remove(name, base string) error {
	dir, err := inside(path.Dir(name))
	if err != nil {
		return err
	}
	if base != opaque {
		gone, err := inside(path.Join(dir, strings.TrimPrefix(base, whiteout)))
		if err != nil || gone == dir || gone == "" {
			return err
		}
		return x.clear(gone)
	}
	entries, err := fs.ReadDir(x.root.FS(), path.Clean("./"+dir))
	if err != nil {
		return nil // nothing to take away
	}
	for _, e := range entries {
		if err := x.clear(path.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// hardLink gives a file of the tree a second name.
func (x *taker) hardLink(name, target string) error {
	from, err := inside(target)
	if err != nil {
		return err
	}
	if x.entries++; x.entries > maxEntries {
		return refuse("the tree has more than %d entries", maxEntries)
	}
	to, err := inside(name)
	if err != nil || to == "" || mounted(to) {
		return err
	}
	info, err := x.root.Lstat(from)
	if err != nil || !info.Mode().IsRegular() {
		return refuse("%.80q is a second name of %.80q, which is no file of the tree", name, target)
	}
	if from == to {
		return nil
	}
	if dir := path.Dir(to); dir != "." {
		if err := x.root.MkdirAll(dir, 0o755); err != nil {
			return refuse("%.80q: %v", name, err)
		}
	}
	if err := x.clear(to); err != nil {
		return err
	}
	if err := x.root.Link(from, to); err != nil {
		return refuse("%.80q: %v", name, err)
	}
	return nil
}
