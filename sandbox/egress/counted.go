package egress

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// counted counts the bytes of a connection against those of its run.
type counted struct {
	net.Conn
	proxy *Proxy

	// Held over each call, so that what has passed is counted before the count is
	// read: an answer may be here before the write that asked for it returns.
	reading, writing sync.Mutex
	sent, received   atomic.Int64
	cut              atomic.Bool
}

func (c *counted) Read(b []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	n, err := c.Conn.Read(b)
	c.received.Add(int64(n))
	return c.charge(n, err)
}

func (c *counted) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return c.charge(n, err)
}

var errBytes = errors.New("the run used up its bytes")

func (c *counted) charge(n int, err error) (int, error) {
	if c.proxy.left.Add(int64(-n)) < 0 {
		c.cut.Store(true)
		_ = c.Close() // for good
		return n, errBytes
	}
	return n, err
}

// finish closes the connection and returns how many bytes passed, those of calls
// that the closing ended included.
func (c *counted) finish() (sent, received int64) {
	_ = c.Close() // wakes whoever reads or writes
	c.reading.Lock()
	defer c.reading.Unlock()
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.sent.Load(), c.received.Load()
}
