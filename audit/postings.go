package audit

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
)

// The index holds, for each thing that a filter can name, which entries have
// it. Entries stand in blocks; a block's entries of one term are one value, so
// that an entry costs two bytes a term and a frequent term 512 bytes a block.
const (
	blockBits   = 12
	blockSize   = 1 << blockBits // entries
	bitmapBytes = blockSize / 8
	termBytes   = 1 + 8
	zoneBytes   = 16
)

// term is a sort of thing and a hash of its name. Two names may have the same
// hash: what the index finds is held against the filter again.
type term [termBytes]byte

// The sorts of terms.
const (
	byActor    = 'a' // who asked, or on whose behalf
	byBehalf   = 'b'
	byDecision = 'd'
	byKind     = 'k'
	byPolicy   = 'p'
	byResource = 'r'
)

func termOf(sort byte, name string) term { return fnvStart.add(name).term(sort) }

// fnv1a is the state of a 64-bit FNV-1a hash, as hash/fnv computes it, which needs
// no copy of the text.
type fnv1a uint64

const (
	fnvStart fnv1a = 14695981039346656037
	fnvPrime fnv1a = 1099511628211
)

func (h fnv1a) add(text string) fnv1a {
	for i := range len(text) {
		h = (h ^ fnv1a(text[i])) * fnvPrime
	}
	return h
}

func (h fnv1a) term(sort byte) (t term) {
	t[0] = sort
	binary.BigEndian.PutUint64(t[1:], uint64(h))
	return t
}

// terms are all that a filter can find the entry by, but for time and its task,
// which bucketTasks of the log knows: as good as every entry has another one.
func (e Entry) terms() []term {
	out := make([]term, 0, 16)
	out = append(out, termOf(byKind, string(e.Kind)))
	add := func(sort byte, name string) {
		if name != "" {
			out = append(out, termOf(sort, name))
		}
	}
	add(byActor, e.Actor)
	add(byActor, e.OnBehalf)
	add(byBehalf, e.OnBehalf)
	if e.Decision != nil {
		add(byDecision, decisionWord(e.Decision.Allow))
	}
	for _, digest := range e.policies() {
		add(byPolicy, digest)
	}
	e.about(func(sort, name string) {
		if name == "" || sort == sortTask && name == e.Task {
			return
		}
		out = append(out, fnvStart.add(sort).add(":").add(name).term(byResource), termOf(byResource, name))
	})
	return out
}

func decisionWord(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}

// group is what an entry must have one of to match.
type group struct {
	terms []term
	at    []uint64 // entries that have it beside those found by a term, in order
}

// groups are those of a filter. task gives the indexes of a task's entries.
func (f Filter) groups(task func(string) ([]uint64, error)) ([]group, error) {
	var out []group
	one := func(sort byte, name string) {
		if name != "" {
			out = append(out, group{terms: []term{termOf(sort, name)}})
		}
	}
	one(byActor, f.Actor)
	one(byBehalf, f.OnBehalf)
	one(byDecision, f.Decision)
	one(byPolicy, f.Policy)
	if f.Resource != "" {
		at, err := task(strings.TrimPrefix(f.Resource, sortTask+":"))
		if err != nil {
			return nil, err
		}
		out = append(out, group{[]term{termOf(byResource, f.Resource)}, at})
	}
	var kinds []term
	for _, k := range f.Kinds {
		kinds = append(kinds, termOf(byKind, string(k)))
	}
	if kinds != nil {
		out = append(out, group{terms: kinds})
	}
	return out, nil
}

// times is a range of times in Unix milliseconds, both inclusive.
type times struct{ from, until int64 }

func (f Filter) times() times {
	s := times{math.MinInt64, math.MaxInt64}
	if !f.Since.IsZero() {
		s.from = ceil(f.Since).UnixMilli()
	}
	if !f.Until.IsZero() {
		s.until = ceil(f.Until).UnixMilli() - 1
	}
	return s
}

func (s times) overlaps(o times) bool { return s.from <= o.until && o.from <= s.until }

// set is some entries of a block, as a bitmap.
type set [blockSize / 64]uint64

func (s *set) add(at uint16) { s[at/64] |= 1 << (at % 64) }

func (s *set) union(o *set) {
	for i := range s {
		s[i] |= o[i]
	}
}

// intersect reports whether anything is left.
func (s *set) intersect(o *set) bool {
	any := uint64(0)
	for i := range s {
		s[i] &= o[i]
		any |= s[i]
	}
	return any != 0
}

// indexes lists the entries of the set in block, from low to high, both
// inclusive.
func (s *set) indexes(block, low, high uint64) []uint64 {
	var out []uint64
	for i, word := range s {
		for ; word != 0; word &= word - 1 {
			index := block<<blockBits + uint64(i*64+bits.TrailingZeros64(word))
			if index >= low && index <= high {
				out = append(out, index)
			}
		}
	}
	return out
}

// encode writes the offsets of few entries, or the bitmap of many.
func (s *set) encode() []byte {
	count := 0
	for _, word := range s {
		count += bits.OnesCount64(word)
	}
	out := make([]byte, 0, bitmapBytes)
	if 2*count >= bitmapBytes {
		for _, word := range s {
			out = binary.BigEndian.AppendUint64(out, word)
		}
		return out
	}
	for i, word := range s {
		for ; word != 0; word &= word - 1 {
			out = binary.BigEndian.AppendUint16(out, uint16(i*64+bits.TrailingZeros64(word)))
		}
	}
	return out
}

func decodeSet(raw []byte) (s set, ok bool) {
	switch {
	case len(raw) == bitmapBytes:
		for i := range s {
			s[i] = binary.BigEndian.Uint64(raw[8*i:])
		}
	case len(raw) > bitmapBytes || len(raw)%2 != 0:
		return set{}, false
	default:
		for ; len(raw) > 0; raw = raw[2:] {
			at := binary.BigEndian.Uint16(raw)
			if at >= blockSize {
				return set{}, false
			}
			s.add(at)
		}
	}
	return s, true
}

// posting is a term in a block.
type posting [termBytes + 8]byte

func postingOf(t term, block uint64) (p posting) {
	copy(p[:], t[:])
	binary.BigEndian.PutUint64(p[termBytes:], block)
	return p
}

// newPostings collects what a run of entries adds to the index.
type newPostings struct {
	sets  map[posting]*set
	zones map[uint64]times // by block
}

func (n *newPostings) add(one *indexable) error {
	at, err := ParseTime(one.entry.Time)
	if err != nil {
		return err
	}
	block, offset, ms := one.index>>blockBits, uint16(one.index%blockSize), at.UnixMilli()
	zone, ok := n.zones[block]
	if !ok {
		zone = times{ms, ms}
	}
	n.zones[block] = times{min(zone.from, ms), max(zone.until, ms)}
	for _, t := range one.entry.terms() {
		key := postingOf(t, block)
		here := n.sets[key]
		if here == nil {
			here = new(set)
			n.sets[key] = here
		}
		here.add(offset)
	}
	return nil
}

// write merges the postings into the buckets, in the order of keys.
func (n *newPostings) write(postings, zones *bbolt.Bucket) error {
	keys := slices.SortedFunc(maps.Keys(n.sets), func(a, b posting) int { return bytes.Compare(a[:], b[:]) })
	for _, key := range keys {
		s := n.sets[key]
		old, ok := decodeSet(postings.Get(key[:]))
		if !ok {
			return errIndexDamaged
		}
		s.union(&old)
		if err := postings.Put(key[:], s.encode()); err != nil {
			return err
		}
	}
	for block, zone := range n.zones {
		if raw := zones.Get(key64(block)); raw != nil {
			old, ok := decodeZone(raw)
			if !ok {
				return errIndexDamaged
			}
			zone = times{min(zone.from, old.from), max(zone.until, old.until)}
		}
		raw := binary.BigEndian.AppendUint64(key64(uint64(zone.from)), uint64(zone.until))
		if err := zones.Put(key64(block), raw); err != nil {
			return err
		}
	}
	return nil
}

func decodeZone(raw []byte) (times, bool) {
	if len(raw) != zoneBytes {
		return times{}, false
	}
	return times{int64(binary.BigEndian.Uint64(raw)), int64(binary.BigEndian.Uint64(raw[8:]))}, true
}

// finder walks the blocks of an index in one direction, jumping over those in
// which a group has no entry.
type finder struct {
	cursor *bbolt.Cursor // of the postings
	zones  *bbolt.Bucket
	groups []group
	times  times
	newest bool
}

// block finds the entries of one block that have something of each group; if
// none has, next is where to go on (beyond the last block, or -1, at the end).
func (s *finder) block(block int64) (found set, any bool, next int64, err error) {
	step := int64(1)
	if s.newest {
		step = -1
	}
	zone, ok := decodeZone(s.zones.Get(key64(uint64(block))))
	switch {
	case !ok:
		return set{}, false, 0, errIndexDamaged
	case !zone.overlaps(s.times):
		return set{}, false, block + step, nil
	}
	for i := range found {
		found[i] = math.MaxUint64
	}
	for _, group := range s.groups {
		var here set
		in, nearest := false, int64(-1)
		if !s.newest {
			nearest = math.MaxInt64
		}
		elsewhere := func(at int64) {
			if s.newest {
				nearest = max(nearest, at)
			} else {
				nearest = min(nearest, at)
			}
		}
		for _, t := range group.terms {
			at, raw := s.seek(t, block)
			switch {
			case raw == nil:
			case at == block:
				one, ok := decodeSet(raw)
				if !ok {
					return set{}, false, 0, errIndexDamaged
				}
				here.union(&one)
				in = true
			default:
				elsewhere(at)
			}
		}
		from, _ := slices.BinarySearch(group.at, uint64(block)<<blockBits)
		until, _ := slices.BinarySearch(group.at, uint64(block+1)<<blockBits)
		for _, index := range group.at[from:until] {
			here.add(uint16(index % blockSize))
			in = true
		}
		switch {
		case s.newest && from > 0:
			elsewhere(int64(group.at[from-1] >> blockBits))
		case !s.newest && until < len(group.at):
			elsewhere(int64(group.at[until] >> blockBits))
		}
		if !in {
			return set{}, false, nearest, nil
		}
		if !found.intersect(&here) {
			return set{}, false, block + step, nil
		}
	}
	return found, true, 0, nil
}

// seek finds the term's nearest block that is not behind the given one.
func (s *finder) seek(t term, block int64) (at int64, raw []byte) {
	want := postingOf(t, uint64(block))
	key, raw := s.cursor.Seek(want[:])
	if s.newest && !bytes.Equal(key, want[:]) {
		if key == nil {
			key, raw = s.cursor.Last()
		} else {
			key, raw = s.cursor.Prev()
		}
	}
	if len(key) != termBytes+8 || !bytes.HasPrefix(key, t[:]) {
		return 0, nil
	}
	return int64(binary.BigEndian.Uint64(key[termBytes:])), raw
}
