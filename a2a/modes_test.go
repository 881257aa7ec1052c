package a2a

import (
	"errors"
	"testing"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"
)

func TestCheckModes(t *testing.T) {
	of := func(p *sdk.Part, kind string) *sdk.Part {
		p.MediaType = kind
		return p
	}
	data, text := sdk.NewDataPart(map[string]any{"code": ""}), sdk.NewTextPart("x")
	for name, c := range map[string]struct {
		parts sdk.ContentParts
		taken bool
	}{
		"data":               {sdk.ContentParts{data}, true},
		"text":               {sdk.ContentParts{text}, true},
		"no part":            {nil, true},
		"nothing":            {sdk.ContentParts{nil}, true},
		"JSON":               {sdk.ContentParts{of(sdk.NewDataPart(1), "Application/JSON; charset=utf-8")}, true},
		"Markdown":           {sdk.ContentParts{of(sdk.NewTextPart("x"), "text/markdown")}, true},
		"an image":           {sdk.ContentParts{of(sdk.NewRawPart([]byte("x")), "image/png")}, false},
		"an image behind it": {sdk.ContentParts{text, of(sdk.NewRawPart([]byte("x")), "image/png")}, false},
		"bytes":              {sdk.ContentParts{sdk.NewRawPart([]byte("x"))}, false},
		"a URL":              {sdk.ContentParts{sdk.NewFileURLPart("https://example.org/f", "text/plain")}, false},
		"HTML":               {sdk.ContentParts{of(sdk.NewTextPart("x"), "text/html")}, false},
		"XML as data":        {sdk.ContentParts{of(sdk.NewDataPart(1), "application/xml")}, false},
		"text as data":       {sdk.ContentParts{of(sdk.NewDataPart(1), "text/plain")}, false},
		"what is no type":    {sdk.ContentParts{of(sdk.NewTextPart("x"), "text/plain/x")}, false},
		"a broken parameter": {sdk.ContentParts{of(sdk.NewTextPart("x"), "text/plain; ;;;")}, false},
	} {
		err := CheckModes(&sdk.SendMessageRequest{Message: &sdk.Message{Parts: c.parts}})
		e, _ := errors.AsType[*Error](err)
		if c.taken != (err == nil) || !c.taken && (e == nil || e.Code != CodeContentType || e.Hint == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, req := range []*sdk.SendMessageRequest{nil, {}} {
		if err := CheckModes(req); err != nil {
			t.Errorf("%v: %v", req, err)
		}
	}
}
