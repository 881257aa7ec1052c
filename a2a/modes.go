package a2a

import (
	"mime"
	"slices"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

// The media types of the parts that a node takes and gives, as its card says.
var (
	dataModes   = []string{"application/json"}
	textModes   = []string{"text/plain", "text/markdown"}
	inputModes  = slices.Concat(dataModes, textModes)
	outputModes = []string{"application/json", "text/plain"}
)

// CheckModes refuses a request with a part of a media type that a node does not take
// (A2A 1.0.1, 3.1.1), with an [*Error] that says which. A part that names no type has
// the first one of its kind. Bytes and URLs are of no kind that a node takes.
func CheckModes(req *sdk.SendMessageRequest) error {
	if req == nil || req.Message == nil {
		return nil // whoever reads it says so
	}
	for i, part := range req.Message.Parts {
		if part == nil {
			continue
		}
		var modes []string
		switch part.Content.(type) {
		case sdk.Data:
			modes = dataModes
		case sdk.Text:
			modes = textModes
		}
		kind, _, err := mime.ParseMediaType(part.MediaType)
		switch {
		case modes == nil:
			return wrongMode("part %d is neither data nor text", i)
		case part.MediaType != "" && (err != nil || !slices.Contains(modes, kind)):
			return wrongMode("part %d is of the media type %.60q, which is not taken", i, part.MediaType)
		}
	}
	return nil
}

func wrongMode(format string, args ...any) *Error {
	e := Errorf(CodeContentType, format, args...)
	e.Hint = "send data (application/json), or a text (text/plain, text/markdown) with one fenced code block"
	return e
}
