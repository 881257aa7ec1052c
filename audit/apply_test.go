package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
)

const (
	digestA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestExactlyOneOutcomeAndLateIsKept(t *testing.T) {
	l := audittest.New(t, nil, nil)
	executor, other := audittest.Key(t, 1), audittest.Key(t, 2)
	r, stranger := l.Recorder(executor), l.Recorder(other)
	ctx := deadline(t)
	refusal := func(r *audit.Recorder, e audit.Entry, code string) {
		t.Helper()
		_, err := r.Record(ctx, e)
		if got, ok := errors.AsType[*audit.Refusal](err); !ok || got.Code != code {
			t.Errorf("Record = %v, want refusal %q", err, code)
		}
	}
	outcome := func(intent uint64, status string) audit.Entry { return audittest.Outcome(t, "task1", intent, status) }
	late := func(intent uint64) audit.Entry {
		e := outcome(intent, audit.StatusSucceeded)
		e.Kind = audit.KindLate
		return e
	}
	refusal(r, outcome(0, audit.StatusLost), "no_intent")
	ack, err := r.Record(ctx, audittest.Intent(t, executor.ID(), "task1"))
	if err != nil {
		t.Fatal(err)
	}
	refusal(r, outcome(ack.Index+1, audit.StatusLost), "no_intent")
	refusal(r, late(ack.Index), "no_outcome")
	refusal(stranger, outcome(ack.Index, audit.StatusSucceeded), "executor")
	refusal(stranger, audittest.Intent(t, executor.ID(), "task2"), "executor")
	connection := func(intent uint64) audit.Entry {
		e := outcome(intent, "")
		e.Kind = audit.KindConnection
		if e.Body, err = audit.MarshalBody(audit.ConnectionBody{Host: "example.org", Port: 443, Sent: 1, Received: 2, Verdict: "ok"}); err != nil {
			t.Fatal(err)
		}
		return e
	}
	refusal(stranger, connection(ack.Index), "executor")
	refusal(r, connection(ack.Index+1), "executor")
	if _, err := r.Record(ctx, connection(ack.Index)); err != nil {
		t.Errorf("a connection of the run is not recorded: %v", err)
	}
	second := audittest.Intent(t, executor.ID(), "task1")
	second.Attempt = 2
	refusal(r, second, "attempt")

	lost, err := stranger.Record(ctx, outcome(ack.Index, audit.StatusLost))
	if err != nil || lost.Existing {
		t.Fatalf("lost = %+v, %v", lost, err)
	}
	again, err := r.Record(ctx, outcome(ack.Index, audit.StatusSucceeded))
	if err != nil || again != (audit.Ack{Index: lost.Index, Existing: true}) {
		t.Errorf("second outcome = %+v, %v; want the first one, at %d", again, err, lost.Index)
	}
	for range 3 {
		if _, err := r.Record(ctx, late(ack.Index)); err != nil {
			t.Error(err)
		}
	}
	refusal(stranger, late(ack.Index), "executor")
	if got, err := r.Record(ctx, audittest.Intent(t, executor.ID(), "task1")); !errors.Is(err, audit.ErrConflict) || got.Index != ack.Index {
		t.Errorf("second intent = %+v, %v; want ErrConflict with the first one, at %d", got, err, ack.Index)
	}
	if _, err := r.Record(ctx, second); err != nil {
		t.Errorf("second attempt after the outcome: %v", err)
	}
	rec, err := l.Store.Task("task1")
	if err != nil || rec.Attempt != 2 || rec.Outcome != nil {
		t.Errorf("Task = %+v, %v", rec, err)
	}
	if open, err := l.Store.OpenIntents(); err != nil || len(open) != 1 || open[0].Entry.Attempt != 2 {
		t.Errorf("OpenIntents = %v, %v", open, err)
	}
}

func TestAtMostOnce(t *testing.T) {
	l := audittest.New(t, nil, nil)
	keys := []*identity.Key{audittest.Key(t, 1), audittest.Key(t, 2)}
	intent := func(n int, task, digest string) audit.Entry {
		e := audittest.Intent(t, keys[n].ID(), task)
		e.Once = &audit.Once{Key: digestA, Digest: digest}
		return e
	}
	ctx := deadline(t)
	first, err := l.Recorder(keys[0]).Record(ctx, intent(0, "task1", digestA))
	if err != nil || first.Existing {
		t.Fatalf("first = %+v, %v", first, err)
	}
	same, err := l.Recorder(keys[1]).Record(ctx, intent(1, "task1", digestA))
	if err != nil || same != (audit.Ack{Index: first.Index, Existing: true}) {
		t.Errorf("same request through another node = %+v, %v", same, err)
	}
	other, err := l.Recorder(keys[1]).Record(ctx, intent(1, "task2", digestB))
	if !errors.Is(err, audit.ErrConflict) || other.Index != first.Index {
		t.Errorf("another request with the same key = %+v, %v; want ErrConflict", other, err)
	}
	if index, digest, err := l.Store.Once(digestA); err != nil || index != first.Index || digest != digestA {
		t.Errorf("Once = %d, %s, %v", index, digest, err)
	}
	if l.Store.Size() != 2 {
		t.Errorf("size %d, want 2", l.Store.Size())
	}
}

func TestSameIDIsWrittenOnce(t *testing.T) {
	l := audittest.New(t, nil, nil)
	a, b := l.Recorder(audittest.Key(t, 1)), l.Recorder(audittest.Key(t, 2))
	e := audit.Entry{Kind: audit.KindDenial, ID: "fixed", Body: []byte(`{"code":"policy"}`)}
	first, err := a.Record(deadline(t), e)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := a.Record(deadline(t), e); err != nil || again != (audit.Ack{Index: first.Index, Existing: true}) {
		t.Errorf("again = %+v, %v", again, err)
	}
	if other, err := b.Record(deadline(t), e); err != nil || other.Existing {
		t.Errorf("the same id of another author = %+v, %v; want an entry of its own", other, err)
	}
}

func TestHostileCommandsAreRefused(t *testing.T) {
	l := audittest.New(t, nil, nil)
	key, other := audittest.Key(t, 1), audittest.Key(t, 2)
	origin := l.Store.Origin()
	entry := func(edit func(*audit.Entry)) []byte {
		e := audit.Entry{
			V: audit.EntryVersion, Kind: audit.KindDenial, ID: "x", Time: "2026-01-01T00:00:00.000Z",
			Author: key.ID(), Body: []byte(`{"code":"policy"}`),
		}
		edit(&e)
		leaf, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	leaf := entry(func(*audit.Entry) {})
	good := audit.SignBatch(key, origin, [][]byte{leaf})
	mutate := func(at int) []byte { m := slices.Clone(good); m[at] ^= 1; return m }
	for name, cmd := range map[string][]byte{
		"cut":                    good[:len(good)-1],
		"longer":                 append(slices.Clone(good), 0),
		"signature":              mutate(len(good) - 1),
		"leaf":                   mutate(len(good) - 70),
		"another log":            audit.SignBatch(key, "agenticraft/"+digestA, [][]byte{leaf}),
		"another author":         audit.SignBatch(other, origin, [][]byte{leaf}),
		"no entries":             audit.SignBatch(key, origin, nil),
		"withheld entry":         audit.SignBatch(key, origin, [][]byte{nil}),
		"too many":               audit.SignBatch(key, origin, slices.Repeat([][]byte{leaf}, audit.MaxBatch+1)),
		"not an entry":           audit.SignBatch(key, origin, [][]byte{[]byte("{}")}),
		"not canonical":          audit.SignBatch(key, origin, [][]byte{append([]byte(" "), leaf...)}),
		"a second genesis entry": audit.SignBatch(key, origin, [][]byte{entry(func(e *audit.Entry) { e.Kind, e.Body = audit.KindGenesis, nil })}),
	} {
		answer, err := l.Propose(context.Background(), cmd)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if codes, err := audit.RefusalCodes(answer); err != nil || slices.Contains(codes, "") {
			t.Errorf("%s: refusals %q, %v", name, codes, err)
		}
	}
	if l.Store.Size() != 1 {
		t.Errorf("size %d, want 1", l.Store.Size())
	}
	if err := audit.CheckCommand(origin, good); err != nil {
		t.Error(err)
	}
	if _, err := l.Propose(context.Background(), []byte{2}); !errors.Is(err, audit.ErrInvalid) {
		t.Errorf("unknown version: %v, want an error that stops the keeper", err)
	}
	if err := audit.CheckCommand(origin, []byte{2}); !errors.Is(err, audit.ErrInvalid) {
		t.Errorf("CheckCommand = %v", err)
	}
}

// admission refuses denials of one author and keeps a count of entries.
type admission struct{ refused identity.ID }

func (a admission) Admit(tx audit.Tx, index uint64, author identity.ID, e audit.Entry) error {
	if err := tx.Put("count", fmt.Append(nil, index)); err != nil {
		return err
	}
	if err := tx.Put("kind/"+string(e.Kind), []byte{1}); err != nil {
		return err
	}
	if author == a.refused {
		if err := tx.Delete("kind/genesis"); err != nil {
			return err
		}
		return &audit.Refusal{Code: "revoked", Message: "no"}
	}
	return nil
}

func TestRefusalLeavesNoTrace(t *testing.T) {
	good, bad := audittest.Key(t, 1), audittest.Key(t, 2)
	l := audittest.New(t, nil, admission{refused: bad.ID()})
	denial := audit.Entry{Kind: audit.KindDenial, Body: []byte(`{"code":"policy"}`)}
	_, err := l.Recorder(bad).Record(deadline(t), denial)
	if r, ok := errors.AsType[*audit.Refusal](err); !ok || r.Code != "revoked" {
		t.Fatalf("Record = %v", err)
	}
	state := func() string {
		var out []string
		err := l.Store.View(func(tx audit.Tx) error {
			if tx.Put("x", nil) == nil || tx.Get("none") != nil {
				t.Error("a view can be written, or finds what is not there")
			}
			return tx.Each("", func(k string, v []byte) error {
				out = append(out, k+"="+string(v))
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, " ")
	}
	if got, want := state(), "count=0 kind/genesis=\x01"; got != want {
		t.Errorf("state %q, want %q", got, want)
	}
	l.Record(good, denial)
	if got, want := state(), "count=1 kind/denial=\x01 kind/genesis=\x01"; got != want {
		t.Errorf("state %q, want %q", got, want)
	}
}

// TestApplyFaults fails a write before and after it is durable, reopens the
// store and goes on as raft would: by applying the same entries again.
//
// INVARIANT: I7, an acknowledged entry is never lost, changed or reordered.
func TestApplyFaults(t *testing.T) {
	boom := errors.New("boom")
	for _, stage := range []string{"before commit", "after commit"} {
		t.Run(stage, func(t *testing.T) {
			dir, genesis, key := t.TempDir(), audittest.Genesis(t), audittest.Key(t, 1)
			open := func() *audit.Store {
				s, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: genesis, Linger: -1})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			var cmds [][]byte
			for i := range 4 {
				e := audittest.Intent(t, key.ID(), fmt.Sprint("task", i))
				e.V, e.ID, e.Author, e.Time = audit.EntryVersion, fmt.Sprint(i), key.ID(), "2026-01-01T00:00:00.000Z"
				leaf, err := e.Encode()
				if err != nil {
					t.Fatal(err)
				}
				cmds = append(cmds, audit.SignBatch(key, audit.OriginOf(genesis), [][]byte{leaf}))
			}
			s := open()
			if _, err := s.Apply(1, 1, cmds[:1]); err != nil {
				t.Fatal(err)
			}
			s.FailAt(t, stage, boom)
			if _, err := s.Apply(2, 1, cmds[1:3]); !errors.Is(err, boom) {
				t.Fatalf("Apply = %v", err)
			}
			if _, err := s.Apply(3, 1, cmds[3:]); !errors.Is(err, boom) {
				t.Errorf("Apply on a broken store = %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
			defer s.Close()
			for i, part := range [][][]byte{cmds[:1], cmds[1:3], cmds[3:]} {
				if _, err := s.Apply(uint64(i+1), 1, part); err != nil {
					t.Fatal(err)
				}
			}
			if index, term := s.Applied(); index != 3 || term != 1 || s.Size() != 5 {
				t.Errorf("applied %d in term %d, size %d; want 3, 1, 5", index, term, s.Size())
			}
			for i := range uint64(4) {
				if e, _, err := s.Entry(i + 1); err != nil || e.ID != fmt.Sprint(i) {
					t.Errorf("entry %d = %+v, %v", i+1, e, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err := audit.VerifyDir(deadline(t), dir, nil); err != nil || r.Bad != nil || r.Size != 5 {
				t.Errorf("VerifyDir = %+v, %v, %v", r, r.Bad, err)
			}
		})
	}
}

func TestStoreOfAnotherCluster(t *testing.T) {
	dir := t.TempDir()
	s, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: audittest.Genesis(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.OpenStore(audit.StoreConfig{Dir: dir}); err == nil {
		t.Error("a store was opened twice")
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	other, err := audit.Entry{V: 1, Kind: audit.KindGenesis, ID: "other", Time: "2026-01-01T00:00:00.000Z"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: other}); !errors.Is(err, audit.ErrOtherCluster) {
		t.Errorf("OpenStore = %v, want ErrOtherCluster", err)
	}
	if _, err := audit.OpenStore(audit.StoreConfig{Dir: t.TempDir()}); !errors.Is(err, audit.ErrNotFound) {
		t.Errorf("OpenStore of an empty folder = %v, want ErrNotFound", err)
	}
}

// TestApplyIsPure feeds the same random commands to two stores, grouped in
// different ways, and wants the same root, answers and proofs.
//
// INVARIANT: I4, Apply is pure: same size, same root, on every keeper.
func TestApplyIsPure(t *testing.T) {
	keys := []*identity.Key{audittest.Key(t, 1), audittest.Key(t, 2), audittest.Key(t, 3)}
	admit := admission{refused: keys[2].ID()}
	genesis := audittest.Genesis(t)
	rapid.Check(t, func(r *rapid.T) {
		var stores []*audit.Store
		for range 2 {
			s, err := audit.OpenStore(audit.StoreConfig{Dir: t.TempDir(), Genesis: genesis, Admit: admit})
			if err != nil {
				r.Fatal(err)
			}
			defer s.Close()
			stores = append(stores, s)
		}
		cmds := randomCommands(t, r, keys, audit.OriginOf(genesis))
		whole, err := stores[0].Apply(1, 1, cmds)
		if err != nil {
			r.Fatal(err)
		}
		for i, cmd := range cmds {
			answers, err := stores[1].Apply(uint64(i+1), 1, [][]byte{cmd})
			if err != nil {
				r.Fatal(err)
			}
			if string(answers[0]) != string(whole[i]) {
				r.Fatalf("command %d: answers %x and %x", i, whole[i], answers[0])
			}
		}
		size, root, err := stores[0].Tree()
		if err != nil {
			r.Fatal(err)
		}
		if size2, root2, err := stores[1].Tree(); err != nil || size2 != size || root2 != root {
			r.Fatalf("trees %d %s and %d %s, %v", size, root, size2, root2, err)
		}
		for i := range size {
			_, leaf, err := stores[0].Entry(i)
			if err != nil {
				r.Fatal(err)
			}
			proof, err := stores[1].ProveEntry(i, size)
			if err != nil {
				r.Fatal(err)
			}
			if err := audit.CheckEntry(proof, i, size, audit.LeafHash(leaf), root); err != nil {
				r.Fatal(err)
			}
			if old, err := stores[0].Root(i + 1); err != nil {
				r.Fatal(err)
			} else if proof, err := stores[1].ProveGrowth(i+1, size); err != nil {
				r.Fatal(err)
			} else if err := audit.CheckGrowth(proof, i+1, old, size, root); err != nil {
				r.Fatal(err)
			}
		}
	})
}

// randomCommands are batches of entries that often contradict each other.
func randomCommands(tb testing.TB, r *rapid.T, keys []*identity.Key, origin string) [][]byte {
	var cmds [][]byte
	for range rapid.IntRange(1, 6).Draw(r, "commands") {
		key := rapid.SampledFrom(keys).Draw(r, "author")
		var leaves [][]byte
		for range rapid.IntRange(1, 4).Draw(r, "entries") {
			task := rapid.SampledFrom([]string{"t1", "t2", "t3"}).Draw(r, "task")
			e := audittest.Intent(tb, key.ID(), task)
			if rapid.Bool().Draw(r, "outcome") {
				e = audittest.Outcome(tb, task, uint64(rapid.IntRange(1, 4).Draw(r, "ref")), audit.StatusLost)
			}
			if rapid.Bool().Draw(r, "once") {
				e.Once = &audit.Once{Key: digestA, Digest: rapid.SampledFrom([]string{digestA, digestB}).Draw(r, "digest")}
			}
			e.V, e.Author, e.Time = audit.EntryVersion, key.ID(), "2026-01-01T00:00:00.000Z"
			e.ID = rapid.StringMatching("[a-f]{1,2}").Draw(r, "id")
			leaf, err := e.Encode()
			if err != nil {
				tb.Fatal(err)
			}
			leaves = append(leaves, leaf)
		}
		cmds = append(cmds, audit.SignBatch(key, origin, leaves))
	}
	return cmds
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 64, 256} {
		b.Run(fmt.Sprint(n, "entries"), func(b *testing.B) {
			l := audittest.New(b, nil, nil)
			key := audittest.Key(b, 1)
			count, index := 0, uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				var leaves [][]byte
				for range n {
					e := audittest.Intent(b, key.ID(), fmt.Sprint("task", count))
					e.V, e.Author, e.Time, e.ID = audit.EntryVersion, key.ID(), "2026-01-01T00:00:00.000Z", fmt.Sprintf("%032x", count)
					e.Once = &audit.Once{Key: audit.Commit("", []byte(e.ID)), Digest: digestA}
					count++
					leaf, err := e.Encode()
					if err != nil {
						b.Fatal(err)
					}
					leaves = append(leaves, leaf)
				}
				cmd := audit.SignBatch(key, l.Store.Origin(), leaves)
				index++
				b.StartTimer()
				if _, err := l.Store.Apply(index, 1, [][]byte{cmd}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(count), "µs/entry")
		})
	}
}
