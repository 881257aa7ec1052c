package egress

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// errName: TLS inside a tunnel greets another host than the tunnel leads to.
var errName = errors.New("TLS for another host")

const (
	tlsHandshake = 0x16     // first byte of a TLS connection
	maxGreeting  = 64 << 10 // bytes of a TLS greeting
)

// tunnel connects the program with the other side until one of them ends it.
func (p *Proxy) tunnel(w http.ResponseWriter, out *counted, d sandbox.Destination) error {
	in, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil // a server that is being closed
	}
	closeIn := sync.OnceFunc(func() { _ = in.Close() }) // nobody waits for what is left
	defer closeIn()
	stop := make(chan struct{})
	defer close(stop)
	p.wg.Go(func() {
		select {
		case <-p.ctx.Done():
			closeIn()
		case <-stop:
		}
	})
	// No deadline but the run's own: a tunnel may be silent.
	if in.SetDeadline(time.Time{}) != nil {
		return nil
	}
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return nil
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(in, out) // ends when either side does
		halfClose(in)
	})
	// Bytes that came with the request are the first of the tunnel.
	name := d.Host
	if _, literal := d.Address(); literal {
		name = ""
	}
	mismatch := greeting(out, in, buffered.Reader, name)
	if mismatch == nil {
		_, _ = io.Copy(out, buffered.Reader)
		halfClose(out.Conn)
	} else {
		closeIn()
		_ = out.Close() // wakes the other direction
	}
	back.Wait()
	return mismatch
}

// greeting passes on the first bytes of the program. If they begin TLS, the name
// that it asks for must be the tunnel's, so that one allowed address does not
// serve as a door to every site behind it.
func greeting(out io.Writer, in net.Conn, from io.Reader, name string) error {
	first := make([]byte, 1)
	if _, err := io.ReadFull(from, first); err != nil {
		return nil // nothing was said; the copy ends at once
	}
	if first[0] != tlsHandshake || name == "" {
		_, _ = out.Write(first) // a failure shows in what follows
		return nil
	}
	_ = in.SetReadDeadline(time.Now().Add(headTimeout)) // a failure shows in the read
	var seen bytes.Buffer
	hello := &listening{r: io.TeeReader(io.LimitReader(io.MultiReader(bytes.NewReader(first), from), maxGreeting), &seen)}
	asked, heard := "", false
	_ = tls.Server(hello, &tls.Config{ //nolint:gosec // no handshake is made, only its first message read
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			asked, heard = h.ServerName, true
			return nil, errName
		},
	}).Handshake() //nolint:noctx // bounded by the deadline above
	_ = in.SetReadDeadline(time.Time{})
	if !heard || !strings.EqualFold(strings.TrimSuffix(asked, "."), name) {
		return errName
	}
	_, _ = out.Write(seen.Bytes())
	return nil
}

// listening is a connection that can only be read.
type listening struct {
	net.Conn
	r io.Reader
}

func (l *listening) Read(b []byte) (int, error)       { return l.r.Read(b) }
func (l *listening) Write(b []byte) (int, error)      { return len(b), nil }
func (l *listening) Close() error                     { return nil }
func (l *listening) SetDeadline(time.Time) error      { return nil }
func (l *listening) SetReadDeadline(time.Time) error  { return nil }
func (l *listening) SetWriteDeadline(time.Time) error { return nil }

// halfClose tells the other end that nothing more comes.
func halfClose(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite() // gone already: as well
		return
	}
	if t, ok := c.(*given); ok {
		halfClose(t.Conn)
		return
	}
	_ = c.Close()
}

// few is a listener of which only so many connections are open at once; the
// others wait in the kernel.
type few struct {
	net.Listener
	free chan struct{}
	done <-chan struct{}
}

func (f *few) Accept() (net.Conn, error) {
	select {
	case f.free <- struct{}{}:
	case <-f.done:
		return nil, net.ErrClosed
	}
	c, err := f.Listener.Accept()
	if err != nil {
		<-f.free
		return nil, err
	}
	return &given{Conn: c, back: sync.OnceFunc(func() { <-f.free })}, nil
}

// given is an accepted connection.
type given struct {
	net.Conn
	back func()
}

func (g *given) Close() error {
	defer g.back()
	return g.Conn.Close()
}
