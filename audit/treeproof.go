package audit

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/agenticraft/node/internal/recent"
)

// upperLevel is the lowest level of the tree of which hashes are remembered. Each
// node above it is of 256 entries or more, so that those of a million entries are
// 8,000, and what a proof reads from the disk and hashes does not grow with the
// log.
const (
	upperLevel = 7
	upperHalf  = 16 << 10 // nodes above it
)

// upperNode is the hash of a node of the tree with those of its children, of
// which it was found to be made. A node whose subtree is full never changes.
type upperNode struct{ hash, left, right tlog.Hash }

// rightEdge is what lies right of the full subtree of a level in a tree of one
// size. There are few that proofs are asked for, and the hash of one never changes.
type rightEdge struct {
	size  uint64
	level int
}

// edgesHalf is how many of them are remembered at least.
const edgesHalf = 256

// upperPath is what lies beside the way from a node of upperLevel up to a full subtree
// that it is in. All entries under the node share it.
type upperPath struct {
	hash     tlog.Hash // of the node, as the root of the subtree has it
	siblings []Hash    // from the node up
}

// pathKey names one: the nth node of upperLevel, and the level of the subtree.
type pathKey struct {
	n     uint64
	level int
}

// pathsHalf is how many of them are remembered at least: those of a million entries.
const pathsHalf = 8 << 10

// proofMemory is what is remembered from proof to proof; the zero value remembers
// nothing.
type proofMemory struct {
	upper *recent.Map[int64, upperNode] // by index as a stored hash
	edges *recent.Map[rightEdge, tlog.Hash]
	paths *recent.Map[pathKey, upperPath]
}

func newProofMemory() proofMemory {
	return proofMemory{&recent.Map[int64, upperNode]{Half: upperHalf}, &recent.Map[rightEdge, tlog.Hash]{Half: edgesHalf}, &recent.Map[pathKey, upperPath]{Half: pathsHalf}}
}

// prover makes inclusion proofs from what one transaction sees.
type prover struct {
	stored *bbolt.Cursor
	at     uint64 // index of the stored hash that the cursor is at, if on
	on     bool
	known  proofMemory
}

// nearHash is how many stored hashes the cursor goes over to reach another, rather
// than look for it from the root of the bucket: half a page or so.
const nearHash = 24

// seek moves the cursor to a stored hash. Their keys have no gaps.
func (p *prover) seek(index uint64) (key, raw []byte) {
	defer func() { p.at, p.on = index, key != nil }()
	for step := p.at; p.on && step < index && index-p.at <= nearHash; step++ {
		key, raw = p.stored.Next()
	}
	for step := p.at; p.on && step > index && p.at-index <= nearHash; step-- {
		key, raw = p.stored.Prev()
	}
	if len(key) == 8 && binary.BigEndian.Uint64(key) == index {
		return key, raw
	}
	var want [8]byte
	binary.BigEndian.PutUint64(want[:], index)
	return p.stored.Seek(want[:])
}

// read reads the stored hash of a node.
func (p *prover) read(level int, n uint64) (h tlog.Hash, err error) {
	index := uint64(tlog.StoredHashIndex(level, int64(n)))
	key, raw := p.seek(index)
	if len(key) != 8 || binary.BigEndian.Uint64(key) != index || len(raw) != len(h) {
		return h, fmt.Errorf("%w: tree hash %d is missing", ErrDamaged, index)
	}
	copy(h[:], raw)
	return h, nil
}

// upper is a node above upperLevel.
func (p *prover) upper(level int, n uint64) (upperNode, error) {
	index := tlog.StoredHashIndex(level, int64(n))
	if u, ok := p.known.upper.Get(index); ok {
		return u, nil
	}
	var u upperNode
	var err error
	if u.hash, err = p.read(level, n); err != nil {
		return u, err
	}
	if u.left, err = p.read(level-1, 2*n); err != nil {
		return u, err
	}
	if u.right, err = p.read(level-1, 2*n+1); err != nil {
		return u, err
	}
	if tlog.NodeHash(u.left, u.right) != u.hash {
		return u, fmt.Errorf("%w: hash %d of level %d of the tree is not that of its children", ErrDamaged, n, level)
	}
	p.known.upper.Put(index, u)
	return u, nil
}

// node is the hash of a node.
func (p *prover) node(level int, n uint64) (tlog.Hash, error) {
	if level <= upperLevel {
		return p.read(level, n)
	}
	u, err := p.upper(level, n)
	return u.hash, err
}

// proveEntry makes a proof that holds: what the disk changed makes none. It is
// the audit path of RFC 6962, section 2.1.1: the siblings within the full subtree
// that the entry is in, then what lies right of it as one hash, then the full
// subtrees left of it, the nearest first.
func proveEntry(tx *bbolt.Tx, known proofMemory, index, size uint64) ([]Hash, error) {
	p := &prover{stored: tx.Bucket(bucketTree).Cursor(), known: known}
	var proof, left []Hash
	var right []int // levels of the full subtrees right of the entry's
	for rest, until := size, uint64(0); rest > 0; {
		level := bits.Len64(rest) - 1
		n := until >> level
		until, rest = until+1<<level, rest-1<<level
		var err error
		switch {
		case index >= until:
			var h tlog.Hash
			h, err = p.node(level, n)
			left = append(left, Hash(h))
		case proof == nil:
			proof, err = p.within(level, index)
		default:
			right = append(right, level)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(right) > 0 {
		joined, err := p.joined(right, size)
		if err != nil {
			return nil, err
		}
		proof = append(proof, Hash(joined))
	}
	slices.Reverse(left)
	return append(proof, left...), nil
}

// joined is the hash of the full subtrees of the given levels that a tree of a
// size ends with, each joined to what lies right of it.
func (p *prover) joined(levels []int, size uint64) (joined tlog.Hash, err error) {
	edge := rightEdge{size, levels[0]}
	if known, ok := p.known.edges.Get(edge); ok {
		return known, nil
	}
	end := size
	for i, level := range slices.Backward(levels) {
		end -= 1 << level
		h, err := p.node(level, end>>level)
		if err != nil {
			return joined, err
		}
		if i < len(levels)-1 {
			h = tlog.NodeHash(h, joined)
		}
		joined = h
	}
	p.known.edges.Put(edge, joined)
	return joined, nil
}

// path is the way from the nth node of upperLevel up to the full subtree of a level.
func (p *prover) path(level int, n uint64) (upperPath, error) {
	key := pathKey{n, level}
	if known, ok := p.known.paths.Get(key); ok {
		return known, nil
	}
	var way upperPath
	u, err := p.upper(level, n>>(level-upperLevel))
	if err != nil {
		return way, err
	}
	way.siblings = make([]Hash, level-upperLevel)
	for {
		// From the top down every node is what the one above it says.
		level--
		sibling := u.right
		if way.hash = u.left; n>>(level-upperLevel)&1 == 1 {
			way.hash, sibling = u.right, u.left
		}
		way.siblings[level-upperLevel] = Hash(sibling)
		if level == upperLevel {
			break
		}
		if u, err = p.upper(level, n>>(level-upperLevel)); err != nil {
			return way, err
		}
		if u.hash != way.hash {
			return way, fmt.Errorf("%w: hashes of the tree above entry %d", ErrDamaged, n<<upperLevel)
		}
	}
	p.known.paths.Put(key, way)
	return way, nil
}

// within gives the siblings of an entry in the full subtree of a level, from the
// leaf up, and checks that they lead to its root.
func (p *prover) within(level int, index uint64) ([]Hash, error) {
	proof := make([]Hash, level, level+bits.Len64(index)+1)
	var top tlog.Hash
	var err error
	if level > upperLevel {
		var way upperPath
		way, err = p.path(level, index>>upperLevel)
		copy(proof[upperLevel:], way.siblings)
		top, level = way.hash, upperLevel
	} else {
		top, err = p.read(level, index>>level)
	}
	if err != nil {
		return nil, err
	}
	hash, err := p.read(0, index)
	if err != nil {
		return nil, err
	}
	for i := range level {
		n := index >> i
		sibling, err := p.read(i, n^1)
		if err != nil {
			return nil, err
		}
		proof[i] = Hash(sibling)
		if n&1 == 0 {
			hash = tlog.NodeHash(hash, sibling)
		} else {
			hash = tlog.NodeHash(sibling, hash)
		}
	}
	if hash != top {
		return nil, fmt.Errorf("%w: hashes of the tree above entry %d", ErrDamaged, index)
	}
	return proof, nil
}
