package a2a

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/errordetails"
)

// Error is the only error that crosses a wire. It is written for the caller:
// it holds no secret and nothing about others.
//
// It unwraps to the SDK's sentinel of the same meaning, so that every binding
// of the SDK answers with the right protocol code.
type Error struct {
	Code       string // one of the Code constants
	Message    string // for people; lower case, no full stop
	RetryAfter time.Duration
	Hint       string // what would mend it, if something would
}

// The codes of [Error]. What the sender can check himself has an exact code;
// what depends on our state is [CodeUnauthenticated] and says no more.
const (
	CodeInvalidRequest   = "invalid_request"   // malformed, or not an execution
	CodeTooLarge         = "too_large"         // beyond a size cap
	CodeSignatureMissing = "signature_missing" // the request carries no signature
	CodeSignatureInvalid = "signature_invalid" // it does not cover what was received, or is not of a form we accept
	CodeWrongAudience    = "wrong_audience"    // signed for someone else
	CodeExpired          = "expired"           // signed too long ago
	CodeNotYetValid      = "not_yet_valid"     // signed in the future
	CodeUnauthenticated  = "unauthenticated"   // no credential in force proves the caller
	CodeDenied           = "denied"            // policy says no
	CodeNotFound         = "not_found"         // no such task, or not the caller's
	CodeConflict         = "conflict"          // the same jti with another request
	CodeNotCancelable    = "not_cancelable"    // the task has ended
	CodeBusy             = "busy"              // no capacity now; see RetryAfter
	CodeUnavailable      = "unavailable"       // no quorum or no node now; see RetryAfter
	CodeUnenforceable    = "unenforceable"     // a required limit cannot be enforced
	CodeUnsupported      = "unsupported"       // operation or method not offered
	CodeVersion          = "version_not_supported"
	CodeContentType      = "content_type_not_supported"
	CodePushUnsupported  = "push_notification_not_supported"
	CodeExtension        = "extension_support_required" // the card requires an extension that the request does not declare
	CodeInternal         = "internal"                   // our fault; the message holds a reference into our log
)

// ErrNoTask is the one answer about a task that is not there and about one that is not
// the caller's to see (A2A 13.1): who may not see it must not learn that it exists, by
// no difference in the words either.
var ErrNoTask = Errorf(CodeNotFound, "there is no such task")

// errorDomain is the domain of google.rpc.ErrorInfo for codes that the A2A
// specification does not define.
const errorDomain = "agenticraft.dev"

// Keys of the ErrorInfo metadata.
const (
	metaCode       = "code"
	metaHint       = "hint"
	metaRetryAfter = "retry_after_ms"
)

// codeSentinels gives each code the SDK error that decides the protocol code.
var codeSentinels = map[string]error{
	CodeInvalidRequest:   sdk.ErrInvalidParams,
	CodeTooLarge:         sdk.ErrInvalidRequest,
	CodeSignatureMissing: sdk.ErrUnauthenticated,
	CodeSignatureInvalid: sdk.ErrUnauthenticated,
	CodeWrongAudience:    sdk.ErrUnauthenticated,
	CodeExpired:          sdk.ErrUnauthenticated,
	CodeNotYetValid:      sdk.ErrUnauthenticated,
	CodeUnauthenticated:  sdk.ErrUnauthenticated,
	CodeDenied:           sdk.ErrUnauthorized,
	CodeNotFound:         sdk.ErrTaskNotFound,
	CodeConflict:         sdk.ErrInvalidRequest,
	CodeNotCancelable:    sdk.ErrTaskNotCancelable,
	CodeBusy:             sdk.ErrServerError,
	CodeUnavailable:      sdk.ErrServerError,
	CodeUnenforceable:    sdk.ErrServerError,
	CodeUnsupported:      sdk.ErrUnsupportedOperation,
	CodeVersion:          sdk.ErrVersionNotSupported,
	CodeContentType:      sdk.ErrUnsupportedContentType,
	CodePushUnsupported:  sdk.ErrPushNotificationNotSupported,
	CodeExtension:        sdk.ErrExtensionSupportRequired,
	CodeInternal:         sdk.ErrInternalError,
}

// specCodes are the codes whose meaning the A2A specification defines; they
// keep its reason and its domain.
var specCodes = map[string]bool{
	CodeNotFound: true, CodeNotCancelable: true, CodeUnsupported: true, CodeVersion: true,
	CodeContentType: true, CodePushUnsupported: true, CodeExtension: true,
}

// sentinelCodes reads a foreign server's error, most exact first.
var sentinelCodes = []struct {
	err  error
	code string
}{
	{sdk.ErrTaskNotFound, CodeNotFound},
	{sdk.ErrTaskNotCancelable, CodeNotCancelable},
	{sdk.ErrPushNotificationNotSupported, CodePushUnsupported},
	{sdk.ErrUnsupportedOperation, CodeUnsupported},
	{sdk.ErrMethodNotFound, CodeUnsupported},
	{sdk.ErrUnsupportedContentType, CodeContentType},
	{sdk.ErrVersionNotSupported, CodeVersion},
	{sdk.ErrUnauthenticated, CodeUnauthenticated},
	{sdk.ErrUnauthorized, CodeDenied},
	{sdk.ErrParseError, CodeInvalidRequest},
	{sdk.ErrInvalidRequest, CodeInvalidRequest},
	{sdk.ErrInvalidParams, CodeInvalidRequest},
	{sdk.ErrExtensionSupportRequired, CodeExtension},
}

// Errorf makes an Error. The text is sent to the caller.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error is the message, or the code where there is none.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Message
}

// Unwrap gives the SDK's error of the same meaning.
func (e *Error) Unwrap() error {
	if err, ok := codeSentinels[e.Code]; ok {
		return err
	}
	return sdk.ErrInternalError
}

// Is reports whether target is an Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Info is the error as a google.rpc.ErrorInfo detail. The metadata repeats the
// code, because the SDK's clients keep nothing else of the detail.
func (e *Error) Info() *errordetails.Typed {
	meta := map[string]string{metaCode: e.Code}
	if e.Hint != "" {
		meta[metaHint] = e.Hint
	}
	if e.RetryAfter > 0 {
		meta[metaRetryAfter] = strconv.FormatInt(e.RetryAfter.Milliseconds(), 10)
	}
	reason, domain := strings.ToUpper(e.Code), errorDomain
	if specCodes[e.Code] {
		reason, domain = sdk.ErrorReason(e.Unwrap()), sdk.ProtocolDomain
	}
	return errordetails.NewErrorInfo(reason, domain, meta)
}

// FromWire rebuilds the Error that a server sent from what an SDK client
// returns. What never reached a server is [CodeUnavailable]. It returns nil
// for nil and an error that is an Error already as it is.
func FromWire(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if w, ok := errors.AsType[*sdk.Error](err); ok {
		return fromSDK(w)
	}
	for _, s := range sentinelCodes {
		if errors.Is(err, s.err) {
			return &Error{Code: s.code, Message: err.Error()}
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &Error{Code: CodeUnavailable, Message: "gave up waiting for an answer"}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return &Error{Code: CodeUnavailable, Message: err.Error()}
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}

func fromSDK(w *sdk.Error) *Error {
	e := &Error{Code: CodeInternal, Message: w.Error()}
	for _, s := range sentinelCodes {
		if errors.Is(w, s.err) {
			e.Code = s.code
			break
		}
	}
	for _, d := range w.TypedDetails {
		if d.TypeURL != errordetails.ErrorInfoType {
			continue
		}
		meta, ok := d.Value["metadata"].(map[string]string)
		if !ok {
			continue
		}
		if _, known := codeSentinels[meta[metaCode]]; known {
			e.Code = meta[metaCode]
		}
		e.Hint = meta[metaHint]
		if ms, err := strconv.ParseInt(meta[metaRetryAfter], 10, 32); err == nil && ms > 0 {
			e.RetryAfter = time.Duration(ms) * time.Millisecond
		}
	}
	return e
}
