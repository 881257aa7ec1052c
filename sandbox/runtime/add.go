package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/agenticraft/node/internal/durable"
	"github.com/agenticraft/node/sandbox"
)

// recipe is how one kind of runtime is made.
type recipe struct {
	draft Runtime // name, languages and what else is known before
	// fill writes the tree below stage and completes the draft.
	fill func(stage string, r *Runtime) error
	// finish, if not nil, adds to the tree what can be made from the rest; it is
	// not called for a tree that the store has.
	finish   func(stage string) error
	progress func(string)
}

var isName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`).MatchString

// add makes a runtime, or returns the one of the same name and content that is
// there.
func (s *Store) add(ctx context.Context, rec recipe) (Runtime, error) {
	if n := rec.draft.Name; n != "" && !isName(n) {
		return Runtime{}, fmt.Errorf("%w: runtime name %.40q is not 1 to 32 of a-z, 0-9 and -, a letter first", sandbox.ErrSpec, n)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return Runtime{}, err
	}
	defer unlock()
	if err := s.sweep(); err != nil {
		return Runtime{}, err
	}
	stage, err := os.MkdirTemp(s.dir, stagePrefix)
	if err != nil {
		return Runtime{}, fmt.Errorf("add runtime: %w", err)
	}
	r, err := s.build(ctx, rec, stage)
	if err != nil {
		return Runtime{}, errors.Join(fmt.Errorf("add runtime: %w", err), removeTree(stage))
	}
	return r, removeTree(stage)
}

// build fills stage and moves it into the store. The lock is held.
func (s *Store) build(ctx context.Context, rec recipe, stage string) (Runtime, error) {
	r := rec.draft
	if err := rec.fill(stage, &r); err != nil {
		return Runtime{}, err
	}
	source, err := scan(ctx, stage)
	if err != nil {
		return Runtime{}, err
	}
	list, err := s.current()
	if err != nil {
		return Runtime{}, err
	}
	r.Source = source.digest()
	for _, old := range list {
		if old.Source == r.Source && old.Name == r.Name && slices.Equal(old.Languages, r.Languages) {
			rec.progress("this runtime is already here: " + old.Digest)
			return old, nil
		}
		if old.Name == r.Name && r.Name != "" {
			return Runtime{}, fmt.Errorf("%w: another runtime is called %s; remove it first: agenticraft runtime rm %s", sandbox.ErrSpec, r.Name, r.Name)
		}
	}
	m := source
	if rec.finish != nil {
		if err := rec.finish(stage); err != nil {
			return Runtime{}, err
		}
		if m, err = scan(ctx, stage); err != nil {
			return Runtime{}, err
		}
	}
	r.Digest, r.Bytes, r.Files = m.digest(), m.bytes, m.files
	r.Created = time.Now().UTC().Truncate(time.Millisecond)
	// The same tree under another name is one folder and two entries.
	if !slices.ContainsFunc(list, func(old Runtime) bool { return old.Digest == r.Digest }) {
		if err := s.settle(stage, m); err != nil {
			return Runtime{}, err
		}
	}
	if err := s.writeIndex(append(list, r)); err != nil {
		return Runtime{}, err
	}
	rec.progress("added " + r.Digest)
	return r, nil
}

// settle flushes the staged tree to disk and gives it its name. Without an
// entry in the index the next sweep removes it, so a crash between costs
// nothing.
func (s *Store) settle(stage string, m manifest) error {
	if err := os.Chmod(stage, 0o755); err != nil {
		return fmt.Errorf("open up runtime: %w", err)
	}
	if err := flush(stage); err != nil {
		return fmt.Errorf("flush runtime: %w", err)
	}
	name := filepath.Join(s.dir, m.digest())
	if err := durable.WriteFile(name+manifestSuffix, m.encode(), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.Rename(stage, name); err != nil {
		return fmt.Errorf("name runtime: %w", err)
	}
	return durable.SyncDir(s.dir)
}

func orSilent(progress func(string)) func(string) {
	if progress == nil {
		return func(string) {}
	}
	return progress
}
