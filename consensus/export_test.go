package consensus

import (
	"bytes"
	"testing"

	"go.etcd.io/bbolt"
)

// FirstIndex is the first entry of the raft log.
func (g *Group) FirstIndex() (uint64, error) { return g.store.FirstIndex() }

// HoldDisk lets no write to raft.db finish until release is called.
func (g *Group) HoldDisk(t testing.TB) (release func()) {
	t.Helper()
	tx, err := g.store.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// Corrupt spoils one entry of the raft log where it lies.
func (g *Group) Corrupt(t testing.TB, index uint64) {
	t.Helper()
	err := g.store.db.Update(func(tx *bbolt.Tx) error {
		log := tx.Bucket(bucketLog)
		value := bytes.Clone(log.Get(indexKey(index)))
		value[len(value)-1] ^= 1
		return log.Put(indexKey(index), value)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ProposeRaw puts bytes into the raft log as they are.
func (g *Group) ProposeRaw(entry []byte) error { return g.raft.Apply(entry, 0).Error() }
