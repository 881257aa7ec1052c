package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/client"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/agent"
	httpdoor "github.com/agenticraft/node/bridges/http"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

// Names of the streams between nodes; raft's own are consensus'.
const (
	protocolA2A = "a2a"
	protocolLog = "log"
)

const (
	peerDial        = 3 * time.Second
	maxPeerReceipt  = 16 << 20 // bytes
	maxPeerPage     = 32 << 20 // bytes
	maxPeerQuery    = 64 << 10 // bytes
	peerQueryWait   = 10 * time.Second
	maxPeerHead     = 128 << 10 // bytes: a delegation of the most that server takes, and the rest
	idlePeerStreams = 16        // kept open to each peer: opening one costs four times using one
)

// links are HTTP clients over mesh streams, one for each peer and protocol,
// whose streams stay open between requests.
type links struct {
	node *mesh.Node // set before the first request

	mu      sync.Mutex // guards clients
	clients map[link]*http.Client
}

type link struct {
	to       identity.ID
	protocol string
}

func newLinks() *links {
	return &links{clients: map[link]*http.Client{}}
}

// client speaks HTTP to one peer; the host of the URL does not matter.
func (l *links) client(to identity.ID, protocol string) *http.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := link{to, protocol}
	c, ok := l.clients[key]
	if !ok {
		c = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, peerDial)
				defer cancel()
				conn, err := l.node.Dial(ctx, to, protocol)
				if err != nil {
					return nil, fmt.Errorf("%w: %w", agent.ErrUnreachable, err)
				}
				return conn, nil
			},
			MaxIdleConnsPerHost: idlePeerStreams,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		}}
		l.clients[key] = c
	}
	return c
}

// logClient is for the streams that carry the log.
func (l *links) logClient(to identity.ID) *http.Client { return l.client(to, protocolLog) }

// meshPeers are the other nodes as the agent sees them.
type meshPeers struct {
	node  *mesh.Node
	links *links
	cards *peerCards

	members directory
}

// a2a speaks to one peer. A connection that breaks is for the path to judge.
func (p *meshPeers) a2a(to identity.ID) (*client.Client, error) {
	return client.New(client.Config{URL: "http://" + string(to) + "/", HTTPClient: p.links.client(to, protocolA2A), Resume: -1})
}

// Send hands a signed request to a peer verbatim and follows it to its end.
func (p *meshPeers) Send(ctx context.Context, to identity.ID, req *sdk.SendMessageRequest, delegation []byte, out agent.Output) (*sdk.Task, error) {
	if err := p.cards.check(ctx, to); err != nil {
		return nil, err
	}
	c, err := p.a2a(to)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	header.Set(server.DelegationHeader, base64.RawURLEncoding.EncodeToString(delegation))
	task, err := client.Follow(c.Stream(ctx, req, header), client.Watcher{Output: out.Output, Progress: agent.ProgressOf(out)})
	if cut, ok := errors.AsType[*client.Interrupted](err); ok {
		return nil, cut.Cause // not an answer: the peer may have seen the request
	}
	return task, err
}

func (p *meshPeers) Task(ctx context.Context, at identity.ID, task string) (*sdk.Task, error) {
	c, err := p.a2a(at)
	if err != nil {
		return nil, err
	}
	return c.Get(ctx, task, nil)
}

func (p *meshPeers) Cancel(ctx context.Context, at identity.ID, task string) error {
	c, err := p.a2a(at)
	if err != nil {
		return err
	}
	_, err = c.Cancel(ctx, task, nil)
	return err
}

func (p *meshPeers) Follow(ctx context.Context, at identity.ID, task string, after *uint64) iter.Seq2[server.Numbered, error] {
	return func(yield func(server.Numbered, error) bool) {
		c, err := p.a2a(at)
		if err != nil {
			yield(server.Numbered{}, err)
			return
		}
		for e, err := range c.SubscribeAfter(ctx, task, after, nil) {
			if !yield(server.Numbered(e), err) {
				return
			}
		}
	}
}

// Relay hands a message on to the node that holds its task.
func (p *meshPeers) Relay(ctx context.Context, at identity.ID, req *sdk.SendMessageRequest, door string) iter.Seq2[server.Numbered, error] {
	return func(yield func(server.Numbered, error) bool) {
		if p.cards.check(ctx, at) != nil {
			yield(server.Numbered{}, &a2a.Error{Code: a2a.CodeUnavailable, Message: "the node that holds the task cannot be reached", RetryAfter: time.Second})
			return
		}
		c, err := p.a2a(at)
		if err != nil {
			yield(server.Numbered{}, err)
			return
		}
		for e, err := range c.StreamNumbered(ctx, req, http.Header{server.DoorHeader: {door}}) {
			if _, cut := errors.AsType[*client.Interrupted](err); cut {
				err = &a2a.Error{Code: a2a.CodeUnavailable, Message: "the node that holds the task stopped answering", RetryAfter: time.Second}
			}
			if !yield(server.Numbered(e), err) {
				return
			}
		}
	}
}

func (p *meshPeers) List(ctx context.Context, at identity.ID, q server.Query) (server.Page, error) {
	text, err := json.Marshal(q)
	if err != nil {
		return server.Page{}, fmt.Errorf("list tasks: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+string(at)+"/tasks", bytes.NewReader(text))
	if err != nil {
		return server.Page{}, fmt.Errorf("list tasks: %w", err)
	}
	res, err := p.links.client(at, protocolA2A).Do(req)
	if err != nil {
		return server.Page{}, fmt.Errorf("list tasks: %w", err)
	}
	defer res.Body.Close()
	var page server.Page
	if res.StatusCode != http.StatusOK {
		return server.Page{}, fmt.Errorf("list tasks: the node answered %s", res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxPeerPage)).Decode(&page); err != nil {
		return server.Page{}, fmt.Errorf("list tasks: %w", err)
	}
	return page, nil
}

func (p *meshPeers) Pushes(at identity.ID) (server.Pushes, error) { return p.a2a(at) }

func (p *meshPeers) Receipt(ctx context.Context, at identity.ID, task string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(at)+"/receipt/"+task, nil)
	if err != nil {
		return nil, err
	}
	res, err := p.links.client(at, protocolA2A).Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch receipt: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxPeerReceipt))
	if err != nil {
		return nil, fmt.Errorf("fetch receipt: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, a2a.Errorf(a2a.CodeNotFound, "the node that ran the task has no receipt of it")
	}
	return text, nil
}

func (p *meshPeers) Connected(id identity.ID) bool {
	for _, peer := range p.node.Peers() {
		if peer.ID == id {
			return peer.Connected
		}
	}
	return false
}

func (p *meshPeers) Adverts() map[identity.ID][]byte {
	out := map[identity.ID][]byte{}
	for id, ad := range p.node.Adverts() {
		out[id] = ad.Data
	}
	return out
}

// serveMesh answers A2A requests of other nodes. The connection proves who they
// are: as members they look after the tasks that they placed here.
func serveMesh(ctx context.Context, node *mesh.Node, rpc, card http.Handler, handler *server.Handler, path *agent.Agent, gate *gate, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.Handle("POST /tasks", listTasks(handler, log))
	evidenceRoutes(mux, path, gate, log)
	mux.Handle("POST /", rpc)
	mux.Handle("GET "+a2a.CardPath, card)
	mux.HandleFunc("GET /receipt/{task}", func(w http.ResponseWriter, r *http.Request) {
		text, err := path.OwnReceipt(r.Context(), r.PathValue("task"))
		if err != nil {
			log.DebugContext(r.Context(), "no receipt", "task", r.PathValue("task"), "err", err)
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // the peer may be gone
	})
	return serveStreams(ctx, node, protocolA2A, log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := identity.ParseID(r.RemoteAddr)
		if err != nil {
			http.Error(w, "unknown peer", http.StatusForbidden)
			return
		}
		caller := server.Caller{
			Principal: identity.Principal{Kind: identity.Node, Name: peer.DID(), Roles: []string{"operator"}},
			Peer:      peer, Door: server.DoorMesh,
		}
		mux.ServeHTTP(w, r.WithContext(server.WithCaller(r.Context(), caller)))
	}))
}

// listTasks answers another node about the tasks of this one's store, for a
// caller whom that node proved: as a member it may see all of them.
func listTasks(handler *server.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(peerQueryWait)) // streams of the mesh can
		var q server.Query
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxPeerQuery)).Decode(&q); err != nil {
			http.Error(w, "not a query", http.StatusBadRequest)
			return
		}
		page, err := handler.ListLocal(q)
		if err != nil {
			log.WarnContext(r.Context(), "task list for a peer", "err", err)
			http.Error(w, "no list", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(page) // the peer may be gone
	})
}

// serveLog answers other nodes about the log.
func serveLog(ctx context.Context, node *mesh.Node, h http.Handler, log *slog.Logger) error {
	return serveStreams(ctx, node, protocolLog, log, h)
}

func serveStreams(ctx context.Context, node *mesh.Node, protocol string, log *slog.Logger, h http.Handler) error {
	l, err := node.Listen(protocol)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", protocol, err)
	}
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxPeerHead,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	return httpdoor.ServeUntil(ctx, s, l, drainWait)
}
