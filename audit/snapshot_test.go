package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// fetchFunc is a peer that a test makes up.
type fetchFunc func(ctx context.Context, from, size uint64) (audit.Batches, error)

func (f fetchFunc) Batches(ctx context.Context, from, size uint64) (audit.Batches, error) {
	return f(ctx, from, size)
}

func openWith(t *testing.T, fetch audit.Fetcher) *audit.Store {
	t.Helper()
	s, err := audit.OpenStore(audit.StoreConfig{Dir: t.TempDir(), Genesis: audittest.Genesis(t), Fetch: fetch, Linger: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestRestoreFetchesWhatIsMissing(t *testing.T) {
	c := newCluster(t, 3)
	c.execution(0, "task1")
	c.down.Store(c.keys[2].ID(), true)
	for i := range 5 {
		c.execution(i%2, fmt.Sprint("task", i+2))
	}
	c.down.Delete(c.keys[2].ID())
	meta, err := c.stores[0].Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	index, term := c.stores[0].Applied()
	late := c.stores[2]
	for range 2 { // the second time there is nothing to do
		if err := late.Restore(deadline(t), index, term, meta); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := late.Snapshot(); err != nil || !bytes.Equal(again, meta) {
		t.Errorf("Snapshot = %s, %v; want %s", again, err, meta)
	}
	if _, err := late.Task("task6"); err != nil {
		t.Error(err)
	}
	// The restored keeper goes on like the others.
	c.execution(2, "task99")
	_, want, _ := c.stores[0].Tree()
	if _, got, err := late.Tree(); err != nil || got != want {
		t.Errorf("root %s, %v; want %s", got, err, want)
	}
}

// TestRestoreNeverShrinksOrForks offers a store what is not its own history.
//
// INVARIANT: I7, a restore never shrinks or forks the log.
func TestRestoreNeverShrinksOrForks(t *testing.T) {
	key := audittest.Key(t, 1)
	ours, theirs := audittest.New(t, nil, nil), audittest.New(t, nil, nil)
	ours.Record(key, audittest.Intent(t, key.ID(), "ours"))
	older, err := ours.Store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	ours.Record(key, audittest.Intent(t, key.ID(), "ours2"))
	for i := range 4 {
		theirs.Record(key, audittest.Intent(t, key.ID(), fmt.Sprint("theirs", i)))
	}
	before, err := ours.Store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.Store.Restore(deadline(t), 1, 1, older); err != nil {
		t.Errorf("an older state of the same log: %v", err)
	}
	meta, err := theirs.Store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	forked := openWith(t, fetchFunc(func(_ context.Context, from, size uint64) (audit.Batches, error) {
		return theirs.Store.Batches(from, size)
	}))
	e := audittest.Intent(t, key.ID(), "ours")
	if n := audittest.Of(t, forked).Record(key, e); n != 1 {
		t.Fatal(n)
	}
	if err := forked.Restore(deadline(t), 4, 1, meta); !errors.Is(err, audit.ErrFork) {
		t.Errorf("another history, longer: %v, want ErrFork", err)
	}
	if got, _, err := forked.Entry(1); err != nil || got.Task != "ours" || forked.Size() != 2 {
		t.Errorf("entry 1 is of task %q now, size %d, %v", got.Task, forked.Size(), err)
	}
	short := bytes.Replace(meta, []byte(`"size":5`), []byte(`"size":2`), 1)
	if err := forked.Restore(deadline(t), 4, 1, short); !errors.Is(err, audit.ErrFork) {
		t.Errorf("another history, as long: %v, want ErrFork", err)
	}
	for _, bad := range []string{"", "{}", "null", string(meta) + "x", `{"v":1,"size":0,"root":"","index":4,"term":1}`} {
		if err := ours.Store.Restore(deadline(t), 4, 1, []byte(bad)); err == nil {
			t.Errorf("Restore(%q) succeeded", bad)
		}
	}
	if after, err := ours.Store.Snapshot(); err != nil || !bytes.Equal(after, before) {
		t.Errorf("state %s, %v; want %s", after, err, before)
	}
}

// TestRestoreFromLiars lets peers answer with what is damaged, cut, forged or
// withheld; nothing of it may reach the log, and an honest peer mends it.
func TestRestoreFromLiars(t *testing.T) {
	key := audittest.Key(t, 1)
	honest := audittest.New(t, nil, nil)
	for i := range 3 {
		honest.Record(key, audittest.Intent(t, key.ID(), fmt.Sprint("task", i)))
	}
	meta, err := honest.Store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	part, err := honest.Store.Batches(1, 4)
	if err != nil {
		t.Fatal(err)
	}
	forged := audit.SignBatch(audittest.Key(t, 9), honest.Store.Origin(), [][]byte{[]byte("{}")})
	for name, lie := range map[string]audit.Batches{
		"nothing":     {},
		"no proof":    {Batches: part.Batches[:2]},
		"not all":     {Batches: part.Batches[:2], Proof: part.Proof},
		"other order": {Batches: [][]byte{part.Batches[1], part.Batches[0], part.Batches[2]}, Proof: part.Proof},
		"twice":       {Batches: append(part.Batches[:1:1], part.Batches...), Proof: part.Proof},
		"forged":      {Batches: [][]byte{forged}, Proof: part.Proof},
		"garbage":     {Batches: [][]byte{[]byte("garbage"), nil}, Proof: part.Proof},
	} {
		calls := 0
		s := openWith(t, fetchFunc(func(_ context.Context, from, size uint64) (audit.Batches, error) {
			if calls++; calls == 1 {
				return lie, nil
			}
			return honest.Store.Batches(from, size)
		}))
		if err := s.Restore(deadline(t), 3, 1, meta); err != nil {
			t.Errorf("%s, then an honest peer: %v", name, err)
		}
		s = openWith(t, fetchFunc(func(context.Context, uint64, uint64) (audit.Batches, error) { return lie, nil }))
		if err := s.Restore(deadline(t), 3, 1, meta); err == nil || s.Size() != 1 {
			t.Errorf("%s: %v, size %d", name, err, s.Size())
		}
	}
}

func TestCosignerRefuses(t *testing.T) {
	c := newCluster(t, 3)
	c.execution(0, "task1")
	size, root, err := c.stores[0].Tree()
	if err != nil {
		t.Fatal(err)
	}
	good := audit.Checkpoint{Origin: c.stores[0].Origin(), Size: size, Root: root}
	point, now := c.points[0], time.Now()
	for name, test := range map[string]struct {
		edit func(*audit.Checkpoint)
		at   time.Time
		want error
	}{
		"another root":    {func(c *audit.Checkpoint) { c.Root[0] ^= 1 }, now, audit.ErrFork},
		"another log":     {func(c *audit.Checkpoint) { c.Origin = "agenticraft/" + digestA }, now, audit.ErrOtherCluster},
		"the past":        {func(*audit.Checkpoint) {}, now.Add(-2 * time.Minute), audit.ErrConflict},
		"the future":      {func(*audit.Checkpoint) {}, now.Add(2 * time.Minute), audit.ErrConflict},
		"nothing":         {func(c *audit.Checkpoint) { c.Size = 0 }, now, audit.ErrInvalid},
		"what is not yet": {func(c *audit.Checkpoint) { c.Size++ }, now, audit.ErrUnavailable},
	} {
		want := good
		test.edit(&want)
		ctx := deadline(t)
		if errors.Is(test.want, audit.ErrUnavailable) { // who waits for what does not come
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
		}
		if _, err := point.Cosign(ctx, want, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if _, err := point.Cosign(deadline(t), good, now); err != nil {
		t.Fatal(err)
	}
	old, err := c.stores[0].Root(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := point.Cosign(deadline(t), audit.Checkpoint{Origin: good.Origin, Size: 1, Root: old}, now); !errors.Is(err, audit.ErrConflict) {
		t.Errorf("a smaller size: %v, want ErrConflict", err)
	}
}

// TestForkRaisesAlarm lets one keeper hold another history: it gets no
// signatures and gives none, and both sides notice.
func TestForkRaisesAlarm(t *testing.T) {
	c := newCluster(t, 3)
	e := audittest.Intent(t, c.keys[2].ID(), "forked")
	audittest.Of(t, c.stores[2]).Record(c.keys[2], e)
	c.down.Store(c.keys[2].ID(), true) // no entries for it, but its checkpointer runs
	c.record(0, audittest.Intent(t, c.keys[0].ID(), "task1"))
	c.down.Delete(c.keys[2].ID())
	c.run()
	if _, _, err := c.stores[1].WaitCheckpoint(deadline(t), 1); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-c.alarms:
		if a.Size != 2 {
			t.Errorf("alarm %+v", a)
		}
	case <-deadline(t).Done():
		t.Error("no alarm")
	}
	if at, _, err := c.stores[2].Checkpoint(); err == nil && at.Size > 1 {
		t.Errorf("the odd keeper took checkpoint %+v", at)
	}
}

func TestKeeperThatWasAwayFetchesTheCheckpoint(t *testing.T) {
	c := newCluster(t, 3)
	away := c.keys[2].ID()
	c.down.Store(away, true)
	_, outcome := c.execution(0, "task1")
	c.run()
	if _, _, err := c.stores[0].WaitCheckpoint(deadline(t), outcome); err != nil {
		t.Fatal(err)
	}
	meta, err := c.stores[0].Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	index, term := c.stores[0].Applied()
	if err := c.stores[2].Restore(deadline(t), index, term, meta); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.stores[2].WaitCheckpoint(deadline(t), outcome); err != nil {
		t.Error(err)
	}
}

func TestNoQuorumNoCheckpoint(t *testing.T) {
	c := newCluster(t, 3)
	_, outcome := c.execution(0, "task1")
	c.down.Store(c.keys[1].ID(), true)
	c.down.Store(c.keys[2].ID(), true)
	c.run()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if at, _, err := c.stores[0].WaitCheckpoint(ctx, outcome); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("checkpoint %+v with one of three keepers, %v", at, err)
	}
	c.down.Delete(c.keys[1].ID())
	if _, _, err := c.stores[0].WaitCheckpoint(deadline(t), outcome); err != nil {
		t.Error(err)
	}
}

func TestCheckpointSurvivesRestart(t *testing.T) {
	c := newCluster(t, 1)
	_, outcome := c.execution(0, "task1")
	c.run()
	want, _, err := c.stores[0].WaitCheckpoint(deadline(t), outcome)
	if err != nil {
		t.Fatal(err)
	}
	dir := c.stores[0].Dir()
	c.close()
	c.stores, c.stop = nil, nil
	s, err := audit.OpenStore(audit.StoreConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, _, err := s.Checkpoint(); err != nil || got != want {
		t.Errorf("Checkpoint = %+v, %v; want %+v", got, err, want)
	}
}

func TestTrust(t *testing.T) {
	trust := newCluster(t, 3).trust()
	text, err := trust.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := audit.ParseTrust(text)
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := again.Encode(); !bytes.Equal(a, text) {
		t.Errorf("ParseTrust(%s) encodes as %s", text, a)
	}
	edit := func(fn func(*audit.Trust)) []byte {
		bad := trust
		bad.Keys = append([]string(nil), trust.Keys...)
		fn(&bad)
		out, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, bad := range map[string][]byte{
		"empty":         nil,
		"version":       edit(func(t *audit.Trust) { t.V = 2 }),
		"origin":        edit(func(t *audit.Trust) { t.Origin = "x" }),
		"minority":      edit(func(t *audit.Trust) { t.Quorum = 1 }),
		"impossible":    edit(func(t *audit.Trust) { t.Quorum = 4 }),
		"no keys":       edit(func(t *audit.Trust) { t.Keys, t.Quorum = nil, 0 }),
		"repeated key":  edit(func(t *audit.Trust) { t.Keys[1] = t.Keys[0] }),
		"key of other":  edit(func(t *audit.Trust) { t.Keys[0] = t.Keys[0][:70] + t.Keys[1][70:] }),
		"null past":     edit(func(t *audit.Trust) { t.Past = nil }),
		"past order":    edit(func(t *audit.Trust) { t.Past = []audit.PastTrust{{From: 5, Until: 5, Quorum: 3, Keys: t.Keys}} }),
		"unknown field": bytes.Replace(text, []byte(`"v"`), []byte(`"x":1,"v"`), 1),
		"repeated":      bytes.Replace(text, []byte(`"v": 1`), []byte(`"v": 1, "v": 1`), 1),
		"misspelt":      bytes.Replace(text, []byte(`"quorum"`), []byte(`"Quorum"`), 1),
		"trailing":      append(bytes.Clone(text), 'x'),
	} {
		if _, err := audit.ParseTrust(bad); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseTrust(f *testing.F) {
	text, err := newCluster(f, 3).trust().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, in []byte) {
		trust, err := audit.ParseTrust(in)
		if err != nil {
			return
		}
		out, err := trust.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := audit.ParseTrust(out); err != nil {
			t.Errorf("%q: %+v, %v", out, again, err)
		}
	})
}

// What raft carries of a log says how long it is, and is as small as that of an
// empty one.
func TestASnapshotDoesNotGrowWithTheLog(t *testing.T) {
	l := audittest.New(t, nil, nil)
	describe := func() (size int, entries uint64) {
		t.Helper()
		meta, err := l.Store.Snapshot()
		var got struct{ Size uint64 }
		if err == nil {
			err = json.Unmarshal(meta, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
		return len(meta), got.Size
	}
	empty, _ := describe()
	key := audittest.Key(t, 1)
	r := l.Recorder(key)
	for i := range 300 {
		if _, err := r.Record(deadline(t), audittest.Intent(t, key.ID(), fmt.Sprint("task", i))); err != nil {
			t.Fatal(err)
		}
	}
	full, entries := describe()
	if entries != 301 || full > empty+16 { // the digits of the numbers in it
		t.Errorf("a snapshot of %d entries has %d bytes, of one entry %d", entries, full, empty)
	}
}
