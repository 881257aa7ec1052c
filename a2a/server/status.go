package server

import (
	"encoding/json"
	"net/http"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/errordetails"

	"github.com/agenticraft/node/a2a"
)

// status is how the bindings without numbers of their own name an error: the
// HTTP status and the google.rpc.Code (A2A 1.0.1, 5.4).
type status struct {
	http int
	rpc  string
}

var (
	precondition    = status{http.StatusBadRequest, "FAILED_PRECONDITION"}
	invalid         = status{http.StatusBadRequest, "INVALID_ARGUMENT"}
	unauthenticated = status{http.StatusUnauthorized, "UNAUTHENTICATED"}
	internal        = status{http.StatusInternalServerError, "INTERNAL"}

	statuses = map[string]status{
		a2a.CodeInvalidRequest:   invalid,
		a2a.CodeContentType:      invalid,
		a2a.CodeTooLarge:         {http.StatusRequestEntityTooLarge, "RESOURCE_EXHAUSTED"},
		a2a.CodeSignatureMissing: unauthenticated,
		a2a.CodeSignatureInvalid: unauthenticated,
		a2a.CodeWrongAudience:    unauthenticated,
		a2a.CodeExpired:          unauthenticated,
		a2a.CodeNotYetValid:      unauthenticated,
		a2a.CodeUnauthenticated:  unauthenticated,
		a2a.CodeDenied:           {http.StatusForbidden, "PERMISSION_DENIED"},
		a2a.CodeNotFound:         {http.StatusNotFound, "NOT_FOUND"},
		a2a.CodeConflict:         {http.StatusConflict, "ABORTED"},
		a2a.CodeNotCancelable:    precondition,
		a2a.CodeUnsupported:      precondition,
		a2a.CodeVersion:          precondition,
		a2a.CodePushUnsupported:  precondition,
		a2a.CodeExtension:        precondition,
		a2a.CodeUnenforceable:    precondition,
		a2a.CodeBusy:             {http.StatusTooManyRequests, "RESOURCE_EXHAUSTED"},
		a2a.CodeUnavailable:      {http.StatusServiceUnavailable, "UNAVAILABLE"},
		a2a.CodeInternal:         internal,
	}
)

func statusOf(e *a2a.Error) status {
	if s, ok := statuses[e.Code]; ok {
		return s
	}
	return internal
}

// info is the error's detail for a binding without numbers: the SDK's clients
// tell errors apart by its reason, and read it only in the protocol's domain.
func info(e *a2a.Error) *errordetails.Typed {
	d := e.Info()
	d.Value["reason"], d.Value["domain"] = sdk.ErrorReason(e.Unwrap()), sdk.ProtocolDomain
	return d
}

// status is the HTTP status and the google.rpc.Status of an answer.
func (e *rpcError) status() (int, []byte) {
	s := statusOf(e.err)
	switch e.code {
	case rpcMethodNotFound:
		s = status{http.StatusNotFound, "UNIMPLEMENTED"}
	case rpcInvalidRequest:
		s = status{http.StatusMethodNotAllowed, "UNIMPLEMENTED"}
	}
	type body struct {
		Code    int                   `json:"code"`
		Status  string                `json:"status"`
		Message string                `json:"message"`
		Details []*errordetails.Typed `json:"details"`
	}
	out, err := json.Marshal(struct {
		Error body `json:"error"`
	}{body{s.http, s.rpc, e.err.Error(), []*errordetails.Typed{info(e.err)}}})
	if err != nil { // text and numbers: cannot be
		return http.StatusInternalServerError, []byte(`{"error":{"code":500,"status":"INTERNAL","message":"internal error"}}`)
	}
	return s.http, out
}
