package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/agenticraft/node/identity"
)

// VerifyDir checks the data folder of a stopped node, or a copy of one,
// without a cluster and without changing it: the form of every entry, its
// author's signature, that none is missing, every tree hash, every stored
// checkpoint and what is derived for look-ups. With trust it also checks whose
// log it is and that a quorum signed the checkpoints. A fault, however damaged
// the file is, is told in the report's Bad; an error is a folder that could not
// be examined ([ErrNotFound], [ErrInUse], ctx).
//
// It reads what a store would read. Free pages of the file can hold old copies
// of entries: a change there changes nothing, and is not looked for. The
// admission rules' state is checked for its structure only; replaying the
// entries through the rules proves it.
func VerifyDir(ctx context.Context, dir string, trust *Trust) (DirReport, error) {
	// Opening a pipe would wait for who writes to it.
	name := filepath.Join(dir, storeFile)
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return DirReport{}, fmt.Errorf("verify %s: %s is not a regular file: %w", dir, storeFile, ErrInvalid)
	}
	f, err := os.Open(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return DirReport{}, fmt.Errorf("verify %s: no %s there: %w", dir, storeFile, ErrNotFound)
	case err != nil:
		return DirReport{}, fmt.Errorf("verify %s: %w", dir, err)
	}
	defer f.Close()
	if busy, err := inUse(f); err != nil || busy {
		if busy {
			err = ErrInUse
		}
		return DirReport{}, fmt.Errorf("verify %s: %w", dir, err)
	}
	info, err := f.Stat()
	if err != nil {
		return DirReport{}, fmt.Errorf("verify %s: %w", dir, err)
	}
	v := &dirCheck{ctx: ctx, open: make(map[uint64]bool), notes: make(map[uint64][]byte)}
	if trust != nil {
		own := *trust // it grows with the epochs of the log
		v.trust = &own
	}
	err = v.run(f, info.Size(), filepath.Join(dir, cosignedFile))
	if bad, ok := errors.AsType[*badError](err); ok {
		bad.Check = v.check
		v.report.Bad = &bad.BadEntry
		return v.report, nil
	}
	if err != nil {
		return DirReport{}, fmt.Errorf("verify %s: %w", dir, err)
	}
	return v.report, nil
}

// dirCheck is one verification under way.
type dirCheck struct {
	ctx     context.Context
	trust   *Trust
	file    *boltFile
	buckets map[string]boltBucketRef
	report  DirReport
	check   string // the one under way

	applied applied
	genesis []byte
	notes   map[uint64][]byte // size -> checkpoint that is not verified yet
	pledge  pledge
	against Checkpoint // contradicts the log, if there is an accuser
	accuser []byte

	tree    func() (boltElem, error, bool)
	batches func() (boltElem, error, bool)
	edge    [64]edgeHash // newest hash of each level
	batch   *openBatch
	open    map[uint64]bool // intents without outcome
	counts  struct{ once, tasks int }
}

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

func (v *dirCheck) run(f *os.File, size int64, cosigned string) error {
	v.check = "file"
	if err := v.start(f, size, cosigned); err != nil {
		return err
	}
	tree, stopTree := iter.Pull2(v.file.all(v.buckets[string(bucketTree)]))
	defer stopTree()
	batches, stopBatches := iter.Pull2(v.file.all(v.buckets[string(bucketBatches)]))
	defer stopBatches()
	v.tree, v.batches = tree, batches
	for e, err := range v.file.all(v.buckets[string(bucketEntries)]) {
		at := v.report.Size
		v.check = "sequence"
		if err != nil {
			return bad(at, err.Error())
		}
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if !bytes.Equal(e.key, key64(at)) {
			return v.missing(at, "the entry is missing")
		}
		if at == v.applied.size {
			return bad(at, "the entry is beyond the size that the store gives")
		}
		if err := v.entry(at, e.value); err != nil {
			return err
		}
	}
	v.check = "end"
	if err := v.end(); err != nil {
		return err
	}
	v.check = "lookup"
	return v.derived()
}

// start reads everything but the entries.
func (v *dirCheck) start(f *os.File, size int64, cosigned string) (err error) {
	if v.file, err = openBoltFile(f, size); err != nil {
		return bad(0, err.Error())
	}
	if v.buckets, err = v.file.buckets(); err != nil {
		return bad(0, err.Error())
	}
	for _, name := range [][]byte{
		bucketMeta, bucketEntries, bucketTree, bucketBatches, bucketIDs,
		bucketOnce, bucketTasks, bucketOpen, bucketState, bucketNotes,
	} {
		if _, ok := v.buckets[string(name)]; !ok {
			return bad(0, fmt.Sprintf("the store has no bucket %q", name))
		}
	}
	if err := v.meta(); err != nil {
		return bad(0, err.Error())
	}
	if v.trust != nil && v.trust.Origin != v.report.Origin {
		return &badError{BadEntry{What: "it is the first entry of another log", Got: v.report.Origin, Want: v.trust.Origin}}
	}
	for e, err := range v.file.all(v.buckets[string(bucketNotes)]) {
		if err != nil {
			return bad(0, "checkpoints: "+err.Error())
		}
		if len(e.key) != 8 || len(e.value) > maxNote {
			return bad(0, "checkpoints: malformed")
		}
		v.notes[binary.BigEndian.Uint64(e.key)] = bytes.Clone(e.value)
	}
	if put := v.buckets[string(bucketNotes)].sequence; uint64(len(v.notes)) != min(put, keptNotes) {
		return bad(0, fmt.Sprintf("checkpoints: %d are there of %d that were put in", len(v.notes), put))
	}
	if v.pledge, err = readPledge(cosigned); err != nil {
		return bad(0, err.Error())
	}
	v.against, v.accuser, err = Contradiction(filepath.Dir(cosigned))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return bad(0, err.Error())
	}
	if v.pledge.Size > 0 && v.pledge.Origin != v.report.Origin {
		return bad(0, cosignedFile+" is of another log")
	}
	return nil
}

func (v *dirCheck) meta() error {
	values := make(map[string][]byte)
	for e, err := range v.file.all(v.buckets[string(bucketMeta)]) {
		if err != nil {
			return err
		}
		values[string(e.key)] = bytes.Clone(e.value)
	}
	if string(values[string(keySchema)]) != schema {
		return fmt.Errorf("%w: schema %q", ErrInvalid, clip(string(values[string(keySchema)])))
	}
	at, err := decodeApplied(values[string(keyApplied)])
	if err != nil {
		return err
	}
	if at.size == 0 || at.size > maxNumber {
		return fmt.Errorf("%w: size %d", ErrInvalid, at.size)
	}
	v.applied, v.genesis = at, values[string(keyGenesis)]
	v.report.Origin = OriginOf(v.genesis)
	return nil
}

// checkpoint verifies the stored checkpoint of a size, by those who were
// keepers then, and returns the root that they signed.
func (v *dirCheck) checkpoint(size uint64, text []byte) (Hash, error) {
	fail := func(why any) (Hash, error) {
		return Hash{}, bad(size-min(size, 1), fmt.Sprintf("the checkpoint that covers it: %v", why))
	}
	claimed, n, _, err := openNote(text, nil)
	if err != nil {
		return fail(err)
	}
	var c Checkpoint
	var by []identity.ID
	if v.trust != nil {
		c, n, by, err = v.trust.verify(text)
	} else {
		// Every signer's name is its key: the signatures can be checked, though
		// not whether these are the right signers.
		var ids []identity.ID
		for _, sig := range n.UnverifiedSigs {
			ids = append(ids, identity.ID(sig.Name))
		}
		c, n, by, err = openNote(text, ids)
	}
	switch {
	case err != nil:
		return fail(err)
	case c != claimed || c.Origin != v.report.Origin || c.Size != size || size == 0:
		return fail("it is of another log or size")
	case !exactNote(text, n) || len(by) == 0:
		return fail("it holds more than valid signatures")
	}
	v.report.Checkpoint = &c
	v.report.Checkpoints++
	if v.trust != nil {
		v.report.SignedBy = by
	}
	return c.Root, nil
}

// entry verifies the entry at index at, which is the next one.
func (v *dirCheck) entry(at uint64, leaf []byte) error {
	v.check = "form"
	hash := LeafHash(leaf)
	e, err := DecodeEntry(leaf)
	if err != nil {
		return badLeaf(at, err.Error(), hash.String(), v.expected(at))
	}
	for _, step := range []struct {
		check string
		do    func() error
	}{
		{"author", func() error { return v.attested(at, e, hash) }},
		{"tree", func() error { return v.hashes(at, hash) }},
		{"rules", func() error { return v.rules(at, e) }},
		{"lookup", func() error { return v.lookups(at, e) }},
		{"keepers", func() error { return v.epoch(at, e, leaf) }},
	} {
		v.check = step.check
		if err := step.do(); err != nil {
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
// with the stored ones.
func (v *dirCheck) hashes(at uint64, leaf Hash) error {
	hashes, err := tlog.StoredHashesForRecordHash(int64(at), tlog.Hash(leaf), v)
	if err != nil {
		return bad(at, err.Error())
	}
	for level, want := range hashes {
		index := tlog.StoredHashIndex(level, int64(at)>>level)
		e, err, ok := v.tree()
		switch {
		case err != nil:
			return bad(at, "tree hash: "+err.Error())
		case !ok || !bytes.Equal(e.key, key64(uint64(index))):
			return bad(at, "a tree hash is missing")
		case !bytes.Equal(e.value, want[:]):
			return &badError{BadEntry{Index: at, What: fmt.Sprintf("tree hash at level %d", level), Got: base64.StdEncoding.EncodeToString(e.value), Want: want.String()}}
		}
		v.edge[level] = edgeHash{int64(at) >> level, want, true}
	}
	return nil
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

// rules checks those rules that tie entries together and need no state but the
// open intents.
func (v *dirCheck) rules(at uint64, e Entry) error {
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

// signedRoot compares the root with what was signed for this size.
func (v *dirCheck) signedRoot(size uint64) error {
	pledged := v.pledge.Size == size
	text, noted := v.notes[size]
	accused := v.accuser != nil && v.against.Size == size
	if !pledged && !noted && !accused {
		return nil
	}
	var signed Hash
	if noted {
		var err error
		if signed, err = v.checkpoint(size, text); err != nil {
			return err
		}
		delete(v.notes, size)
	}
	h, err := tlog.TreeHash(int64(size), v)
	if err != nil {
		return bad(size-1, err.Error())
	}
	if accused {
		if _, err := v.checkpoint(size, v.accuser); err != nil {
			return err
		}
		if Hash(h) != v.against.Root {
			return badHash(size-1, "it, or one before, is not what a quorum of keepers signed ("+contradictionFile+"): root", Hash(h), v.against.Root)
		}
	}
	if noted && Hash(h) != signed {
		return badHash(size-1, "it, or one since the checkpoint before, is not what the keepers signed: root", Hash(h), signed)
	}
	if pledged && Hash(h) != v.pledge.Root {
		return badHash(size-1, "it, or one before, is not what this node signed ("+cosignedFile+"): root", Hash(h), v.pledge.Root)
	}
	return nil
}

// end checks that nothing is missing after the last entry and nothing is left
// over.
func (v *dirCheck) end() error {
	size := v.report.Size
	if size != v.applied.size {
		return v.missing(size, fmt.Sprintf("the entry is missing, the store should have %d", v.applied.size))
	}
	if v.batch != nil && len(v.batch.rest) > 0 {
		return v.missing(size, "the entry is missing, its author signed it with the one before")
	}
	if _, err, ok := v.tree(); err != nil || ok {
		return bad(size, "tree hashes go on after the last entry")
	}
	if _, err, ok := v.batches(); err != nil || ok {
		return bad(size, "signatures go on after the last entry")
	}
	if v.accuser != nil && v.against.Size > size {
		return bad(size, fmt.Sprintf("the entry is missing, a quorum of keepers signed a log of %d entries (%s)", v.against.Size, contradictionFile))
	}
	if v.pledge.Size > size {
		return bad(size, fmt.Sprintf("the entry is missing, a log of %d entries was signed", v.pledge.Size))
	}
	if len(v.notes) > 0 {
		signed := slices.Min(slices.Collect(maps.Keys(v.notes)))
		if _, err := v.checkpoint(signed, v.notes[signed]); err != nil || signed <= size {
			return errors.Join(err, bad(0, "a checkpoint has no size"))
		}
		return bad(size, fmt.Sprintf("the entry is missing, a log of %d entries was signed", signed))
	}
	root, err := tlog.TreeHash(int64(size), v)
	if err != nil {
		return bad(size-1, err.Error())
	}
	v.report.Root, v.report.Unsigned = Hash(root), size
	if c := v.report.Checkpoint; c != nil {
		v.report.Unsigned = size - c.Size
	}
	return nil
}

// derived checks that look-ups hold nothing but the entries, and that the rest
// of the file can be read.
func (v *dirCheck) derived() error {
	size := v.report.Size
	counts := map[string]int{
		string(bucketIDs): int(size), string(bucketOnce): v.counts.once,
		string(bucketTasks): v.counts.tasks, string(bucketOpen): len(v.open),
	}
	for _, name := range slices.Sorted(maps.Keys(v.buckets)) {
		n := 0
		for e, err := range v.file.all(v.buckets[name]) {
			if err != nil {
				return bad(size-1, fmt.Sprintf("bucket %q: %v", clip(name), err))
			}
			if name == string(bucketOpen) && (len(e.key) != 8 || !v.open[binary.BigEndian.Uint64(e.key)]) {
				return bad(size-1, "the list of open intents is wrong")
			}
			n++
		}
		if want, ok := counts[name]; ok && n != want {
			return bad(size-1, fmt.Sprintf("look-up by %s has %d keys, not %d", name, n, want))
		}
	}
	if err := v.file.checkFree(); err != nil {
		return bad(size-1, err.Error())
	}
	return nil
}
