package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
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
// admission rules' state is checked for its structure only; [VerifyReplay]
// proves it.
func VerifyDir(ctx context.Context, dir string, trust *Trust) (DirReport, error) {
	return verifyDir(ctx, dir, &dirCheck{}, trust)
}

// Rules are the rules by which a log was written, to replay it by.
type Rules struct {
	Admit func(origin string) Admission // the rules of the log of that name
	State Tx                            // empty, in memory
}

// VerifyReplay is [VerifyDir], and replays every entry through the admission
// rules: that they let it in, and that the state which they kept is the one that
// follows from the entries.
func VerifyReplay(ctx context.Context, dir string, trust *Trust, rules Rules) (DirReport, error) {
	return verifyDir(ctx, dir, &dirCheck{rules: &rules}, trust)
}

// VerifyHashes is [VerifyDir] without what is dear: it checks that no entry is
// missing, every hash of the tree and every signed root, which is all that it
// takes to notice that an entry is not what the keepers signed. It does not
// check the form of entries, their authors' signatures, or the look-ups.
func VerifyHashes(ctx context.Context, dir string, trust *Trust) (DirReport, error) {
	return verifyDir(ctx, dir, &dirCheck{hashesOnly: true}, trust)
}

func verifyDir(ctx context.Context, dir string, v *dirCheck, trust *Trust) (DirReport, error) {
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
	v.begin(ctx, trust)
	if err = v.signed(dir); err == nil {
		v.file, err = openBoltFile(f, info.Size())
		err = faulty(err)
	}
	if err == nil {
		err = v.run()
	}
	report, err := v.result(err)
	if err != nil {
		return DirReport{}, fmt.Errorf("verify %s: %w", dir, err)
	}
	return report, nil
}

// begin makes a check ready.
func (v *dirCheck) begin(ctx context.Context, trust *Trust) {
	v.ctx, v.open, v.notes = ctx, make(map[uint64]bool), make(map[uint64][]byte)
	v.check = "file"
	if trust != nil {
		own := *trust // it grows with the epochs of the log
		v.trust = &own
	}
}

// result is the report of a check that ended with err: a fault stands in it.
func (v *dirCheck) result(err error) (DirReport, error) {
	if bad, ok := errors.AsType[*badError](err); ok {
		bad.Check = v.check
		v.report.Bad = &bad.BadEntry
		return v.report, nil
	}
	if err != nil {
		return DirReport{}, err
	}
	return v.report, nil
}

// faulty tells of what cannot be read as of a fault of the log.
func faulty(err error) error {
	if err == nil {
		return nil
	}
	return bad(0, err.Error())
}

// dirCheck is one verification under way.
type dirCheck struct {
	ctx   context.Context
	trust *Trust
	// hashesOnly leaves out form, authors, rules and look-ups.
	hashesOnly bool
	progress   func(checked, size uint64) // told now and then; may be nil
	rules      *Rules                     // to replay the entries through; nil: they are not
	admit      Admission

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

// run checks v.file.
func (v *dirCheck) run() error {
	if err := v.start(); err != nil {
		return err
	}
	if err := v.notesOf(); err != nil {
		return err
	}
	if err := v.entries(math.MaxUint64, v.end); err != nil || v.hashesOnly {
		return err
	}
	v.check = "lookup"
	return v.derived()
}

// entries checks the entries from the next one on up to but without the index
// until, and then does what comes behind them.
func (v *dirCheck) entries(until uint64, then func() error) error {
	first := v.report.Size
	var stopTree, stopBatches func()
	v.tree, stopTree = v.file.ahead(v.buckets[string(bucketTree)], key64(uint64(tlog.StoredHashIndex(0, int64(first)))))
	defer stopTree()
	v.batches, stopBatches = v.file.ahead(v.buckets[string(bucketBatches)], key64(first))
	defer stopBatches()
	for e, err := range v.readAhead(v.buckets[string(bucketEntries)], first, until) {
		at := v.report.Size
		v.check = "sequence"
		if err != nil {
			return bad(at, err.Error())
		}
		if at%verifyChunk == 0 {
			if v.ctx.Err() != nil {
				return v.ctx.Err()
			}
			if v.progress != nil {
				v.progress(at, v.applied.size)
			}
		}
		if !bytes.Equal(e.key, key64(at)) {
			return v.missing(at, "the entry is missing")
		}
		if at == v.applied.size {
			return bad(at, "the entry is beyond the size that the store gives")
		}
		if err := v.entry(at, e); err != nil {
			return err
		}
	}
	return then()
}

// signed reads what lies beside the log in its folder: what this node signed
// last, and what is known to contradict the log.
func (v *dirCheck) signed(dir string) (err error) {
	if v.pledge, err = readPledge(filepath.Join(dir, cosignedFile)); err != nil {
		return bad(0, err.Error())
	}
	v.against, v.accuser, err = Contradiction(dir)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return bad(0, err.Error())
	}
	return nil
}

// start reads everything in the file but the entries.
func (v *dirCheck) start() (err error) {
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
	if v.pledge.Size > 0 && v.pledge.Origin != v.report.Origin {
		return bad(0, cosignedFile+" is of another log")
	}
	return nil
}

// notesOf reads the checkpoints.
func (v *dirCheck) notesOf() error {
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
