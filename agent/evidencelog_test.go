package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func openLog(t *testing.T, dir string) *evidenceLog {
	t.Helper()
	l, err := openEvidenceLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

func logTask(n int) string { return fmt.Sprintf("%032x", n) }

func put(t *testing.T, l *evidenceLog, n int, text string) {
	t.Helper()
	if err := l.put(logTask(n), []byte(text), time.Unix(int64(n), 0)); err != nil {
		t.Fatal(err)
	}
}

// holds says what the log has of the first n tasks; "-" for nothing.
func (l *evidenceLog) holdsOf(n int) string {
	var out []string
	for i := range n {
		text, err := l.read(logTask(i))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			text = []byte("-")
		case err != nil:
			text = []byte("damaged")
		}
		out = append(out, string(text))
	}
	return strings.Join(out, " ")
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, segmentPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestEvidenceLogKeepsAndErases(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	for i, text := range []string{"zero", "one", "", "three"} {
		put(t, l, i, text)
	}
	put(t, l, 1, "again")
	if got := l.holdsOf(5); got != "zero again  three -" {
		t.Errorf("it holds %q", got)
	}
	if n, ok, err := l.mark(logTask(3), recordKept, recordErasing); n != 5 || !ok || err != nil {
		t.Errorf("hiding: %d, %v, %v", n, ok, err)
	}
	// Another process finds the same, one that is being erased included.
	l.close()
	l = openLog(t, dir)
	if got := l.holdsOf(5); got != "zero again  - -" {
		t.Errorf("opened again it holds %q", got)
	}
	kept, erasing := l.list(nil, nil)
	if len(kept) != 3 || !slices.Equal(erasing, []string{logTask(3)}) {
		t.Errorf("%+v are kept, %v erased", kept, erasing)
	}
	for _, one := range kept {
		if one.task == logTask(1) && (!one.since.Equal(time.Unix(1, 0)) || one.size != 5) {
			t.Errorf("%+v", one)
		}
	}
	if err := l.remove(logTask(3)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(segments(t, dir)[0])
	if err != nil || bytes.Contains(text, []byte("three")) || bytes.Contains(text, []byte("one")) {
		t.Errorf("what was erased is in the file: %q, %v", text, err)
	}
	// It adds to a segment of its own, and one in which nothing is kept goes.
	put(t, l, 4, "four")
	if got := segments(t, dir); len(got) != 2 {
		t.Errorf("segments %v", got)
	}
	for i := range 3 {
		if _, _, err := l.mark(logTask(i), recordKept, recordErasing); err != nil {
			t.Fatal(err)
		}
		if err := l.remove(logTask(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := segments(t, dir); len(got) != 1 || l.holdsOf(5) != "- - - - four" {
		t.Errorf("segments %v hold %q", got, l.holdsOf(5))
	}
	if _, _, err := l.mark(logTask(4), recordKept, recordErasing); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := l.mark(logTask(4), recordErasing, recordKept); !ok || err != nil || l.holdsOf(5) != "- - - - four" {
		t.Errorf("taking it back: %v, %v: %q", ok, err, l.holdsOf(5))
	}
	if err := l.remove(logTask(4)); err != nil || l.holdsOf(5) != "- - - - four" {
		t.Errorf("what is kept was removed: %v: %q", err, l.holdsOf(5))
	}
}

// Whatever a crash leaves of the last record, those before it are whole and the
// next ones are kept.
func TestEvidenceLogAfterACrash(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	put(t, l, 0, "zero")
	whole, err := os.ReadFile(segments(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, 1, "one")
	l.close()
	both, err := os.ReadFile(segments(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := range both {
		torn := t.TempDir()
		if err := os.WriteFile(filepath.Join(torn, segmentName(1)), both[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		after := openLog(t, torn)
		want := "- -"
		if at >= len(whole) {
			want = "zero -"
		}
		if got := after.holdsOf(2); got != want {
			t.Fatalf("cut at %d it holds %q, want %q", at, got, want)
		}
		put(t, after, 2, "two")
		after.close()
		if got := openLog(t, torn).holdsOf(3); got != want+" two" {
			t.Fatalf("cut at %d it holds %q then", at, got)
		}
	}
	// A crash between the second putting of a task and the erasure of the first.
	twice := t.TempDir()
	l2 := openLog(t, t.TempDir())
	put(t, l2, 0, "won")
	l2.close()
	other, err := os.ReadFile(segments(t, l2.dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(twice, segmentName(1)), append(bytes.Clone(whole), other[len(segmentMagic):]...), 0o600); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, twice)
	if got := l.holdsOf(1); got != "won" {
		t.Errorf("of two the log holds %q", got)
	}
	if _, _, err := l.mark(logTask(0), recordKept, recordErasing); err != nil {
		t.Fatal(err)
	}
	if err := l.remove(logTask(0)); err != nil || len(segments(t, twice)) != 0 {
		t.Errorf("erased: %v, %v left", err, segments(t, twice))
	}
}

// A flipped bit is found and spoils one record; its segment is not removed for it.
func TestEvidenceLogFindsDamage(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	put(t, l, 0, "zero")
	put(t, l, 1, "one")
	l.close()
	text, err := os.ReadFile(segments(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := range text {
		bad := bytes.Clone(text)
		bad[at] ^= 0x10
		damaged := t.TempDir()
		if err := os.WriteFile(filepath.Join(damaged, segmentName(7)), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		l := openLog(t, damaged)
		switch got := l.holdsOf(2); got {
		case "zero one", "- one", "zero -", "damaged one", "zero damaged":
		default:
			t.Fatalf("flipped at %d it holds %q", at, got)
		}
		before := l.holdsOf(2)
		put(t, l, 2, "two")
		l.close()
		if got := openLog(t, damaged).holdsOf(3); got != before+" two" {
			t.Fatalf("flipped at %d it holds %q then, before %q", at, got, before)
		}
	}
}

func TestEvidenceLogByManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir)
	big := strings.Repeat("x", maxRecord-16)
	const writers, each = 8, 40 // more than two segments
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				task := logTask(w*each + i)
				if err := l.put(task, []byte(task[16:]+big), time.Now()); err != nil {
					t.Error(err)
					return
				}
				if i%2 == 0 {
					_, _, err := l.mark(task, recordKept, recordErasing)
					if err := errors.Join(err, l.remove(task)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	l.close()
	l = openLog(t, dir)
	for n := range writers * each {
		text, err := l.read(logTask(n))
		if n%each%2 == 0 {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("task %d is there: %v", n, err)
			}
		} else if err != nil || string(text[:16]) != logTask(n)[16:] {
			t.Errorf("task %d: %.20q, %v", n, text, err)
		}
	}
	if got := segments(t, dir); len(got) < 2 {
		t.Errorf("segments %v", got)
	}
}

// A disk that refuses costs this evidence only.
func TestEvidenceLogWithoutADisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evidence")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, dir)
	put(t, l, 0, "zero")
	if err := l.open.file.Close(); err != nil { // every write to it fails
		t.Fatal(err)
	}
	if err := l.put(logTask(1), []byte("one"), time.Now()); err == nil {
		t.Error("it is kept on a disk that refuses")
	}
	put(t, l, 2, "two")
	if got := l.holdsOf(3); got != "zero - two" {
		t.Errorf("it holds %q", got)
	}
}
