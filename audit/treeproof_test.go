package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// proofLog is a log of more than two subtrees whose hashes are remembered.
func proofLog(t *testing.T) (dir string, size uint64) {
	t.Helper()
	key := audittest.Key(t, 1)
	dir = t.TempDir()
	s, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: audittest.Genesis(t)})
	if err != nil {
		t.Fatal(err)
	}
	const batches = 6
	for i := range uint64(batches) {
		leaves := make([][]byte, audit.MaxBatch-40)
		for j := range leaves {
			e := statement(t, audit.KindDenial, audit.DenialBody{Code: "denied"})
			e.Author, e.ID = key.ID(), fmt.Sprint("id", i, "x", j)
			if leaves[j], err = e.Encode(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Apply(i+1, 1, [][]byte{audit.SignBatch(key, s.Origin(), leaves)}); err != nil {
			t.Fatal(err)
		}
	}
	size = s.Size()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, size
}

// TestProofsAreThoseOfTheStandard holds proofs against the root, by code that is
// not ours, at sizes with every shape of right edge.
func TestProofsAreThoseOfTheStandard(t *testing.T) {
	dir, size := proofLog(t)
	s, err := audit.OpenStore(audit.StoreConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, n := range []uint64{1, 2, 3, 7, 127, 128, 129, 255, 256, 257, 511, 512, 513, 768, 1023, 1024, 1025, 1279, size - 1, size} {
		root, err := s.Root(n)
		if err != nil {
			t.Fatal(err)
		}
		for i := uint64(0); i < n; i += 1 + n/97 {
			_, leaf, err := s.Entry(i)
			if err != nil {
				t.Fatal(err)
			}
			proof, err := s.ProveEntry(i, n)
			if err != nil {
				t.Fatal(err)
			}
			theirs := make(tlog.RecordProof, len(proof))
			for j, h := range proof {
				theirs[j] = tlog.Hash(h)
			}
			if err := tlog.CheckRecord(theirs, int64(n), tlog.Hash(root), int64(i), tlog.RecordHash(leaf)); err != nil {
				t.Fatalf("entry %d of %d: %v", i, n, err)
			}
		}
	}
}

// TestAProofThatDoesNotHoldIsNotGiven changes hashes of the tree on the disk, of
// every level on the way from an entry to the root.
func TestAProofThatDoesNotHoldIsNotGiven(t *testing.T) {
	dir, size := proofLog(t)
	const entry = 300
	for level := range 10 {
		index := uint64(tlog.StoredHashIndex(level, entry>>level^1))
		damage := func() {
			db, err := bbolt.Open(filepath.Join(dir, "audit.db"), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			err = db.Update(func(tx *bbolt.Tx) error {
				tree := tx.Bucket([]byte("tree"))
				h := bytes.Clone(tree.Get(audit.Key64(index)))
				if len(h) == 0 {
					t.Fatalf("level %d: no hash", level)
				}
				h[0] ^= 1
				return tree.Put(audit.Key64(index), h)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		damage()
		s, err := audit.OpenStore(audit.StoreConfig{Dir: dir})
		if err == nil { // else the check at the start happened on it
			if _, err := s.ProveEntry(entry, size); !errors.Is(err, audit.ErrDamaged) {
				t.Errorf("level %d: %v, want ErrDamaged", level, err)
			}
			_ = s.Close()
		} else if !errors.Is(err, audit.ErrDamaged) {
			t.Errorf("level %d: %v, want ErrDamaged", level, err)
		}
		damage() // mends it
	}
}
