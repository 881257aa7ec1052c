package consensus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/agenticraft/node/identity"
)

// acceptForwards serves the forward protocol to keepers and to whom
// AllowForward lets.
func (g *Group) acceptForwards() {
	served := make(chan struct{}, maxForwardStreams)
	for {
		c, err := g.listener.Accept()
		if err != nil {
			if g.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				g.log.Error("accept forwarded proposals", "err", err)
			}
			return
		}
		from := identity.ID(c.RemoteAddr().String())
		allowed := g.isMember(from) || g.cfg.AllowForward(from)
		select {
		case served <- struct{}{}:
		default:
			allowed = false
		}
		if !allowed {
			g.met.refused.Inc()
			g.log.Warn("refused a forward stream", "peer", from)
			_ = c.Close()
			continue
		}
		g.work.Go(func() {
			defer func() { <-served }()
			g.serveForward(c)
		})
	}
}

type response struct {
	id     uint64
	status byte
	body   []byte
}

// serveForward answers the proposals of one stream. They are proposed here and
// nowhere else: one hop, so that two nodes which each believe that the other
// leads cannot play ball.
func (g *Group) serveForward(c net.Conn) {
	ctx, cancel := context.WithCancel(g.ctx)
	release := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer release()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	defer c.Close()

	r := bufio.NewReaderSize(c, 32<<10)
	if c.SetReadDeadline(time.Now().Add(writeTimeout)) != nil {
		return
	}
	if version, err := r.ReadByte(); err != nil || version != forwardVersion {
		return
	}
	out := make(chan response, maxInFlight)
	work.Go(func() {
		defer cancel()
		writeResponses(ctx, c, out)
	})
	slots := make(chan struct{}, maxInFlight)
	for {
		if c.SetReadDeadline(time.Now().Add(idleTimeout+graceTimeout)) != nil {
			return
		}
		body, err := readFrame(r, requestHead, maxRequestBytes)
		if err != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		work.Go(func() {
			defer func() { <-slots }()
			id := binary.BigEndian.Uint64(body)
			wait := time.Duration(binary.BigEndian.Uint32(body[8:])) * time.Millisecond
			answer := g.proposeFor(ctx, min(wait, graceTimeout), body[requestHead:])
			answer.id = id
			select {
			case out <- answer:
			case <-ctx.Done():
			}
		})
	}
}

func (g *Group) proposeFor(ctx context.Context, wait time.Duration, cmd []byte) response {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := ErrNoLeader
	var result []byte
	if g.Lead() {
		result, err = g.proposeHere(ctx, cmd)
	}
	switch {
	case err == nil && len(result) > maxResponseBytes-responseHead:
		return response{status: statusAmbiguous, body: []byte("the result is too large to be sent")}
	case err == nil:
		return response{status: statusDone, body: result}
	case errors.Is(err, ErrNoLeader):
		leader, _ := g.Leader()
		return response{status: statusNoLeader, body: []byte(leader)}
	case errors.Is(err, ErrRefused):
		return response{status: statusRefused}
	default:
		text := err.Error()
		return response{status: statusAmbiguous, body: []byte(text[:min(len(text), maxErrorText)])}
	}
}

func writeResponses(ctx context.Context, c net.Conn, out <-chan response) {
	w := bufio.NewWriterSize(c, 16<<10)
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-out:
			var head [responseHead]byte
			binary.BigEndian.PutUint64(head[:], a.id)
			head[8] = a.status
			if c.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil || writeFrame(w, head[:], a.body) != nil {
				return
			}
			if len(out) == 0 && w.Flush() != nil {
				return
			}
		}
	}
}
