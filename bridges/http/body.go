package http

import (
	"errors"
	"io"
	"net/http"

	"github.com/agenticraft/node/a2a"
)

// decode reads a body of one JSON document, as strictly as [a2a.Decode].
func decode(body io.Reader, into any) error {
	raw, err := io.ReadAll(body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &unread{a2a.Errorf(a2a.CodeTooLarge, "the request body is over %d bytes", tooLarge.Limit)}
	}
	if err != nil {
		return &unread{a2a.Errorf(a2a.CodeInvalidRequest, "the body ended early")}
	}
	if err := a2a.Decode(raw, into); err != nil {
		return &unread{a2a.Errorf(a2a.CodeInvalidRequest, "the body is not what is expected here: %s", err)}
	}
	return nil
}

// unread is why a body could not be read.
type unread struct{ why *a2a.Error }

func (u *unread) Error() string { return u.why.Error() }
func (u *unread) Unwrap() error { return u.why }
