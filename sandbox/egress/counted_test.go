package egress

import (
	"io"
	"net"
	"testing"
)

// late returns from a write only when it has been closed, long after the bytes
// have left.
type late struct {
	net.Conn
	left, closed chan struct{}
}

func (l *late) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	close(l.left)
	<-l.closed
	return n, err
}

func (l *late) Close() error {
	close(l.closed)
	return l.Conn.Close()
}

// A program's bytes are counted, however early the other side answers them.
func TestBytesAreCountedBeforeTheirWriteReturns(t *testing.T) {
	near, far := net.Pipe()
	p := &Proxy{}
	p.left.Store(1000)
	l := &late{Conn: near, left: make(chan struct{}), closed: make(chan struct{})}
	c := &counted{Conn: l, proxy: p}
	got := make([]byte, 100)
	go func() { _, _ = c.Write(make([]byte, len(got))) }()
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	<-l.left
	if sent, received := c.finish(); sent != 100 || received != 0 {
		t.Errorf("sent %d and received %d, want 100 and 0", sent, received)
	}
	if left := p.left.Load(); left != 900 {
		t.Errorf("%d bytes are left to the run, want 900", left)
	}
}
