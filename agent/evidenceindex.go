package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/agenticraft/node/internal/durable"
)

// Which tasks' evidence has a part with a digest stands in one file, a record for
// each task: the task (16 bytes), how many parts (2, big-endian), the first 8 bytes
// of the SHA-256 of each, and a CRC-32C of all that. No run waits for it: whoever
// looks for a digest adds what is not in it yet first, and so does the sweep. It
// can be made anew from the evidence, and is when a record is damaged.
const (
	digestsFile = "digests"
	taskBytes   = 16
	tagBytes    = 8
	maxTags     = 1 << 16
	// maxFound is how many tasks one look-up gives, the last in the file.
	maxFound = 64
)

var (
	digestTable = crc32.MakeTable(crc32.Castagnoli)
	errDigests  = errors.New("the index of digests is damaged")
	digestName  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// tagsOf is a task's record.
func tagsOf(task string, parts []EvidencePart) []byte {
	id := keyOf(task)
	var tags []byte
	for _, p := range parts {
		sum, err := hex.DecodeString(p.SHA256)
		if err == nil && p.Bytes > 0 && len(tags) < maxTags*tagBytes-tagBytes { // whoever looks for nothing finds everybody
			tags = append(tags, sum[:tagBytes]...)
		}
	}
	out := binary.BigEndian.AppendUint16(id[:], uint16(len(tags)/tagBytes))
	out = append(out, tags...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, digestTable))
}

// eachDigest calls fn for each record of the file. A file that is not there has none.
func (e *Evidence) eachDigest(fn func(task taskKey, tags, record []byte) error) error {
	f, err := os.Open(filepath.Join(e.dir, digestsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the index of digests: %w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 256<<10)
	record := make([]byte, 0, 1<<10)
	for {
		record = append(record[:0], make([]byte, taskBytes+2)...)
		switch _, err := io.ReadFull(in, record); {
		case err == io.EOF:
			return nil
		case err != nil:
			return errors.Join(errDigests, err)
		}
		size := int(binary.BigEndian.Uint16(record[taskBytes:])) * tagBytes
		record = append(record, make([]byte, size+4)...)
		if _, err := io.ReadFull(in, record[taskBytes+2:]); err != nil {
			return errors.Join(errDigests, err)
		}
		whole := len(record) - 4
		if crc32.Checksum(record[:whole], digestTable) != binary.BigEndian.Uint32(record[whole:]) {
			return errDigests
		}
		if err := fn(taskKey(record), record[taskBytes+2:whole], record); err != nil {
			return err
		}
	}
}

// indexDigests brings the index in step with what is kept: what is new is added,
// what is gone is no longer in it.
func (e *Evidence) indexDigests(ctx context.Context) error {
	e.indexing.Lock()
	defer e.indexing.Unlock()
	return e.indexLocked(ctx)
}

func (e *Evidence) indexLocked(ctx context.Context) error {
	missing := map[taskKey]bool{} // at first all that are kept
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return fmt.Errorf("list evidence: %w", err)
	}
	for _, entry := range entries {
		task, ok := strings.CutSuffix(entry.Name(), evidenceExt)
		if ok && taskName.MatchString(task) {
			missing[keyOf(task)] = true
		}
	}
	e.small.tasks(missing)
	known, stale, err := e.indexed(missing, nil)
	if err != nil {
		return err
	}
	if stale {
		var kept bytes.Buffer
		if known, _, err = e.indexed(missing, &kept); err != nil {
			return err
		}
		if err := durable.WriteFile(filepath.Join(e.dir, digestsFile), kept.Bytes(), evidencePerm); err != nil {
			return fmt.Errorf("write the index of digests: %w", err)
		}
	}
	for task := range known {
		delete(missing, task)
	}
	return e.addDigests(ctx, missing)
}

// indexed are the tasks that the index has, of those that there are, up to a
// damaged record. stale means that it has more than them, or is damaged. Their
// records go to out, if it is not nil.
func (e *Evidence) indexed(there map[taskKey]bool, out *bytes.Buffer) (known map[taskKey]bool, stale bool, err error) {
	known = map[taskKey]bool{}
	err = e.eachDigest(func(task taskKey, _, record []byte) error {
		if !there[task] || known[task] {
			stale = true
			return nil
		}
		known[task] = true
		if out != nil {
			out.Write(record)
		}
		return nil
	})
	if errors.Is(err, errDigests) {
		return known, true, nil
	}
	return known, stale, err
}

// addDigests adds tasks at the end of the file.
func (e *Evidence) addDigests(ctx context.Context, tasks map[taskKey]bool) (err error) {
	if len(tasks) == 0 {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(e.dir, digestsFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, evidencePerm)
	if err != nil {
		return fmt.Errorf("write the index of digests: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriterSize(f, 64<<10)
	for id := range tasks {
		if ctx.Err() != nil {
			break // what was read is not lost
		}
		task := hex.EncodeToString(id[:])
		var parts []EvidencePart
		ev, err := e.get(task)
		if errors.Is(err, fs.ErrNotExist) {
			continue // erased meanwhile
		}
		if err == nil {
			parts, err = ev.parts()
		}
		if err != nil {
			parts = nil // damaged: it has no part that anybody could look for
		}
		if _, err := out.Write(tagsOf(task, parts)); err != nil {
			return fmt.Errorf("write the index of digests: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the index of digests: %w", err)
	}
	return ctx.Err()
}

// withDigest are tasks whose evidence may have a part with the SHA-256 digest, in
// hex: the index holds beginnings of digests only.
func (e *Evidence) withDigest(ctx context.Context, digest string) ([]string, error) {
	sum, err := hex.DecodeString(digest)
	if err != nil {
		return nil, err
	}
	e.indexing.Lock()
	defer e.indexing.Unlock()
	if err := e.indexLocked(ctx); err != nil {
		return nil, err
	}
	var tasks []string
	err = e.eachDigest(func(task taskKey, tags, _ []byte) error {
		for ; len(tags) > 0; tags = tags[tagBytes:] {
			if bytes.Equal(tags[:tagBytes], sum[:tagBytes]) {
				tasks = append(tasks, hex.EncodeToString(task[:]))
				break
			}
		}
		if len(tasks) > 2*maxFound {
			tasks = append(tasks[:0], tasks[len(tasks)-maxFound:]...)
		}
		return ctx.Err()
	})
	return tasks[max(0, len(tasks)-maxFound):], err
}
