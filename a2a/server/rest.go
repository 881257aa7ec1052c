package server

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"google.golang.org/protobuf/proto"

	"github.com/agenticraft/node/a2a"
)

// REST is the A2A HTTP+JSON binding: the SDK's codec, and around it what [HTTP]
// adds to the JSON-RPC codec. Paths begin at the handler's root; each may begin
// with a tenant. Answers are application/a2a+json, or application/json where
// they are errors, which the official Go client asks for; a google.rpc.Status
// with an ErrorInfo says what is wrong even where there is no such path (404),
// method (405), credential (401) or room (413).
func REST(cfg HTTPConfig) http.Handler {
	cfg = cfg.withDefaults()
	keepAlive := a2asrv.WithTransportKeepAlive(cfg.KeepAlive)
	return &restBinding{
		binding: binding{cfg: cfg, codec: a2asrv.NewRESTHandler(noting{cfg.Handler}, keepAlive)},
		tenants: a2asrv.NewTenantRESTHandler("/{*}", noting{cfg.Handler}, keepAlive),
	}
}

type restBinding struct {
	binding
	tenants http.Handler // for paths that begin with a tenant
}

// ServeHTTP implements http.Handler.
func (b *restBinding) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := newReply(w, r, b.cfg.WriteTimeout)
	out.rest, out.asEvent = true, false
	inner, codec, err := b.acceptREST(w, r, out)
	if err != nil {
		out.fail(err)
		return
	}
	echoExtensions(w, r)
	codec.ServeHTTP(out, inner)
	out.finish()
}

// Refuse answers a request whose credential the door did not accept.
func (b *restBinding) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	out := newReply(w, r, b.cfg.WriteTimeout)
	out.rest = true
	refuse(out, err, b.cfg.Log)
}

// acceptREST does everything that comes before the codec.
func (b *restBinding) acceptREST(w http.ResponseWriter, r *http.Request, out *reply) (*http.Request, http.Handler, *rpcError) {
	route, tenant := findRoute(r.URL.Path)
	switch {
	case route == nil:
		return nil, nil, &rpcError{rpcMethodNotFound, a2a.Errorf(a2a.CodeUnsupported, "there is no path %.80q", r.URL.Path)}
	case !slices.Contains(route.methods, r.Method):
		w.Header().Set("Allow", strings.Join(route.methods, ", "))
		return nil, nil, &rpcError{rpcInvalidRequest, a2a.Errorf(a2a.CodeUnsupported, "%.20q is not a method of this path", r.Method)}
	}
	if err := checkVersion(versionOf(r)); err != nil {
		return nil, nil, &rpcError{0, err}
	}
	if err := checkQuery(r.URL.RawQuery); err != nil {
		return nil, nil, &rpcError{0, err}
	}
	ctx, err := b.prepare(r, out)
	if err != nil {
		return nil, nil, err
	}
	inner := r.Clone(ctx)
	inner.URL.RawPath = "" // the codec is to see the path that findRoute saw
	inner.Body, inner.ContentLength = http.NoBody, 0
	if r.Method == http.MethodPost && (route.body != nil || r.ContentLength != 0) {
		body, err := b.readREST(w, r, route)
		if err != nil {
			return nil, nil, err
		}
		inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	if tenant {
		return inner, b.tenants, nil
	}
	return inner, b.codec, nil
}

func (b *restBinding) readREST(w http.ResponseWriter, r *http.Request, route *route) ([]byte, *rpcError) {
	// A body that may be absent needs no content type while it is.
	if route.body != nil || r.ContentLength > 0 {
		err := b.checkHeaders(r)
		if err == nil && r.ContentLength > b.cfg.MaxBody {
			err = b.tooLarge()
		}
		if err != nil {
			w.Header().Set("Connection", "close") // the body was not read
			return nil, err
		}
	}
	body, err := b.readBody(w, r)
	switch {
	case err != nil:
		return nil, err
	case route.body != nil:
		return normalized(body, route.body())
	case route.may != nil && len(bytes.TrimSpace(body)) > 0:
		_, err = normalized(body, route.may()) // all that it could say, the path says
	}
	return nil, err
}

// checkQuery refuses what the codec would drop without a word, which is a filter that
// does not hold, or read otherwise than the other bindings: parameters that are there
// twice, numbers beyond 32 bits and pages of less than nothing.
func checkQuery(query string) *a2a.Error {
	params, err := url.ParseQuery(query)
	if err != nil {
		return a2a.Errorf(a2a.CodeInvalidRequest, "the query of the URL is malformed")
	}
	for name, values := range params {
		if len(values) > 1 {
			return a2a.Errorf(a2a.CodeInvalidRequest, "the query has %.60q twice", name)
		}
	}
	for _, name := range []string{"historyLength", "pageSize"} {
		n, err := strconv.ParseInt(params.Get(name), 10, 32)
		switch {
		case errors.Is(err, strconv.ErrRange):
			return a2a.Errorf(a2a.CodeInvalidRequest, "%s is out of range", name)
		case n < 0:
			return a2a.Errorf(a2a.CodeInvalidRequest, "%s is negative", name)
		}
	}
	return nil
}

// route is one path of the binding.
type route struct {
	methods []string
	body    func() proto.Message // nil: none that counts
	may     func() proto.Message // what a body is that may be absent, and does not count
}

var (
	get       = []string{http.MethodGet}
	post      = []string{http.MethodPost}
	sendRoute = &route{methods: post, body: methods["SendMessage"]}

	fixedRoutes = map[string]*route{
		"message:send":      sendRoute,
		"message:stream":    sendRoute,
		"tasks":             {methods: get},
		"extendedAgentCard": {methods: get},
	}
	taskRoute   = &route{methods: get}
	cancelRoute = &route{methods: post, may: methods["CancelTask"]}
	// The text of the specification says POST (11.3), its proto GET.
	subscribeRoute = &route{methods: []string{http.MethodGet, http.MethodPost}, may: methods["SubscribeToTask"]}
	pushRoute      = &route{methods: []string{http.MethodGet, http.MethodPost}, body: methods["CreateTaskPushNotificationConfig"]}
	pushItemRoute  = &route{methods: []string{http.MethodGet, http.MethodDelete}}
)

// findRoute finds the route of a path, with or without a tenant before it.
func findRoute(path string) (found *route, tenant bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if found = matchRoute(parts); found == nil && len(parts) > 1 && validTenant(parts[0]) {
		found = matchRoute(parts[1:])
		return found, found != nil
	}
	return found, false
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
