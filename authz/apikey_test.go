package authz_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agenticraft/node/authz"
	"github.com/agenticraft/node/identity"
)

func TestAPIKeyText(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		text, id, hash, err := authz.NewAPIKey()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(text, "ac_"+id+"_") || strings.Count(text, "_") != 2 || len(id) != 10 || len(text) != 63 {
			t.Errorf("key %q with id %q", text, id)
		}
		if gotID, gotHash, err := authz.ParseAPIKey(text); err != nil || gotID != id || gotHash != hash || hash != sha256.Sum256([]byte(text)) {
			t.Errorf("ParseAPIKey(%q) = %q, %x, %v", text, gotID, gotHash, err)
		}
		if seen[id] || seen[text] {
			t.Errorf("%q came twice", text)
		}
		seen[id], seen[text] = true, true
	}
}

func TestRotatedKeyKeepsItsID(t *testing.T) {
	text, id, hash, err := authz.NewAPIKey()
	if err != nil {
		t.Fatal(err)
	}
	again, hash2, err := authz.RotateAPIKey(id)
	if err != nil || again == text || hash2 == hash {
		t.Errorf("RotateAPIKey = %q, %v", again, err)
	}
	if gotID, gotHash, err := authz.ParseAPIKey(again); err != nil || gotID != id || gotHash != hash2 {
		t.Errorf("ParseAPIKey(%q) = %q, %v", again, gotID, err)
	}
	for _, bad := range []string{"", "short", "aaaaaaaaa_", "AAAAAAAAAA", id + "a"} {
		if _, _, err := authz.RotateAPIKey(bad); !errors.Is(err, authz.ErrKeySyntax) {
			t.Errorf("RotateAPIKey(%q) = %v, want ErrKeySyntax", bad, err)
		}
	}
}

// Every single mistyped character is caught before any table is asked.
func TestMistypedAPIKeyIsNoKey(t *testing.T) {
	text, _, _, err := authz.NewAPIKey()
	if err != nil {
		t.Fatal(err)
	}
	for i := range text {
		for _, c := range []byte("aZ9_- \x00\xff") {
			if text[i] == c {
				continue
			}
			wrong := text[:i] + string(c) + text[i+1:]
			if id, hash, err := authz.ParseAPIKey(wrong); !errors.Is(err, authz.ErrKeySyntax) || id != "" || hash != [32]byte{} {
				t.Errorf("ParseAPIKey(%q) = %q, %v; want ErrKeySyntax and nothing else", wrong, id, err)
			}
		}
	}
	for _, wrong := range []string{"", "ac_", text[:62], text + "x", " " + text[:62], "Bearer " + text, strings.ToUpper(text), strings.Repeat("a", 1<<20)} {
		if _, _, err := authz.ParseAPIKey(wrong); !errors.Is(err, authz.ErrKeySyntax) {
			t.Errorf("ParseAPIKey(%.70q) = %v, want ErrKeySyntax", wrong, err)
		}
	}
}

func FuzzParseAPIKey(f *testing.F) {
	text, _, _, err := authz.NewAPIKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("ac_aaaaaaaaaa_0000000000000000000000000000000000000000000000000")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		id, hash, err := authz.ParseAPIKey(s)
		if err != nil && (id != "" || hash != [32]byte{}) {
			t.Errorf("ParseAPIKey(%q) gave something with its error", s)
		}
		if err == nil && (!strings.HasPrefix(s, "ac_"+id+"_") || hash != sha256.Sum256([]byte(s))) {
			t.Errorf("ParseAPIKey(%q) = %q", s, id)
		}
	})
}

func TestAuthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		table := map[string]authz.KeyRecord{}
		issue := func(change func(*authz.KeyRecord)) string {
			text, id, hash, err := authz.NewAPIKey()
			if err != nil {
				t.Fatal(err)
			}
			r := authz.KeyRecord{Hash: hash, Principal: identity.Principal{Kind: identity.Service, Name: id, Tenant: "acme", Roles: []string{"runner"}}}
			change(&r)
			table[id] = r
			return text
		}
		good := issue(func(*authz.KeyRecord) {})
		short := issue(func(r *authz.KeyRecord) { r.Expires = now.Add(time.Hour) })
		unknown, _, _, _ := authz.NewAPIKey()
		bad := map[string]string{
			"unknown":      unknown,
			"expired":      issue(func(r *authz.KeyRecord) { r.Expires = now }),
			"revoked":      issue(func(r *authz.KeyRecord) { r.Revoked = true }),
			"other secret": issue(func(r *authz.KeyRecord) { r.Hash[31] ^= 1 }),
			"zero hash":    issue(func(r *authz.KeyRecord) { r.Hash = [32]byte{} }),
			"nobody":       issue(func(r *authz.KeyRecord) { r.Principal = identity.Principal{} }),
		}
		keys := newKeys(t, table)
		for _, text := range []string{good, short} {
			p, err := keys.Authenticate(t.Context(), "192.0.2.1", text)
			if err != nil || p.Tenant != "acme" {
				t.Errorf("a good key: %v, %v", p, err)
			}
		}
		// One error for all that depends on our state, to the letter.
		for name, text := range bad {
			p, err := keys.Authenticate(t.Context(), "192.0.2.1", text)
			if !errors.Is(err, authz.ErrCredentials) || err.Error() != authz.ErrCredentials.Error() || !p.IsZero() {
				t.Errorf("%s: %v, %v; want exactly ErrCredentials", name, p, err)
			}
		}
		if _, err := keys.Authenticate(t.Context(), "192.0.2.1", "hunter2"); !errors.Is(err, authz.ErrKeySyntax) {
			t.Errorf("no key at all: %v, want ErrKeySyntax", err)
		}
		time.Sleep(time.Hour)
		if _, err := keys.Authenticate(t.Context(), "192.0.2.1", short); !errors.Is(err, authz.ErrCredentials) {
			t.Errorf("an hour later: %v, want ErrCredentials", err)
		}
	})
}

func TestThrottleSlowsGuessersAndNeverTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, id, hash, err := authz.NewAPIKey()
		if err != nil {
			t.Fatal(err)
		}
		record := authz.KeyRecord{Hash: hash, Principal: identity.Principal{Kind: identity.Service, Name: id}}
		keys := newKeys(t, map[string]authz.KeyRecord{id: record})
		guess, _, _, _ := authz.NewAPIKey()
		var throttled *authz.ThrottledError
		for i := range 20 {
			if _, err := keys.Authenticate(t.Context(), "192.0.2.1", guess); errors.As(err, &throttled) {
				t.Fatalf("throttled at failure %d", i+1)
			}
		}
		for range 1000 {
			_, err := keys.Authenticate(t.Context(), "192.0.2.1", guess)
			if !errors.As(err, &throttled) || !errors.Is(err, authz.ErrCredentials) || throttled.RetryAfter <= 0 || throttled.RetryAfter > time.Second {
				t.Fatalf("failure above the burst: %v", err)
			}
			if strings.Contains(err.Error(), guess[14:]) {
				t.Fatalf("I10: the error %q holds the secret", err)
			}
		}
		if _, err := keys.Authenticate(t.Context(), "192.0.2.1", good); err != nil {
			t.Errorf("the owner from the guesser's address: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := keys.Authenticate(t.Context(), "192.0.2.1", guess); errors.As(err, &throttled) {
			t.Errorf("a second later: %v", err)
		}
	})
}

// A guesser changes the key id, or his address: both are counted.
func TestGuessersAreCountedBySourceAndByKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, id, hash, err := authz.NewAPIKey()
		if err != nil {
			t.Fatal(err)
		}
		keys := newKeys(t, map[string]authz.KeyRecord{id: {Hash: hash, Principal: identity.Principal{Kind: identity.Service, Name: id}}})
		forged, _, err := authz.RotateAPIKey(id) // right id, right checksum, wrong secret
		if err != nil {
			t.Fatal(err)
		}
		for name, guess := range map[string]func(i int) (source, text string){
			"many keys from one place":   func(int) (string, string) { other, _, _, _ := authz.NewAPIKey(); return "192.0.2.1", other },
			"one key from many places":   func(i int) (string, string) { return fmt.Sprint("198.51.100.", i), forged },
			"rubbish from another place": func(i int) (string, string) { return "192.0.2.2", fmt.Sprint("hunter", i) },
		} {
			var throttled *authz.ThrottledError
			first := 0
			for i := range 60 {
				source, text := guess(i)
				if _, err := keys.Authenticate(t.Context(), source, text); first == 0 && errors.As(err, &throttled) {
					first = i + 1
				}
			}
			if first == 0 || first > 21 {
				t.Errorf("%s: throttled at guess %d, want the 21st", name, first)
			}
		}
		for _, source := range []string{"192.0.2.1", "192.0.2.2", "203.0.113.9"} {
			if _, err := keys.Authenticate(t.Context(), source, good); err != nil {
				t.Errorf("the owner at %s is locked out: %v", source, err)
			}
		}
	})
}

func TestRotationOverlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, id, oldHash, err := authz.NewAPIKey()
		if err != nil {
			t.Fatal(err)
		}
		fresh, hash, err := authz.RotateAPIKey(id)
		if err != nil {
			t.Fatal(err)
		}
		record := authz.KeyRecord{Hash: hash, Before: oldHash, Until: time.Now().Add(time.Hour), Principal: identity.Principal{Kind: identity.Service, Name: id}}
		keys := newKeys(t, map[string]authz.KeyRecord{id: record})
		for _, text := range []string{old, fresh} {
			if _, err := keys.Authenticate(t.Context(), "192.0.2.1", text); err != nil {
				t.Errorf("during the overlap: %v", err)
			}
		}
		time.Sleep(time.Hour)
		if _, err := keys.Authenticate(t.Context(), "192.0.2.1", old); !errors.Is(err, authz.ErrCredentials) {
			t.Errorf("the old secret after the overlap: %v", err)
		}
		if _, err := keys.Authenticate(t.Context(), "192.0.2.1", fresh); err != nil {
			t.Errorf("the new secret after the overlap: %v", err)
		}
	})
}

func TestAuthenticateConcurrently(t *testing.T) {
	good, id, hash, err := authz.NewAPIKey()
	if err != nil {
		t.Fatal(err)
	}
	record := authz.KeyRecord{Hash: hash, Principal: identity.Principal{Kind: identity.Service, Name: id}}
	keys := newKeys(t, map[string]authz.KeyRecord{id: record})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 200 {
				if _, err := keys.Authenticate(t.Context(), "192.0.2.1", good); err != nil {
					t.Errorf("good key: %v", err)
				}
				if _, err := keys.Authenticate(t.Context(), "192.0.2.2", "x"); !errors.Is(err, authz.ErrKeySyntax) {
					t.Errorf("bad key: %v", err)
				}
			}
		})
	}
	callers.Wait()
}

func BenchmarkAuthenticate(b *testing.B) {
	good, id, hash, err := authz.NewAPIKey()
	if err != nil {
		b.Fatal(err)
	}
	record := authz.KeyRecord{Hash: hash, Principal: identity.Principal{Kind: identity.Service, Name: id}}
	keys := newKeys(b, map[string]authz.KeyRecord{id: record})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Authenticate(b.Context(), "192.0.2.1", good); err != nil {
			b.Fatal(err)
		}
	}
}

func newKeys(tb testing.TB, table map[string]authz.KeyRecord) *authz.APIKeys {
	tb.Helper()
	keys, err := authz.NewAPIKeys(authz.APIKeysConfig{Lookup: func(id string) (authz.KeyRecord, bool) {
		r, ok := table[id]
		return r, ok
	}})
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}
