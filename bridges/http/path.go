package http

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/agenticraft/node/a2a"
)

// tidy refuses requests whose paths are not in their shortest form, or lack the
// slash at the end: a [http.ServeMux] would answer them with a redirect in HTML, of
// which a client of an interface makes nothing. The HTTP+JSON binding refuses them
// in its own form. The console is for people, whom a redirect takes there.
func tidy(mux *http.ServeMux, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch below := strings.HasPrefix(r.URL.Path, RESTPath+"/"); {
		case r.URL.Path == RESTPath, below && !shortest(r.URL):
			rest.ServeHTTP(w, r)
		case r.URL.Path == tilesPath, !shortest(r.URL):
			noResource(w, r)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// shortest reports whether a path begins with a slash and no segment of it is
// empty, but the last, or dots, however they are written.
func shortest(u *url.URL) bool {
	rest, ok := strings.CutPrefix(u.EscapedPath(), "/")
	for more := rest != ""; ok && more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		more = more && rest != ""
		part, err := url.PathUnescape(part)
		ok = err == nil && part != "" && part != "." && part != ".."
	}
	return ok
}

// noRoute answers a request that no route takes: 405 with the methods that there
// are (RFC 9110, 15.5.6), or 404.
func noRoute(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if _, pattern := mux.Handler(&http.Request{Method: method, Host: r.Host, URL: r.URL}); pattern != "" && pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		noResource(w, r)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	problem(w, &Problem{Status: http.StatusMethodNotAllowed, Code: a2a.CodeUnsupported, Message: a2a.Clip(r.Method) + " is not a method of " + a2a.Clip(r.URL.Path)})
}

func noResource(w http.ResponseWriter, r *http.Request) {
	problem(w, &Problem{Status: http.StatusNotFound, Code: a2a.CodeNotFound, Message: "no such resource: " + a2a.Clip(r.Method) + " " + a2a.Clip(r.URL.Path)})
}
