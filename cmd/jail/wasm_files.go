//go:build linux

package main

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	wasi "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/agenticraft/node/sandbox/worker/protocol"
)

// files is the file system of one run: all of it in memory, so that a worker
// needs no system call on files. The module sees it as "/", its working folder.
// It is used by one goroutine at a time.
type files struct {
	wasi.UnimplementedFS
	root  *entry
	most  int64 // bytes of one file
	room  int64 // bytes left for the content of all files
	nodes int   // files and folders that may yet be made
	made  uint64
}

// entry is one file or folder.
type entry struct {
	ino     sys.Inode
	names   map[string]*entry // of a folder; nil for a file
	content []byte
	given   []byte // what it held when the program began; nil if it was not there
	changed int64  // ns since 1970
}

// scratchDir holds what a program does not mean to leave.
const scratchDir = "tmp"

// newFiles makes the file system of a run with what it brings.
func newFiles(inputs []protocol.Input, order protocol.Order, room int64) *files {
	f := &files{most: order.FileSize, room: room, nodes: order.Files + len(inputs) + 1}
	f.root = f.entry(true)
	f.root.names[scratchDir] = f.entry(true)
	for _, in := range inputs {
		dir := f.root
		folder, name := path.Split(in.Path)
		for part := range strings.SplitSeq(strings.TrimSuffix(folder, "/"), "/") {
			if part == "" {
				continue
			}
			next := dir.names[part]
			if next == nil {
				next = f.entry(true)
				dir.names[part] = next
			}
			dir = next
		}
		e := f.entry(false)
		e.content, e.given = slices.Clone(in.Content), in.Content
		if e.given == nil {
			e.given = []byte{}
		}
		dir.names[name] = e
	}
	return f
}

func (f *files) entry(folder bool) *entry {
	f.made++
	e := &entry{ino: f.made, changed: time.Now().UnixNano()}
	if folder {
		e.names = make(map[string]*entry)
	}
	return e
}

// find walks to a path. Nothing leads above the root, and there are no links.
func (f *files) find(name string) (*entry, wasi.Errno) {
	e := f.root
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if part == "" {
			continue
		}
		if e.names == nil {
			return nil, wasi.ENOTDIR
		}
		if e = e.names[part]; e == nil {
			return nil, wasi.ENOENT
		}
	}
	return e, 0
}

// parent finds the folder of a path that need not exist itself.
func (f *files) parent(name string) (dir *entry, base string, errno wasi.Errno) {
	const longest = 255 // bytes of one name
	folder, base := path.Split(path.Clean("/" + name))
	switch {
	case base == "":
		return nil, "", wasi.EEXIST // the root
	case len(base) > longest || len(name) > 4096:
		return nil, "", wasi.ENAMETOOLONG
	}
	if dir, errno = f.find(folder); errno != 0 {
		return nil, "", errno
	}
	if dir.names == nil {
		return nil, "", wasi.ENOTDIR
	}
	return dir, base, 0
}

// add puts a new file or folder into dir.
func (f *files) add(dir *entry, base string, folder bool) (*entry, wasi.Errno) {
	if f.nodes <= 0 {
		return nil, wasi.EPERM
	}
	f.nodes--
	e := f.entry(folder)
	dir.names[base] = e
	return e, 0
}

// create makes a file.
func (f *files) create(name string) (*entry, wasi.Errno) {
	dir, base, errno := f.parent(name)
	if errno != 0 {
		return nil, errno
	}
	return f.add(dir, base, false)
}

// OpenFile implements [wasi.FS].
func (f *files) OpenFile(name string, flag wasi.Oflag, _ fs.FileMode) (wasi.File, wasi.Errno) {
	e, errno := f.find(name)
	switch {
	case errno == 0 && flag&wasi.O_CREAT != 0 && flag&wasi.O_EXCL != 0:
		return nil, wasi.EEXIST
	case errno == wasi.ENOENT && flag&wasi.O_CREAT != 0:
		if e, errno = f.create(name); errno != 0 {
			return nil, errno
		}
	case errno != 0:
		return nil, errno
	}
	writes := flag&(wasi.O_WRONLY|wasi.O_RDWR) != 0
	if e.names != nil {
		if writes {
			return nil, wasi.EISDIR
		}
		return &openFolder{files: f, entry: e}, 0
	}
	if flag&wasi.O_DIRECTORY != 0 {
		return nil, wasi.ENOTDIR
	}
	if flag&wasi.O_TRUNC != 0 {
		if errno := f.resize(e, 0); errno != 0 {
			return nil, errno
		}
	}
	return &openFile{files: f, entry: e, appends: flag&wasi.O_APPEND != 0, reads: flag&wasi.O_WRONLY == 0, writes: writes}, 0
}

// Stat implements [wasi.FS].
func (f *files) Stat(name string) (sys.Stat_t, wasi.Errno) {
	e, errno := f.find(name)
	if errno != 0 {
		return sys.Stat_t{}, errno
	}
	return e.stat(), 0
}

// Lstat implements [wasi.FS].
func (f *files) Lstat(name string) (sys.Stat_t, wasi.Errno) { return f.Stat(name) }

// Mkdir implements [wasi.FS].
func (f *files) Mkdir(name string, _ fs.FileMode) wasi.Errno {
	dir, base, errno := f.parent(name)
	if errno != 0 {
		return errno
	}
	if dir.names[base] != nil {
		return wasi.EEXIST
	}
	_, errno = f.add(dir, base, true)
	return errno
}

// Chmod implements [wasi.FS]; there are no modes.
func (f *files) Chmod(name string, _ fs.FileMode) wasi.Errno {
	_, errno := f.find(name)
	return errno
}

// Rename implements [wasi.FS].
func (f *files) Rename(from, to string) wasi.Errno {
	oldDir, oldBase, errno := f.parent(from)
	if errno != 0 {
		return errno
	}
	newDir, newBase, errno := f.parent(to)
	if errno != 0 {
		return errno
	}
	e, there := oldDir.names[oldBase], newDir.names[newBase]
	switch {
	case e == nil:
		return wasi.ENOENT
	case e == there:
		return 0
	case e.names != nil && (e == newDir || strings.HasPrefix(path.Clean("/"+to), path.Clean("/"+from)+"/")):
		return wasi.EINVAL // a folder into itself
	case there != nil && e.names == nil && there.names != nil:
		return wasi.EISDIR
	case there != nil && e.names != nil && there.names == nil:
		return wasi.ENOTDIR
	case there != nil && len(there.names) > 0:
		return wasi.ENOTEMPTY
	}
	if there != nil {
		f.drop(there)
	}
	delete(oldDir.names, oldBase)
	newDir.names[newBase] = e
	return 0
}

// Rmdir implements [wasi.FS].
func (f *files) Rmdir(name string) wasi.Errno {
	dir, base, errno := f.parent(name)
	if errno != 0 {
		return errno
	}
	switch e := dir.names[base]; {
	case e == nil:
		return wasi.ENOENT
	case e.names == nil:
		return wasi.ENOTDIR
	case len(e.names) > 0:
		return wasi.ENOTEMPTY
	default:
		delete(dir.names, base)
		f.drop(e)
	}
	return 0
}

// Unlink implements [wasi.FS].
func (f *files) Unlink(name string) wasi.Errno {
	dir, base, errno := f.parent(name)
	if errno != 0 {
		return errno
	}
	switch e := dir.names[base]; {
	case e == nil:
		return wasi.ENOENT
	case e.names != nil:
		return wasi.EISDIR
	default:
		delete(dir.names, base)
		f.drop(e)
	}
	return 0
}

// Utimens implements [wasi.FS].
func (f *files) Utimens(name string, _, modified int64) wasi.Errno {
	e, errno := f.find(name)
	if errno == 0 && modified >= 0 {
		e.changed = modified
	}
	return errno
}

// drop gives back what an entry without a name took. Open descriptors keep its
// content until they are closed, which the worker's memory limit bounds.
func (f *files) drop(e *entry) {
	f.nodes++
	f.room += int64(len(e.content))
}

// resize makes a file shorter, or longer by zeros.
func (f *files) resize(e *entry, size int64) wasi.Errno {
	grows := size - int64(len(e.content))
	switch {
	case size < 0:
		return wasi.EINVAL
	case size > f.most || grows > f.room:
		return wasi.EIO // WASI has neither EFBIG nor ENOSPC for us to give
	case grows > 0:
		e.content = append(e.content, make([]byte, grows)...)
	default:
		e.content = e.content[:size]
	}
	f.room -= grows
	e.changed = time.Now().UnixNano()
	return 0
}

func (e *entry) stat() sys.Stat_t {
	mode := fs.FileMode(0o644)
	if e.names != nil {
		mode = fs.ModeDir | 0o755
	}
	return sys.Stat_t{Ino: e.ino, Mode: mode, Nlink: 1, Size: int64(len(e.content)), Atim: e.changed, Mtim: e.changed, Ctim: e.changed}
}

// position in a file. It has a name of its own for go vet, which takes WASI's
// Seek for an [io.Seeker] gone wrong.
type position = int64

// openFile is a descriptor of a file.
type openFile struct {
	wasi.UnimplementedFile
	files                  *files
	entry                  *entry
	at                     int64
	reads, writes, appends bool
}

func (o *openFile) Dev() (uint64, wasi.Errno)               { return 0, 0 }
func (o *openFile) Ino() (sys.Inode, wasi.Errno)            { return o.entry.ino, 0 }
func (o *openFile) IsDir() (bool, wasi.Errno)               { return false, 0 }
func (o *openFile) IsAppend() bool                          { return o.appends }
func (o *openFile) SetAppend(on bool) wasi.Errno            { o.appends = on; return 0 }
func (o *openFile) Stat() (sys.Stat_t, wasi.Errno)          { return o.entry.stat(), 0 }
func (o *openFile) Sync() wasi.Errno                        { return 0 }
func (o *openFile) Datasync() wasi.Errno                    { return 0 }
func (o *openFile) Close() wasi.Errno                       { return 0 }
func (o *openFile) Utimens(_, m int64) wasi.Errno           { o.entry.changed = m; return 0 }
func (o *openFile) Readdir(int) ([]wasi.Dirent, wasi.Errno) { return nil, wasi.ENOTDIR }

func (o *openFile) Read(buf []byte) (int, wasi.Errno) {
	n, errno := o.Pread(buf, o.at)
	o.at += int64(n)
	return n, errno
}

func (o *openFile) Pread(buf []byte, off int64) (int, wasi.Errno) {
	switch {
	case !o.reads:
		return 0, wasi.EBADF
	case off < 0:
		return 0, wasi.EINVAL
	case off >= int64(len(o.entry.content)):
		return 0, 0
	}
	return copy(buf, o.entry.content[off:]), 0
}

func (o *openFile) Write(buf []byte) (int, wasi.Errno) {
	if o.appends {
		o.at = int64(len(o.entry.content))
	}
	n, errno := o.Pwrite(buf, o.at)
	o.at += int64(n)
	return n, errno
}

func (o *openFile) Pwrite(buf []byte, off int64) (int, wasi.Errno) {
	switch {
	case !o.writes:
		return 0, wasi.EBADF
	case off < 0 || off > o.files.most:
		return 0, wasi.EINVAL
	}
	if end := off + int64(len(buf)); end > int64(len(o.entry.content)) {
		if errno := o.files.resize(o.entry, end); errno != 0 {
			return 0, errno
		}
	}
	o.entry.changed = time.Now().UnixNano()
	return copy(o.entry.content[off:], buf), 0
}

func (o *openFile) Truncate(size int64) wasi.Errno {
	if !o.writes {
		return wasi.EBADF
	}
	return o.files.resize(o.entry, size)
}

func (o *openFile) Seek(offset position, whence int) (position, wasi.Errno) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += int64(len(o.entry.content))
	default:
		return 0, wasi.EINVAL
	}
	if offset < 0 {
		return 0, wasi.EINVAL
	}
	o.at = offset
	return offset, 0
}

// openFolder is a descriptor of a folder.
type openFolder struct {
	wasi.UnimplementedFile
	wasi.DirFile
	files *files
	entry *entry
	left  []wasi.Dirent // to be listed yet, once begun
	begun bool
}

func (o *openFolder) Dev() (uint64, wasi.Errno)      { return 0, 0 }
func (o *openFolder) Ino() (sys.Inode, wasi.Errno)   { return o.entry.ino, 0 }
func (o *openFolder) IsDir() (bool, wasi.Errno)      { return true, 0 }
func (o *openFolder) IsAppend() bool                 { return false }
func (o *openFolder) SetAppend(bool) wasi.Errno      { return wasi.EISDIR }
func (o *openFolder) Stat() (sys.Stat_t, wasi.Errno) { return o.entry.stat(), 0 }
func (o *openFolder) Sync() wasi.Errno               { return 0 }
func (o *openFolder) Datasync() wasi.Errno           { return 0 }
func (o *openFolder) Close() wasi.Errno              { return 0 }
func (o *openFolder) Utimens(_, m int64) wasi.Errno  { o.entry.changed = m; return 0 }

func (o *openFolder) Read([]byte) (int, wasi.Errno)          { return 0, wasi.EISDIR }
func (o *openFolder) Pread([]byte, int64) (int, wasi.Errno)  { return 0, wasi.EISDIR }
func (o *openFolder) Write([]byte) (int, wasi.Errno)         { return 0, wasi.EISDIR }
func (o *openFolder) Pwrite([]byte, int64) (int, wasi.Errno) { return 0, wasi.EISDIR }
func (o *openFolder) Truncate(int64) wasi.Errno              { return wasi.EISDIR }

// Seek starts a listing anew.
func (o *openFolder) Seek(offset position, whence int) (position, wasi.Errno) {
	if offset != 0 || whence != io.SeekStart {
		return 0, wasi.EINVAL
	}
	o.left, o.begun = nil, false
	return 0, 0
}

func (o *openFolder) Readdir(n int) ([]wasi.Dirent, wasi.Errno) {
	if !o.begun {
		o.begun = true
		for name, e := range o.entry.names {
			d := wasi.Dirent{Ino: e.ino, Name: name}
			if e.names != nil {
				d.Type = fs.ModeDir
			}
			o.left = append(o.left, d)
		}
		slices.SortFunc(o.left, func(a, b wasi.Dirent) int { return strings.Compare(a.Name, b.Name) })
	}
	if n <= 0 || n > len(o.left) {
		n = len(o.left)
	}
	out := o.left[:n:n]
	o.left = o.left[n:]
	return out, 0
}

// left lists, sorted by path, the files that the program made or changed and
// that fit to be kept, except name, which is the caller's to look at.
func (f *files) left(except string) []protocol.Input {
	var out []protocol.Input
	var walk func(dir *entry, prefix string)
	walk = func(dir *entry, prefix string) {
		for name, e := range dir.names {
			switch full := prefix + name; {
			case full == scratchDir || full == except:
			case e.names != nil:
				walk(e, full+"/")
			case e.given == nil || string(e.given) != string(e.content):
				out = append(out, protocol.Input{Path: full, Content: e.content})
			}
		}
	}
	walk(f.root, "")
	slices.SortFunc(out, func(a, b protocol.Input) int { return strings.Compare(a.Path, b.Path) })
	return out
}
