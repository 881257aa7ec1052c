package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// entryVersion begins the payload of every raft entry of ours. A keeper that
// meets another version stops, for it cannot know what it would skip.
const entryVersion byte = 1

var errEntry = errors.New("raft entry is not understood")

// packEntry merges commands: the version byte, then each command behind its
// length as a uvarint.
func packEntry(cmds [][]byte) []byte {
	size := 1
	for _, cmd := range cmds {
		size += binary.MaxVarintLen32 + len(cmd)
	}
	out := make([]byte, 1, size)
	out[0] = entryVersion
	for _, cmd := range cmds {
		out = binary.AppendUvarint(out, uint64(len(cmd)))
		out = append(out, cmd...)
	}
	return out
}

// unpackEntry is the inverse of packEntry. The commands share entry's memory.
func unpackEntry(entry []byte) ([][]byte, error) {
	if len(entry) < 2 {
		return nil, fmt.Errorf("%w: %d bytes", errEntry, len(entry))
	}
	if entry[0] != entryVersion {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", errEntry, entry[0], entryVersion)
	}
	var cmds [][]byte
	for rest := entry[1:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest)
		if n <= 0 || n != len(binary.AppendUvarint(nil, size)) || size > uint64(len(rest)-n) {
			return nil, fmt.Errorf("%w: command %d is cut short", errEntry, len(cmds))
		}
		end := n + int(size)
		cmds = append(cmds, rest[n:end:end])
		rest = rest[end:]
	}
	return cmds, nil
}
