package identity_test

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"os"
	"sync"
	"testing"

	"filippo.io/edwards25519"

	"github.com/agenticraft/node/identity"
)

// signatureVector is a case of testdata/signatures.json: the vectors of RFC 8032,
// 7.1, and those of "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko,
// 2020), which tell one rule of verification from another.
type signatureVector struct {
	Name, Message, Public, Signature string // hex
	Holds                            bool   // by the rule without a cofactor
}

func signatureVectors(tb testing.TB) (out []signatureVector) {
	tb.Helper()
	text, err := os.ReadFile("testdata/signatures.json")
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestSignatureVectors(t *testing.T) {
	for _, v := range signatureVectors(t) {
		public, msg, sig := unhex(t, v.Public), unhex(t, v.Message), unhex(t, v.Signature)
		if got := ed25519.Verify(public, msg, sig); got != v.Holds {
			t.Errorf("%s: crypto/ed25519 says %v, want %v", v.Name, got, v.Holds)
		}
		if got := identity.VerifyByTable(public, msg, sig); got != v.Holds {
			t.Errorf("%s: the table says %v, want %v", v.Name, got, v.Holds)
		}
		id := identity.FromPublicKey(public)
		for use := range 2 * identity.UsesBeforeTable {
			if got := id.VerifyRaw(msg, sig); got != v.Holds {
				t.Errorf("%s: use %d says %v, want %v", v.Name, use, got, v.Holds)
			}
		}
	}
}

// Points with a part of small order, alone or beside an honest part, in every
// encoding that can be decoded: what holds must be what holds for crypto/ed25519.
func TestTablesJudgeSmallOrdersAlike(t *testing.T) {
	count := map[bool]int{}
	for _, a := range []byte{0, 1} { // the part of prime order: none, or an honest one
		for _, ofA := range pointsWith(t, scalar(t, a)) {
			verify := identity.Verifier(ofA)
			for _, r := range []byte{0, 2} {
				for _, ofR := range pointsWith(t, scalar(t, r)) {
					for i := range byte(4) {
						msg := []byte{'m', i}
						sig := respond(t, scalar(t, a), scalar(t, r), ofA, ofR, msg)
						want := ed25519.Verify(ofA, msg, sig)
						if got := verify(msg, sig); got != want {
							t.Errorf("A %x, R %x, message %q: the table says %v, crypto/ed25519 %v", ofA, ofR, msg, got, want)
						}
						count[want]++
					}
				}
			}
		}
	}
	if count[true] < 100 || count[false] < 100 {
		t.Errorf("%d hold and %d do not: the cases say too little", count[true], count[false])
	}
}

// Every bit of a signature counts, and every length but one is wrong.
func TestTablesRefuseWhatWasChanged(t *testing.T) {
	key := generate(t)
	public, msg := key.Private().Public().(ed25519.PublicKey), []byte("message")
	verify, sig := identity.Verifier(public), key.SignRaw(msg)
	if !verify(msg, sig) {
		t.Fatal("own signature refused")
	}
	for bit := range 8 * len(sig) {
		sig[bit/8] ^= 1 << (bit % 8)
		if verify(msg, sig) {
			t.Errorf("bit %d changed: accepted", bit)
		}
		sig[bit/8] ^= 1 << (bit % 8)
	}
	for n := range 2 * len(sig) {
		if n != len(sig) && verify(msg, append(sig, sig...)[:n]) {
			t.Errorf("%d bytes accepted", n)
		}
	}
	if verify(nil, sig) || !verify(msg, sig) {
		t.Error("the message does not count")
	}
}

func FuzzVerify(f *testing.F) {
	for _, v := range signatureVectors(f) {
		f.Add(unhex(f, v.Public), unhex(f, v.Message), unhex(f, v.Signature), uint16(0), byte(0))
	}
	f.Fuzz(func(t *testing.T, public, msg, sig []byte, at uint16, mask byte) {
		if len(public) != ed25519.PublicKeySize {
			return // crypto/ed25519 panics, and no ID holds such a key
		}
		if want, got := ed25519.Verify(public, msg, sig), identity.VerifyByTable(public, msg, sig); got != want {
			t.Errorf("public %x, message %x, signature %x: the table says %v, crypto/ed25519 %v", public, msg, sig, got, want)
		}
		// The same bytes as a seed: an honest signature, and one bit or byte of it changed.
		key := ed25519.NewKeyFromSeed(public)
		public = key.Public().(ed25519.PublicKey)
		sig = ed25519.Sign(key, msg)
		sig[int(at)%len(sig)] ^= mask
		if want, got := ed25519.Verify(public, msg, sig), identity.VerifyByTable(public, msg, sig); got != want || got != (mask == 0) {
			t.Errorf("seed of %x, byte %d changed by %x: the table says %v, crypto/ed25519 %v", public, at, mask, got, want)
		}
	})
}

func TestTablesAreMadeForKeysThatComeAgain(t *testing.T) {
	key, msg := generate(t), []byte("message")
	sig := key.SignRaw(msg)
	for use := range identity.UsesBeforeTable + 3 {
		if got, want := identity.HasTable(key.ID()), use > identity.UsesBeforeTable; got != want {
			t.Errorf("after %d uses: table %v, want %v", use, got, want)
		}
		if !key.ID().VerifyRaw(msg, sig) {
			t.Errorf("refused after %d uses", use)
		}
	}
	// One by one, more keys than are held: none comes often enough, and it is forgotten.
	for range 2 * identity.KeysHeld {
		other := generate(t)
		if !other.ID().VerifyRaw(msg, other.SignRaw(msg)) {
			t.Error("a key's first signature is refused")
		}
	}
	if identity.HasTable(key.ID()) {
		t.Error("a table is held for a key that no longer comes")
	}
	if !key.ID().VerifyRaw(msg, sig) {
		t.Error("a key that was forgotten is refused")
	}
}

func TestVerifyMayBeCalledConcurrently(t *testing.T) {
	keys := []*identity.Key{generate(t), generate(t), generate(t)}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 8 {
				key, msg := keys[(i+j)%len(keys)], []byte{byte(i), byte(j)}
				sig := key.SignRaw(msg)
				if !key.ID().VerifyRaw(msg, sig) {
					t.Errorf("goroutine %d: signature %d refused", i, j)
				}
				if sig[j]++; key.ID().VerifyRaw(msg, sig) {
					t.Errorf("goroutine %d: signature %d changed and accepted", i, j)
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkVerify(b *testing.B) {
	key, err := identity.Generate()
	if err != nil {
		b.Fatal(err)
	}
	public, msg := key.Private().Public().(ed25519.PublicKey), make([]byte, 1024)
	verify, sig := identity.Verifier(public), key.SignRaw(msg)
	b.Run("crypto/ed25519", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !ed25519.Verify(public, msg, sig) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("table", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !verify(msg, sig) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("making a table", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			identity.Verifier(public)
		}
	})
}

// torsion generates the eight points of small order.
const torsion = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"

// alternatives are the other encodings of points of small order that decoders in
// use accept: y not reduced, and the sign of an x that is zero.
var alternatives = map[string][]string{
	"0000000000000000000000000000000000000000000000000000000000000000": {"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
	"0000000000000000000000000000000000000000000000000000000000000080": {"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
	"0100000000000000000000000000000000000000000000000000000000000000": {
		"0100000000000000000000000000000000000000000000000000000000000080",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	},
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": {"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"},
}

// pointsWith are the encodings of s times the base point and each of the eight
// points of small order; 14 if s is zero, else 8.
func pointsWith(t *testing.T, s *edwards25519.Scalar) (out [][]byte) {
	t.Helper()
	step, err := new(edwards25519.Point).SetBytes(unhex(t, torsion))
	if err != nil {
		t.Fatal(err)
	}
	p := new(edwards25519.Point).ScalarBaseMult(s)
	for range 8 {
		out = append(out, p.Bytes())
		for _, other := range alternatives[hex.EncodeToString(p.Bytes())] {
			out = append(out, unhex(t, other))
		}
		p.Add(p, step)
	}
	return out
}

// respond is a signature with the R that is given, by one who knows the parts of
// prime order: a of the key, r of R.
func respond(t *testing.T, a, r *edwards25519.Scalar, ofA, ofR, msg []byte) []byte {
	t.Helper()
	sum := sha512.Sum512(append(append(append([]byte(nil), ofR...), ofA...), msg...))
	k, err := new(edwards25519.Scalar).SetUniformBytes(sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return append(append([]byte(nil), ofR...), k.MultiplyAdd(k, a, r).Bytes()...)
}

// scalar is zero for zero, else some scalar.
func scalar(t *testing.T, n byte) *edwards25519.Scalar {
	t.Helper()
	if n == 0 {
		return edwards25519.NewScalar()
	}
	sum := sha512.Sum512([]byte{n})
	s, err := new(edwards25519.Scalar).SetUniformBytes(sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	out, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}
