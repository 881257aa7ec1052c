package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	// ExportProofType is how the first line of an export's proof begins.
	ExportProofType = "agenticraft-export-proof"
	// MaxProofLine is the size limit of a line of an export's proof in bytes.
	MaxProofLine = 256 << 10

	exportProofVersion = 1
)

// ExportProof is the first line of the proof of an export: what was exported,
// and the cosigned checkpoint that the entries are proved against. Behind it
// come, in the order of the log, the entries, and for every stretch between
// them the hashes of the subtrees that cover it; so that who reads it once, in
// constant memory, has computed the root.
type ExportProof struct {
	Checkpoint string     `json:"checkpoint"` // cosigned note
	Filter     ReadFilter `json:"filter"`
	Format     string     `json:"format"` // of the export that it belongs to
	Type       string     `json:"type"`   // [ExportProofType]
	V          int        `json:"v"`
}

// proofSkip are the subtrees that cover the entries from From up to Until,
// which is exclusive: largest aligned ones, in order.
type proofSkip struct {
	From   uint64 `json:"from"`
	Hashes []Hash `json:"hashes"`
	Until  uint64 `json:"until"`
}

type proofSkipLine struct {
	Skip proofSkip `json:"skip"`
}

type proofEndLine struct {
	End struct {
		Count uint64 `json:"count"` // entries
	} `json:"end"`
}

// Export yields the entries of the first size that fit the filter, oldest
// first: from f.Cursor on, and at most f.Limit of them if it is not 0.
func (s *Store) Export(ctx context.Context, f Filter, size uint64) iter.Seq2[Indexed, error] {
	left, all := f.Limit, f.Limit == 0
	f.Newest, f.Limit = false, MaxLimit
	return func(yield func(Indexed, error) bool) {
		for {
			page, err := s.Query(ctx, f)
			if err != nil {
				yield(Indexed{}, err)
				return
			}
			for _, one := range page.Entries {
				if one.Index >= size || left == 0 && !all || !yield(one, nil) {
					return
				}
				left--
			}
			if page.Next == "" {
				return
			}
			f.Cursor = page.Next
		}
	}
}

// WriteExportProof writes the proof of an export of the entries that fit f,
// under a checkpoint of this log: at is what the cosigned note says.
func (s *Store) WriteExportProof(ctx context.Context, w io.Writer, f Filter, format string, at Checkpoint, note []byte) error {
	f.Cursor, f.Limit = "", 0 // a proof is of all that fits
	head := ExportProof{Checkpoint: string(note), Filter: f.Text(), Format: format, Type: ExportProofType, V: exportProofVersion}
	if err := writeLine(w, head); err != nil {
		return err
	}
	next, count := uint64(0), uint64(0)
	for one, err := range s.Export(ctx, f, at.Size) {
		if err != nil {
			return err
		}
		if err := s.writeSkip(w, next, one.Index); err != nil {
			return err
		}
		if _, err := w.Write(EntryLine(one)); err != nil {
			return err
		}
		next, count = one.Index+1, count+1
	}
	if err := s.writeSkip(w, next, at.Size); err != nil {
		return err
	}
	var end proofEndLine
	end.End.Count = count
	return writeLine(w, end)
}

// EntryLine is an entry as exports write it: one line, the leaf as it is in the
// log.
func EntryLine(one Indexed) []byte {
	return fmt.Appendf(nil, "{\"index\":%d,\"entry\":%s}\n", one.Index, one.Leaf)
}

func writeLine(w io.Writer, v any) error {
	text, err := marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

func (s *Store) writeSkip(w io.Writer, from, until uint64) error {
	if from == until {
		return nil
	}
	skip := proofSkip{From: from, Until: until}
	err := s.view(func(tx *bbolt.Tx) error {
		var indexes []int64
		for _, level := range cover(from, until) {
			indexes = append(indexes, tlog.StoredHashIndex(level, int64(from)>>level))
			from += 1 << level
		}
		hashes, err := treeReader(tx).ReadHashes(indexes)
		skip.Hashes = fromTlog(hashes)
		return err
	})
	if err != nil {
		return err
	}
	return writeLine(w, proofSkipLine{skip})
}

// cover gives the levels of the largest aligned subtrees that make up the
// entries from from up to until.
func cover(from, until uint64) (levels []int) {
	for from < until {
		level := bits.Len64(until-from) - 1
		if from != 0 {
			level = min(level, bits.TrailingZeros64(from))
		}
		levels = append(levels, level)
		from += 1 << level
	}
	return levels
}

// ExportReport is what [VerifyExport] found.
type ExportReport struct {
	Head   ExportProof `json:"-"`
	Size   uint64      `json:"size"`  // of the log that the entries are proved to be in
	Count  uint64      `json:"count"` // entries
	Checks []Check     `json:"checks"`
}

// VerifyExport checks the proof of an export against trust and nothing else: a
// quorum's checkpoint, that every entry is in that log at its index and fits
// the filter. each is given every entry, which is proved only if no error is
// returned in the end; an error wraps [ErrInvalid] and names the first line
// that is wrong.
func VerifyExport(ctx context.Context, r io.Reader, trust Trust, each func(Indexed) error) (ExportReport, error) {
	v := &exportCheck{in: bufio.NewReaderSize(r, 64<<10), each: each}
	err := v.run(ctx, trust)
	if err != nil && v.failed == "" {
		v.failed = "format"
	}
	if err != nil {
		v.note(v.failed, err.Error(), false)
	}
	return v.report, err
}

type exportCheck struct {
	in     *bufio.Reader
	each   func(Indexed) error
	report ExportReport
	failed string // the check under way

	line  int
	next  uint64 // index of what comes next
	edge  []subtree
	seen  uint64
	wants Filter
}

// subtree is a perfect subtree on the left of what is still to come.
type subtree struct {
	level int
	hash  tlog.Hash
}

func (v *exportCheck) note(name, found string, ok bool) {
	v.report.Checks = append(v.report.Checks, Check{Name: name, OK: ok, Detail: found})
}

func (v *exportCheck) run(ctx context.Context, trust Trust) error {
	at, err := v.head(trust)
	if err != nil {
		return err
	}
	v.failed = "entries"
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		text, err := v.read()
		if err != nil {
			return err
		}
		done, err := v.take(text, at)
		if err != nil {
			return v.bad(err)
		}
		if done {
			break
		}
	}
	if _, err := v.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: there is more after line %d, which is the end", ErrInvalid, v.line)
	}
	v.note("entries", fmt.Sprintf("%d entries, each well-formed and fitting the filter", v.seen), true)
	v.failed = "inclusion"
	if root := v.root(); v.next != at.Size || root != at.Root {
		return fmt.Errorf("%w: an entry or a hash was changed, left out or put in: the root is %s, the keepers signed %s", ErrInvalid, root, at.Root)
	}
	v.note("inclusion", fmt.Sprintf("all of them are in the log of %d entries that the keepers signed", at.Size), true)
	v.report.Count = v.seen
	if v.seen == at.Size {
		v.note("complete", fmt.Sprintf("no entry from 0 to %d is left out", at.Size-1), true)
	}
	return nil
}

func (v *exportCheck) head(trust Trust) (Checkpoint, error) {
	text, err := v.read()
	if err != nil {
		return Checkpoint{}, err
	}
	head := &v.report.Head
	if err := exactLine(text, head); err != nil {
		return Checkpoint{}, v.bad(err)
	}
	if head.Type != ExportProofType || head.V != exportProofVersion || !plain(head.Format, maxID) {
		return Checkpoint{}, v.bad(fmt.Errorf("%w: not the proof of an export, or of a version that is not known", ErrInvalid))
	}
	if v.wants, err = head.Filter.Filter(); err != nil {
		return Checkpoint{}, v.bad(err)
	}
	v.note("format", "proof of an export, version 1", true)
	v.failed = "checkpoint"
	at, n, by, err := trust.verify([]byte(head.Checkpoint))
	if err != nil {
		return Checkpoint{}, err
	}
	if !exactNote([]byte(head.Checkpoint), n) || at.Size == 0 {
		return Checkpoint{}, fmt.Errorf("%w: the checkpoint holds more than signatures of known keepers", ErrInvalid)
	}
	v.note("checkpoint", fmt.Sprintf("log of %d entries, signed by %d keepers, needed are %d", at.Size, len(by), trust.Quorum), true)
	v.report.Size = at.Size
	return at, nil
}

// take reads one line behind the first.
func (v *exportCheck) take(text []byte, at Checkpoint) (done bool, err error) {
	switch {
	case bytes.HasPrefix(text, []byte(`{"skip":`)):
		var line proofSkipLine
		if err := exactLine(text, &line); err != nil {
			return false, err
		}
		return false, v.skip(line.Skip, at)
	case bytes.HasPrefix(text, []byte(`{"end":`)):
		var line proofEndLine
		if err := exactLine(text, &line); err != nil {
			return false, err
		}
		if line.End.Count != v.seen {
			return false, fmt.Errorf("%w: there should be %d entries, there are %d", ErrInvalid, line.End.Count, v.seen)
		}
		return true, nil
	}
	one, err := ParseEntryLine(text)
	switch {
	case err != nil:
		return false, err
	case one.Index != v.next || one.Index >= at.Size:
		return false, fmt.Errorf("%w: entry %d stands where entry %d should", ErrInvalid, one.Index, v.next)
	case !v.wants.match(one.Entry):
		return false, fmt.Errorf("%w: entry %d does not fit the filter", ErrInvalid, one.Index)
	}
	v.add(subtree{0, tlog.Hash(LeafHash(one.Leaf))})
	v.seen++
	return false, v.each(one)
}

func (v *exportCheck) skip(s proofSkip, at Checkpoint) error {
	if s.From != v.next || s.Until <= s.From || s.Until > at.Size {
		return fmt.Errorf("%w: a stretch from %d to %d stands where entry %d should", ErrInvalid, s.From, s.Until, v.next)
	}
	levels := cover(s.From, s.Until)
	if len(levels) != len(s.Hashes) {
		return fmt.Errorf("%w: the stretch from %d to %d needs %d hashes, there are %d", ErrInvalid, s.From, s.Until, len(levels), len(s.Hashes))
	}
	for i, level := range levels {
		v.add(subtree{level, tlog.Hash(s.Hashes[i])})
	}
	return nil
}

// add puts a subtree behind those that there are, and joins equals.
func (v *exportCheck) add(s subtree) {
	v.next += 1 << s.level
	for len(v.edge) > 0 && v.edge[len(v.edge)-1].level == s.level {
		s = subtree{s.level + 1, tlog.NodeHash(v.edge[len(v.edge)-1].hash, s.hash)}
		v.edge = v.edge[:len(v.edge)-1]
	}
	v.edge = append(v.edge, s)
}

func (v *exportCheck) root() Hash {
	if len(v.edge) == 0 {
		return Hash{}
	}
	root := v.edge[len(v.edge)-1].hash
	for i := len(v.edge) - 2; i >= 0; i-- {
		root = tlog.NodeHash(v.edge[i].hash, root)
	}
	return Hash(root)
}

// read reads a line without its end.
func (v *exportCheck) read() ([]byte, error) {
	v.line++
	text, err := ReadLine(v.in)
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: the file ends before line %d", ErrInvalid, v.line)
	}
	if err != nil {
		return nil, v.bad(err)
	}
	return text, nil
}

func (v *exportCheck) bad(err error) error { return fmt.Errorf("line %d: %w", v.line, err) }

// ReadLine reads a line of an export's proof, without its end. io.EOF: there is
// none, or it has no end.
func ReadLine(in *bufio.Reader) ([]byte, error) {
	var text []byte
	for {
		part, err := in.ReadSlice('\n')
		text = append(text, part...)
		if len(text) > MaxProofLine {
			return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrInvalid, MaxProofLine)
		}
		if err == nil {
			return bytes.TrimSuffix(text, []byte{'\n'}), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// exactLine decodes a line that must be exactly what writing it gives.
func exactLine(text []byte, into any) error {
	if depth(text) > maxDepth {
		return fmt.Errorf("%w: it nests too deeply", ErrInvalid)
	}
	if err := decodeStrict(text, into); err != nil {
		return err
	}
	again, err := marshal(into)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, text) {
		return fmt.Errorf("%w: it is not in the one form that proofs are written in", ErrInvalid)
	}
	return nil
}

// ParseEntryLine reads what [EntryLine] wrote, without its end.
func ParseEntryLine(text []byte) (Indexed, error) {
	var line struct {
		Index uint64          `json:"index"`
		Entry json.RawMessage `json:"entry"`
	}
	if depth(text) > maxDepth+1 {
		return Indexed{}, fmt.Errorf("%w: it nests too deeply", ErrInvalid)
	}
	if err := json.Unmarshal(text, &line); err != nil {
		return Indexed{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e, err := DecodeEntry(line.Entry)
	if err != nil {
		return Indexed{}, fmt.Errorf("entry %d: %w", line.Index, err)
	}
	one := Indexed{Index: line.Index, Entry: e, Leaf: line.Entry}
	if !bytes.Equal(bytes.TrimSuffix(EntryLine(one), []byte{'\n'}), text) {
		return Indexed{}, fmt.Errorf("%w: entry %d is not in the one form that exports are written in", ErrInvalid, line.Index)
	}
	return one, nil
}
