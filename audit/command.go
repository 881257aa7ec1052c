package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/recent"
)

const (
	commandVersion = 1
	batchDomain    = "agenticraft audit batch v1"
	// MaxBatch is how many entries one command may hold.
	MaxBatch = 256
	// MaxCommand is the size limit of a recorder's commands in bytes.
	MaxCommand = 256 << 10
	// maxBatchBytes leaves room for a batch whose smallest leaves were replaced
	// by their hashes.
	maxBatchBytes = 2 * MaxCommand
	batchHead     = 256 // bytes of a command around its leaves, at most
	leafHead      = 3   // bytes of a leaf's length, at most
	signature     = 64  // bytes of an Ed25519 signature
)

// Attestation proves who wrote a batch of entries: the author's signature over
// the origin of the log and the leaf hashes of all entries of the batch, in
// order, including those that were not admitted.
type Attestation struct {
	Author identity.ID `json:"author"`
	Hashes []Hash      `json:"hashes"`
	Sig    []byte      `json:"sig"`
}

// Verify reports whether the author signed exactly these hashes for the log
// named origin.
func (a Attestation) Verify(origin string) bool {
	return len(a.Hashes) > 0 && len(a.Hashes) <= MaxBatch &&
		a.Author.Verify(batchDomain, batchMessage(origin, a.Hashes), a.Sig)
}

// batchMessage names the log, so that entries which a node signed for one
// cluster cannot be replayed in another one that it belongs to.
func batchMessage(origin string, hashes []Hash) []byte {
	msg := make([]byte, 0, len(origin)+1+len(hashes)*len(Hash{}))
	msg = append(msg, origin...)
	msg = append(msg, '\n')
	for _, h := range hashes {
		msg = append(msg, h[:]...)
	}
	return msg
}

// batch is a command: the entries that one node proposes together. In a batch
// that a keeper sends to one that catches up, the leaves that were not
// admitted are withheld (nil); their hashes are needed for the signature.
type batch struct {
	Attestation
	leaves  [][]byte
	entries []decodedEntry // of the leaves, if they were decoded before
}

// signBatch makes the command for leaves.
func signBatch(key *identity.Key, origin string, leaves [][]byte) []byte {
	b := batch{Attestation: Attestation{Author: key.ID()}, leaves: leaves}
	for _, leaf := range leaves {
		b.Hashes = append(b.Hashes, LeafHash(leaf))
	}
	b.Sig = key.Sign(batchDomain, batchMessage(origin, b.Hashes))
	return b.encode()
}

// encode writes: version, author, number of entries, then per entry its length
// and leaf, or 0 and its hash where it is withheld; last the signature.
func (b batch) encode() []byte {
	size := 128
	for _, leaf := range b.leaves {
		size += len(leaf) + 40
	}
	out := make([]byte, 0, size)
	out = append(out, commandVersion)
	out = appendText(out, string(b.Author))
	out = binary.AppendUvarint(out, uint64(len(b.leaves)))
	for i, leaf := range b.leaves {
		out = appendText(out, leaf)
		if len(leaf) == 0 {
			out = append(out, b.Hashes[i][:]...)
		}
	}
	return append(out, b.Sig...)
}

// decodeBatch reads what encode wrote. The signature is not verified.
func decodeBatch(cmd []byte) (batch, error) {
	if len(cmd) > maxBatchBytes {
		return batch{}, fmt.Errorf("%w: command has %d bytes, limit %d", ErrInvalid, len(cmd), maxBatchBytes)
	}
	r := reader{rest: cmd}
	if v := r.byte(); v != commandVersion {
		return batch{}, fmt.Errorf("%w: command version %d", errVersion, v)
	}
	b := batch{Attestation: Attestation{Author: identity.ID(r.text(maxName))}}
	count := r.uvarint(MaxBatch)
	b.leaves, b.Hashes = make([][]byte, 0, count), make([]Hash, 0, count)
	for range count {
		leaf := r.text(MaxLeaf)
		var h Hash
		if len(leaf) == 0 {
			copy(h[:], r.bytes(len(h)))
			leaf = nil
		} else {
			h = LeafHash(leaf)
		}
		b.leaves, b.Hashes = append(b.leaves, leaf), append(b.Hashes, h)
	}
	b.Sig = r.bytes(signature)
	if !r.done() || count == 0 {
		return batch{}, fmt.Errorf("%w: malformed command", ErrInvalid)
	}
	if !named(b.Author) {
		return batch{}, fmt.Errorf("%w: command author", ErrInvalid)
	}
	return b, nil
}

// errVersion is a command of a format that this program does not know. A
// keeper must stop at it: others may have applied it.
var errVersion = fmt.Errorf("%w: unknown version", ErrInvalid)

// attested remembers which attestations hold for a log, and which do not: both
// for ever. Whoever asks about one that is being verified waits for the answer.
type attested struct {
	origin string
	known  recent.Map[Hash, *verdict]
}

type verdict struct {
	once  sync.Once
	holds bool
}

const attestedHalf = 1024

func newAttested(origin string) *attested {
	return &attested{origin: origin, known: recent.Map[Hash, *verdict]{Half: attestedHalf}}
}

func (k *attested) verify(a Attestation) bool {
	// Everything that the signature depends on; the first two have one length each.
	text := make([]byte, 0, len(a.Sig)+len(a.Author)+len(a.Hashes)*len(Hash{}))
	text = append(append(text, a.Sig...), a.Author...)
	for _, h := range a.Hashes {
		text = append(text, h[:]...)
	}
	key := Hash(sha256.Sum256(text))
	v, ok := k.known.Get(key)
	if !ok {
		v = new(verdict)
		k.known.Put(key, v)
	}
	v.once.Do(func() { v.holds = a.Verify(k.origin) })
	return v.holds
}

// Check reports whether every keeper of this version could apply cmd; see
// [CheckCommand]. It does not wait for the signature, which it has verified
// while the command is on its way: Apply refuses a command without it, the same
// on every keeper.
func (s *Store) Check(cmd []byte) error {
	b, err := decodeBatch(cmd)
	if err == nil {
		s.beside(func() { s.attested.verify(b.Attestation) }) // touches nothing but its own memory
	}
	return err
}

// CheckCommand reports whether every keeper of this version could apply cmd, a
// known version and well formed, and would not refuse it for its signature, by
// its author for the log named origin. A command of an unknown version stops
// every keeper: a leader calls [Store.Check] before it puts one into raft's log.
func CheckCommand(origin string, cmd []byte) error {
	b, err := decodeBatch(cmd)
	if err != nil {
		return err
	}
	if !b.Verify(origin) {
		return fmt.Errorf("%w: command signature", ErrInvalid)
	}
	return nil
}

// encodeRecord writes an attestation as the store keeps it, with one byte per
// hash that says whether its entry was admitted.
func encodeRecord(a Attestation, admitted []bool) []byte {
	out := make([]byte, 0, 128+len(a.Hashes)*33)
	out = append(out, commandVersion)
	out = appendText(out, string(a.Author))
	out = binary.AppendUvarint(out, uint64(len(a.Hashes)))
	for i, h := range a.Hashes {
		flag := byte(0)
		if admitted[i] {
			flag = 1
		}
		out = append(out, flag)
		out = append(out, h[:]...)
	}
	return append(out, a.Sig...)
}

func decodeRecord(record []byte) (a Attestation, admitted []bool, err error) {
	r := reader{rest: record}
	version := r.byte()
	a.Author = identity.ID(r.text(maxName))
	count := r.uvarint(MaxBatch)
	for range count {
		flag := r.byte()
		var h Hash
		copy(h[:], r.bytes(len(h)))
		r.bad = r.bad || flag > 1
		a.Hashes, admitted = append(a.Hashes, h), append(admitted, flag == 1)
	}
	a.Sig = r.bytes(signature)
	if !r.done() || version != commandVersion {
		return Attestation{}, nil, fmt.Errorf("%w: malformed attestation", ErrInvalid)
	}
	return a, admitted, nil
}

// code is what became of one entry of a command.
type code byte

const (
	codeAppended code = iota
	codeExisting      // written before; index says where
	codeConflict      // contradicts the entry at index
	codeRefused       // see refusal
)

// result is the answer to one entry of a command.
type result struct {
	code    code
	index   uint64
	refusal *Refusal
}

// encodeResults writes the answer to one command.
func encodeResults(results []result) []byte {
	out := []byte{commandVersion}
	out = binary.AppendUvarint(out, uint64(len(results)))
	for _, r := range results {
		out = append(out, byte(r.code))
		out = binary.AppendUvarint(out, r.index)
		if r.code == codeRefused {
			out = appendText(out, r.refusal.Code)
			out = appendText(out, r.refusal.Message)
		}
	}
	return out
}

const maxRefusalText = 4 << 10 // bytes

func decodeResults(answer []byte) ([]result, error) {
	r := reader{rest: answer}
	version := r.byte()
	count := r.uvarint(MaxBatch)
	results := make([]result, 0, min(count, MaxBatch))
	for range count {
		one := result{code: code(r.byte()), index: r.uvarint(maxNumber)}
		if one.code == codeRefused {
			one.refusal = &Refusal{Code: string(r.text(maxRefusalText)), Message: string(r.text(maxRefusalText))}
		}
		r.bad = r.bad || one.code > codeRefused
		results = append(results, one)
	}
	if !r.done() || version != commandVersion {
		return nil, fmt.Errorf("%w: malformed answer to a command", ErrInvalid)
	}
	return results, nil
}

func appendText[T string | []byte](out []byte, s T) []byte {
	return append(binary.AppendUvarint(out, uint64(len(s))), s...)
}

// reader takes apart binary formats. After the first fault everything reads as
// zero, and done reports false.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return nil
	}
	out := r.rest[:n:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// uvarint reads a number in its shortest form, at most limit.
func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if r.bad || n <= 0 || v > limit || n > 1 && r.rest[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) text(limit uint64) []byte { return r.bytes(int(r.uvarint(limit))) }

func (r *reader) done() bool { return !r.bad && len(r.rest) == 0 }
