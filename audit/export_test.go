package audit

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/agenticraft/node/identity"
)

// SignBatch makes the command that a recorder would.
func SignBatch(key *identity.Key, origin string, leaves [][]byte) []byte {
	return signBatch(key, origin, leaves)
}

// Encode writes the receipt's file.
func (r Receipt) Encode() ([]byte, error) { return r.encode() }

// RefusalCodes are the codes in the answer to a command; "" for what was not
// refused.
func RefusalCodes(answer []byte) ([]string, error) {
	results, err := decodeResults(answer)
	var codes []string
	for _, r := range results {
		code := ""
		if r.refusal != nil {
			code = r.refusal.Code
		}
		codes = append(codes, code)
	}
	return codes, err
}

// Queued is how many entries wait for a lane.
func (r *Recorder) Queued() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue)
}

// BatchSize is how many entries a command holds; 0: it is malformed.
func BatchSize(cmd []byte) int {
	b, _ := decodeBatch(cmd)
	return len(b.leaves)
}

// AppendedAll answers a command whose entries were all appended, from index on.
func AppendedAll(cmd []byte, index uint64) []byte {
	results := make([]result, BatchSize(cmd))
	for i := range results {
		results[i] = result{code: codeAppended, index: index + uint64(i)}
	}
	return encodeResults(results)
}

// ReencodeBatch decodes a command and encodes it again.
func ReencodeBatch(cmd []byte) ([]byte, error) {
	b, err := decodeBatch(cmd)
	if err != nil {
		return nil, err
	}
	return b.encode(), nil
}

// DecodeWire feeds in to the other decoders of outside bytes.
func DecodeWire(in []byte) {
	_, _ = decodeBatches(in)
	_, _, _ = decodeRecord(in)
	_, _, _, _ = openNote(in, nil)
}

// Key64 is the key of an index.
func Key64(n uint64) []byte { return key64(n) }

// CheckStep is how many entries [Store.Verify] checks at once.
const CheckStep = checkStep

// Dir is the store's folder.
func (s *Store) Dir() string { return s.dir }

// DumpFile lists what our reader of bbolt files sees.
func DumpFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	b, err := openBoltFile(f, info.Size())
	if err != nil {
		return "", err
	}
	buckets, err := b.buckets()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, bucket := range slices.Sorted(maps.Keys(buckets)) {
		fmt.Fprintf(&out, "%s\n", bucket)
		for e, err := range b.all(buckets[bucket]) {
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&out, "%x %x\n", e.key, e.value)
		}
	}
	return out.String(), nil
}

// FailAt makes the store's writes fail at a stage, "before commit", "after
// commit" or "before redo"; a nil error ends all that.
func (s *Store) FailAt(tb testing.TB, stage string, err error) {
	tb.Helper()
	s.applying.Lock()
	defer s.applying.Unlock()
	s.fault = func(at string) error {
		if at == stage {
			return err
		}
		return nil
	}
}

// FailAlso makes them fail at one more stage.
func (s *Store) FailAlso(tb testing.TB, stage string, err error) {
	tb.Helper()
	s.applying.Lock()
	defer s.applying.Unlock()
	before := s.fault
	s.fault = func(at string) error {
		if at == stage {
			return err
		}
		return before(at)
	}
}

// ParseHead reads a keeper's answer to a mirror.
func ParseHead(answer []byte) ([]Step, []byte, error) {
	h, err := parseHead(answer)
	return h.Steps, []byte(h.Checkpoint), err
}

// ParseEpochAsk reads a keeper's request for another one's word, and says how
// many keepers it names.
func ParseEpochAsk(body []byte) (int, error) {
	ask, err := parseEpochAsk(body)
	return len(ask.Keepers), err
}

// Indexed is how many entries the query index covers.
func (s *Store) Indexed() uint64 { return s.index.covered() }

// WithoutIndex makes queries read the log.
func (s *Store) WithoutIndex(fn func()) {
	doubted := &s.index.doubted
	doubted.Store(true)
	defer doubted.Store(false)
	fn()
}

// CosignAll is a checkpoint signed by all keys at one time.
func CosignAll(keys []*identity.Key, c Checkpoint, at time.Time) ([]byte, error) {
	var notes []*note.Note
	for _, key := range keys {
		text, err := cosign(key, c, at)
		if err != nil {
			return nil, err
		}
		_, n, _, err := openNote(text, []identity.ID{key.ID()})
		if err != nil {
			return nil, err
		}
		notes = append(notes, n)
	}
	return mergeNotes(notes)
}

// Beside has the store do something that Close waits for.
func (s *Store) Beside(do func()) { s.beside(do) }

// ApplyParts has a store catch up with parts that are all there at once.
func ApplyParts(s *Store, meta []byte, all ...Batches) error {
	var to snapshotMeta
	if err := decodeStrict(meta, &to); err != nil {
		return err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	parts, next := make(chan part, len(all)), s.applied.size
	for _, one := range all {
		p, err := s.decodePart(one, next, to.Size, make(chan uint64, 1))
		if err != nil {
			return err
		}
		parts <- p
		next = p.next
	}
	close(parts)
	_, err := s.applyParts(<-parts, parts, s.applied, to)
	return err
}

// MayBeginEpoch is a quick look at a leaf, and what it is quick for.
var (
	MayBeginEpoch = mayBeginEpoch
	EpochMark     = epochMark
)
