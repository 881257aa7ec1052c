package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// flipped is a copy of a data folder in which the bbolt file is in order and one
// bit of one value is not.
func flipped(t *testing.T, dir, bucket string, key []byte, bit int) string {
	t.Helper()
	changed := copyDir(t, dir)
	db, err := bbolt.Open(filepath.Join(changed, "audit.db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		value := bytes.Clone(b.Get(key))
		value[bit/8%len(value)] ^= 1 << (bit % 8)
		return b.Put(key, value)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return changed
}

// values lists the keys of a bucket that have a value.
func values(t *testing.T, dir, bucket string) (keys [][]byte) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "audit.db"), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
			if len(v) > 0 {
				keys = append(keys, bytes.Clone(k))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// A bit that the disk flipped, in whatever bucket, is found by a check of the
// folder, and what a node reads of it is not what it answers.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestFlippedBitsAreFoundAndNotServed(t *testing.T) {
	dir, trust, leaves := verifiedDir(t, 3)
	for _, bucket := range []string{"meta", "entries", "tree", "batches", "ids", "tasks", "checkpoints"} {
		keys := values(t, dir, bucket)
		if len(keys) == 0 {
			t.Errorf("bucket %s holds nothing", bucket)
			continue
		}
		for i := range 3 {
			key := keys[i*len(keys)/3%len(keys)]
			changed := flipped(t, dir, bucket, key, 37+i*61)
			r, err := audit.VerifyDir(deadline(t), changed, &trust)
			if err != nil {
				t.Fatal(err)
			}
			if r.Bad == nil {
				t.Errorf("%s %x: a flipped bit is not found", bucket, key)
			}
			served(t, changed, leaves)
		}
	}
	// And of a log that is longer than a start reads.
	dir, leaves = longDir(t)
	for i := range 4 {
		served(t, flipped(t, dir, "entries", audit.Key64(uint64(1+i*100)), 999), leaves)
		served(t, flipped(t, dir, "tree", audit.Key64(uint64(1+i*200)), 99), leaves)
	}
}

// longDir is the folder of a log that is longer than a start reads.
func longDir(t *testing.T) (dir string, leaves [][]byte) {
	t.Helper()
	l := audittest.New(t, nil, nil)
	key := audittest.Key(t, 1)
	leaves = [][]byte{audittest.Genesis(t)}
	for len(leaves) < 700 {
		var batch [][]byte
		for range 50 {
			e := audittest.Intent(t, key.ID(), fmt.Sprint("task", len(leaves)+len(batch)))
			e.V, e.Author, e.ID, e.Time = audit.EntryVersion, key.ID(), audit.NewSalt(), "2026-01-01T00:00:00.000Z"
			leaf, err := e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, leaf)
		}
		if _, err := l.Propose(deadline(t), audit.SignBatch(key, l.Store.Origin(), batch)); err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, batch...)
	}
	if err := l.Store.Close(); err != nil {
		t.Fatal(err)
	}
	return copyDir(t, l.Store.Dir()), leaves
}

// served reads all that a store of a damaged folder answers, which must be what
// was written, if it is anything.
func served(t *testing.T, dir string, leaves [][]byte) {
	t.Helper()
	s, err := audit.OpenStore(audit.StoreConfig{Dir: dir})
	if err != nil {
		return // it says so at once
	}
	defer s.Close()
	root := s.Size()
	found := 0
	for i, want := range leaves {
		_, leaf, err := s.Entry(uint64(i))
		if err == nil && !bytes.Equal(leaf, want) {
			t.Errorf("entry %d is served changed", i)
		}
		if err != nil {
			if found++; !errors.Is(err, audit.ErrDamaged) {
				t.Errorf("entry %d: %v, want ErrDamaged", i, err)
			}
		}
		if _, err := s.ProveEntry(uint64(i), root); err != nil && !errors.Is(err, audit.ErrDamaged) {
			t.Errorf("proof of entry %d: %v, want ErrDamaged", i, err)
		}
	}
	if found > 0 && !errors.Is(s.Broken(), audit.ErrDamaged) {
		t.Errorf("the store goes on after damage: %v", s.Broken())
	}
}

// A start finds what the disk did to the newest entries, and the proofs of a
// store never lead to another root than the one that was signed.
func TestDamageStopsTheStore(t *testing.T) {
	dir, leaves := longDir(t)
	newest := audit.Key64(uint64(len(leaves) - 2))
	if _, err := audit.OpenStore(audit.StoreConfig{Dir: flipped(t, dir, "entries", newest, 99)}); !errors.Is(err, audit.ErrDamaged) {
		t.Errorf("OpenStore = %v, want ErrDamaged", err)
	}
	if _, err := audit.OpenStore(audit.StoreConfig{Dir: flipped(t, dir, "entries", audit.Key64(0), 99)}); err == nil {
		t.Error("a store with another first entry was opened")
	}
	// The file is shorter than it was, or is none.
	whole, err := os.ReadFile(filepath.Join(dir, "audit.db"))
	if err != nil {
		t.Fatal(err)
	}
	used := inUse(whole)
	for _, n := range []int{1, 100, 4096, 3 * 4096, used / 4, used / 2} {
		short := copyDir(t, dir)
		write(t, filepath.Join(short, "audit.db"), whole[:n])
		if s, err := audit.OpenStore(audit.StoreConfig{Dir: short}); err == nil {
			s.Close()
			t.Errorf("cut to %d bytes: it was opened", n)
		} else if n > 4096 && !errors.Is(err, audit.ErrDamaged) {
			t.Errorf("cut to %d bytes: %v, want ErrDamaged", n, err)
		}
		if r, err := audit.VerifyDir(deadline(t), short, nil); err != nil || r.Bad == nil {
			t.Errorf("cut to %d bytes: %+v, %v", n, r.Bad, err)
		}
	}
}

// A start looks at entries anywhere: of a log in which most are damaged, or one
// of the look-ups that lead to them, it finds one.
func TestASampleIsCheckedAtTheStart(t *testing.T) {
	dir, _ := longDir(t)
	const tail = 256 // which it reads anyway
	for bucket, skip := range map[string]int{"entries": tail, "batches": 0, "ids": 0} {
		keys := values(t, dir, bucket)
		changed := copyDir(t, dir)
		db, err := bbolt.Open(filepath.Join(changed, "audit.db"), 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte(bucket))
			for _, k := range keys[1 : len(keys)-skip] {
				value := bytes.Clone(b.Get(k))
				value[len(value)/2] ^= 4
				if err := b.Put(k, value); err != nil {
					return err
				}
			}
			return nil
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if s, err := audit.OpenStore(audit.StoreConfig{Dir: changed}); err == nil {
			s.Close()
			t.Errorf("%s: a start noticed nothing", bucket)
		}
	}
}
