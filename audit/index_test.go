package audit_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// fillMixed writes n entries of many kinds of names, some rare, with clocks
// that go back and forth, several blocks of the index long.
func fillMixed(tb testing.TB, l *audittest.Log, n int) {
	tb.Helper()
	key, rnd := audittest.Key(tb, 1), rand.New(rand.NewPCG(1, 2))
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for done := 0; done < n; {
		var leaves [][]byte
		for range min(200, n-done) {
			done++
			task := fmt.Sprint("task", done/3)
			e := denial
			if done%4 == 0 {
				e = audittest.Intent(tb, key.ID(), fmt.Sprint("run", done))
				e.Decision.Policy = fmt.Sprintf("%064d", done%5)
			} else {
				if done%1000 == 1 {
					task = "spread"
				}
				e.Task, e.Decision = task, &audit.Decision{Policy: fmt.Sprintf("%064d", done%7)}
			}
			e.Actor = fmt.Sprint("agent:", rnd.IntN(4))
			if done%1500 == 0 {
				e.Actor, e.OnBehalf = "agent:rare", fmt.Sprint("user:", done)
			}
			if done%4000 == 2 {
				e.Kind, e.Task, e.Decision = audit.KindErasure, "", nil
				body, err := audit.MarshalBody(audit.ErasureBody{Reason: audit.ErasedByAge, Tasks: []string{"spread", "task2000"}})
				if err != nil {
					tb.Fatal(err)
				}
				e.Body = body
			}
			at := begin.Add(time.Duration(done)*time.Second + time.Duration(rnd.IntN(120)-60)*time.Second)
			e.V, e.Author, e.ID, e.Time = audit.EntryVersion, key.ID(), fmt.Sprintf("%032x", done), audit.FormatTime(at)
			leaf, err := e.Encode()
			if err != nil {
				tb.Fatal(err)
			}
			leaves = append(leaves, leaf)
		}
		if _, err := l.Propose(context.Background(), audit.SignBatch(key, l.Store.Origin(), leaves)); err != nil {
			tb.Fatal(err)
		}
	}
}

func waitIndexed(tb testing.TB, s *audit.Store) {
	tb.Helper()
	ctx := deadline(tb)
	for s.Indexed() < s.Size() {
		if ctx.Err() != nil {
			tb.Fatalf("%d of %d entries indexed", s.Indexed(), s.Size())
		}
		time.Sleep(time.Millisecond)
	}
}

// pages collects a query in pages.
func pages(tb testing.TB, s *audit.Store, f audit.Filter) []uint64 {
	tb.Helper()
	var got []uint64
	for {
		page, err := s.Query(deadline(tb), f)
		if err != nil {
			tb.Fatalf("%+v: %v", f, err)
		}
		for _, one := range page.Entries {
			got = append(got, one.Index)
		}
		if f.Cursor = page.Next; f.Cursor == "" {
			return got
		}
	}
}

// The index finds exactly what reading the whole log finds.
func TestIndexFindsWhatTheLogHolds(t *testing.T) {
	l := audittest.New(t, nil, nil)
	fillMixed(t, l, 9000)
	waitIndexed(t, l.Store)
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	for _, f := range []audit.Filter{
		{Actor: "agent:rare"},
		{OnBehalf: "user:3000"},
		{Actor: "user:4500"},
		{Actor: "agent:2", Decision: "allow"},
		{Kinds: []audit.Kind{audit.KindIntent, audit.KindGenesis}},
		{Kinds: []audit.Kind{audit.KindPolicy}},
		{Policy: fmt.Sprintf("%064d", 3), Actor: "agent:1"},
		{Resource: "language:starlark", Actor: "agent:rare"},
		{Resource: "task:run4000"},
		{Resource: "task2000"},
		{Resource: "task:spread"},
		{Resource: "spread", Actor: "agent:1"},
		{Resource: "task:nothing"},
		{Since: at(4000), Until: at(4100)},
		{Since: at(8990)},
		{Until: at(30), Decision: "deny"},
		{Since: at(20_000)},
		{Since: at(4090), Until: at(8200), Actor: "agent:3", Kinds: []audit.Kind{audit.KindIntent}},
	} {
		for _, newest := range []bool{false, true} {
			var want []uint64
			f.Newest, f.Limit = newest, audit.MaxLimit
			l.Store.WithoutIndex(func() { want = pages(t, l.Store, f) })
			for _, limit := range []int{3, 100, audit.MaxLimit} {
				if f.Limit = limit; len(want) > 100*limit {
					continue
				}
				if diff := cmp.Diff(want, pages(t, l.Store, f)); diff != "" {
					t.Errorf("%+v: log and index differ (-log +index):\n%.2000s", f, diff)
				}
			}
		}
	}
}

// A file in doubt is made anew, and queries are right all the while.
func TestIndexInDoubtIsMadeAnew(t *testing.T) {
	spoil := map[string]func(t *testing.T, dir string){
		"none":      func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "index.db")) },
		"no state":  func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "index.json")) },
		"no pages":  func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "index.db"), 0, 8<<10) },
		"bad pages": func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "index.db"), 8<<10, 64<<10) },
		"cut short": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "index.db"), 12<<10); err != nil {
				t.Fatal(err)
			}
		},
		"a copy": func(t *testing.T, dir string) {
			name := filepath.Join(dir, "index.db")
			text, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(name+".copy", text, 0o600)
			}
			if err == nil {
				err = os.Rename(name+".copy", name)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"power loss": func(t *testing.T, dir string) {
			name := filepath.Join(dir, "index.json")
			if err := os.WriteFile(name, []byte(`{"v":2,"origin":"other","boot":"x","file":"y","clean":false}`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := audit.OpenStore(audit.StoreConfig{Dir: dir, Genesis: audittest.Genesis(t)})
			if err != nil {
				t.Fatal(err)
			}
			fillMixed(t, audittest.Of(t, s), 1600)
			waitIndexed(t, s)
			want := pages(t, s, audit.Filter{Actor: "agent:rare"})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(t, dir)
			if s, err = audit.OpenStore(audit.StoreConfig{Dir: dir}); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for range 2 {
				if got := pages(t, s, audit.Filter{Actor: "agent:rare"}); len(want) == 0 || !cmp.Equal(got, want) {
					t.Errorf("found %v, want %v", got, want)
				}
				waitIndexed(t, s)
			}
		})
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, name string, from, n int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	junk := make([]byte, n)
	for i := range junk {
		junk[i] = byte(i * 7)
	}
	if _, err := f.WriteAt(junk, from); err != nil {
		t.Fatal(err)
	}
}
