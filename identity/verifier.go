package identity

import (
	"crypto/ed25519"
	"sync/atomic"

	"github.com/agenticraft/node/internal/recent"
)

// verifiers are the keys that verified lately: the same few agents, nodes and roots
// of mandates sign nearly all that a node verifies. Of many keys that come by
// turns, those that do not come again within the next keysHeld others are
// forgotten before they cost anything.
var verifiers = recent.Map[ID, *verifier]{Half: keysHeld}

const (
	keysHeld = 64 // at least; at most twice as many, whose tables have 4 MiB

	// usesBeforeTable verifications of a key are made as the standard library makes
	// them: the next few save what the table costs, if they come.
	usesBeforeTable = 3
)

// verifier is a public key and what is known of it. It may be used concurrently.
type verifier struct {
	public ed25519.PublicKey
	uses   atomic.Int32
	table  atomic.Pointer[multiples] // made once, by whom uses says
}

// verifierOf is the verifier of a key, or nil if the ID is not well formed.
func verifierOf(id ID) *verifier {
	if v, ok := verifiers.Get(id); ok {
		return v
	}
	public, err := id.PublicKey()
	if err != nil {
		return nil
	}
	v := &verifier{public: public}
	verifiers.Put(id, v) // of two at once the later one stays, and counts anew
	return v
}

// verify is [ed25519.Verify] of the key.
func (v *verifier) verify(msg, sig []byte) bool {
	table := v.table.Load()
	if table == nil && v.uses.Load() <= usesBeforeTable && v.uses.Add(1) == usesBeforeTable+1 {
		table = newTable(v.public) // others go on without it meanwhile
		v.table.Store(table)
	}
	if table == nil {
		return ed25519.Verify(v.public, msg, sig)
	}
	return verifyByTable(table, v.public, msg, sig)
}
