package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
)

// A store that is written to all the while is checked to its end, beyond what it
// held at the beginning, in more than one step.
func TestARunningStoreIsChecked(t *testing.T) {
	dir, trust, _ := verifiedDir(t, 3)
	store, err := audit.OpenStore(audit.StoreConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l, key := audittest.Of(t, store), audittest.Key(t, 9)
	write := func() error {
		var batch [][]byte
		for i := range audit.MaxBatch {
			e := audittest.Intent(t, key.ID(), fmt.Sprint("more", store.Size(), "-", i))
			e.V, e.Author, e.ID, e.Time = audit.EntryVersion, key.ID(), audit.NewSalt(), "2026-01-01T00:00:00.000Z"
			leaf, err := e.Encode()
			if err != nil {
				return err
			}
			batch = append(batch, leaf)
		}
		_, err := l.Propose(t.Context(), audit.SignBatch(key, store.Origin(), batch))
		return err
	}
	for store.Size() < audit.CheckStep+audit.CheckStep/2 {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(deadline(t))
	var writer sync.WaitGroup
	defer writer.Wait()
	defer stop()
	writer.Go(func() {
		for ctx.Err() == nil {
			if err := write(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	before := store.Size()
	told := uint64(0)
	r, err := store.Verify(ctx, &trust, rulesOfNone(), func(checked, _ uint64) { told = checked })
	if err != nil {
		t.Fatal(err)
	}
	if r.Bad != nil || r.Size < before || r.Checkpoint == nil || len(r.SignedBy) == 0 || told < audit.CheckStep {
		t.Errorf("Verify = %+v, bad %v, told of %d", r, r.Bad, told)
	}
	if root, err := store.Root(r.Size); err != nil || root != r.Root {
		t.Errorf("the root at %d is %s here and %s in the report: %v", r.Size, root, r.Root, err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := store.Verify(gone, nil, rulesOfNone(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a check that nobody waits for: %v", err)
	}
}

// rulesOfNone are rules that let everything in.
func rulesOfNone() audit.Rules {
	return audit.Rules{Admit: func(string) audit.Admission { return everything{} }, State: noState{}}
}

type everything struct{ audit.Admission }

func (everything) Admit(audit.Tx, uint64, identity.ID, audit.Entry) error { return nil }

type noState struct{ audit.Tx }

func (noState) Each(string, func(string, []byte) error) error { return nil }

// A bit that flips below a running store is found, in whatever it is, and the
// store goes no further.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestACheckFindsWhatTheDiskDoesMeanwhile(t *testing.T) {
	dir, leaves := longDir(t)
	sig := attestation(t, dir, 300).Sig
	for what, text := range map[string][]byte{
		"a leaf":              leaves[300],
		"its author's sign":   sig,
		"a hash of the tree":  hashText(leaves[300]),
		"the look-up by task": append([]byte("task301"), 0),
	} {
		t.Run(what, func(t *testing.T) {
			s, err := audit.OpenStore(audit.StoreConfig{Dir: copyDir(t, dir)})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if r, err := s.Verify(deadline(t), nil, rulesOfNone(), nil); err != nil || r.Bad != nil {
				t.Fatalf("before: %+v, %v", r.Bad, err)
			}
			flipText(t, filepath.Join(s.Dir(), "audit.db"), text)
			r, err := s.Verify(deadline(t), nil, rulesOfNone(), nil)
			if err != nil || r.Bad == nil {
				t.Fatalf("a flipped bit is not found: %v", err)
			}
			if !errors.Is(s.Broken(), audit.ErrDamaged) {
				t.Errorf("the store goes on after %s: %v", r.Bad, s.Broken())
			}
		})
	}
}

func hashText(leaf []byte) []byte {
	h := audit.LeafHash(leaf)
	return h[:]
}

// attestation is that of an entry in the folder of a stopped node.
func attestation(t *testing.T, dir string, index uint64) audit.Attestation {
	t.Helper()
	s, err := audit.OpenStore(audit.StoreConfig{Dir: copyDir(t, dir)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := s.Attestation(index)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// flipText flips a bit of a text wherever a file holds it, without opening it
// anew.
func flipText(t *testing.T, name string, text []byte) {
	t.Helper()
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := 0
	for at := 0; ; found++ {
		next := bytes.Index(whole[at:], text)
		if next < 0 {
			break
		}
		at += next + len(text)/2
		if _, err := f.WriteAt([]byte{whole[at] ^ 1}, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Fatalf("%s does not hold %.40q", name, text)
	}
}
