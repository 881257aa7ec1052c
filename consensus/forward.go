package consensus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/identity"
)

// The forward protocol: one stream carries many proposals at a time. The
// origin begins with forwardVersion, then either side sends frames, each a
// big-endian uint32 length and that many bytes:
//
//	request:  id (8), time the origin waits in milliseconds (4), command
//	response: id (8), status (1), result, leader's ID or error text
const (
	forwardVersion byte = 1

	statusDone      byte = 0 // result follows
	statusNoLeader  byte = 1 // nothing was proposed; the leader's ID follows, if known
	statusAmbiguous byte = 2 // text follows
	statusRefused   byte = 3 // the leader's state machine would not take it

	requestHead       = 8 + 4
	responseHead      = 8 + 1
	maxRequestBytes   = requestHead + MaxCommandBytes
	maxResponseBytes  = 1 << 20
	maxErrorText      = 1 << 10
	maxInFlight       = 1024 // requests of one stream
	maxForwardStreams = 256  // that a leader serves at a time
	writeTimeout      = 5 * time.Second
	idleTimeout       = 2 * time.Minute // then the origin closes a stream; the other side a little later
	graceTimeout      = 30 * time.Second
)

var errFrame = errors.New("malformed forward frame")

func writeFrame(w *bufio.Writer, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(size))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func readFrame(r io.Reader, least, most int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if uint64(size) < uint64(least) || uint64(size) > uint64(most) {
		return nil, fmt.Errorf("%w: %d bytes", errFrame, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return body, nil
}

// forwarder is the origin's side: one kept stream to each node it forwards to.
type forwarder struct {
	g *Group

	mu   sync.Mutex
	to   map[identity.ID]*target
	next int // keeper to ask when no leader is known
	shut bool
}

type target struct {
	dialing chan struct{} // holds one token; who takes it may dial
	open    *channel      // guarded by forwarder.mu
}

func newForwarder(g *Group) *forwarder { return &forwarder{g: g, to: map[identity.ID]*target{}} }

// propose sends a command to the leader, or if none is known and this node is
// no keeper, to any keeper, which will name it.
func (f *forwarder) propose(ctx context.Context, cmd []byte) ([]byte, error) {
	leader, known := f.g.Leader()
	if !known && f.g.raft != nil && slices.Contains(f.g.cfg.Members(), f.g.cfg.Self) {
		return nil, ErrNoLeader
	}
	if !known {
		keepers := f.g.cfg.Members()
		if len(keepers) == 0 {
			return nil, fmt.Errorf("%w: no keeper is known", ErrNoLeader)
		}
		f.mu.Lock()
		leader = keepers[f.next%len(keepers)]
		f.next++
		f.mu.Unlock()
	}
	if leader == f.g.cfg.Self {
		return nil, ErrNoLeader // it was us a moment ago
	}
	c, err := f.channel(ctx, leader)
	if err != nil {
		f.g.hinted("")
		return nil, fmt.Errorf("%w: reach %s: %w", ErrNoLeader, leader, err)
	}
	result, hint, err := c.ask(ctx, cmd, func() (bool, <-chan struct{}) { return f.g.leads(leader) })
	if err == nil {
		hint = leader
	}
	f.g.hinted(hint)
	return result, err
}

// leads reports whether this keeper still believes that the node leads, and
// when to ask again. A leader that died does not say so, and its stream may
// look alive for seconds; whoever waits for it had better ask the next one.
func (g *Group) leads(node identity.ID) (bool, <-chan struct{}) {
	if g.raft == nil {
		return true, nil // no keeper: it hears of elections only from answers
	}
	changed := g.leaderChange()
	now, known := g.Leader()
	return known && now == node, changed
}

var errMoved = errors.New("the leader changed meanwhile")

// channel returns the open channel to a node, dialing it if need be. Only one
// caller dials; the others wait for it.
func (f *forwarder) channel(ctx context.Context, to identity.ID) (*channel, error) {
	f.mu.Lock()
	t := f.to[to]
	if t == nil {
		t = &target{dialing: make(chan struct{}, 1)}
		f.to[to] = t
	}
	if c := t.open; c != nil && !c.ended() {
		f.mu.Unlock()
		return c, nil
	}
	f.mu.Unlock()
	select {
	case t.dialing <- struct{}{}:
		defer func() { <-t.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.g.ctx.Done():
		return nil, errCut
	}
	f.mu.Lock()
	if c := t.open; c != nil && !c.ended() {
		f.mu.Unlock()
		return c, nil
	}
	f.mu.Unlock()
	conn, err := f.g.streams.Dial(ctx, to, protocolForward)
	if err != nil {
		return nil, err
	}
	c := newChannel(conn)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		return nil, errors.Join(errCut, conn.Close())
	}
	t.open = c
	f.g.work.Go(c.write)
	f.g.work.Go(c.read)
	return c, nil
}

// leave ends the channels to all but the leader: what is under way on them is
// answered by a node that leads no more, late or never.
func (f *forwarder) leave(leader identity.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, t := range f.to {
		if id != leader && t.open != nil {
			t.open.end()
			t.open = nil
		}
	}
}

func (f *forwarder) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shut = true
	for _, t := range f.to {
		if t.open != nil {
			t.open.end()
		}
	}
}

// channel multiplexes requests over one stream.
type channel struct {
	conn  net.Conn
	out   chan *request
	dead  chan struct{} // closed when the stream is of no more use
	once  sync.Once
	heard atomic.Int64 // Unix nanoseconds of the last response

	mu      sync.Mutex
	number  uint64
	pending map[uint64]*request
}

type request struct {
	proposal
	id   uint64
	wait time.Duration
}

func newChannel(conn net.Conn) *channel {
	return &channel{conn: conn, out: make(chan *request, maxInFlight), dead: make(chan struct{}), pending: map[uint64]*request{}}
}

func (c *channel) ended() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

func (c *channel) end() {
	c.once.Do(func() {
		close(c.dead)
		_ = c.conn.Close()
	})
}

// ask sends one command and waits for the answer, as long as the other side
// leads.
func (c *channel) ask(ctx context.Context, cmd []byte, leads func() (bool, <-chan struct{})) (result []byte, hint identity.ID, err error) {
	until, _ := ctx.Deadline() // Propose sees to it that there is one
	r := &request{proposal: proposal{cmd: cmd, answer: make(chan answer, 1)}, wait: time.Until(until)}
	c.mu.Lock()
	if len(c.pending) >= maxInFlight {
		c.mu.Unlock()
		return nil, "", fmt.Errorf("%w: too many proposals are under way", ErrNoLeader)
	}
	c.number++
	r.id = c.number
	c.pending[r.id] = r
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, r.id)
		c.mu.Unlock()
	}()
	sent := time.Now()
	select {
	case c.out <- r:
	case <-ctx.Done():
		return nil, "", fmt.Errorf("%w: %w", ErrNoLeader, ctx.Err())
	case <-c.dead:
		return nil, "", fmt.Errorf("%w: stream ended", ErrNoLeader)
	}
	for {
		still, changed := leads()
		if !still {
			result, err = r.giveUp(errMoved)
			return result, "", err
		}
		select {
		case a := <-r.answer:
			return a.result, a.hint, a.err
		case <-c.dead:
			result, err = r.giveUp(errors.New("stream to the leader ended"))
			return result, "", err
		case <-changed:
			continue
		case <-ctx.Done():
		}
		result, err = r.giveUp(ctx.Err())
		// A stream on which nothing came all the while is not worth keeping.
		if c.heard.Load() < sent.UnixNano() && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			c.end()
		}
		return result, "", err
	}
}

// write sends requests as they come and flushes when there is no other.
func (c *channel) write() {
	defer c.end()
	w := bufio.NewWriterSize(c.conn, 32<<10)
	if c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil || w.WriteByte(forwardVersion) != nil {
		return
	}
	for {
		select {
		case <-c.dead:
			return
		case r := <-c.out:
			if c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
				return
			}
			if r.state.CompareAndSwap(waiting, taken) {
				var head [requestHead]byte
				binary.BigEndian.PutUint64(head[:], r.id)
				binary.BigEndian.PutUint32(head[8:], uint32(max(r.wait, 0).Milliseconds()))
				if writeFrame(w, head[:], r.cmd) != nil {
					return
				}
			}
			if len(c.out) == 0 && w.Flush() != nil {
				return
			}
		}
	}
}

func (c *channel) read() {
	defer c.end()
	r := bufio.NewReaderSize(c.conn, 16<<10)
	for {
		if c.conn.SetReadDeadline(time.Now().Add(idleTimeout)) != nil {
			return
		}
		body, err := readFrame(r, responseHead, maxResponseBytes)
		if err != nil {
			return
		}
		c.heard.Store(time.Now().UnixNano())
		c.mu.Lock()
		asked := c.pending[binary.BigEndian.Uint64(body)]
		c.mu.Unlock()
		if asked == nil || asked.state.Load() != taken {
			continue // its owner waits no longer
		}
		status, rest := body[8], body[responseHead:]
		var a answer
		switch status {
		case statusDone:
			a.result = rest
		case statusNoLeader:
			a.hint = identity.ID(rest)
			a.err = fmt.Errorf("%w: the node asked does not lead", ErrNoLeader)
		case statusRefused:
			a.err = fmt.Errorf("%w by the leader's state machine", ErrRefused)
		default:
			a.err = fmt.Errorf("%w: leader: %.1024q", ErrAmbiguous, rest)
		}
		select {
		case asked.answer <- a:
		default: // answered before: the leader repeats itself
		}
	}
}
