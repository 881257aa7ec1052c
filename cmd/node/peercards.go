package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/agenticraft/node/a2a"
	"github.com/agenticraft/node/agent"
	"github.com/agenticraft/node/identity"
)

// peerCards are the agent cards that peers showed: a peer is given work only when
// its card is signed by the very key that its peer ID is, and is of this cluster.
// The connection proves the key as well; the card proves what the peer says of
// itself to everybody, and that it was made by who runs there now.
type peerCards struct {
	links    *links
	audience string
	log      *slog.Logger

	mu     sync.Mutex // guards proved; never held over a request
	proved map[identity.ID]time.Time
}

// Bounds of how a peer's card is read.
const (
	cardHolds = 10 * time.Minute // then it is read anew
	cardWait  = 5 * time.Second
)

// check reads and verifies a peer's card, before the peer is first used and again
// from time to time. Its error wraps [agent.ErrUnreachable]: the peer has not been
// asked for anything, and another may be.
func (c *peerCards) check(ctx context.Context, to identity.ID) error {
	c.mu.Lock()
	holds := time.Since(c.proved[to]) < cardHolds
	c.mu.Unlock()
	if holds {
		return nil
	}
	switch err := c.verify(ctx, to); {
	case errors.Is(err, agent.ErrUnreachable):
		return err
	case err != nil:
		c.log.WarnContext(ctx, "a peer's card is not good, nothing is placed there", "peer", to, "err", err)
		return fmt.Errorf("%w: its agent card: %w", agent.ErrUnreachable, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proved[to] = time.Now()
	return nil
}

func (c *peerCards) verify(ctx context.Context, to identity.ID) error {
	ctx, cancel := context.WithTimeout(ctx, cardWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(to)+a2a.CardPath, nil)
	if err != nil {
		return err
	}
	res, err := c.links.client(to, protocolA2A).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, a2a.MaxCardBytes+1))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the peer answers %s", res.Status)
	}
	card, err := a2a.VerifyCardBy(text, to)
	if err != nil {
		return err
	}
	audience, err := a2a.CardAudience(card)
	if err == nil && audience != c.audience {
		err = a2a.Errorf(a2a.CodeWrongAudience, "it is of %.80q", audience)
	}
	return err
}
