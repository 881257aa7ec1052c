package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
)

// route is one path of the binding.
type route struct {
	methods []string
	body    func() proto.Message // nil: none that counts
	may     func() proto.Message // what a body is that may be absent, and does not count
	query   func() proto.Message // what the query of a GET is a part of; nil: none that counts
}

var (
	get       = []string{http.MethodGet}
	post      = []string{http.MethodPost}
	sendRoute = &route{methods: post, body: methods["SendMessage"]}

	fixedRoutes = map[string]*route{
		"message:send":      sendRoute,
		"message:stream":    sendRoute,
		"tasks":             {methods: get, query: methods["ListTasks"]},
		"extendedAgentCard": {methods: get},
	}
	taskRoute   = &route{methods: get, query: methods["GetTask"]}
	cancelRoute = &route{methods: post, may: methods["CancelTask"]}
	// The text of the specification says POST (11.3), its proto GET.
	subscribeRoute = &route{methods: []string{http.MethodGet, http.MethodPost}, may: methods["SubscribeToTask"]}
	pushRoute      = &route{methods: []string{http.MethodGet, http.MethodPost}, body: methods["CreateTaskPushNotificationConfig"], query: methods["ListTaskPushNotificationConfigs"]}
	pushItemRoute  = &route{methods: []string{http.MethodGet, http.MethodDelete}}
)

// place is a path taken apart. Its segments are as they were before they were escaped,
// and may hold slashes.
type place struct {
	segments []string // behind the tenant
	tenant   bool
}

// path is the path without a tenant, plain and escaped.
func (p place) path() (plain, escaped string) {
	for _, s := range p.segments {
		plain += "/" + s
		escaped += "/" + url.PathEscape(s)
	}
	return plain, escaped
}

// findRoute finds the route of an escaped path, with or without a tenant before it.
func findRoute(escaped string) (*route, place) {
	segments := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return nil, place{}
		}
		segments[i] = plain
	}
	if found := matchRoute(segments); found != nil {
		return found, place{segments: segments}
	}
	if len(segments) > 1 && validTenant(segments[0]) {
		return matchRoute(segments[1:]), place{segments[1:], true}
	}
	return nil, place{}
}

func matchRoute(parts []string) *route {
	if slices.ContainsFunc(parts, func(p string) bool { return p == "" || p == "." || p == ".." }) {
		return nil
	}
	switch {
	case len(parts) == 1:
		return fixedRoutes[parts[0]]
	case parts[0] != "tasks":
		return nil
	case len(parts) == 2:
		_, verb, ok := strings.Cut(parts[1], ":")
		switch {
		case !ok:
			return taskRoute
		case verb == "cancel":
			return cancelRoute
		case verb == "subscribe":
			return subscribeRoute
		}
	case parts[2] != "pushNotificationConfigs":
	case len(parts) == 3:
		return pushRoute
	case len(parts) == 4:
		return pushItemRoute
	}
	return nil
}
