package audit

import (
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// INVARIANT: I4: what was worked out of the state is forgotten with the write
// that may change it, and with the refusal that takes the write back.
func TestMemoEndsWithTheState(t *testing.T) {
	db, err := openBolt(filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	err = db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucket(bucketState)
		if err != nil {
			return err
		}
		memo := map[string]any{}
		first := &stateTx{bucket: bucket, writable: true, memo: memo}
		first.Remember("a", 1)
		if second := (&stateTx{bucket: bucket, writable: true, memo: memo}); second.Remembered("a") != 1 {
			t.Error("the next entry does not remember")
		}
		for name, change := range map[string]func() error{
			"put":    func() error { return first.Put("k", []byte("v")) },
			"delete": func() error { return first.Delete("k") },
			"undo":   first.undo,
		} {
			first.Remember("a", 1)
			if err := change(); err != nil {
				t.Fatal(err)
			}
			if first.Remembered("a") != nil {
				t.Errorf("remembered after %s", name)
			}
		}
		view := &stateTx{bucket: bucket}
		view.Remember("a", 1)
		if view.Remembered("a") != nil {
			t.Error("a view remembers")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
