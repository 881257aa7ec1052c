package consensus

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// edit changes a file of the raft folder as a failing disk or a meddler would.
func edit(t *testing.T, path, name string, change func(data []byte) []byte) {
	t.Helper()
	name = filepath.Join(path, raftFolder, name)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// offsets says where the records of a segment begin; the last is its end.
func offsets(data []byte) []int64 {
	found := scanSegment(data, 1, true)
	return append(found.offsets, found.end)
}

// flip changes a bit of entry n, at a byte of its record.
func flip(n, at int) func(data []byte) []byte {
	return func(data []byte) []byte {
		data[offsets(data)[n-1]+int64(at)] ^= 1
		return data
	}
}

func TestCorruptRecordsAreRefused(t *testing.T) {
	segment := segmentName(1)
	for name, c := range map[string]struct {
		file, want string
		change     func(data []byte) []byte
	}{
		"data":     {segment, "entry 5", flip(5, recordHeader+20)},
		"checksum": {segment, "entry 5", flip(5, 8)},
		"term":     {segment, "entry 5", flip(5, recordHeader+1)},
		"magic":    {segment, "entry 5", flip(5, 0)},
		"length":   {segment, "entry 5", flip(5, 4)},
		"index":    {segment, "entry 5", flip(5, 16)},
		"missing": {segment, "entry 5", func(data []byte) []byte {
			at := offsets(data)
			clear(data[at[4]:at[5]])
			return data
		}},
		"swapped": {segment, "entry 5", func(data []byte) []byte {
			at := offsets(data)
			copy(data[at[4]:], data[at[5]:at[6]])
			return data
		}},
		"head":      {segment, "head", func(data []byte) []byte { data[32] ^= 1; return data }},
		"cut short": {segment, "bytes", func(data []byte) []byte { return data[:1<<10] }},
		"both votes": {stableName, "vote", func(data []byte) []byte {
			data[stableHead] ^= 1
			data[stableSlot+stableHead] ^= 1
			return data
		}},
	} {
		t.Run(name, func(t *testing.T) {
			applied := uint64(0)
			s, path := newStore(t, &applied)
			for i := uint64(1); i <= 9; i++ {
				fill(t, s, 1, i, i) // each an append of its own, all of them finished
			}
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			edit(t, path, c.file, c.change)
			if _, err := testStore(t, path, &applied); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("open = %v, want ErrCorrupt that names %q", err, c.want)
			}
		})
	}
}

func TestOneDamagedVoteCostsNothing(t *testing.T) {
	for slot := range 2 {
		applied := uint64(0)
		s, path := newStore(t, &applied)
		if err := s.SetUint64([]byte("CurrentTerm"), 7); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		edit(t, path, stableName, func(data []byte) []byte {
			data[slot*stableSlot+20] ^= 1
			return data
		})
		s, err := testStore(t, path, &applied)
		if err != nil {
			t.Fatal(err)
		}
		if term, err := s.GetUint64([]byte("CurrentTerm")); err != nil || term != 7 {
			t.Errorf("term = %d, %v", term, err)
		}
	}
}

func TestACorruptEntryIsNotServed(t *testing.T) {
	applied := uint64(9) // so that it is not looked at before
	s, path := newStore(t, &applied)
	for i := uint64(1); i <= 9; i++ {
		fill(t, s, 1, i, i)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	edit(t, path, segmentName(1), flip(5, recordHeader+3))
	s, err := testStore(t, path, &applied)
	if err != nil {
		t.Fatal(err)
	}
	got := raft.Log{}
	if err := s.GetLog(5, &got); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "entry 5") || got.Data != nil {
		t.Errorf("GetLog(5) = %v, %v, want ErrCorrupt", got, err)
	}
	for _, index := range []uint64{4, 6, 9} {
		if err := s.GetLog(index, &got); err != nil {
			t.Errorf("GetLog(%d) = %v", index, err)
		}
	}
}

// Wherever a power loss cuts the last append, and whichever parts of it reached
// the disk, all that was finished before is there, and the log goes on.
//
// INVARIANT: I7 an acknowledged entry is never lost.
func TestI7ATornAppendIsForgotten(t *testing.T) {
	applied := uint64(0)
	s, path := newStore(t, &applied)
	fill(t, s, 1, 1, 3)
	fill(t, s, 1, 4, 8) // the last append
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(path, raftFolder, segmentName(1))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := offsets(whole)
	begin, end := at[3], at[8]
	for n := begin; n <= end; n += 3 {
		for _, lost := range [][2]int64{{n, end}, {begin, n}, {n, min(n+40, end)}} {
			data := bytes.Clone(whole)
			clear(data[lost[0]:lost[1]])
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := testStore(t, path, &applied)
			if err != nil {
				t.Fatalf("bytes %d to %d lost: %v", lost[0], lost[1], err)
			}
			last, _ := s.LastIndex()
			if last < 3 || last > 8 {
				t.Fatalf("bytes %d to %d lost: the log ends at %d", lost[0], lost[1], last)
			}
			span(t, s, 1, last)
			fill(t, s, 2, last+1, last+4)
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			if s, err = testStore(t, path, &applied); err != nil {
				t.Fatalf("bytes %d to %d lost, then appended: %v", lost[0], lost[1], err)
			}
			span(t, s, 1, last+4)
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Whatever a segment holds, reading it ends, and what is read was written so.
func FuzzScanSegment(f *testing.F) {
	whole := encodeSegmentHead(1, 4096)
	for i := uint64(1); i < 6; i++ {
		whole = appendRecord(whole, record{index: i, first: i%2 == 1, body: []byte("body")})
	}
	f.Add(append(whole, make([]byte, 64)...), true)
	f.Add(whole[:len(whole)-3], false)
	f.Fuzz(func(t *testing.T, data []byte, last bool) {
		if len(data) < segmentHead {
			return
		}
		found := scanSegment(data, 1, last)
		for i, at := range found.offsets {
			if at == corruptAt {
				continue
			}
			if r, ok := readRecord(data[at:]); !ok || r.index != uint64(i+1) {
				t.Fatalf("entry %d is not at %d", i+1, at)
			}
		}
		if found.end < segmentHead || found.end > int64(len(data)) {
			t.Fatalf("it ends at %d of %d", found.end, len(data))
		}
	})
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
			for i := uint64(1); i <= c.last; i++ { // four in a file
				if err := s.StoreLog(entry(i, 1, strings.Repeat("x", testSegment/4-100))); err != nil {
					t.Fatal(err)
				}
			}
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
