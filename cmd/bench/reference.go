package main

import (
	"crypto/ed25519"
	"errors"

	"github.com/agenticraft/node/identity"
)

// The goals in absolute time were set on one machine. What the peers took there
// (medians, docs/decisions/0043) makes of each a goal that holds on any machine:
// how many times as long as the peer, measured beside it in the same run.
const (
	referenceEd25519    = 45.9 // us: crypto/ed25519 verifying 1 KiB
	referenceBubblewrap = 11.0 // ms: bubblewrap, all namespaces, python3 -I -S
)

// against is the goal of at most most, where the peer took there, as a goal for
// got, how many times as long as that peer it takes on this machine.
func against(what, peer string, most, there, got float64) Target {
	return Target{Name: what + ", over that of " + peer, Unit: "x", Most: most / there, Got: got}
}

// plainEd25519 verifies a signature of 1 KiB with the standard library alone: the
// measure of a machine for what signs and verifies.
func plainEd25519(key *identity.Key) (func() error, error) {
	message := make([]byte, 1<<10)
	signature := key.SignRaw(message)
	public, err := key.ID().PublicKey()
	return func() error {
		if !ed25519.Verify(public, message, signature) {
			return errors.New("a signature does not hold")
		}
		return nil
	}, err
}
