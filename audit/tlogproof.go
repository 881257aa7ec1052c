package audit

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// tlogProofHead is the first line of a C2SP tlog-proof, version 1.
const tlogProofHead = "c2sp.org/tlog-proof@v1"

const (
	maxTLogProof  = 128 << 10 // bytes
	maxProofDepth = 63        // hashes
)

// TLogProof is a proof that one entry is in a log, as C2SP tlog-proof writes it:
// what other people's tools verify.
type TLogProof struct {
	Index      uint64
	Proof      []Hash
	Checkpoint []byte // cosigned note
}

// Text is the file, which is to be named *.tlog-proof.
func (p TLogProof) Text() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\nindex %d\n", tlogProofHead, p.Index)
	for _, h := range p.Proof {
		fmt.Fprintln(&out, h)
	}
	out.WriteByte('\n')
	out.Write(p.Checkpoint)
	return out.Bytes()
}

// TLogProofs are what the receipt proves of its entries, in the form that other
// people's tools verify. The leaves are Intent.Leaf and Outcome.Leaf.
func (r Receipt) TLogProofs() (intent, outcome TLogProof) {
	of := func(e Evidence) TLogProof {
		return TLogProof{Index: e.Index, Proof: e.Proof, Checkpoint: []byte(r.Checkpoint)}
	}
	return of(r.Intent), of(r.Outcome)
}

// ParseTLogProof reads a tlog-proof. It verifies nothing.
func ParseTLogProof(text []byte) (TLogProof, error) {
	bad := func(what string) (TLogProof, error) {
		return TLogProof{}, fmt.Errorf("%w: tlog-proof: %s", ErrInvalid, what)
	}
	head, checkpoint, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if len(text) > maxTLogProof || !ok || lines[0] != tlogProofHead {
		return bad("not one of version 1")
	}
	lines = lines[1:]
	if extra, has := strings.CutPrefix(lines[0], "extra "); has && len(lines) > 1 {
		if _, err := base64.StdEncoding.Strict().DecodeString(extra); err != nil {
			return bad("extra data is no base64")
		}
		lines = lines[1:] // means something to others
	}
	number, ok := strings.CutPrefix(lines[0], "index ")
	index, err := strconv.ParseUint(number, 10, 63)
	if !ok || err != nil || strconv.FormatUint(index, 10) != number || len(lines)-1 > maxProofDepth {
		return bad("index or number of hashes")
	}
	p := TLogProof{Index: index, Checkpoint: []byte(checkpoint)}
	for _, line := range lines[1:] {
		var h Hash
		if err := h.UnmarshalText([]byte(line)); err != nil {
			return TLogProof{}, fmt.Errorf("tlog-proof: %w", err)
		}
		p.Proof = append(p.Proof, h)
	}
	return p, nil
}

// Verify checks that a leaf is in a log that a quorum signed.
func (p TLogProof) Verify(leaf []byte, trust Trust) (Checkpoint, error) {
	at, _, err := trust.Verify(p.Checkpoint)
	if err != nil {
		return Checkpoint{}, err
	}
	return at, CheckEntry(p.Proof, p.Index, at.Size, LeafHash(leaf), at.Root)
}
