package consensus

import (
	"bufio"
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEntries(t *testing.T) {
	cmds := [][]byte{[]byte("a"), {}, bytes.Repeat([]byte("b"), 300)}
	entry := packEntry(cmds)
	got, err := unpackEntry(entry)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cmds, got); diff != "" {
		t.Errorf("commands differ (-want +got):\n%s", diff)
	}
	for name, bad := range map[string][]byte{
		"empty":           {},
		"version only":    {entryVersion},
		"other version":   append([]byte{entryVersion + 1}, entry[1:]...),
		"cut":             entry[:len(entry)-1],
		"length too long": {entryVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"padded length":   {entryVersion, 0x81, 0x00, 'a'},
	} {
		if cmds, err := unpackEntry(bad); !errors.Is(err, errEntry) || cmds != nil {
			t.Errorf("%s: unpackEntry = %q, %v", name, cmds, err)
		}
	}
}

func FuzzUnpackEntry(f *testing.F) {
	f.Add(packEntry([][]byte{[]byte("a"), []byte("bc")}))
	f.Add([]byte{entryVersion, 0})
	f.Fuzz(func(t *testing.T, entry []byte) {
		cmds, err := unpackEntry(entry)
		if err != nil {
			if cmds != nil {
				t.Errorf("an error and %d commands", len(cmds))
			}
			return
		}
		if again := packEntry(cmds); !bytes.Equal(again, entry) {
			t.Errorf("%x was read and written as %x", entry, again)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	f.Add(packSnapshot(5, 2, []byte("meta")))
	f.Fuzz(func(t *testing.T, text []byte) {
		index, term, meta, err := unpackSnapshot(text)
		if err == nil && !bytes.Equal(packSnapshot(index, term, meta), text) {
			t.Errorf("%x was not read as written", text)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	var buf bytes.Buffer
	w := bufio.NewWriter(&buf)
	if err := errors.Join(writeFrame(w, make([]byte, requestHead), []byte("cmd")), w.Flush()); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, text []byte) {
		body, err := readFrame(bytes.NewReader(text), requestHead, maxRequestBytes)
		if err == nil && (len(body) < requestHead || len(body) > maxRequestBytes || !bytes.Equal(body, text[4:4+len(body)])) {
			t.Errorf("readFrame(%x) = %x", text, body)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(uint64(3), encodeEntry(entry(3, 2, "data")))
	f.Fuzz(func(t *testing.T, index uint64, record []byte) {
		got := *entry(1, 1, "untouched")
		if err := decodeEntry(index, record, &got); err != nil {
			if string(got.Data) != "untouched" {
				t.Error("an error and an entry")
			}
			return
		}
		if again := encodeEntry(&got); !bytes.Equal(again, record) {
			t.Errorf("%x was read and written as %x", record, again)
		}
	})
}
