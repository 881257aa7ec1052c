package server

import (
	"context"
	"net/http"
	"slices"
	"strings"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2asrv"

	"github.com/agenticraft/node/a2a"
)

// unsigned is the error of a message that lacks the signature that the card
// requires: whether its sender knows the extension at all (3.3.4) is another
// mistake than to declare it and not to sign.
func unsigned(ctx context.Context, req *sdk.SendMessageRequest) error {
	const hint = "sign the message as docs/signed-message.md says, with the key of a registered agent"
	if declares(ctx, req, a2a.SignedMessageURI) {
		return &a2a.Error{Code: a2a.CodeSignatureMissing, Message: "the message is not signed", Hint: hint}
	}
	return &a2a.Error{Code: a2a.CodeExtension, Message: "this node takes messages of the extension " + a2a.SignedMessageURI + " only", Hint: hint}
}

// declares reports whether the message or the request around it names an
// extension.
func declares(ctx context.Context, req *sdk.SendMessageRequest, uri string) bool {
	if slices.Contains(req.Message.Extensions, uri) {
		return true
	}
	call, ok := a2asrv.CallContextFrom(ctx)
	if !ok {
		return false
	}
	values, _ := call.ServiceParams().Get(sdk.SvcParamExtensions)
	return slices.Contains(uris(values), uri)
}

// uris are the URIs in the values of an A2A-Extensions header, each of which may
// hold several with commas.
func uris(values []string) []string {
	var out []string
	for uri := range strings.SplitSeq(strings.Join(values, ","), ",") {
		out = append(out, strings.TrimSpace(uri))
	}
	return out
}

// echoExtensions names the extensions that the client asked for and that are
// in force (4.6).
func echoExtensions(w http.ResponseWriter, r *http.Request) {
	if active := activeExtensions(r.Header.Values(sdk.SvcParamExtensions)); active != "" {
		w.Header().Set(sdk.SvcParamExtensions, active)
	}
}

// activeExtensions are those in force of the values of an A2A-Extensions header, as
// one of an answer.
func activeExtensions(asked []string) string {
	var active []string
	for _, uri := range uris(asked) {
		if (uri == a2a.SignedMessageURI || uri == a2a.ExecutionURI) && !slices.Contains(active, uri) {
			active = append(active, uri)
		}
	}
	return strings.Join(active, ",")
}
