package natsrpc

import (
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/agenticraft/node/a2a"
)

// kind is what a message of a reply is.
type kind string

const (
	kindMore   kind = "more"   // a piece; the next message goes on with it
	kindAnswer kind = "answer" // the whole answer, or its last piece; nothing follows
	kindEvent  kind = "event"  // an event of a stream, or its last piece
	kindAlive  kind = "alive"  // nothing yet
	kindEnd    kind = "end"    // of a stream, in good order
	kindCut    kind = "cut"    // the node gives up this reply, not the task
)

// frame is one message of a reply, whole: pieces are put together.
type frame struct {
	kind   kind
	event  string // id of an event, "" if it has none
	header nats.Header
	data   []byte
}

// assembler puts the messages of one reply together again. It checks that none
// is missing and that they stay below a size.
type assembler struct {
	max  int64 // bytes of one frame
	seq  uint64
	data []byte
}

// add takes the next message. It returns a frame when one is whole. Whatever
// is not as this version writes it is an error.
func (a *assembler) add(m *nats.Msg) (frame, bool, error) {
	seq, err := strconv.ParseUint(m.Header.Get(HeaderSeq), 10, 64)
	if err != nil {
		return frame{}, false, fmt.Errorf("a message of the reply has no number: %w", errLost)
	}
	if seq != a.seq+1 {
		return frame{}, false, fmt.Errorf("message %d of the reply follows message %d: %w", seq, a.seq, errLost)
	}
	a.seq = seq
	k := kind(m.Header.Get(HeaderFrame))
	switch k {
	case kindMore, kindAnswer, kindEvent:
	case kindAlive, kindEnd, kindCut:
		if len(m.Data) > 0 || len(a.data) > 0 && k == kindEnd {
			return frame{}, false, fmt.Errorf("a message of kind %q is out of place", k)
		}
		return frame{kind: k}, true, nil
	default:
		return frame{}, false, fmt.Errorf("a message of the reply has the unknown kind %.20q", string(k))
	}
	if int64(len(a.data))+int64(len(m.Data)) > a.max {
		return frame{}, false, a2a.Errorf(a2a.CodeTooLarge, "an answer has more than %d bytes", a.max)
	}
	if k == kindMore {
		a.data = append(a.data, m.Data...)
		return frame{}, false, nil
	}
	data := m.Data
	if len(a.data) > 0 {
		data, a.data = append(a.data, m.Data...), nil
	}
	return frame{kind: k, event: m.Header.Get(HeaderEvent), header: m.Header, data: data}, true, nil
}

// pieces cuts data for messages of at most room bytes of payload; at least one
// piece.
func pieces(data []byte, room int64) [][]byte {
	var out [][]byte
	for int64(len(data)) > room {
		out = append(out, data[:room])
		data = data[room:]
	}
	return append(out, data)
}

// roomFor is how much of a payload is left when the headers took their margin.
func roomFor(maxPayload int64) int64 {
	if maxPayload <= 0 {
		maxPayload = 1 << 20 // not connected now; the default of NATS
	}
	if maxPayload <= 2*frameMargin {
		return max(maxPayload/2, 1)
	}
	return maxPayload - frameMargin
}
