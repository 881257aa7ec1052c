package http

import (
	"net/http"
	"strings"

	"github.com/agenticraft/node/a2a"
)

// IdempotencyHeader bears the key by which a client repeats a request safely
// (draft-ietf-httpapi-idempotency-key-header).
const IdempotencyHeader = "Idempotency-Key"

// maxIdempotencyKey is the longest key, in characters.
const maxIdempotencyKey = 255

// codeKeyReused says that a key was used before for another request.
const codeKeyReused = "idempotency_key_reused"

var errKeyReused = &a2a.Error{Code: codeKeyReused, Message: "this Idempotency-Key was used before for another request", Hint: "use a new key for each request, and the same again only to repeat it"}

// idempotencyKey reads the header: one string of RFC 8941 (3.3.3), of 1 to 255
// characters. It is "" if there is none.
func idempotencyKey(h http.Header) (string, error) {
	bad := func(why string) (string, error) {
		return "", &a2a.Error{Code: a2a.CodeInvalidRequest, Message: IdempotencyHeader + " " + why, Hint: `write it as a text in double quotes, such as Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324"`}
	}
	values := h.Values(IdempotencyHeader)
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return bad("is there more than once")
	}
	text, opened := strings.CutPrefix(strings.Trim(values[0], " \t"), `"`)
	text, closed := strings.CutSuffix(text, `"`)
	if !opened || !closed {
		return bad("is no text in double quotes")
	}
	var key strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c < 0x20 || c > 0x7e:
			return bad("holds a character that is not printable ASCII")
		case c == '"':
			return bad(`holds a " without a \ before it`)
		case c == '\\':
			if i++; i == len(text) || text[i] != '"' && text[i] != '\\' {
				return bad(`holds a \ that is neither before " nor before \`)
			}
			c = text[i]
		}
		key.WriteByte(c)
	}
	if key.Len() == 0 || key.Len() > maxIdempotencyKey {
		return bad("has not 1 to 255 characters")
	}
	return key.String(), nil
}

// reused words a conflict for a client who gave a key.
func reused(key string, err *a2a.Error) *a2a.Error {
	if key != "" && err.Code == a2a.CodeConflict {
		return errKeyReused
	}
	return err
}
