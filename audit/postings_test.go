package audit

import (
	"hash/fnv"
	"strings"
	"testing"
)

// TestTermsHashAsFNV: an index.db on disk was made with these hashes.
func TestTermsHashAsFNV(t *testing.T) {
	for _, text := range []string{"", "a", "deny", "node:12D3KooW", strings.Repeat("\x00\xff", 300)} {
		h := fnv.New64a()
		_, _ = h.Write([]byte(text))
		for cut := range len(text) + 1 {
			if got := fnvStart.add(text[:cut]).add(text[cut:]); uint64(got) != h.Sum64() {
				t.Fatalf("%.20q, cut at %d: %x, want %x", text, cut, uint64(got), h.Sum64())
			}
		}
	}
}

// TestEntriesNestSoDeeply: the short cut of strict and encoding/json have one limit.
func TestEntriesNestSoDeeply(t *testing.T) {
	e := Entry{V: EntryVersion, Kind: KindTenant, ID: "1", Author: "a", Time: "2026-01-01T00:00:00.000Z"}
	for _, test := range []struct{ name, open, close string }{
		{"objects", `{"a":`, "}"},
		{"lists", "[", "]"},
	} {
		body := func(n int) string { // an object that nests n deep
			return `{"a":` + strings.Repeat(test.open, n-1) + "1" + strings.Repeat(test.close, n-1) + "}"
		}
		for n, fits := range map[int]bool{maxDepth - 2: true, maxDepth - 1: true, maxDepth: false, maxDepth + 1: false} {
			e.Body = []byte(body(n))
			leaf, ok := e.write()
			if !ok {
				t.Fatal("an entry needs escapes")
			}
			if depth(leaf) != n+1 {
				t.Fatalf("%s: it nests %d deep", test.name, depth(leaf))
			}
			if _, ok := strictEntry(leaf); ok != fits {
				t.Errorf("%s, body %d deep: strict takes it: %v", test.name, n, ok)
			}
			_, err := DecodeEntry(leaf)
			if deep := err != nil && strings.Contains(err.Error(), "too deeply"); deep == fits {
				t.Errorf("%s, body %d deep: %v", test.name, n, err)
			}
		}
	}
}
