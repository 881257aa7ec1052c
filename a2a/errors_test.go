package a2a_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/errordetails"
	"github.com/google/go-cmp/cmp"

	"github.com/agenticraft/node/a2a"
)

var codes = []string{
	a2a.CodeInvalidRequest, a2a.CodeTooLarge, a2a.CodeSignatureMissing, a2a.CodeSignatureInvalid, a2a.CodeWrongAudience, a2a.CodeExpired,
	a2a.CodeNotYetValid, a2a.CodeUnauthenticated, a2a.CodeDenied, a2a.CodeNotFound, a2a.CodeConflict, a2a.CodeNotCancelable, a2a.CodeBusy,
	a2a.CodeUnavailable, a2a.CodeUnenforceable, a2a.CodeUnsupported, a2a.CodeVersion, a2a.CodeContentType, a2a.CodePushUnsupported, a2a.CodeExtension, a2a.CodeInternal,
}

// What the SDK's client keeps of an error is enough to have it back.
func TestErrorsSurviveTheWire(t *testing.T) {
	for _, code := range codes {
		want := &a2a.Error{Code: code, Message: "text", Hint: "hint", RetryAfter: 2 * time.Second}
		info := want.Info()
		if reason, _ := info.Value["reason"].(string); reason == "" || reason != strings.ToUpper(reason) {
			t.Errorf("%s: reason %q", code, reason)
		}
		if code != a2a.CodeInternal && errors.Is(want, sdk.ErrInternalError) {
			t.Errorf("%s has no protocol code of its own", code)
		}
		// As a2a-go's client does: the sentinel by number, and the metadata.
		meta, _ := info.Value["metadata"].(map[string]string)
		got := a2a.FromWire(fmt.Errorf("call: %w", sdk.NewError(want.Unwrap(), want.Message).WithErrorInfoMeta(meta)))
		if !cmp.Equal(got, want) {
			t.Errorf("%s came back: %s", code, cmp.Diff(want, got))
		}
		if !errors.Is(got, &a2a.Error{Code: code}) {
			t.Errorf("%s is not itself", code)
		}
	}
}

func TestFromWireOfForeignErrors(t *testing.T) {
	forged := sdk.NewError(sdk.ErrTaskNotFound, "gone")
	forged.TypedDetails = append(forged.TypedDetails, errordetails.NewErrorInfo("X", "y", map[string]string{"code": "made_up", "retry_after_ms": "-1"}))
	for _, c := range []struct {
		err  error
		want string
	}{
		{forged, a2a.CodeNotFound},
		{sdk.ErrTaskNotCancelable, a2a.CodeNotCancelable},
		{sdk.NewError(sdk.ErrUnsupportedOperation, ""), a2a.CodeUnsupported},
		{context.DeadlineExceeded, a2a.CodeUnavailable},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, a2a.CodeUnavailable},
		{errors.New("who knows"), a2a.CodeInternal},
	} {
		if got := a2a.FromWire(c.err); got.Code != c.want || got.RetryAfter != 0 {
			t.Errorf("FromWire(%v) = %+v, want %s", c.err, got, c.want)
		}
	}
	if a2a.FromWire(nil) != nil {
		t.Error("FromWire(nil) is an error")
	}
}
