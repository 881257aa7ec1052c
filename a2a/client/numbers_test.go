package client

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func idsOf(t testing.TB, r io.Reader) []uint64 {
	t.Helper()
	seen := new(numbers)
	if _, err := io.Copy(io.Discard, &numbering{ReadCloser: io.NopCloser(r), to: seen}); err != nil {
		t.Fatal(err)
	}
	return seen.next
}

func TestNumbersOfAStream(t *testing.T) {
	for text, want := range map[string][]uint64{
		"id: 7\ndata: {}\n\nid: 8\r\ndata: a\r\ndata: b\r\n\r\n": {7, 8},
		": keep-alive\n\ndata: x\n\nid: 3\n\nid: 4\ndata: y\n\n": {0, 4},
		"id: x\ndata: y\n\nid: -1\ndata: y\n\nid:9\ndata:z\n\n":  {0, 0, 9},
		"data: " + strings.Repeat("x", 1000) + "\nid: 5\n\n":     {5},
		"id: 6\ndata: cut": nil,
		"":                 nil,
	} {
		for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text))} {
			if got := idsOf(t, r); !slices.Equal(got, want) {
				t.Errorf("%.40q: %v, want %v", text, got, want)
			}
		}
	}
}

func FuzzNumbers(f *testing.F) {
	f.Add([]byte("id: 7\ndata: {}\n\n"), 3)
	f.Add([]byte(":\r\n\r\nid:99999999999999999999\ndata:\n\n"), 1)
	f.Fuzz(func(t *testing.T, text []byte, at int) {
		at = max(0, min(at, len(text)))
		whole := idsOf(t, bytes.NewReader(text))
		if cut := idsOf(t, io.MultiReader(bytes.NewReader(text[:at]), bytes.NewReader(text[at:]))); !slices.Equal(whole, cut) {
			t.Errorf("%v in one piece, %v in two", whole, cut)
		}
	})
}
