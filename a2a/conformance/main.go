// Command conformance serves the node's A2A stack around an agent that behaves
// as the public conformance suites ask: JSON-RPC at /, HTTP+JSON at /rest, gRPC
// on an address of its own, and a card that lists all three.
//
//	go run ./a2a/conformance --http 127.0.0.1:9999 --grpc 127.0.0.1:9998
//
// It proves nobody and takes every caller for the same one: it is for tests.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	sdk "github.com/a2aproject/a2a-go/v2/a2a"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/a2a/push"
	"github.com/agenticraft/node/a2a/server"
	"github.com/agenticraft/node/a2a/taskstore"
	"github.com/agenticraft/node/identity"
)

const grace = 2 * time.Second

func main() {
	httpAddr := flag.String("http", "127.0.0.1:9999", "host:port of JSON-RPC and HTTP+JSON")
	grpcAddr := flag.String("grpc", "127.0.0.1:9998", "host:port of gRPC")
	pushes := flag.Bool("push", true, "offer push notifications, to loopback addresses too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *httpAddr, *grpcAddr, *pushes); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, httpAddr, grpcAddr string, pushes bool) (err error) {
	dir, err := os.MkdirTemp("", "agenticraft-conformance-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := start(ctx, dir, httpAddr, grpcAddr, pushes, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	fmt.Printf("card: %s%s\nJSON-RPC: %s/\nHTTP+JSON: %s/rest\ngRPC: %s\n", s.url, a2a.CardPath, s.url, s.url, s.grpc)
	<-ctx.Done()
	return s.close()
}

// service is the stack, running.
type service struct {
	url, grpc string
	pushes    bool
	close     func() error
}

const servers = 3 // HTTP, gRPC, notifier

// newNotifier delivers to receivers on this machine, too: that is where suites
// have theirs.
func newNotifier(store *taskstore.Store, log *slog.Logger) (*push.Pusher, error) {
	key, err := identity.Generate()
	if err != nil {
		return nil, err
	}
	guard, err := push.ParseGuard([]string{"127.0.0.0/8", "::1"})
	if err != nil {
		return nil, err
	}
	return push.New(push.Config{Store: store, Key: key, Guard: guard, Log: log})
}

// start serves until close; dir keeps the tasks.
func start(ctx context.Context, dir, httpAddr, grpcAddr string, pushes bool, log *slog.Logger) (*service, error) {
	store, err := taskstore.Open(taskstore.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	notifier, err := newNotifier(store, log)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	cfg := server.Config{Path: agent{}, Store: store, Log: log}
	if pushes {
		cfg.Push = notifier
	}
	handler, err := server.New(cfg)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	caller := server.Caller{Principal: anyone, Door: server.DoorHTTP}
	rpc, err := server.NewGRPC(server.GRPCConfig{Handler: handler, Log: log, Authenticate: func(context.Context, server.Credential) (server.Caller, error) {
		return caller, nil
	}})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	var lc net.ListenConfig
	httpListener, err := lc.Listen(ctx, "tcp", httpAddr)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	grpcListener, err := lc.Listen(ctx, "tcp", grpcAddr)
	if err != nil {
		return nil, errors.Join(err, httpListener.Close(), store.Close())
	}
	s := &service{url: "http://" + httpListener.Addr().String(), grpc: grpcListener.Addr().String(), pushes: pushes}
	card, err := json.Marshal(card(s))
	if err != nil {
		return nil, errors.Join(err, httpListener.Close(), grpcListener.Close(), store.Close())
	}
	doors := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: doors(handler, caller, card, log)}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, servers)
	go func() { done <- doors.Serve(httpListener) }()
	go func() { done <- rpc.Serve(serving, grpcListener, grace) }()
	go func() { done <- notifier.Run(serving) }()
	s.close = func() error {
		stop()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		faults := []error{doors.Close(), rpc.Close(), handler.Close(end)}
		for range servers {
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				faults = append(faults, err)
			}
		}
		return errors.Join(append(faults, store.Close())...)
	}
	return s, nil
}

// doors is what the HTTP address serves.
func doors(handler *server.Handler, caller server.Caller, card []byte, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	cfg := server.HTTPConfig{Handler: handler, Log: log}
	mux.Handle("/", server.HTTP(cfg))
	mux.Handle("/rest/", http.StripPrefix("/rest", server.REST(cfg)))
	mux.Handle("GET "+a2a.CardPath, server.Document(card, "application/json"))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(server.WithCaller(r.Context(), caller)))
	})
}

// card is the agent's card; it is not signed.
func card(s *service) map[string]any {
	at := func(url string, binding sdk.TransportProtocol) map[string]any {
		return map[string]any{"url": url, "protocolBinding": binding, "protocolVersion": a2a.Version}
	}
	return map[string]any{
		"name":        "AgentiCraft conformance agent",
		"description": "The A2A stack of AgentiCraft around the behaviours that conformance suites expect.",
		"version":     "1.0.0",
		"supportedInterfaces": []any{
			at(s.url+"/", sdk.TransportProtocolJSONRPC),
			at(s.url+"/rest", sdk.TransportProtocolHTTPJSON),
			at(s.grpc, sdk.TransportProtocolGRPC),
		},
		"capabilities":       map[string]any{"streaming": true, "pushNotifications": s.pushes, "extendedAgentCard": false},
		"defaultInputModes":  modes,
		"defaultOutputModes": modes,
		"skills": []any{map[string]any{
			"id": "behave", "name": "Behave", "description": "Behaves as the prefix of a message's id or text asks.", "tags": []string{"conformance"},
		}},
	}
}
