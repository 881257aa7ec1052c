package client

import (
	"errors"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
)

// Interrupted is an error of the way to the server, not of the server: whether
// it saw the request is not known, unless Cause says so. errors.As finds the
// [a2a.Error] in it, of code unavailable.
type Interrupted struct {
	Err   *a2a.Error
	Cause error // of the connection or the stream
}

func (e *Interrupted) Error() string { return e.Err.Error() }

// Unwrap gives both the error for the caller and its cause.
func (e *Interrupted) Unwrap() []error { return []error{e.Err, e.Cause} }

// NeverSent reports that the request ended before there was a connection for it:
// nobody was there, or somebody whom the client does not trust.
func (e *Interrupted) NeverSent() bool { return neverSent(e.Cause) || distrusted(e.Cause) }

// errCut is the cause when a stream ended in good order but too soon.
var errCut = errors.New("the stream ended before the task did")

// wire keeps a nil error nil in its interface, and tells what the server
// answered from what it never got to answer.
func wire(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Interrupted](err); ok {
		return e
	}
	known := a2a.FromWire(err)
	_, ours := errors.AsType[*a2a.Error](err)
	_, theirs := errors.AsType[*sdk.Error](err)
	if ours || theirs {
		return known
	}
	return &Interrupted{Err: &a2a.Error{Code: a2a.CodeUnavailable, Message: known.Message}, Cause: err}
}
