package mandate

import (
	"crypto/ed25519"
	"crypto/sha256"
	"runtime"
	"sync"
	"sync/atomic"

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

// firstBad is the index of the first signature that does not hold; -1 if all do.
// Those not known to hold are verified on as many processors as are idle: they
// cost more than all other checks of a chain together.
func firstBad(chain []sealed, known *signatures) int {
	var open []int
	for i, s := range chain {
		if _, ok := known.Get(s.name()); !ok {
			open = append(open, i)
		}
	}
	holds := make([]bool, len(chain))
	var begun atomic.Int32
	verify := func() {
		for at := int(begun.Add(1)) - 1; at < len(open); at = int(begun.Add(1)) - 1 {
			holds[open[at]] = chain[open[at]].holds()
		}
	}
	var helpers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(open)) - 1 {
		helpers.Go(verify)
	}
	verify() // does all of it, if no other processor is idle
	helpers.Wait()
	for _, i := range open {
		if !holds[i] {
			return i
		}
		known.Put(chain[i].name(), struct{}{})
	}
	return -1
}

// name is one for exactly this payload, signature and key: the parts before the
// last have one length each, in what holds.
func (s sealed) name() [sha256.Size]byte {
	text := make([]byte, 0, len(s.id)+len(s.signature)+len(s.by))
	return sha256.Sum256(append(append(append(text, s.id...), s.signature...), s.by...))
}

func (s sealed) holds() bool {
	return len(s.signature) == ed25519.SignatureSize && s.by.Verify(domain, s.raw, s.signature)
}
