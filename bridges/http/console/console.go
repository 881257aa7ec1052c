// Package console is the web console: one page, its style and its script, which
// work from the /v1 interface of the node that serves them.
//
// The page holds no data. Its reader gives an API key, which stays in the memory
// of the page and is sent to this node only; the page may load from and connect to
// nothing else.
package console

import (
	"embed"
	"net/http"
	"strings"
)

// Path is where the console is.
const Path = "/ui/"

//go:embed index.html console.css console.js icon.svg
var files embed.FS

// policy is the Content-Security-Policy of every answer (CSP level 3): scripts and
// styles are files of this node, nothing may frame the page, and it sends no form.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// media are the files that are served, by name, with their types.
var media = map[string]string{
	"":            "text/html; charset=utf-8",
	"console.css": "text/css; charset=utf-8",
	"console.js":  "text/javascript; charset=utf-8",
	"icon.svg":    "image/svg+xml; charset=utf-8",
}

// Handler serves the console below [Path], to anybody: it is the interface that
// asks for credentials. Everything else there is not found.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, below := strings.CutPrefix(r.URL.Path, Path)
		kind, ok := media[name]
		if !below || !ok {
			http.NotFound(w, r)
			return
		}
		if name == "" {
			name = "index.html"
		}
		text, err := files.ReadFile(name)
		if err != nil { // cannot be: it is embedded
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Security-Policy", policy)
		h.Set("Cache-Control", "no-cache")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(text)
	})
}
