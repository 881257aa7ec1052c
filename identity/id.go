package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"github.com/mr-tron/base58"
)

// ID names the holder of an Ed25519 key: the text of its libp2p peer ID
// ("12D3KooW…"), which contains the whole public key. The zero value names
// nobody. An ID obtained from [ParseID], [FromDID] or a [Key] is well formed.
type ID string

// ErrID is returned for text that is not a well-formed Ed25519 identity.
var ErrID = errors.New("not an Ed25519 identity")

const (
	didPrefix = "did:key:z"
	maxIDText = 128 // bytes; a well-formed ID has 52, a did:key 57
)

var (
	// peerPrefix is an identity multihash (code 0x00, 36 bytes) of a protobuf
	// PublicKey{Type: Ed25519, Data: 32 bytes} (libp2p peer-ids spec).
	peerPrefix = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}
	// didKeyPrefix is the multicodec of ed25519-pub as a varint (did:key, 3.1.1).
	didKeyPrefix = []byte{0xed, 0x01}
)

// FromPublicKey names the holder of pub.
func FromPublicKey(pub ed25519.PublicKey) ID {
	return ID(base58.Encode(append(bytes.Clone(peerPrefix), pub...)))
}

// ParseID checks that s is the canonical text of an Ed25519 peer ID.
func ParseID(s string) (ID, error) {
	pub, err := decode(s, "", peerPrefix)
	if err != nil {
		return "", fmt.Errorf("peer ID: %w", err)
	}
	if id := FromPublicKey(pub); string(id) == s {
		return id, nil
	}
	return "", fmt.Errorf("peer ID: %w: not in canonical form", ErrID)
}

// FromDID reads a did:key URL ("did:key:z6Mk…") of an Ed25519 key, without
// fragment. It names the same holder as the peer ID made of the same key.
func FromDID(did string) (ID, error) {
	pub, err := decode(did, didPrefix, didKeyPrefix)
	if err != nil {
		return "", fmt.Errorf("did:key: %w", err)
	}
	if didOf(pub) != did {
		return "", fmt.Errorf("did:key: %w: not in canonical form", ErrID)
	}
	return FromPublicKey(pub), nil
}

// DID is the holder's did:key, or "" for an ID that is not well formed.
func (id ID) DID() string {
	pub, err := id.PublicKey()
	if err != nil {
		return ""
	}
	return didOf(pub)
}

func didOf(pub ed25519.PublicKey) string {
	return didPrefix + base58.Encode(append(bytes.Clone(didKeyPrefix), pub...))
}

// KeyURL is the did:key URL with its fragment, as the kid of a JWS names it.
func (id ID) KeyURL() string {
	did := id.DID()
	if did == "" {
		return ""
	}
	return did + "#" + strings.TrimPrefix(did, "did:key:")
}

// PublicKey is the key that the ID contains.
func (id ID) PublicKey() (ed25519.PublicKey, error) {
	return decode(string(id), "", peerPrefix)
}

// Verify reports whether sig is the holder's signature, made by [Key.Sign]
// under the same domain label, of exactly msg.
func (id ID) Verify(domain string, msg, sig []byte) bool {
	return id.VerifyRaw(framed(domain, msg), sig)
}

// VerifyRaw reports whether sig is the holder's bare Ed25519 signature of msg,
// for formats with a framing of their own (JWS, C2SP notes).
func (id ID) VerifyRaw(msg, sig []byte) bool {
	v := verifierOf(id)
	return v != nil && v.verify(msg, sig)
}

func decode(s, textPrefix string, prefix []byte) (ed25519.PublicKey, error) {
	rest, ok := strings.CutPrefix(s, textPrefix)
	if !ok || len(s) > maxIDText {
		return nil, ErrID
	}
	raw, err := base58.Decode(rest)
	if err != nil {
		return nil, ErrID
	}
	pub, ok := bytes.CutPrefix(raw, prefix)
	if !ok || len(pub) != ed25519.PublicKeySize {
		return nil, ErrID
	}
	return pub, nil
}
