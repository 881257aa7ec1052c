package audit_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

func sampleEntry(tb testing.TB) audit.Entry {
	tb.Helper()
	key := audittest.Key(tb, 1)
	e := audittest.Intent(tb, key.ID(), "task1")
	e.V, e.ID, e.Author = audit.EntryVersion, "id1", key.ID()
	e.Time = audit.FormatTime(time.Date(2026, 11, 23, 12, 0, 0, 5_000_000, time.UTC))
	e.Once = &audit.Once{Key: digestA, Digest: digestB}
	return e
}

func TestEntryRoundTrip(t *testing.T) {
	e := sampleEntry(t)
	leaf, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := audit.DecodeEntry(leaf)
	if err != nil {
		t.Fatal(err)
	}
	e.Body, got.Body = nil, nil
	if diff := cmp.Diff(e, got); diff != "" {
		t.Error(diff)
	}
	if want := `{"actor":"agent:did:key:z`; !strings.HasPrefix(string(leaf), want) || !strings.Contains(string(leaf), `"time":"2026-11-23T12:00:00.005Z"`) {
		t.Errorf("leaf %s", leaf)
	}
}

func TestDecodeEntryIsStrict(t *testing.T) {
	good, err := sampleEntry(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string {
		out := strings.Replace(string(good), old, new, 1)
		if out == string(good) {
			t.Fatalf("%s is not in the leaf", old)
		}
		return out
	}
	for name, leaf := range map[string]string{
		"empty":            "",
		"null":             "null",
		"unknown member":   replace(`{"actor"`, `{"aaa":1,"actor"`),
		"repeated member":  replace(`"attempt":1`, `"attempt":1,"attempt":1`),
		"misspelt member":  replace(`"kind"`, `"Kind"`),
		"misspelt in body": replace(`"language"`, `"Language"`),
		"unknown in body":  replace(`"door"`, `"aaa":1,"door"`),
		"space":            replace(`{"actor"`, `{ "actor"`),
		"escape":           replace(`"id1"`, `"\u0069d1"`),
		"float":            replace(`"attempt":1`, `"attempt":1.0`),
		"exponent":         replace(`"attempt":1`, `"attempt":1e0`),
		"explicit null":    replace(`"attempt":1`, `"attempt":1,"on_behalf":null`),
		"explicit zero":    replace(`"attempt":1`, `"attempt":0`),
		"version":          replace(`"v":1`, `"v":2`),
		"kind":             replace(`"kind":"intent"`, `"kind":"poem"`),
		"time zone":        replace(`005Z`, `005+00:00`),
		"month":            replace(`2026-11`, `2026-13`),
		"trailing":         string(good) + "\n",
		"deep":             replace(`"starlark"`, strings.Repeat("[", 100)+strings.Repeat("]", 100)),
		"bad UTF-8":        replace(`"id1"`, "\"\xff\""),
		"space in a name":  replace(`"id1"`, `"i d"`),
		"deny":             replace(`"allow":true`, `"allow":false`),
		"digest":           replace(digestA, strings.ToUpper(digestA)),
	} {
		if e, err := audit.DecodeEntry([]byte(leaf)); !errors.Is(err, audit.ErrInvalid) {
			t.Errorf("%s: %+v, %v, want ErrInvalid", name, e, err)
		}
	}
}

func TestCommit(t *testing.T) {
	if a, b := audit.NewSalt(), audit.NewSalt(); a == b || len(a) != 32 {
		t.Errorf("salts %s and %s", a, b)
	}
	seen := make(map[string]bool)
	for _, pair := range [][2]string{{"", ""}, {"a", ""}, {"", "a"}, {"a", "b"}, {"ab", ""}, {"a\x00", "b"}, {"a", "\x00b"}} {
		c := audit.Commit(pair[0], []byte(pair[1]))
		if seen[c] || len(c) != 64 {
			t.Errorf("Commit(%q, %q) = %s", pair[0], pair[1], c)
		}
		seen[c] = true
	}
}

func FuzzDecodeEntry(f *testing.F) {
	leaf, err := sampleEntry(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf)
	f.Add(audittest.Genesis(f))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := audit.DecodeEntry(in)
		if err != nil {
			return
		}
		if again, err := e.Encode(); err != nil || !bytes.Equal(again, in) {
			t.Errorf("%q encodes again as %q, %v", in, again, err)
		}
		if canonical, err := jcs.Transform(in); err != nil || !bytes.Equal(canonical, in) {
			t.Errorf("%q is not canonical, %v", in, err)
		}
	})
}

func FuzzApply(f *testing.F) {
	leaf, err := sampleEntry(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	l := audittest.New(f, nil, nil)
	f.Add(audit.SignBatch(audittest.Key(f, 1), l.Store.Origin(), [][]byte{leaf}))
	f.Add(audit.SignBatch(audittest.Key(f, 1), l.Store.Origin(), [][]byte{leaf, nil}))
	f.Fuzz(func(t *testing.T, in []byte) {
		again, err := audit.ReencodeBatch(in)
		if err == nil && !bytes.Equal(again, in) {
			t.Errorf("%x encodes again as %x", in, again)
		}
		if err := audit.CheckCommand(l.Store.Origin(), in); err == nil && again == nil {
			t.Errorf("%x passes the check but does not decode", in)
		}
		_, _ = audit.RefusalCodes(in)
		audit.DecodeWire(in)
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(audit.Checkpoint{Origin: "agenticraft/" + digestA, Size: 5}.Body())
	f.Fuzz(func(t *testing.T, in string) {
		if c, err := audit.ParseCheckpoint(in); err == nil && c.Body() != in {
			t.Errorf("%q reads as %+v", in, c)
		}
	})
}
