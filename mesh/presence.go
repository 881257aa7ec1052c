package mesh

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/agenticraft/node/identity"
)

// The presence protocol: each side keeps one stream to the other, on which it
// sends pings and its adverts and reads pongs. A frame is a kind byte, a
// big-endian uint16 length and that many bytes.
const (
	presenceName = "presence"

	framePing   byte = 1 // 8 bytes, answered by framePong with the same
	framePong   byte = 2
	frameAdvert byte = 3

	maxFrameBytes = maxAdvertBytes + advertOverhead
)

var errFrame = errors.New("malformed presence frame")

func writeFrame(w io.Writer, kind byte, body []byte) error {
	frame := make([]byte, 3, 3+len(body))
	frame[0] = kind
	binary.BigEndian.PutUint16(frame[1:], uint16(len(body)))
	_, err := w.Write(append(frame, body...))
	return plain(err)
}

func readFrame(r io.Reader) (kind byte, body []byte, err error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, plain(err)
	}
	kind, size := head[0], int(binary.BigEndian.Uint16(head[1:]))
	fits := size <= maxFrameBytes
	if kind == framePing || kind == framePong {
		fits = size == 8
	}
	if !fits || kind < framePing || kind > frameAdvert {
		return 0, nil, fmt.Errorf("%w: kind %d of %d bytes", errFrame, kind, size)
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, plain(err)
	}
	return kind, body, nil
}

// presence exchanges pings and adverts with a connected peer until it is
// disconnected or ctx is done. A peer that stays silent for pingTimeout is cut
// off, for a hung process or a dead link tells nobody that it is gone.
func (n *Node) presence(ctx context.Context, p *tracked) {
	if !n.allowed(p.id) {
		return // a guest
	}
	opening, cancel := context.WithTimeout(ctx, pingTimeout)
	s, err := n.host.NewStream(network.WithNoDial(opening, "presence"), p.id, n.protocol(presenceName))
	silent := opening.Err() != nil && ctx.Err() == nil
	cancel()
	if err != nil {
		n.log.DebugContext(ctx, "open presence stream", "peer", p.id.String(), "err", err)
		if silent {
			n.lost(p)
		}
		return
	}
	pongs := make(chan uint64, 1)
	gone := make(chan struct{})
	n.work.Go(func() {
		defer close(gone)
		n.readPongs(s, pongs)
	})
	defer func() {
		_ = s.Reset()
		<-gone
	}()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	nudge(p.kick) // adverts are exchanged on connect
	var sent time.Time
	var number uint64
	heard := time.Now()
	ping := func() error {
		number++
		sent = time.Now()
		return n.send(s, framePing, binary.BigEndian.AppendUint64(nil, number))
	}
	err = ping()
	for err == nil {
		select {
		case <-ctx.Done():
			return
		case <-n.closed:
			return
		case <-gone:
			err = io.ErrUnexpectedEOF
		case <-p.wake:
			if n.host.Network().Connectedness(p.id) != network.Connected {
				return
			}
		case <-p.kick:
			if wire := n.current.Load(); wire != nil {
				err = n.send(s, frameAdvert, *wire)
			}
		case got := <-pongs:
			if got == number && !sent.IsZero() {
				heard = time.Now()
				n.measured(p, heard.Sub(sent))
				sent = time.Time{}
			}
		case <-tick.C:
			if time.Since(heard) > pingTimeout {
				n.lost(p)
				return
			}
			if sent.IsZero() { // otherwise the last ping is still under way
				err = ping()
			}
		}
	}
	n.log.DebugContext(ctx, "presence stream ended", "peer", p.id.String(), "err", err)
}

func (n *Node) lost(p *tracked) {
	n.log.Warn("peer does not answer, connection closed", "peer", p.id.String())
	n.met.silent.Inc()
	n.cut(p.id)
}

func (n *Node) send(s network.Stream, kind byte, body []byte) error {
	if err := deadline(s.SetWriteDeadline, pingTimeout); err != nil {
		return err
	}
	return writeFrame(s, kind, body)
}

func (n *Node) readPongs(s network.Stream, pongs chan<- uint64) {
	r := bufio.NewReaderSize(s, 64)
	for {
		kind, body, err := readFrame(r)
		if err != nil || kind != framePong {
			return
		}
		select {
		case pongs <- binary.BigEndian.Uint64(body):
		default: // the peer answers what nobody asked
		}
	}
}

func (n *Node) measured(p *tracked, rtt time.Duration) {
	n.met.rtt.Observe(rtt.Seconds())
	n.mu.Lock()
	defer n.mu.Unlock()
	p.public.RTT = rtt
}

// answerPresence serves the other side's presence stream.
func (n *Node) answerPresence(s network.Stream) {
	if !n.begin() {
		_ = s.Reset()
		return
	}
	defer n.work.Done()
	from := s.Conn().RemotePeer()
	if !n.allowed(from) {
		_ = s.Reset() // a guest learns nothing of us, and we believe it nothing
		return
	}
	err := n.servePresence(s, identity.ID(from.String()))
	_ = s.Reset()
	if errors.Is(err, errFrame) || errors.Is(err, errAdvert) {
		n.met.adverts.WithLabelValues("refused").Inc()
		n.log.Warn("refused presence of a peer", "peer", from.String(), "err", err)
	}
}

func (n *Node) servePresence(s network.Stream, from identity.ID) error {
	r := bufio.NewReaderSize(s, 1<<10)
	second, frames := time.Now(), 0
	for {
		if err := deadline(s.SetReadDeadline, advertTTL); err != nil {
			return err
		}
		kind, body, err := readFrame(r)
		if err != nil {
			return err
		}
		now := time.Now()
		if now.Sub(second) > time.Second {
			second, frames = now, 0
		}
		if frames++; frames > maxPresencePerSecond {
			return fmt.Errorf("%w: more than %d a second", errFrame, maxPresencePerSecond)
		}
		switch kind {
		case framePing:
			err = n.send(s, framePong, body)
		case frameAdvert:
			err = n.receive(from, body, now)
		default:
			err = fmt.Errorf("%w: kind %d", errFrame, kind)
		}
		if err != nil {
			return err
		}
	}
}
