package process

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/agenticraft/node/sandbox"
)

// Frames from the jail: a big-endian uint32 length of what follows, one letter,
// the payload.
const (
	frameHello  = 'H' // the interpreter asks for its program
	frameResult = 'R' // JSON
	frameError  = 'E' // code, newline, text
)

const (
	maxReply = 16 << 20 // bytes of one frame, whatever the limit
	maxText  = 2 << 10  // bytes of an error's text
)

// Codes of a [reply] and of sandbox.Result.ErrorCode.
const (
	codeLanguage = "language_error"
	codeNotJSON  = "result_not_json"
	codeTooLarge = "result_too_large"
	codeMemory   = "out_of_memory"
	codeForged   = "bad_reply"
)

// reply is what the program said over its private channel: a value, an error,
// or, if both are empty, nothing.
type reply struct {
	value json.RawMessage
	code  string
	text  string
}

var errFrame = errors.New("malformed frame")

// readFrame reads one frame of at most most bytes.
func readFrame(r io.Reader, most int64) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:4]))
	if n < 1 {
		return 0, nil, fmt.Errorf("%w: it has no length", errFrame)
	}
	if n > most {
		return head[4], nil, fmt.Errorf("%w: %d bytes, more than %d", errFrame, n, most)
	}
	payload = make([]byte, 0, min(n-1, 64<<10)) // grows as bytes come, not as they are promised
	buf := bytes.NewBuffer(payload)
	if _, err := io.CopyN(buf, r, n-1); err != nil {
		return head[4], nil, err
	}
	return head[4], buf.Bytes(), nil
}

// readReply reads the first frame and nothing after it. All of it is hostile:
// the program may write to the channel itself.
func readReply(r io.Reader, limit int64) reply {
	limit = min(limit, maxReply)
	kind, payload, err := readFrame(r, max(limit, maxText)+1)
	switch {
	case errors.Is(err, errFrame) && kind == frameResult:
		return reply{code: codeTooLarge, text: fmt.Sprintf("result takes more than %d bytes as JSON", limit)}
	case errors.Is(err, errFrame):
		return reply{code: codeForged, text: "the program wrote nonsense to its result channel"}
	case err != nil:
		return reply{} // it ended without a word, or in the middle of one
	case kind == frameResult:
		return checkResult(payload, limit)
	case kind == frameError:
		return checkError(payload)
	}
	return reply{code: codeForged, text: "the program wrote nonsense to its result channel"}
}

func checkResult(payload []byte, limit int64) reply {
	value, err := sandbox.CheckValue(payload, limit)
	switch {
	case err == nil:
		return reply{value: value}
	case errors.Is(err, sandbox.ErrValueTooLarge):
		return reply{code: codeTooLarge, text: fmt.Sprintf("result takes more than %d bytes as JSON", limit)}
	case errors.Is(err, sandbox.ErrValueNotJSON):
		return reply{code: codeForged, text: "the program wrote nonsense to its result channel"}
	default:
		return reply{code: codeNotJSON, text: err.Error()}
	}
}

func checkError(payload []byte) reply {
	code, text, _ := strings.Cut(string(payload), "\n")
	switch code {
	case codeLanguage, codeNotJSON, codeTooLarge, codeMemory:
	default:
		return reply{code: codeForged, text: "the program wrote nonsense to its result channel"}
	}
	return reply{code: code, text: Printable(text)}
}

// Printable makes text that others wrote fit to be shown in a line, and short.
func Printable(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
