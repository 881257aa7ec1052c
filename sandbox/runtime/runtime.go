// Package runtime keeps language runtimes: content-addressed folders, each
// with an interpreter, its standard library and the shared objects it needs,
// that a jail sees as its root.
//
// A runtime is copied from the host, file by file, so that a jailed program
// neither sees the host's other software nor shares page cache with the host's
// binaries. It is named by the SHA-256 of its manifest, which names every path,
// mode, link and content; equal hosts make equal runtimes. Several processes
// may share one store.
package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/sandbox"
	"golang.org/x/sys/unix"
)

// Names in a store's folder, beside one folder and one manifest per runtime.
const (
	indexName      = "runtimes.json"
	lockName       = ".lock"
	stagePrefix    = ".stage-"
	trashPrefix    = ".trash-"
	manifestSuffix = ".manifest"
)

const (
	indexVersion  = 1
	maxIndexBytes = 1 << 20
)

// ErrNotFound: the store holds no runtime of that digest.
var ErrNotFound = errors.New("no such runtime")

// Runtime describes one runtime of a store.
type Runtime struct {
	Digest    string    `json:"digest"` // SHA-256 of the manifest, in hex
	Source    string    `json:"source"` // SHA-256 of the manifest before anything was compiled
	Languages []string  `json:"languages"`
	Version   string    `json:"version"` // of the interpreter, such as "3.11.2"
	Bytes     int64     `json:"bytes"`   // of all files
	Files     int       `json:"files"`
	Created   time.Time `json:"created"` // UTC
	Argv      []string  `json:"argv"`    // how to start the interpreter inside the runtime; options of the caller's follow
	// Name by which runs may ask for it; "" for a default of its languages.
	Name string `json:"name,omitempty"`
	// Module is the SHA-256 of the WebAssembly module that this runtime is, in
	// hex; "" for a tree that a jail sees as its root.
	Module string `json:"module,omitempty"`
}

// Store is a folder of runtimes. All its methods may be called concurrently,
// also by several processes on one folder.
type Store struct {
	dir string

	// mu guards the last index read, which is used again while the file on
	// disk is the same.
	mu     sync.Mutex
	info   os.FileInfo
	last   []Runtime
	looked time.Time       // when the file was looked at last
	there  map[string]bool // digests whose folders were looked for since
}

// lookAgain is how long what was seen on disk is believed: a request asks a
// dozen times what this node offers.
const lookAgain = 50 * time.Millisecond

type index struct {
	V        int       `json:"v"`
	Runtimes []Runtime `json:"runtimes"`
}

var isDigest = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString

// Open opens the store in dir, which is made if it does not exist. A store
// holds no open files and needs no Close.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open runtime store: %w", err)
	}
	if err := durable.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open runtime store: %w", err)
	}
	s := &Store{dir: dir}
	if _, err := s.List(); err != nil {
		return nil, err
	}
	return s, nil
}

// Dir returns the absolute path of the store's folder.
func (s *Store) Dir() string { return s.dir }

// List returns the runtimes of the store, the newest first. It may be behind
// another process by some milliseconds.
func (s *Store) List() ([]Runtime, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.info != nil && time.Since(s.looked) < lookAgain {
		return slices.Clone(s.last), nil
	}
	return s.look()
}

// current is what the store holds now.
func (s *Store) current() ([]Runtime, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.look()
}

// look reads the index if it has changed. The caller holds mu.
func (s *Store) look() ([]Runtime, error) {
	s.looked, s.there = time.Now(), map[string]bool{}
	name := filepath.Join(s.dir, indexName)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		s.info, s.last = nil, nil
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read runtime index: %w", err)
	}
	// A changed index is a new file, for it is replaced by renaming.
	if s.info != nil && os.SameFile(s.info, info) && s.info.ModTime().Equal(info.ModTime()) && s.info.Size() == info.Size() {
		return slices.Clone(s.last), nil
	}
	list, err := readIndex(name)
	if err != nil {
		return nil, err
	}
	s.info, s.last = info, list
	return slices.Clone(list), nil
}

// Lookup is [Store.Select] of the language's default.
func (s *Store) Lookup(language string) (dir, digest string, argv []string, err error) {
	return s.Select(language, "")
}

// Select returns a runtime of a language: the folder that a jail sees as its
// root, the digest, and the argv that starts the interpreter inside it, to which
// the caller adds its options. name is the runtime's name or digest; "" is the
// newest without a name, then the newest with one. Without one, the error wraps
// [sandbox.ErrUnavailable] and names the command that mends it.
func (s *Store) Select(language, name string) (dir, digest string, argv []string, err error) {
	list, err := s.List()
	if err != nil {
		return "", "", nil, err
	}
	best := -1
	for i, r := range list {
		if r.Module != "" || !slices.Contains(r.Languages, language) || !Answers(r, name) {
			continue
		}
		if !s.holds(r.Digest) {
			continue // someone deleted it
		}
		if r.Name == "" || name != "" {
			best = i
			break
		}
		if best < 0 {
			best = i
		}
	}
	switch {
	case best >= 0:
		r := list[best]
		return filepath.Join(s.dir, r.Digest), r.Digest, slices.Clone(r.Argv), nil
	case name != "":
		return "", "", nil, fmt.Errorf("%w: no %s runtime is called %.80q; agenticraft runtime list shows those of this node", sandbox.ErrUnavailable, language, name)
	}
	return "", "", nil, fmt.Errorf("%w: no %s runtime; run: agenticraft runtime add %s", sandbox.ErrUnavailable, language, language)
}

// holds reports whether the tree is there.
func (s *Store) holds(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	there, known := s.there[digest]
	if !known && s.there != nil {
		info, err := os.Stat(filepath.Join(s.dir, digest))
		there = err == nil && info.IsDir()
		s.there[digest] = there
	}
	return there
}

// Named lists the names and digests by which runs in one of the languages may
// ask for a runtime that is a tree.
func (s *Store) Named(languages ...string) []string {
	list, err := s.List()
	if err != nil {
		return nil // [Store.Select] will tell
	}
	var out []string
	for _, r := range list {
		if r.Module != "" || !slices.ContainsFunc(r.Languages, func(l string) bool { return slices.Contains(languages, l) }) {
			continue
		}
		out = append(out, r.Digest)
		if r.Name != "" {
			out = append(out, r.Name)
		}
	}
	return out
}

// Answers says whether name, which may be a name or a digest, means r; "" means
// any.
func Answers(r Runtime, name string) bool {
	return name == "" || name == r.Name || strings.TrimPrefix(name, "sha256:") == r.Digest
}

// Verify reads every file of a runtime again and reports the first difference
// from its manifest.
func (s *Store) Verify(ctx context.Context, digest string) error {
	if err := s.exists(digest); err != nil {
		return err
	}
	want, err := readManifest(filepath.Join(s.dir, digest+manifestSuffix))
	if err != nil {
		return fmt.Errorf("verify runtime %s: %w", digest, err)
	}
	if got := want.digest(); got != digest {
		return fmt.Errorf("verify runtime %s: its manifest has the digest %s", digest, got)
	}
	got, err := scan(ctx, filepath.Join(s.dir, digest))
	if err != nil {
		return fmt.Errorf("verify runtime %s: %w", digest, err)
	}
	if err := want.compare(got); err != nil {
		return fmt.Errorf("verify runtime %s: %w", digest, err)
	}
	return nil
}

// Remove deletes the runtimes that which, a name or a digest of at least 12
// characters, means. Programs that run on one lose its files.
func (s *Store) Remove(which string) error {
	unlock, err := s.lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	list, err := s.current()
	if err != nil {
		return err
	}
	const shortest = 12
	var gone, kept []Runtime
	digests := make(map[string]bool)
	for _, r := range list {
		if which != "" && r.Name == which || len(which) >= shortest && strings.HasPrefix(r.Digest, which) {
			gone = append(gone, r)
			digests[r.Digest] = true
		} else {
			kept = append(kept, r)
		}
	}
	switch {
	case len(gone) == 0:
		return fmt.Errorf("%w: %.64q", ErrNotFound, which)
	case len(digests) > 1:
		return fmt.Errorf("%w: %.64q means %d runtimes", ErrNotFound, which, len(digests))
	}
	if err := s.writeIndex(kept); err != nil {
		return err
	}
	digest := gone[0].Digest
	if slices.ContainsFunc(kept, func(r Runtime) bool { return r.Digest == digest }) {
		return nil // the tree has another name
	}
	// If we were to crash from here on, the next add or remove clears the rest.
	trash := filepath.Join(s.dir, trashPrefix+digest)
	err = os.Rename(filepath.Join(s.dir, digest), trash)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, removeTree(trash), ignoreNotExist(os.Remove(filepath.Join(s.dir, digest+manifestSuffix))))
}

func (s *Store) exists(digest string) error {
	list, err := s.current()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(r Runtime) bool { return r.Digest == digest }) {
		return fmt.Errorf("%w: %.64q", ErrNotFound, digest)
	}
	return nil
}

// lock waits until no other process changes the store; the lock ends with the
// process that holds it, however it ends.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock runtime store: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock runtime store: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock runtime store: %w", ctx.Err()), f.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sweep removes what crashed additions and removals left. The lock must be held.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("sweep runtime store: %w", err)
	}
	list, err := s.current()
	if err != nil {
		return err
	}
	known := func(digest string) bool {
		return slices.ContainsFunc(list, func(r Runtime) bool { return r.Digest == digest })
	}
	for _, e := range entries {
		name := e.Name()
		digest := strings.TrimSuffix(name, manifestSuffix)
		if strings.HasPrefix(name, stagePrefix) || strings.HasPrefix(name, trashPrefix) || isDigest(digest) && !known(digest) {
			if err := removeTree(filepath.Join(s.dir, name)); err != nil {
				return fmt.Errorf("sweep runtime store: %w", err)
			}
		}
	}
	return nil
}

func (s *Store) writeIndex(list []Runtime) error {
	slices.SortStableFunc(list, func(a, b Runtime) int { return b.Created.Compare(a.Created) })
	data, err := json.MarshalIndent(index{V: indexVersion, Runtimes: list}, "", "\t")
	if err != nil {
		return fmt.Errorf("write runtime index: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(s.dir, indexName), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write runtime index: %w", err)
	}
	_, err = s.current()
	return err
}

func readIndex(name string) ([]Runtime, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read runtime index: %w", err)
	}
	defer f.Close()
	var x index
	if err := json.NewDecoder(io.LimitReader(f, maxIndexBytes)).Decode(&x); err != nil {
		return nil, fmt.Errorf("read runtime index %s: %w", name, err)
	}
	if x.V != indexVersion {
		return nil, fmt.Errorf("read runtime index %s: version %d is not %d", name, x.V, indexVersion)
	}
	for _, r := range x.Runtimes {
		if !isDigest(r.Digest) || len(r.Argv) == 0 {
			return nil, fmt.Errorf("read runtime index %s: bad entry %.64q", name, r.Digest)
		}
	}
	return x.Runtimes, nil
}

// removeTree removes a folder or file; that it is not there is no error.
func removeTree(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove folder: %w", err)
	}
	return nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
