package registry_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/registry"
)

// What the tables of a data folder say is what a replay of its entries gives: a
// row that somebody, or the disk, changed, added or took away is found.
func TestReplayFindsChangedTables(t *testing.T) {
	dir := t.TempDir()
	origin := audit.OriginOf(genesisLeaf(t))
	s, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: genesisLeaf(t), Admit: registry.Admission{Origin: origin}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	rules := func() audit.Rules {
		return audit.Rules{Admit: func(origin string) audit.Admission { return registry.Admission{Origin: origin} }, State: registry.EmptyState()}
	}
	edit := func(do func(b *bbolt.Bucket) error) {
		t.Helper()
		db, err := bbolt.Open(filepath.Join(dir, "audit.db"), 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error { return do(tx.Bucket([]byte("state"))) })
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(want bool, what string) {
		t.Helper()
		r, err := audit.VerifyReplay(t.Context(), dir, nil, rules())
		if err != nil || (r.Bad == nil) != want || r.Bad != nil && r.Bad.Check != "state" {
			t.Errorf("%s: %+v, %v, %v", what, r, r.Bad, err)
		}
	}
	verify(true, "as it was written")
	rows := map[string][]byte{}
	edit(func(b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error { rows[string(k)] = bytes.Clone(v); return nil })
	})
	if len(rows) < 5 {
		t.Fatalf("only %d rows", len(rows))
	}
	for key, value := range rows {
		if len(value) > 0 {
			changed := bytes.Clone(value)
			changed[len(changed)/2] ^= 1
			edit(func(b *bbolt.Bucket) error { return b.Put([]byte(key), changed) })
			verify(false, key+" changed")
		}
		edit(func(b *bbolt.Bucket) error { return b.Delete([]byte(key)) })
		verify(false, key+" taken away")
		edit(func(b *bbolt.Bucket) error { return b.Put([]byte(key), value) })
	}
	for _, key := range []string{"a", "zz"} {
		edit(func(b *bbolt.Bucket) error { return b.Put([]byte(key), []byte("x")) })
		verify(false, key+" added")
		edit(func(b *bbolt.Bucket) error { return b.Delete([]byte(key)) })
	}
	verify(true, "as it was")

	// Another rule than the one that let it in.
	r, err := audit.VerifyReplay(t.Context(), dir, nil, audit.Rules{Admit: func(string) audit.Admission { return refusing{} }, State: registry.EmptyState()})
	if err != nil || r.Bad == nil || r.Bad.Check != "state" || r.Bad.Index != 0 {
		t.Errorf("a log that its rules refuse: %+v, %v", r.Bad, err)
	}
}

type refusing struct{ audit.Admission }

func (refusing) Admit(audit.Tx, uint64, identity.ID, audit.Entry) error {
	return &audit.Refusal{Code: "no"}
}
