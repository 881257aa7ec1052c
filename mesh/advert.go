package mesh

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/agenticraft/node/identity"
)

// An advert on the wire: version (1 byte), sequence (8 bytes, big-endian),
// signature (64 bytes), data. Signed under advertDomain is the version, the
// cluster's name behind its length byte, the sequence and the data.
const (
	advertVersion  byte = 1
	advertDomain        = "agenticraft/mesh/advert/v1"
	advertHead          = 1 + 8
	advertOverhead      = advertHead + ed25519.SignatureSize
)

var errAdvert = errors.New("advert refused")

// Advert is what a peer last said of itself. Its signature was checked; what
// the data means, and whether it is true, is the reader's to judge.
type Advert struct {
	Data []byte
	At   time.Time // when it arrived, by our clock
}

type received struct {
	Advert
	sequence uint64
}

// SetAdvert gives the function that says what peers should know of this node.
// It is called every 2 seconds and on Announce, never concurrently; nil data
// advertises nothing; more than 8 KiB is not sent, and logged.
func (n *Node) SetAdvert(data func() []byte) {
	n.mu.Lock()
	n.advert = data
	n.mu.Unlock()
	n.Announce()
}

// Announce sends a new advert to every connected peer now.
func (n *Node) Announce() { nudge(n.announce) }

// Adverts are the newest adverts of the connected peers, none older than 10
// seconds.
func (n *Node) Adverts() map[identity.ID]Advert {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[identity.ID]Advert, len(n.adverts))
	for id, a := range n.adverts {
		if now.Sub(a.At) < advertTTL {
			out[id] = a.Advert
		}
	}
	return out
}

func (n *Node) expire(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, a := range n.adverts {
		if now.Sub(a.At) >= advertTTL {
			delete(n.adverts, id)
		}
	}
}

// advertise renews our advert and tells every tended peer to send it.
func (n *Node) advertise(ctx context.Context) {
	tick := time.NewTicker(advertEvery)
	defer tick.Stop()
	for {
		n.renew()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-n.announce:
		}
	}
}

func (n *Node) renew() {
	n.mu.Lock()
	say := n.advert
	n.mu.Unlock()
	var data []byte
	if say != nil {
		data = say()
	}
	if len(data) > maxAdvertBytes {
		n.log.Error("own advert is too large, not sent", "bytes", len(data), "limit", maxAdvertBytes)
		data = nil
	}
	if data == nil {
		n.current.Store(nil)
		return
	}
	wire := sealAdvert(n.cfg.Key, n.cfg.Cluster, n.sequence.Add(1), data)
	n.current.Store(&wire)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		nudge(p.kick)
	}
}

// receive takes an advert from its author. Whatever is not newer than what we
// hold is a repetition and ignored.
func (n *Node) receive(from identity.ID, wire []byte, now time.Time) error {
	sequence, data, err := openAdvert(from, n.cfg.Cluster, wire)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[from]
	if p == nil || !p.public.Connected || n.adverts[from].sequence >= sequence {
		n.met.adverts.WithLabelValues("ignored").Inc()
		return nil
	}
	n.adverts[from] = received{Advert{Data: data, At: now}, sequence}
	n.met.adverts.WithLabelValues("taken").Inc()
	return nil
}

func sealAdvert(key *identity.Key, cluster string, sequence uint64, data []byte) []byte {
	wire := make([]byte, 0, advertOverhead+len(data))
	wire = append(wire, advertVersion)
	wire = binary.BigEndian.AppendUint64(wire, sequence)
	wire = append(wire, key.Sign(advertDomain, advertSigned(cluster, sequence, data))...)
	return append(wire, data...)
}

// openAdvert checks an advert said to be author's. Nothing of it is returned
// unless its signature holds.
func openAdvert(author identity.ID, cluster string, wire []byte) (sequence uint64, data []byte, err error) {
	switch {
	case len(wire) < advertOverhead:
		return 0, nil, fmt.Errorf("%w: %d bytes are too few", errAdvert, len(wire))
	case len(wire) > advertOverhead+maxAdvertBytes:
		return 0, nil, fmt.Errorf("%w: more than %d bytes", errAdvert, maxAdvertBytes)
	case wire[0] != advertVersion:
		return 0, nil, fmt.Errorf("%w: version %d is not known", errAdvert, wire[0])
	}
	sequence = binary.BigEndian.Uint64(wire[1:])
	signature, data := wire[advertHead:advertOverhead], wire[advertOverhead:]
	if !author.Verify(advertDomain, advertSigned(cluster, sequence, data), signature) {
		return 0, nil, fmt.Errorf("%w: signature does not hold", errAdvert)
	}
	return sequence, data, nil
}

func advertSigned(cluster string, sequence uint64, data []byte) []byte {
	out := make([]byte, 0, 2+len(cluster)+8+len(data))
	out = append(out, advertVersion, byte(len(cluster)))
	out = append(out, cluster...)
	out = binary.BigEndian.AppendUint64(out, sequence)
	return append(out, data...)
}
