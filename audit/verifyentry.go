package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// edgeHash is the newest hash of a level of the tree.
type edgeHash struct {
	n    int64
	hash tlog.Hash
	set  bool
}

// openBatch is an attestation whose entries are being compared.
type openBatch struct {
	Attestation
	rest []Hash // of admitted entries still to come
}

// entry verifies the entry at index at, which is the next one.
func (v *dirCheck) entry(at uint64, read *verifiedLeaf) error {
	if v.hashesOnly {
		return v.entryHashes(at, read)
	}
	v.check = "form"
	hash, leaf := read.hash, read.leaf
	if read.err != nil {
		return badLeaf(at, read.err.Error(), hash.String(), v.expected(at))
	}
	e := *read.entry
	for _, step := range []struct {
		check string
		do    func() error
	}{
		{"author", func() error { return v.attested(at, e, hash) }},
		{"tree", func() error { return v.hashes(at, hash) }},
		{"rules", func() error { return v.outcomes(at, e) }},
		{"lookup", func() error { return v.lookups(at, e) }},
		{"keepers", func() error { return v.epoch(at, e, leaf) }},
		{"state", func() error { return v.replay(at, e) }},
	} {
		v.check = step.check
		if err := step.do(); err != nil {
			return err
		}
	}
	v.report.Size, v.check = at+1, "checkpoint"
	return v.signedRoot(at + 1)
}

// entryHashes verifies what can be told of the entry by hashes alone.
func (v *dirCheck) entryHashes(at uint64, read *verifiedLeaf) error {
	v.check = "author"
	if at == 0 {
		if want := LeafHash(v.genesis); read.hash != want {
			return badHash(at, "it is not the first entry of this log", read.hash, want)
		}
	}
	v.check = "tree"
	if err := v.hashes(at, read.hash); err != nil {
		return err
	}
	v.check = "keepers"
	if read.err != nil {
		return bad(at, read.err.Error())
	}
	if read.entry != nil {
		if err := v.epoch(at, *read.entry, read.leaf); err != nil {
			return err
		}
	}
	v.report.Size, v.check = at+1, "checkpoint"
	return v.signedRoot(at + 1)
}

// expected is the leaf hash that the entry at index at, the next one, should
// have by its author's signature; "" if that cannot be told.
func (v *dirCheck) expected(at uint64) string {
	if at == 0 {
		return LeafHash(v.genesis).String()
	}
	if v.batch == nil || len(v.batch.rest) == 0 {
		if v.nextBatch(at) != nil {
			return ""
		}
	}
	return v.batch.rest[0].String()
}

// missing tells of an entry that is not there, and what it should have been.
func (v *dirCheck) missing(at uint64, what string) error {
	return badLeaf(at, what, "", v.expected(at))
}

// epoch follows a change of keepers: checkpoints from here on are the next
// ones' to sign.
func (v *dirCheck) epoch(at uint64, e Entry, leaf []byte) error {
	if e.Kind != KindEpoch || v.trust == nil {
		return nil
	}
	next, err := v.trust.step(at, leaf)
	if err != nil {
		return bad(at, err.Error())
	}
	v.trust = &next
	return nil
}

// attested checks that the author signed the entry.
func (v *dirCheck) attested(at uint64, e Entry, hash Hash) error {
	if at == 0 {
		if e.Kind != KindGenesis || hash != LeafHash(v.genesis) {
			return badHash(at, "it is not the first entry of this log", hash, LeafHash(v.genesis))
		}
		return nil
	}
	if e.Kind == KindGenesis {
		return bad(at, "a second genesis entry")
	}
	if v.batch == nil || len(v.batch.rest) == 0 {
		if err := v.nextBatch(at); err != nil {
			return err
		}
	}
	if want := v.batch.rest[0]; hash != want {
		return badHash(at, "it is not what its author signed", hash, want)
	}
	v.batch.rest = v.batch.rest[1:]
	if e.Author != v.batch.Author {
		return &badError{BadEntry{Index: at, What: "it names another author than the one who signed it", Got: string(e.Author), Want: string(v.batch.Author)}}
	}
	return nil
}

func (v *dirCheck) nextBatch(at uint64) error {
	e, err, ok := v.batches()
	switch {
	case err != nil:
		return bad(at, "its author's signature: "+err.Error())
	case !ok || !bytes.Equal(e.key, key64(at)):
		return bad(at, "its author's signature is missing")
	}
	a, admitted, err := decodeRecord(e.value)
	if err != nil {
		return bad(at, "its author's signature: "+err.Error())
	}
	if !a.Verify(v.report.Origin) {
		return bad(at, "its author's signature is not valid")
	}
	v.batch = &openBatch{Attestation: a}
	for i, in := range admitted {
		if in {
			v.batch.rest = append(v.batch.rest, a.Hashes[i])
		}
	}
	if len(v.batch.rest) == 0 {
		return bad(at, "its author's signature names no entry")
	}
	return nil
}

// hashes computes the tree hashes that the entry completes, and compares them
// with the stored ones. Each is of the last complete subtree of its level and,
// below the last, of the one before it.
func (v *dirCheck) hashes(at uint64, leaf Hash) error {
	hash := tlog.Hash(leaf)
	index := uint64(tlog.StoredHashIndex(0, int64(at)))
	for level := 0; ; level++ {
		e, err, ok := v.tree()
		switch {
		case err != nil:
			return bad(at, "tree hash: "+err.Error())
		case !ok || len(e.key) != 8 || binary.BigEndian.Uint64(e.key) != index+uint64(level):
			return bad(at, "a tree hash is missing")
		case !bytes.Equal(e.value, hash[:]):
			return &badError{BadEntry{Index: at, What: fmt.Sprintf("tree hash at level %d", level), Got: base64.StdEncoding.EncodeToString(e.value), Want: hash.String()}}
		}
		left := v.edge[level].hash
		v.edge[level] = edgeHash{int64(at) >> level, hash, true}
		if at>>level&1 == 0 {
			return nil
		}
		hash = tlog.NodeHash(left, hash)
	}
}

// ReadHashes gives tlog the computed hashes at the tree's right edge: it needs
// no others to go on.
func (v *dirCheck) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		if level >= len(v.edge) || !v.edge[level].set || v.edge[level].n != n {
			return nil, fmt.Errorf("%w: hash %d of level %d is not at the edge", ErrInvalid, n, level)
		}
		out[i] = v.edge[level].hash
	}
	return out, nil
}

// outcomes checks those rules that tie entries together and need no state but the
// open intents.
func (v *dirCheck) outcomes(at uint64, e Entry) error {
	switch e.Kind {
	case KindIntent:
		v.open[at] = true
	case KindOutcome:
		if !v.open[*e.Ref] {
			return bad(at, fmt.Sprintf("an outcome for entry %d, which is no intent or has one", *e.Ref))
		}
		delete(v.open, *e.Ref)
	}
	return nil
}

// lookups checks that the entry is found by what a store looks it up by.
func (v *dirCheck) lookups(at uint64, e Entry) error {
	want := func(bucket, key, value []byte) error {
		got, err := v.file.get(v.buckets[string(bucket)], key)
		if err != nil {
			return bad(at, fmt.Sprintf("look-up by %s: %v", bucket, err))
		}
		if got == nil || !bytes.Equal(got, value) {
			return bad(at, fmt.Sprintf("it is not found by %s", bucket))
		}
		return nil
	}
	if err := want(bucketIDs, idKey(e), key64(at)); err != nil {
		return err
	}
	if e.Once != nil {
		v.counts.once++
		if err := want(bucketOnce, []byte(e.Once.Key), append(key64(at), e.Once.Digest...)); err != nil {
			return err
		}
	}
	if e.Task == "" {
		return nil
	}
	v.counts.tasks++
	return want(bucketTasks, taskKey(e.Task, e.Attempt, roleOf(e.Kind), at), []byte(e.Author))
}
