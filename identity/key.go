// Package identity says who someone is: the Ed25519 key that a name is made
// of, and the principal that a credential proved.
//
// One key has three names, each a pure re-encoding of the others: the libp2p
// peer ID ([ID]), the did:key ([ID.DID]) and, where it is a keeper's, the raft
// ServerID. Signatures carry a domain label, so that bytes signed for one
// purpose can never be presented for another.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/agenticraft/node/internal/durable"
)

// Key is an Ed25519 private key. It has no String or MarshalJSON, so that it
// cannot slip into a log. A Key may be used concurrently.
type Key struct {
	private ed25519.PrivateKey
	id      ID
}

// ErrKeyExposed is returned when others than the owner can read a key file.
var ErrKeyExposed = errors.New("key file is readable by others")

const (
	pemType      = "PRIVATE KEY"
	maxKeyFile   = 4 << 10 // bytes
	keyFilePerm  = 0o600
	exposedModes = 0o077
)

// Generate makes a new key from the system's random source.
func Generate() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return fromPrivate(private), nil
}

// FromSeed derives a key from a 32-byte seed (RFC 8032), for test vectors.
func FromSeed(seed []byte) (*Key, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("seed has %d bytes, want %d", len(seed), ed25519.SeedSize)
	}
	return fromPrivate(ed25519.NewKeyFromSeed(seed)), nil
}

// Load reads a key file written by [Key.Save]: a PKCS #8 PEM block, as openssl
// writes it. It returns [ErrKeyExposed] if group or others may read the file.
func Load(name string) (*Key, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not make us wait
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("load key %s: not a key file", name)
	}
	if info.Mode().Perm()&exposedModes != 0 {
		return nil, fmt.Errorf("load key %s: %w (mode %#o; run: chmod 600 %s)", name, ErrKeyExposed, info.Mode().Perm(), name)
	}
	text := make([]byte, info.Size())
	if _, err := f.ReadAt(text, 0); err != nil {
		return nil, fmt.Errorf("load key %s: %w", name, err)
	}
	return parse(name, text)
}

// Save writes the key as PKCS #8 PEM with mode 0600, durably. It refuses to
// replace a file, because a lost key is a lost identity.
func (k *Key) Save(name string) error {
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("save key %s: %w", name, fs.ErrExist)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	if err := durable.WriteFile(name, text, keyFilePerm); err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	return nil
}

// ID names the key's holder.
func (k *Key) ID() ID { return k.id }

// Sign signs msg under a domain label; see [ID.Verify].
func (k *Key) Sign(domain string, msg []byte) []byte {
	return ed25519.Sign(k.private, framed(domain, msg))
}

// SignRaw makes a bare Ed25519 signature, for formats whose own framing keeps
// purposes apart (JWS protected headers, C2SP notes).
func (k *Key) SignRaw(msg []byte) []byte { return ed25519.Sign(k.private, msg) }

// Private hands out a copy of the private key, for libp2p's handshake only.
func (k *Key) Private() ed25519.PrivateKey {
	return append(ed25519.PrivateKey(nil), k.private...)
}

func fromPrivate(private ed25519.PrivateKey) *Key {
	return &Key{private: private, id: FromPublicKey(private.Public().(ed25519.PublicKey))}
}

func parse(name string, text []byte) (*Key, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("load key %s: not a PEM %q block", name, pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load key %s: not a PKCS #8 private key", name)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("load key %s: not an Ed25519 key", name)
	}
	return fromPrivate(private), nil
}

// framed puts the label in front, ended by a byte that no label contains.
func framed(domain string, msg []byte) []byte {
	out := make([]byte, 0, len(domain)+1+len(msg))
	out = append(out, domain...)
	out = append(out, 0)
	return append(out, msg...)
}
