package http

import (
	_ "embed" // for the document
	"net/http"
	"slices"
)

// openAPI describes the routes of /v1, health, metrics and the tiled log. It is
// written from the types of requests and answers by a test of cmd/node, which has
// them all, and held to the routes and to real answers there.
//
//go:embed openapi.json
var openAPI []byte

// describe serves the OpenAPI 3.1 document, to anybody.
func describe(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(openAPI)
}

// Patterns are the door's routes as [http.ServeMux] takes them, sorted: for who
// describes them.
func Patterns() []string {
	var out patterns
	(&door{cfg: Config{MCP: http.NotFoundHandler(), Console: http.NotFoundHandler()}}).routes(&out)
	slices.Sort(out)
	return out
}

// patterns is a [router] that only notes what there is.
type patterns []string

// Handle implements [router].
func (p *patterns) Handle(pattern string, _ http.Handler) { *p = append(*p, pattern) }
