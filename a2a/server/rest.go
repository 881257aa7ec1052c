package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/a2aproject/a2a-go/v2/a2asrv"

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
		binding: binding{cfg: cfg, codec: a2asrv.NewRESTHandler(paging{noting{cfg.Handler}}, keepAlive)},
		tenants: a2asrv.NewTenantRESTHandler("/{*}", noting{cfg.Handler}, keepAlive),
	}
}

type restBinding struct {
	binding
	tenants http.Handler // for messages sent to paths that begin with a tenant
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
	if !out.begun && out.Header().Get("Content-Type") != eventStream { // a google.protobuf.Empty, of which the codec writes nothing
		out.Write([]byte("{}\n")) //nolint:errcheck // the client has gone
	}
	out.finish()
}

// Refuse answers a request whose credential the door did not accept.
func (b *restBinding) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	out := newReply(w, r, b.cfg.WriteTimeout)
	out.rest = true
	b.discard(w, r)
	refuse(out, err, b.cfg.Log)
}

// acceptREST does everything that comes before the codec.
func (b *restBinding) acceptREST(w http.ResponseWriter, r *http.Request, out *reply) (*http.Request, http.Handler, *rpcError) {
	route, at := findRoute(r.URL.EscapedPath())
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
	query, read, err := route.readQuery(r)
	if err != nil {
		return nil, nil, err
	}
	ctx, err := b.prepare(r, out)
	if err != nil {
		return nil, nil, err
	}
	inner := r.Clone(context.WithValue(ctx, queryKey, read))
	inner.URL.RawQuery = query.Encode()
	inner.Body, inner.ContentLength = http.NoBody, 0
	if r.Method == http.MethodPost && (route.body != nil || r.ContentLength != 0) {
		body, err := b.readREST(w, r, route)
		if err != nil {
			return nil, nil, err
		}
		inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	if at.tenant && route == sendRoute {
		inner.URL.RawPath = ""
		return inner, b.tenants, nil
	}
	// To no other operation does the tenant say anything.
	inner.URL.Path, inner.URL.RawPath = at.path()
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
			b.discard(w, r)
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
