package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/identity"
)

// testStore opens a store on path whose machine stands at *applied.
func testStore(t *testing.T, path string, applied *uint64) (*store, error) {
	t.Helper()
	s, err := openStore(storeConfig{
		Path:    path,
		Keepers: []identity.ID{"k"},
		Durable: func() (uint64, uint64) { return *applied, 1 },
		Timeout: 100 * time.Millisecond,
		Fail:    func(error) {},
		Metrics: newMetrics(),
	})
	if err == nil {
		t.Cleanup(func() { _ = s.close() })
	}
	return s, err
}

func newStore(t *testing.T, applied *uint64) (s *store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "raft.db")
	later := *applied
	*applied = 0
	s, err := testStore(t, path, applied)
	if err != nil {
		t.Fatal(err)
	}
	*applied = later
	if err := s.begun(); err != nil {
		t.Fatal(err)
	}
	return s, path
}

func entry(index, term uint64, data string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(data), AppendedAt: time.Unix(1, int64(index))}
}

func fill(t *testing.T, s *store, term, from, to uint64) {
	t.Helper()
	var entries []*raft.Log
	for i := from; i <= to; i++ {
		entries = append(entries, entry(i, term, fmt.Sprint("data ", i)))
	}
	if err := s.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
}

func span(t *testing.T, s *store, first, last uint64) {
	t.Helper()
	gotFirst, _ := s.FirstIndex()
	gotLast, _ := s.LastIndex()
	if gotFirst != first || gotLast != last {
		t.Errorf("the log spans %d to %d, want %d to %d", gotFirst, gotLast, first, last)
	}
	for i := uint64(1); i <= last+2; i++ {
		err := s.GetLog(i, new(raft.Log))
		if in := first <= i && i <= last; in && err != nil || !in && !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("GetLog(%d) = %v", i, err)
		}
	}
}

func TestStoreKeepsEntriesAndVotes(t *testing.T) {
	applied := uint64(0)
	s, path := newStore(t, &applied)
	want := &raft.Log{Index: 1, Term: 7, Type: raft.LogConfiguration, Data: []byte("d"), Extensions: []byte("ext"), AppendedAt: time.Unix(5, 6)}
	if err := s.StoreLog(want); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 7, 2, 9)
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 7), s.Set([]byte("LastVoteCand"), []byte("me"))); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s, err := testStore(t, path, &applied)
	if err != nil {
		t.Fatal(err)
	}
	span(t, s, 1, 9)
	var got raft.Log
	if err := s.GetLog(1, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("entry differs (-want +got):\n%s", diff)
	}
	term, err := s.GetUint64([]byte("CurrentTerm"))
	vote, err2 := s.Get([]byte("LastVoteCand"))
	never, err3 := s.Get([]byte("never set"))
	if term != 7 || string(vote) != "me" || never != nil || errors.Join(err, err2, err3) != nil {
		t.Errorf("term %d, vote %q, never set %q, %v", term, vote, never, errors.Join(err, err2, err3))
	}
}

// edit changes raft.db as a failing disk or a meddler would.
func edit(t *testing.T, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptRecordsAreRefused(t *testing.T) {
	flip := func(bucket, key []byte, at int) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucket)
			value := bytes.Clone(b.Get(key))
			value[at%len(value)] ^= 1
			return b.Put(key, value)
		}
	}
	for name, c := range map[string]struct {
		change func(tx *bbolt.Tx) error
		want   string
	}{
		"data":     {flip(bucketLog, indexKey(5), 30), "entry 5"},
		"checksum": {flip(bucketLog, indexKey(5), 0), "entry 5"},
		"term":     {flip(bucketLog, indexKey(5), 6), "entry 5"},
		"cut":      {func(tx *bbolt.Tx) error { return tx.Bucket(bucketLog).Put(indexKey(5), []byte{1, 2}) }, "entry 5"},
		"missing":  {func(tx *bbolt.Tx) error { return tx.Bucket(bucketLog).Delete(indexKey(5)) }, "entry 5"},
		"swapped": {func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketLog)
			return b.Put(indexKey(5), bytes.Clone(b.Get(indexKey(6))))
		}, "entry 5"},
		"format": {func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte{9}) }, "format"},
	} {
		t.Run(name, func(t *testing.T) {
			applied := uint64(0)
			s, path := newStore(t, &applied)
			fill(t, s, 1, 1, 9)
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			edit(t, path, c.change)
			if _, err := testStore(t, path, &applied); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("open = %v, want it to name %q", err, c.want)
			}
		})
	}
}

func TestACorruptEntryIsNotServed(t *testing.T) {
	applied := uint64(9) // so that it is not looked at before
	s, path := newStore(t, &applied)
	fill(t, s, 1, 1, 9)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	edit(t, path, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketLog).Put(indexKey(5), []byte("garbage, long enough to be one"))
	})
	s, err := testStore(t, path, &applied)
	if err != nil {
		t.Fatal(err)
	}
	got := raft.Log{}
	if err := s.GetLog(5, &got); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "entry 5") || got.Data != nil {
		t.Errorf("GetLog(5) = %v, %v, want ErrCorrupt", got, err)
	}
}

func TestOpenRefusesFilesThatDoNotBelongTogether(t *testing.T) {
	for name, c := range map[string]struct {
		first, last, restored, applied uint64
		want                           string // "" if it opens
	}{
		"state behind the log":      {first: 5, last: 9, applied: 3, want: "begins at entry 5"},
		"state just behind the log": {first: 5, last: 9, applied: 4},
		"log behind the state":      {first: 1, last: 9, applied: 12, want: "ends at entry 9"},
		"crash after a restore":     {first: 1, last: 9, applied: 12, restored: 12},
	} {
		t.Run(name, func(t *testing.T) {
			applied := uint64(9)
			s, path := newStore(t, &applied)
			fill(t, s, 1, 1, c.last)
			if c.first > 1 {
				if err := s.DeleteRange(1, c.first-1); err != nil {
					t.Fatal(err)
				}
			}
			if c.restored > 0 {
				if err := s.restoring(c.restored); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			s, err := testStore(t, path, &c.applied)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("open = %v, want it to say %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.restored > 0 {
				span(t, s, 0, 0)
				fill(t, s, 1, c.restored+1, c.restored+3)
				span(t, s, c.restored+1, c.restored+3)
			}
		})
	}
}

// INVARIANT: I7 an acknowledged entry is never lost.
func TestI7AnAcknowledgedEntryIsNeverLost(t *testing.T) {
	applied := uint64(5)
	s, _ := newStore(t, &applied)
	fill(t, s, 1, 1, 9)
	if err := s.DeleteRange(4, 9); !errors.Is(err, errTruncation) {
		t.Errorf("truncation of applied entries = %v, want it refused", err)
	}
	span(t, s, 1, 9)
	if err := s.DeleteRange(1, 8); err != nil {
		t.Fatal(err)
	}
	span(t, s, 6, 9) // 6 to 8 are not durable in the machine
	if err := s.DeleteRange(8, 9); err != nil {
		t.Fatal(err)
	}
	span(t, s, 6, 7)
	if err := s.DeleteRange(6, 7); err != nil {
		t.Fatal(err)
	}
	span(t, s, 0, 0)
}

func TestShorteningGoesInSteps(t *testing.T) {
	applied := uint64(deleteAtOnce*2 + 10)
	s, _ := newStore(t, &applied)
	fill(t, s, 1, 1, applied+5)
	if err := s.DeleteRange(1, applied); err != nil {
		t.Fatal(err)
	}
	first, _ := s.FirstIndex()
	if first != applied+1 {
		t.Errorf("the log begins at %d, want %d", first, applied+1)
	}
}

func TestEntriesFollowEachOther(t *testing.T) {
	applied := uint64(0)
	s, _ := newStore(t, &applied)
	fill(t, s, 1, 1, 3)
	if err := s.StoreLogs([]*raft.Log{entry(4, 1, ""), entry(6, 1, "")}); err == nil {
		t.Error("entries with a gap were stored")
	}
	if err := s.StoreLog(entry(6, 1, "")); err == nil {
		t.Error("an entry behind a gap was stored")
	}
	if err := s.restoring(10); err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(entry(9, 1, "")); err == nil {
		t.Error("an entry below the restored state was stored behind a gap")
	}
	span(t, s, 1, 3)
	fill(t, s, 2, 11, 12)
	span(t, s, 11, 12)
}

func TestAHungDiskIsToldInTime(t *testing.T) {
	applied := uint64(0)
	s, _ := newStore(t, &applied)
	fill(t, s, 1, 1, 3)
	tx, err := s.db.Begin(true) // no write gets past it
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := s.StoreLogs([]*raft.Log{entry(4, 1, "late"), entry(5, 1, "late"), entry(6, 1, "late")}); !errors.Is(err, errStalled) {
		t.Errorf("write to a hung disk = %v", err)
	}
	if err := s.StoreLog(entry(4, 2, "never queued")); !errors.Is(err, errStalled) {
		t.Errorf("second write to a hung disk = %v", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	// The late write lands, and the next leader's entry replaces all of it.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if last, _ := s.LastIndex(); last == 6 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the late write did not land")
		}
	}
	fill(t, s, 2, 4, 4)
	span(t, s, 1, 4)
	var got raft.Log
	if err := s.GetLog(4, &got); err != nil || got.Term != 2 {
		t.Errorf("GetLog(4) = term %d, %v, want the newer one", got.Term, err)
	}
}

func TestOneProcessHoldsTheFile(t *testing.T) {
	applied := uint64(0)
	_, path := newStore(t, &applied)
	if _, err := testStore(t, path, &applied); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second open = %v", err)
	}
}
