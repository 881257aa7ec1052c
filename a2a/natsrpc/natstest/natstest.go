// Package natstest runs real NATS servers for tests.
package natstest

import (
	"context"
	"net"
	"strconv"
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

const startWait = time.Minute

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
	s.awaitPort()
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

// awaitPort waits until the port of a server that ran before is free. The system
// may have given it to an outgoing connection meanwhile, even to that of a client
// that tries to come back.
func (s *Server) awaitPort() {
	s.t.Helper()
	if s.options.Port == server.RANDOM_PORT {
		return
	}
	at := net.JoinHostPort(s.options.Host, strconv.Itoa(s.options.Port))
	for end := time.Now().Add(startWait); ; time.Sleep(time.Millisecond) {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", at)
		if err == nil {
			err = l.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(end) {
			s.t.Fatal(err)
		}
	}
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
