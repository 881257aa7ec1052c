package identity_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/agenticraft/node/identity"
)

func TestIDIsTheLibp2pPeerID(t *testing.T) {
	key := generate(t)
	private, err := crypto.UnmarshalEd25519PrivateKey(key.Private())
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.IDFromPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(key.ID()); got != want.String() {
		t.Errorf("ID() = %s, libp2p says %s", got, want)
	}
}

// The vector is from the did:key specification's Ed25519 examples (seed zero).
func TestDIDVector(t *testing.T) {
	key, err := identity.FromSeed(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	const want = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
	if got := key.ID().DID(); got != want {
		t.Errorf("DID() = %s, want %s", got, want)
	}
	back, err := identity.FromDID(want)
	if err != nil || back != key.ID() {
		t.Errorf("FromDID = %v, %v; want %v", back, err, key.ID())
	}
}

func TestParseRefusesWhatIsNotAnIdentity(t *testing.T) {
	good := generate(t).ID()
	for _, s := range []string{"", "x", "1" + string(good), string(good)[1:], "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", strings.Repeat("1", 10_000), "0OIl", string(good) + "\n"} {
		if id, err := identity.ParseID(s); !errors.Is(err, identity.ErrID) {
			t.Errorf("ParseID(%.40q) = %q, %v; want ErrID", s, id, err)
		}
	}
	for _, s := range []string{"did:key:", "did:web:example.org", good.DID() + "#x", "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"} {
		if id, err := identity.FromDID(s); !errors.Is(err, identity.ErrID) {
			t.Errorf("FromDID(%q) = %q, %v; want ErrID", s, id, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	f.Add("did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := identity.ParseID(s); err == nil && string(id) != s {
			t.Errorf("ParseID(%q) = %q", s, id)
		}
		if id, err := identity.FromDID(s); err == nil && id.DID() != s {
			t.Errorf("FromDID(%q).DID() = %q", s, id.DID())
		}
	})
}

func TestSignatureHoldsForOneDomainOneMessageOneKey(t *testing.T) {
	key, other := generate(t), generate(t)
	sig := key.Sign("test/a", []byte("msg"))
	if !key.ID().Verify("test/a", []byte("msg"), sig) {
		t.Fatal("own signature refused")
	}
	for name, ok := range map[string]bool{
		"other domain":    key.ID().Verify("test/b", []byte("msg"), sig),
		"other message":   key.ID().Verify("test/a", []byte("msG"), sig),
		"shifted border":  key.ID().Verify("test/am", []byte("sg"), sig),
		"other key":       other.ID().Verify("test/a", []byte("msg"), sig),
		"short signature": key.ID().Verify("test/a", []byte("msg"), sig[:63]),
		"nobody":          identity.ID("").Verify("test/a", []byte("msg"), sig),
	} {
		if ok {
			t.Errorf("%s: signature accepted", name)
		}
	}
}

func TestKeyFile(t *testing.T) {
	key := generate(t)
	name := filepath.Join(t.TempDir(), "node.key")
	if err := key.Save(name); err != nil {
		t.Fatal(err)
	}
	back, err := identity.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	if back.ID() != key.ID() || !bytes.Equal(back.Private(), key.Private()) {
		t.Error("loaded key differs from the saved one")
	}
	if err := generate(t).Save(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Save over a key = %v, want ErrExist", err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Load(name); !errors.Is(err, identity.ErrKeyExposed) {
		t.Errorf("Load of a readable key = %v, want ErrKeyExposed", err)
	}
}

func TestLoadRefusesGarbage(t *testing.T) {
	for _, text := range []string{"", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", strings.Repeat("x", 1<<20)} {
		name := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.Load(name); err == nil {
			t.Errorf("Load of %.20q succeeded", text)
		}
	}
}

func generate(t *testing.T) *identity.Key {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
