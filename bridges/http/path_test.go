package http

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/agenticraft/node/a2a/server"
)

// Paths that net/http's ServeMux would redirect, methods that nobody knows and
// paths that are very long get an error in the form of the interface that they are
// for, and no error repeats all of a long one.
func TestOddRequests(t *testing.T) {
	nobody := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	log := slog.New(slog.DiscardHandler)
	s := httptest.NewServer(New(Config{
		A2A: server.HTTP(server.HTTPConfig{Log: log}), REST: server.REST(server.HTTPConfig{Log: log}),
		GRPC: nobody, MCP: nobody, Card: nobody, Tiles: nobody, Metrics: nobody, Console: nobody, Logger: log,
	}))
	defer s.Close()
	const (
		problems = "application/problem+json"
		status   = "application/json" // of the HTTP+JSON binding, and of JSON-RPC
	)
	long := strings.Repeat("x", 50_000)
	for _, c := range []struct {
		line string // method and target
		code int
		kind string
	}{
		{"GET //", 404, problems},
		{"GET //v1/status", 404, problems},
		{"GET /v1//status", 404, problems},
		{"POST //v1/runs", 404, problems},
		{"GET /v1/./status", 404, problems},
		{"GET /v1/../v1/status", 404, problems},
		{"GET /v1/%2e%2e/v1/status", 404, problems},
		{"GET /v1/%2E./status", 404, problems},
		{"GET /v1/tasks/..", 404, problems},
		{"GET /v1/status/", 404, problems},
		{"GET /log", 404, problems},
		{"GET /log/../v1/status", 404, problems},
		{"GET /log/%2e%2e/keys", 404, problems},
		{"GET /", 404, problems},
		{"GET *", 404, problems},
		{"GET http://node.example", 404, problems},
		{"GET /.well-known//agent-card.json", 404, problems},
		{"GET /" + long, 404, problems},
		{"CONNECT node.example:443", 404, problems},
		{"BREW /coffee", 404, problems},
		{"BREW /v1/runs", 405, problems},
		{"DELETE /v1/runs", 405, problems},
		{strings.Repeat("M", 50_000) + " /v1/runs", 405, problems},
		{"PUT /.well-known/agent-card.json", 405, problems},
		{"POST //a2a/jsonrpc", 404, problems},
		{"POST /a2a//jsonrpc", 404, problems},
		{"GET /a2a/jsonrpc", 405, status},
		{"BREW /a2a/jsonrpc", 405, status},
		{"GET /a2a/rest", 404, status},
		{"GET /a2a/rest/", 404, status},
		{"GET /a2a/rest//tasks", 404, status},
		{"GET /a2a/rest/tasks/", 404, status},
		{"GET /a2a/rest/tasks/../tasks", 404, status},
		{"GET /a2a/rest/%2e%2e/tasks", 404, status},
		{"GET /a2a/rest/../../v1/status", 404, status},
		{"GET /a2a/rest/acme//tasks", 404, status},
		{"GET /a2a/rest/" + long, 404, status},
		{"BREW /a2a/rest/tasks", 405, status},
		{"GET /ui/", 418, ""},
	} {
		name := c.line[:min(len(c.line), 60)]
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: node.example\r\nA2A-Version: 1.0\r\nConnection: close\r\n\r\n", c.line)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(res.Body)
		conn.Close()
		if kind := res.Header.Get("Content-Type"); err != nil || res.StatusCode != c.code || kind != c.kind {
			t.Errorf("%s: %d %s %.200s, %v; want %d %s", name, res.StatusCode, kind, body, err, c.code, c.kind)
		}
		if len(body) > 2000 || c.kind != "" && !json.Valid(body) {
			t.Errorf("%s: %d bytes that are no short JSON: %.200s", name, len(body), body)
		}
		if c.code == http.StatusMethodNotAllowed && res.Header.Get("Allow") == "" {
			t.Errorf("%s: no Allow", name)
		}
	}
}
