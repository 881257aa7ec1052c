package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
)

const (
	clockSkew       = 60 * time.Second // a time further off is not signed
	catchUpWait     = 2 * time.Second  // how long a cosigner waits for entries that it lacks
	cosignedVersion = 1
	maxCosigned     = 4 << 10 // bytes
	cosignedPerm    = 0o600
)

// errBehind: the store does not have the entries yet.
var errBehind = fmt.Errorf("%w: the log is not that long here", ErrUnavailable)

// errClock: two keepers' clocks differ by more than clockSkew.
var errClock = fmt.Errorf("%w: the clocks differ", ErrConflict)

// pledge is what a keeper last signed. It lives outside audit.db, so that an
// old audit.db put in place of a newer one is noticed.
type pledge struct {
	V      int    `json:"v"`
	Origin string `json:"origin"`
	Size   uint64 `json:"size"`
	Root   Hash   `json:"root"`
	Time   string `json:"time"`
}

// CheckCosigned compares the log with what this keeper last signed. Called
// after catching up, [ErrFork] means that the log is older than, or other
// than, the one it signed: the node must not serve it.
func (s *Store) CheckCosigned() error {
	last, err := s.pledge()
	if err != nil {
		return err
	}
	return s.keeps(last)
}

func (s *Store) keeps(last pledge) error {
	switch size := s.durableSize(); {
	case last.Size == 0:
		return nil
	case last.Origin != s.origin:
		return fmt.Errorf("%w: this node signed for %s", ErrOtherCluster, clip(last.Origin))
	case size < last.Size:
		return fmt.Errorf("%w: this node signed a log of %d entries and has %d", ErrFork, last.Size, size)
	}
	root, err := s.Root(last.Size)
	if err != nil {
		return err
	}
	if root != last.Root {
		return fmt.Errorf("%w: at size %d the root is %s, this node signed %s", ErrFork, last.Size, root, last.Root)
	}
	return nil
}

// pledge reads cosigned.json; the zero value if nothing was ever signed.
func (s *Store) pledge() (pledge, error) {
	return readPledge(filepath.Join(s.dir, cosignedFile))
}

func readPledge(name string) (pledge, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return pledge{}, nil
	}
	if err != nil {
		return pledge{}, fmt.Errorf("read %s: %w", cosignedFile, err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxCosigned {
		return pledge{}, fmt.Errorf("read %s: %w: not such a file", cosignedFile, ErrInvalid)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return pledge{}, fmt.Errorf("read %s: %w", cosignedFile, err)
	}
	var p pledge
	if err := decodeStrict(text, &p); err != nil || p.V != cosignedVersion || p.Size == 0 || p.Size > maxNumber {
		return pledge{}, fmt.Errorf("read %s: %w", cosignedFile, errors.Join(ErrInvalid, err))
	}
	return p, sameJSON(text, p)
}

// Cosign signs the checkpoint c if it is what this keeper's own log says, and
// returns it as a note with this one signature. It waits a little for entries
// that are still on their way.
//
// INVARIANT: I7, a keeper signs only its own root, and never a log smaller than
// one it signed before: size and root are on disk before the signature leaves.
func (c *Checkpointer) Cosign(ctx context.Context, want Checkpoint, at time.Time) ([]byte, error) {
	if want.Origin != c.store.origin {
		return nil, fmt.Errorf("cosign: %w", ErrOtherCluster)
	}
	now := c.cfg.Now()
	if off := now.Sub(at).Abs(); off > clockSkew {
		return nil, fmt.Errorf("cosign: %w: %s apart", errClock, off.Round(time.Second))
	}
	if want.Size == 0 || want.Size > maxNumber {
		return nil, fmt.Errorf("cosign: %w: size", ErrInvalid)
	}
	wait, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	if err := c.store.reach(wait, want.Size); err != nil {
		return nil, fmt.Errorf("cosign at size %d: %w", want.Size, errors.Join(errBehind, err))
	}
	// The lock is held over the write on purpose: two signatures must not be
	// given on the strength of one pledge.
	c.signing.Lock()
	defer c.signing.Unlock()
	last, err := c.store.pledge()
	if err != nil {
		return nil, fmt.Errorf("cosign: %w", err)
	}
	if err := c.store.keeps(last); err != nil {
		return nil, fmt.Errorf("cosign: %w", err)
	}
	if want.Size < last.Size {
		return nil, fmt.Errorf("cosign at size %d: %w: already signed size %d", want.Size, ErrConflict, last.Size)
	}
	root, err := c.store.Root(want.Size)
	if err != nil {
		return nil, fmt.Errorf("cosign: %w", err)
	}
	if root != want.Root {
		return nil, fmt.Errorf("cosign: %w: root at size %d is %s here, not %s", ErrFork, want.Size, root, want.Root)
	}
	if want.Size > last.Size {
		if err := c.store.keep(pledge{cosignedVersion, want.Origin, want.Size, root, FormatTime(now)}); err != nil {
			return nil, fmt.Errorf("cosign: %w", err)
		}
	}
	c.store.metrics.cosigned.Inc()
	return cosign(c.key, want, now)
}

func (s *Store) keep(p pledge) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.dir, cosignedFile), append(text, '\n'), cosignedPerm)
}

// Alarm says that two histories contradict each other.
type Alarm struct {
	Peer identity.ID // whose history differs; our own ID if it is our own disk
	Size uint64
	Text string
}
