package mesh_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/mesh"
)

// A guest speaks the guests' protocol and nothing else, and is cut off when it
// is a guest no longer.
func TestGuestsOnlyKnock(t *testing.T) {
	hostKey, guestKey := newKey(t), newKey(t)
	guests := allow(guestKey.ID())
	host, _ := start(t, mesh.Config{Key: hostKey, Allow: allow().Allow, Guests: guests.Allow})
	for _, protocol := range []string{mesh.GuestProtocol, "raft"} {
		l, err := host.Listen(protocol)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, c.RemoteAddr().String())
				_ = c.Close()
			}
		}()
	}
	guest, _ := start(t, mesh.Config{Key: guestKey, Allow: allow(host.ID()).Allow, DialOnly: true})
	if addrs := guest.Addrs(); len(addrs) != 0 {
		t.Errorf("a node that only dials listens on %v", addrs)
	}
	guest.SetPeers(map[identity.ID][]string{host.ID(): host.Addrs()})
	ask := func(protocol string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := guest.Dial(ctx, host.ID(), protocol)
		if err != nil {
			return ""
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		text, _ := io.ReadAll(c) // a reset ends it
		return string(text)
	}
	eventually(t, "the host to hear the guest", func() bool { return ask(mesh.GuestProtocol) == string(guestKey.ID()) })
	if got := ask("raft"); got != "" {
		t.Errorf("a guest was let into another protocol: %q", got)
	}
	host.SetAdvert(func() []byte { return []byte("secret") })
	guests.set(guestKey.ID(), false)
	host.Recheck()
	eventually(t, "the guest to be cut off", func() bool { return !isConnected(host, guestKey.ID()) })
	if ads := guest.Adverts(); len(ads) != 0 {
		t.Errorf("a guest was told %v", ads)
	}
	if got := ask(mesh.GuestProtocol); got != "" {
		t.Errorf("a guest of yesterday was let in: %q", got)
	}
}
