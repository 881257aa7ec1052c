package identity

import "crypto/ed25519"

// VerifyByTable verifies with a new table of the key, as if it had verified often.
func VerifyByTable(public, msg, sig []byte) bool {
	table := newTable(public)
	return table != nil && verifyByTable(table, public, msg, sig)
}

// Verifier verifies with the same table each time.
func Verifier(public []byte) func(msg, sig []byte) bool {
	v := &verifier{public: ed25519.PublicKey(public)}
	v.table.Store(newTable(public))
	return v.verify
}

// HasTable reports whether the key's table is there.
func HasTable(id ID) bool {
	v, ok := verifiers.Get(id)
	return ok && v.table.Load() != nil
}

const (
	KeysHeld        = keysHeld
	UsesBeforeTable = usesBeforeTable
)
