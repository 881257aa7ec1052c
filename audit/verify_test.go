package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

// verifiedDir is the data folder of a stopped keeper with n tasks, some of them
// written in batches, a checkpoint in the middle and one at the end.
func verifiedDir(tb testing.TB, n int) (dir string, trust audit.Trust, leaves [][]byte) {
	tb.Helper()
	c := newCluster(tb, 3)
	c.run()
	key := c.keys[1]
	for i := range n {
		intent, outcome := c.execution(1, fmt.Sprintf("task%d", i))
		_ = intent
		var batch [][]byte
		for j := range 3 {
			e := audittest.Intent(tb, key.ID(), fmt.Sprintf("task%d-%d", i, j))
			e.V, e.Author, e.ID, e.Time = audit.EntryVersion, key.ID(), fmt.Sprintf("i%d-%d", i, j), "2026-01-01T00:00:00.000Z"
			if j == 1 {
				e.Attempt = 2 // refused: its hash stays in the attestation
			}
			leaf, err := e.Encode()
			if err != nil {
				tb.Fatal(err)
			}
			batch = append(batch, leaf)
		}
		if _, err := c.Propose(deadline(tb), audit.SignBatch(key, c.stores[0].Origin(), batch)); err != nil {
			tb.Fatal(err)
		}
		if i == n/2 {
			if _, _, err := c.stores[1].WaitCheckpoint(deadline(tb), outcome); err != nil {
				tb.Fatal(err)
			}
		}
	}
	size := c.stores[0].Size()
	if _, _, err := c.stores[1].WaitCheckpoint(deadline(tb), size-1); err != nil {
		tb.Fatal(err)
	}
	for i := range size {
		_, leaf, err := c.stores[1].Entry(i)
		if err != nil {
			tb.Fatal(err)
		}
		leaves = append(leaves, leaf)
	}
	dir = c.stores[1].Dir()
	c.close()
	c.stores, c.stop = nil, nil
	return copyDir(tb, dir), c.trust(), leaves
}

func TestVerifyDir(t *testing.T) {
	dir, trust, leaves := verifiedDir(t, 5)
	for _, with := range []*audit.Trust{nil, &trust} {
		r, err := audit.VerifyDir(deadline(t), dir, with)
		if err != nil {
			t.Fatal(err)
		}
		if r.Bad != nil || r.Size != uint64(len(leaves)) || r.Unsigned != 0 || r.Checkpoint == nil || r.Checkpoint.Root != r.Root {
			t.Errorf("VerifyDir = %+v, bad %v", r, r.Bad)
		}
	}
	if _, err := audit.VerifyDir(deadline(t), t.TempDir(), nil); !errors.Is(err, audit.ErrNotFound) {
		t.Errorf("VerifyDir of an empty folder = %v", err)
	}
	other := trust
	other.Origin = "agenticraft/" + string(bytes.Repeat([]byte("0"), 64))
	if r, err := audit.VerifyDir(deadline(t), dir, &other); err != nil || r.Bad == nil || r.Bad.Index != 0 {
		t.Errorf("VerifyDir with another log's trust = %+v, %v", r, err)
	}
}

// TestVerifyHashes notices what is not what the keepers signed, by hashes alone,
// and leaves out what hashes do not tell.
func TestVerifyHashes(t *testing.T) {
	dir, trust, leaves := verifiedDir(t, 80) // more than are read at a time
	r, err := audit.VerifyHashes(deadline(t), dir, &trust)
	if err != nil || r.Bad != nil || r.Size != uint64(len(leaves)) || r.Unsigned != 0 || len(r.SignedBy) < trust.Quorum {
		t.Fatalf("VerifyHashes = %+v, %v, %v", r, r.Bad, err)
	}
	file := filepath.Join(dir, "audit.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, 255, 256, len(leaves) / 2, len(leaves) - 1} {
		leaf := leaves[i]
		changed := bytes.Clone(leaf)
		changed[len(leaf)/2] ^= 1
		write(t, file, bytes.ReplaceAll(whole, leaf, changed))
		for name, verify := range map[string]func(context.Context, string, *audit.Trust) (audit.DirReport, error){"all": audit.VerifyDir, "hashes": audit.VerifyHashes} {
			if r, err := verify(deadline(t), dir, &trust); err != nil || r.Bad == nil || r.Bad.Index != uint64(i) {
				t.Errorf("%s: entry %d changed: %v, %v", name, i, r.Bad, err)
			}
		}
	}
	write(t, file, whole)
	flipSignature(t, file)
	if r, err := audit.VerifyHashes(deadline(t), dir, &trust); err != nil || r.Bad != nil {
		t.Errorf("VerifyHashes reads authors' signatures: %v, %v", r.Bad, err)
	}
	if r, err := audit.VerifyDir(deadline(t), dir, &trust); err != nil || r.Bad == nil || r.Bad.Check != "author" {
		t.Errorf("VerifyDir does not: %v, %v", r.Bad, err)
	}
	ended, cancel := context.WithCancel(deadline(t))
	cancel()
	if _, err := audit.VerifyHashes(ended, dir, &trust); !errors.Is(err, context.Canceled) {
		t.Errorf("VerifyHashes after its context ended: %v", err)
	}
}

// flipSignature changes the last byte of the first batch's attestation.
func flipSignature(t *testing.T, file string) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("batches"))
		key, value := b.Cursor().First()
		value = bytes.Clone(value)
		value[len(value)-1] ^= 1
		return b.Put(bytes.Clone(key), value)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestVerifyDirRefusesFolderInUse(t *testing.T) {
	l := audittest.New(t, nil, nil)
	if _, err := audit.VerifyDir(deadline(t), l.Store.Dir(), nil); !errors.Is(err, audit.ErrInUse) {
		t.Errorf("VerifyDir = %v, want ErrInUse", err)
	}
}

// TestVerifyDirNamesFlippedLeaf changes one byte of each leaf, in every copy of
// it that the file holds.
func TestVerifyDirNamesFlippedLeaf(t *testing.T) {
	dir, trust, leaves := verifiedDir(t, 4)
	file := filepath.Join(dir, "audit.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, leaf := range leaves {
		for _, at := range []int{0, len(leaf) / 2, len(leaf) - 1} {
			changed := bytes.Clone(leaf)
			changed[at] ^= 1
			write(t, file, bytes.ReplaceAll(whole, leaf, changed))
			r, err := audit.VerifyDir(deadline(t), dir, &trust)
			if err != nil {
				t.Fatal(err)
			}
			if r.Bad == nil || r.Bad.Index != uint64(i) {
				t.Errorf("byte %d of entry %d changed: %v", at, i, r.Bad)
			}
		}
	}
}

// TestVerifyDirNamesEdits changes what the store holds through bbolt, so that
// the file itself is in order.
func TestVerifyDirNamesEdits(t *testing.T) {
	dir, trust, leaves := verifiedDir(t, 4)
	flip := func(bucket string, key []byte) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte(bucket))
			value := bytes.Clone(b.Get(key))
			if value == nil {
				return fmt.Errorf("%s has no such key", bucket)
			}
			value[len(value)/2] ^= 1
			return b.Put(key, value)
		}
	}
	each := func(bucket string, fn func(n int, key []byte)) {
		db, err := bbolt.Open(filepath.Join(dir, "audit.db"), 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		_ = db.View(func(tx *bbolt.Tx) error {
			n := 0
			return tx.Bucket([]byte(bucket)).ForEach(func(k, _ []byte) error {
				fn(n, bytes.Clone(k))
				n++
				return nil
			})
		})
	}
	type edit struct {
		name string
		do   func(*bbolt.Tx) error
		bad  func(index uint64) bool
	}
	var edits []edit
	add := func(name string, do func(*bbolt.Tx) error, ok func(uint64) bool) {
		edits = append(edits, edit{name, do, ok})
	}
	anywhere := func(i uint64) bool { return i <= uint64(len(leaves)) }
	for i := range leaves {
		is := func(got uint64) bool { return got == uint64(i) }
		add(fmt.Sprintf("leaf %d", i), flip("entries", audit.Key64(uint64(i))), is)
		add(fmt.Sprintf("missing %d", i), func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("entries")).Delete(audit.Key64(uint64(i)))
		}, is)
	}
	for _, bucket := range []string{"tree", "batches", "ids", "tasks", "open", "checkpoints"} {
		each(bucket, func(n int, key []byte) {
			change := flip(bucket, key)
			if bucket == "open" { // which has no values
				change = func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(key, []byte("x")) }
			}
			add(fmt.Sprintf("%s %d", bucket, n), change, anywhere)
			add(fmt.Sprintf("%s %d deleted", bucket, n), func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte(bucket)).Delete(key)
			}, anywhere)
		})
	}
	add("meta genesis", flip("meta", []byte("genesis")), func(i uint64) bool { return i == 0 })
	add("meta schema", flip("meta", []byte("schema")), func(i uint64) bool { return i == 0 })
	add("extra entry", func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("entries")).Put(audit.Key64(uint64(len(leaves))), leaves[1])
	}, func(i uint64) bool { return i == uint64(len(leaves)) })
	add("extra id", func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("ids")).Put([]byte("x\x00y"), audit.Key64(1))
	}, anywhere)
	for _, e := range edits {
		changed := copyDir(t, dir)
		db, err := bbolt.Open(filepath.Join(changed, "audit.db"), 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(e.do), db.Close()); err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		r, err := audit.VerifyDir(deadline(t), changed, &trust)
		if err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
		gone := r.Bad == nil && len(e.name) > 11 && e.name[:11] == "checkpoints" // a deleted checkpoint only proves less
		if !gone && (r.Bad == nil || !e.bad(r.Bad.Index)) {
			t.Errorf("%s changed: %v", e.name, r.Bad)
		}
	}
}

// TestVerifyDirNamesTruncatedTail takes the newest entries away with all that
// belongs to them, as an old copy of the file would.
func TestVerifyDirNamesTruncatedTail(t *testing.T) {
	c := newCluster(t, 3)
	c.execution(0, "task1")
	early := copyDir(t, c.stores[1].Dir())
	c.run()
	_, outcome := c.execution(0, "task2")
	if _, _, err := c.stores[1].WaitCheckpoint(deadline(t), outcome); err != nil {
		t.Fatal(err)
	}
	cosigned, err := os.ReadFile(filepath.Join(c.stores[1].Dir(), "cosigned.json"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(early, "cosigned.json"), cosigned)
	r, err := audit.VerifyDir(deadline(t), early, nil)
	if err != nil || r.Bad == nil || r.Bad.Index != 3 {
		t.Errorf("VerifyDir = %+v, %v; want entry 3 to be missing", r.Bad, err)
	}
	s, err := audit.OpenStore(audit.StoreConfig{Dir: early})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.CheckCosigned(); !errors.Is(err, audit.ErrFork) {
		t.Errorf("CheckCosigned = %v, want ErrFork", err)
	}
}

// TestVerifyDirSurvivesDamage changes single bytes anywhere in the file, cuts
// it and replaces it. What is still called good must read the same as before.
func TestVerifyDirSurvivesDamage(t *testing.T) {
	dir, trust, _ := verifiedDir(t, 6)
	file := filepath.Join(dir, "audit.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := dump(t, file)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	rounds := 400
	if testing.Short() {
		rounds = 100
	}
	harmless := 0
	for range rounds {
		at, mask := random.IntN(len(whole)), byte(1+random.IntN(255))
		whole[at] ^= mask
		write(t, file, whole)
		r, err := audit.VerifyDir(context.Background(), dir, &trust)
		if err != nil {
			t.Fatalf("byte %d ^ %#x: %v", at, mask, err)
		}
		if r.Bad == nil {
			harmless++
			if got := dump(t, file); got != want {
				t.Fatalf("byte %d ^ %#x goes unnoticed (-was, +reads):\n%s", at, mask, cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
			}
		}
		whole[at] ^= mask
	}
	t.Logf("%d of %d changes were in unused parts of the file", harmless, rounds)
	used := inUse(whole)
	for _, n := range []int{0, 1, 100, 4096, 8192, used / 2, used - 4096, used - 1, len(whole) - 1} {
		write(t, file, whole[:n])
		if r, err := audit.VerifyDir(context.Background(), dir, &trust); err != nil || r.Bad == nil && n < used-4096 {
			t.Errorf("cut to %d bytes: %+v, %v", n, r, err)
		}
	}
	garbage := make([]byte, len(whole))
	for i := range garbage {
		garbage[i] = byte(random.Uint32())
	}
	write(t, file, garbage)
	if r, err := audit.VerifyDir(context.Background(), dir, &trust); err != nil || r.Bad == nil {
		t.Errorf("garbage: %+v, %v", r, err)
	}
}

// inUse is how much of a bbolt file holds something: it grows ahead of its use.
func inUse(file []byte) int { return len(bytes.TrimRight(file, "\x00")) }

func dump(tb testing.TB, file string) string {
	tb.Helper()
	text, err := audit.DumpFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func write(tb testing.TB, name string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// TestVerifyDirSaysWhatShouldHaveBeen changes, swaps and takes away entries: the
// report names the first one, the check, and the hash that its author signed.
func TestVerifyDirSaysWhatShouldHaveBeen(t *testing.T) {
	dir, trust, leaves := verifiedDir(t, 3)
	hash := func(i int) string { return audit.LeafHash(leaves[i]).String() }
	put := func(i int, leaf []byte) func(*bbolt.Bucket) error {
		return func(b *bbolt.Bucket) error {
			if leaf == nil {
				return b.Delete(audit.Key64(uint64(i)))
			}
			return b.Put(audit.Key64(uint64(i)), leaf)
		}
	}
	both := func(a, b func(*bbolt.Bucket) error) func(*bbolt.Bucket) error {
		return func(bucket *bbolt.Bucket) error { return errors.Join(a(bucket), b(bucket)) }
	}
	flipped := bytes.Clone(leaves[4])
	flipped[len(flipped)-1] ^= 1
	edited := bytes.Replace(leaves[4], []byte(`"time":"20`), []byte(`"time":"19`), 1)
	for name, tc := range map[string]struct {
		do              func(*bbolt.Bucket) error
		index           uint64
		check, got, was string
	}{
		"flipped":   {put(4, flipped), 4, "form", audit.LeafHash(flipped).String(), hash(4)},
		"edited":    {put(4, edited), 4, "author", audit.LeafHash(edited).String(), hash(4)},
		"swapped":   {both(put(4, leaves[6]), put(6, leaves[4])), 4, "author", hash(6), hash(4)},
		"taken out": {put(4, nil), 4, "sequence", "", hash(4)},
		"cut off":   {put(len(leaves)-1, nil), uint64(len(leaves) - 1), "end", "", hash(len(leaves) - 1)},
		"put in":    {put(len(leaves), leaves[1]), uint64(len(leaves)), "sequence", "", ""},
		"genesis":   {put(0, leaves[1]), 0, "author", hash(1), hash(0)},
	} {
		changed := copyDir(t, dir)
		db, err := bbolt.Open(filepath.Join(changed, "audit.db"), 0o600, &bbolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bbolt.Tx) error { return tc.do(tx.Bucket([]byte("entries"))) })
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := audit.VerifyDir(deadline(t), changed, &trust)
		if err != nil || r.Bad == nil {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		if b := r.Bad; b.Index != tc.index || b.Check != tc.check || b.Got != tc.got || b.Want != tc.was {
			t.Errorf("%s: %+v", name, b)
		}
	}
}

// TestVerifyDirOfWhatIsNone looks at folders that are none, and at files that
// never end or are not what they seem.
func TestVerifyDirOfWhatIsNone(t *testing.T) {
	dir, _, _ := verifiedDir(t, 1)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if r, err := audit.VerifyDir(deadline(t), link, nil); err != nil || r.Bad != nil {
		t.Errorf("a symbolic link to a folder: %+v, %v", r.Bad, err)
	}
	inside := func(do func(name string) error) string {
		t.Helper()
		folder := t.TempDir()
		if err := do(filepath.Join(folder, "audit.db")); err != nil {
			t.Fatal(err)
		}
		return folder
	}
	for name, where := range map[string]string{
		"a folder as file": inside(func(name string) error { return os.Mkdir(name, 0o700) }),
		"a pipe":           inside(func(name string) error { return syscall.Mkfifo(name, 0o600) }),
		"a loop":           inside(func(name string) error { return os.Symlink(name, name) }),
		"a device":         inside(func(name string) error { return os.Symlink("/dev/zero", name) }),
		"nowhere":          filepath.Join(dir, "nowhere"),
		"a file":           filepath.Join(dir, "audit.db"),
	} {
		if _, err := audit.VerifyDir(deadline(t), where, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	huge := inside(func(name string) error {
		f, err := os.Create(name)
		return errors.Join(err, f.Truncate(1<<40), f.Close())
	})
	if r, err := audit.VerifyDir(deadline(t), huge, nil); err != nil || r.Bad == nil || r.Bad.Check != "file" {
		t.Errorf("a huge file of nothing: %+v, %v", r.Bad, err)
	}
}

// TestEpochsAreSeen holds the quick look for the mark of an epoch against the
// plain one, at every place and beside what is nearly it.
func TestEpochsAreSeen(t *testing.T) {
	mark := string(audit.EpochMark)
	for n := range 3 * len(mark) {
		for _, text := range []string{
			mark, mark[1:], mark[:len(mark)-1], mark[:5] + mark, mark[len(mark)-5:] + mark, `"kind":"denial"`, `"kind":"kind":"epoch"`, strings.Repeat(`"`, len(mark)),
		} {
			for m := range len(mark) + 2 {
				leaf := []byte(strings.Repeat("k", n) + text + strings.Repeat(`"`, m))
				if got, want := audit.MayBeginEpoch(leaf), bytes.Contains(leaf, audit.EpochMark); got != want {
					t.Fatalf("%s: %v, want %v", leaf, got, want)
				}
			}
		}
	}
}
