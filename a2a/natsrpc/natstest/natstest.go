// Package natstest runs real NATS servers for tests.
package natstest

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Server is a NATS server that can be stopped and started again at the same
// address, with the same JetStream folder.
type Server struct {
	URL string

	t       testing.TB
	options server.Options
	running *server.Server
}

const startWait = 20 * time.Second

// Start starts a server on loopback that ends with the test. Configure, if not
// nil, changes its options.
func Start(t testing.TB, configure func(*server.Options)) *Server {
	t.Helper()
	s := &Server{t: t, options: server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, StoreDir: t.TempDir()}}
	if configure != nil {
		configure(&s.options)
	}
	s.Restart()
	t.Cleanup(s.Stop)
	return s
}

// Stop stops the server, if it runs.
func (s *Server) Stop() {
	if s.running != nil {
		s.running.Shutdown()
		s.running.WaitForShutdown()
		s.running = nil
	}
}

// Restart starts the server (again).
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	options := s.options
	running, err := server.NewServer(&options)
	if err != nil {
		s.t.Fatal(err)
	}
	go running.Start() // ends with Shutdown, which Stop waits for
	if !running.ReadyForConnections(startWait) {
		s.t.Fatal("the NATS server did not start")
	}
	s.running = running
	s.options.Port = options.Port
	s.URL = running.ClientURL()
}

// Connect connects a client that ends with the test and comes back after a
// restart of the server.
func (s *Server) Connect(options ...nats.Option) *nats.Conn {
	s.t.Helper()
	conn, err := nats.Connect(s.URL, append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0)}, options...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	return conn
}
