package mandate

import (
	"crypto/ed25519"
	"crypto/sha256"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/recent"
)

// sealed is the signature of one block: who signed what.
type sealed struct {
	by        identity.ID
	raw       []byte
	signature []byte
	id        string // of the block: hex SHA-256 of raw
}

// signatures remembers signatures that hold, which they do for ever: time,
// audience, revocation and what a block grants are judged anew each time.
type signatures = recent.Map[[sha256.Size]byte, struct{}]

// known is of the whole process, for whether a signature holds depends on
// nothing else; it takes at most about a megabyte.
var known = signatures{Half: 4096}

// holds verifies the signature, unless it is known to hold: that costs as much
// as all other checks of a chain together.
func (s sealed) holds(known *signatures) bool {
	if len(s.signature) != ed25519.SignatureSize {
		return false
	}
	// A name for exactly this payload, signature and key: the parts before the
	// last have one length each.
	text := make([]byte, 0, len(s.id)+len(s.signature)+len(s.by))
	key := sha256.Sum256(append(append(append(text, s.id...), s.signature...), s.by...))
	if _, ok := known.Get(key); ok {
		return true
	}
	if !s.by.Verify(domain, s.raw, s.signature) {
		return false
	}
	known.Put(key, struct{}{})
	return true
}
