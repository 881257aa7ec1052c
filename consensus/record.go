package consensus

import (
	"encoding/binary"
	"hash/crc32"
	"iter"
)

// A segment of the raft log is a file that was filled with zeros when it was
// made, so that writing to it changes nothing but its content: one flush of data
// makes an append durable. It begins with a head of segmentHead bytes (magic; at
// 32 the index of its first entry and the size of the file, 8 bytes each; then the
// CRC-32C of these 48 bytes); records follow, each at a multiple of recordAlign:
//
//	magic (4), length of the body (4), CRC-32C of what follows and of the body (4),
//	flags (4), index (8), body
//
// all little-endian. What lies behind the last record is zeros.
const (
	segmentMagic   = "agenticraft raft log v1\n"
	segmentHead    = 64
	segmentBytes   = 8 << 20
	recordMagic    = 0x4C524341
	recordHeader   = 24
	recordAlign    = 8
	beginsBatch    = 1       // flag of the first record of an append
	maxRecordBytes = 2 << 20 // of a body
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is an entry of the raft log as it is stored.
type record struct {
	index uint64
	first bool // of its append
	body  []byte
}

func recordSize(body int) int {
	return (recordHeader + body + recordAlign - 1) / recordAlign * recordAlign
}

func appendRecord(out []byte, r record) []byte {
	at := len(out)
	out = append(out, make([]byte, recordSize(len(r.body)))...)
	raw := out[at:]
	binary.LittleEndian.PutUint32(raw, recordMagic)
	binary.LittleEndian.PutUint32(raw[4:], uint32(len(r.body)))
	if r.first {
		binary.LittleEndian.PutUint32(raw[12:], beginsBatch)
	}
	binary.LittleEndian.PutUint64(raw[16:], r.index)
	copy(raw[recordHeader:], r.body)
	binary.LittleEndian.PutUint32(raw[8:], crc32.Checksum(raw[12:recordHeader+len(r.body)], castagnoli))
	return out
}

// readRecord reads the record that raw begins with. The body is part of raw.
func readRecord(raw []byte) (r record, ok bool) {
	if len(raw) < recordHeader || binary.LittleEndian.Uint32(raw) != recordMagic {
		return record{}, false
	}
	size := binary.LittleEndian.Uint32(raw[4:])
	if size > maxRecordBytes || recordSize(int(size)) > len(raw) {
		return record{}, false
	}
	end := recordHeader + int(size)
	flags := binary.LittleEndian.Uint32(raw[12:])
	if flags > beginsBatch || binary.LittleEndian.Uint32(raw[8:]) != crc32.Checksum(raw[12:end], castagnoli) {
		return record{}, false
	}
	return record{index: binary.LittleEndian.Uint64(raw[16:]), first: flags == beginsBatch, body: raw[recordHeader:end]}, true
}

func encodeSegmentHead(first uint64, size int64) []byte {
	head := make([]byte, segmentHead)
	copy(head, segmentMagic)
	binary.LittleEndian.PutUint64(head[32:], first)
	binary.LittleEndian.PutUint64(head[40:], uint64(size))
	binary.LittleEndian.PutUint32(head[48:], crc32.Checksum(head[:48], castagnoli))
	return head
}

func decodeSegmentHead(head []byte) (first uint64, size int64, ok bool) {
	if len(head) < segmentHead || string(head[:len(segmentMagic)]) != segmentMagic ||
		binary.LittleEndian.Uint32(head[48:]) != crc32.Checksum(head[:48], castagnoli) {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(head[32:]), int64(binary.LittleEndian.Uint64(head[40:])), true
}

// corruptAt is the offset of an entry that cannot be read.
const corruptAt = -1

// scanned is what a segment was found to hold.
type scanned struct {
	offsets []int64 // by entry, from the segment's first on
	end     int64   // where the next record goes
	torn    bool    // something other than zeros is behind end
}

// scanSegment finds the records of a segment. What it cannot read is the rest of
// an append that was cut short, if it is at the end of the log's last segment
// and no later append is behind it: only a finished append is followed by
// another one. Anything else is corruption, and the entries are marked.
func scanSegment(data []byte, first uint64, last bool) scanned {
	s := scanned{end: segmentHead}
	for want := first; ; want++ {
		r, ok := readRecord(data[s.end:])
		if ok && r.index == want {
			s.offsets = append(s.offsets, s.end)
			s.end += int64(recordSize(len(r.body)))
			continue
		}
		if zeros(data[s.end:]) {
			return s
		}
		next, later := int64(0), false
		for at, r := range recordsFrom(data, s.end+recordAlign) {
			if r.index <= want || r.index-want > uint64(len(data))/recordHeader {
				continue // of an earlier state of the file; there should be none
			}
			if next == 0 {
				next = at
			}
			if r.first {
				later = true
				break
			}
		}
		if next == 0 || last && !later {
			s.torn = true
			return s
		}
		found, _ := readRecord(data[next:])
		for ; want < found.index; want++ {
			s.offsets = append(s.offsets, corruptAt)
		}
		s.end = next
		want-- // the loop counts on
	}
}

// recordsFrom yields the readable records at or behind an offset.
func recordsFrom(data []byte, from int64) iter.Seq2[int64, record] {
	return func(yield func(int64, record) bool) {
		for at := from; at+recordHeader <= int64(len(data)); {
			r, ok := readRecord(data[at:])
			if !ok {
				at += recordAlign
				continue
			}
			if !yield(at, r) {
				return
			}
			at += int64(recordSize(len(r.body)))
		}
	}
}

func zeros(data []byte) bool {
	for len(data) >= 8 {
		if binary.LittleEndian.Uint64(data) != 0 {
			return false
		}
		data = data[8:]
	}
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}
