package http

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/agenticraft/node/a2a"
)

// The parameters that filter reads: those that select entries, and those of pages.
var (
	selectNames = []string{"actor", "on_behalf", "task", "decision", "resource", "policy", "since", "until", "kind"}
	filterNames = append(slices.Clone(selectNames), "cursor", "limit", "order")
)

// parameters reads a query, of which every parameter must be known and stand
// there once: a mistyped filter that is passed over answers more than was asked.
func parameters(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: "the query is malformed"}
	}
	for name, values := range q {
		switch {
		case !slices.Contains(known, name):
			return nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: fmt.Sprintf("there is no parameter %.40q here; known are: %s", name, strings.Join(known, ", "))}
		case len(values) > 1:
			return nil, &a2a.Error{Code: a2a.CodeInvalidRequest, Message: name + " is given more than once"}
		}
	}
	return q, nil
}
