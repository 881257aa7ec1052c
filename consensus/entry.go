package consensus

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const entryHead = 1 + 8 + 8 // bytes: type, term, time

// encodeEntry: type (1 byte), term, time of append (Unix
// nanoseconds), length of extensions (uvarint), extensions, data.
func encodeEntry(entry *raft.Log) []byte {
	body := make([]byte, 0, entryHead+binary.MaxVarintLen32+len(entry.Extensions)+len(entry.Data))
	body = append(body, byte(entry.Type))
	body = binary.BigEndian.AppendUint64(body, entry.Term)
	var at int64
	if !entry.AppendedAt.IsZero() {
		at = entry.AppendedAt.UnixNano()
	}
	body = binary.BigEndian.AppendUint64(body, uint64(at))
	body = binary.AppendUvarint(body, uint64(len(entry.Extensions)))
	body = append(body, entry.Extensions...)
	return append(body, entry.Data...)
}

// decodeEntry takes the body of a record apart, which it keeps.
func decodeEntry(index uint64, body []byte, entry *raft.Log) error {
	corrupt := fmt.Errorf("raft log entry %d: %w", index, ErrCorrupt)
	if len(body) < entryHead {
		return corrupt
	}
	*entry = raft.Log{Index: index, Type: raft.LogType(body[0]), Term: binary.BigEndian.Uint64(body[1:])}
	if at := int64(binary.BigEndian.Uint64(body[9:])); at != 0 {
		entry.AppendedAt = time.Unix(0, at)
	}
	rest := body[17:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > uint64(len(rest)-n) {
		return corrupt
	}
	rest = rest[n:]
	if size > 0 {
		entry.Extensions = append([]byte{}, rest[:size]...)
	}
	entry.Data = rest[size:]
	return nil
}
