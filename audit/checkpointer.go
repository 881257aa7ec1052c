package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/agenticraft/node/identity"
)

// CheckpointerConfig says who signs with whom.
type CheckpointerConfig struct {
	Store *Store
	Key   *identity.Key
	// Trust says who the keepers are now.
	Trust func() Trust
	// Client reaches the log handler of a peer, whatever the URL's host is.
	Client func(identity.ID) *http.Client
	// MayBegin is nil for the change of keepers that the log asks for, as far
	// as it is here: this keeper gives its word for that one. Nil: for none.
	MayBegin func(epoch uint64, keepers []identity.ID) error
	// Lead reports whether this keeper is the one that proposes checkpoints.
	Lead func() bool
	// Alarm, if not nil, is told of contradicting histories. It must not block.
	Alarm func(Alarm)
	// Contradicted, if not nil, is given a checkpoint that a quorum signed and
	// that the log here contradicts: this keeper is the odd one.
	Contradicted func(at Checkpoint, text []byte)
	// Outvoted, if not nil, is called when so many keepers have another log, or
	// another time, than this one, which proposes checkpoints, that no quorum will
	// sign its own.
	Outvoted func()
	// Now is this keeper's clock; nil: the machine's.
	Now     func() time.Time
	Spacing time.Duration // between checkpoints, at least; 0: 50 ms
	Log     *slog.Logger  // nil: none
}

const (
	defaultSpacing = 50 * time.Millisecond
	moreWait       = 5 * time.Millisecond   // for signatures beyond the quorum
	pollLead       = 100 * time.Millisecond // how often it looks whether it leads
	fetchAfter     = time.Second            // a checkpoint that does not come in this time is fetched
	alarmEvery     = 10 * time.Second       // for one peer
	saveEvery      = time.Second            // how often the newest checkpoint goes to disk
)

// Checkpointer makes a keeper take part in checkpoints: it signs what its own
// log says, collects the signatures of the others while it leads, and keeps
// the newest checkpoint that a quorum signed in the store.
type Checkpointer struct {
	store *Store
	key   *identity.Key
	cfg   CheckpointerConfig
	log   *slog.Logger

	signing sync.Mutex // see Cosign

	mu         sync.Mutex // guards the maps
	publishing map[identity.ID]*outbox
	asking     map[identity.ID]bool
	alarmed    map[identity.ID]time.Time // by peer, which are few: streams are of members

	posts sync.WaitGroup // requests to peers
}

// outbox is a peer that checkpoints are being sent to, one at a time.
type outbox struct{ busy, again bool }

// NewCheckpointer makes a checkpointer.
func NewCheckpointer(cfg CheckpointerConfig) (*Checkpointer, error) {
	if cfg.Store == nil || cfg.Key == nil || cfg.Trust == nil || cfg.Client == nil || cfg.Lead == nil {
		return nil, errors.New("checkpointer needs a store, a key, trust, a client and who leads")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Spacing == 0 {
		cfg.Spacing = defaultSpacing
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Checkpointer{
		store: cfg.Store, key: cfg.Key, cfg: cfg, log: cfg.Log,
		publishing: make(map[identity.ID]*outbox), asking: make(map[identity.ID]bool), alarmed: make(map[identity.ID]time.Time),
	}, nil
}

// Run takes part until ctx ends.
func (c *Checkpointer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var saving sync.WaitGroup
	saving.Go(func() { saveNotes(ctx, c.store, c.log) })
	err := c.run(ctx)
	cancel()
	saving.Wait()
	c.posts.Wait()
	if errors.Is(err, ErrClosed) || ctx.Err() != nil {
		return nil
	}
	return err
}

// run lets checkpoints follow the log.
func (c *Checkpointer) run(ctx context.Context) error {
	behind := time.Time{} // since when a checkpoint is due that others should bring
	for {
		if err := c.store.Changed(ctx, c.covered()); err != nil {
			return err
		}
		pause := pollLead
		switch {
		case c.cfg.Lead():
			behind = time.Time{}
			if err := c.propose(ctx); err != nil {
				c.log.DebugContext(ctx, "no checkpoint", "err", err)
			} else {
				pause = c.cfg.Spacing
			}
		case behind.IsZero():
			behind = time.Now()
		case time.Since(behind) > fetchAfter:
			c.fetch(ctx)
			behind = time.Time{}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// covered is the size of the newest quorum checkpoint.
func (c *Checkpointer) covered() uint64 {
	latest, _, err := c.store.Checkpoint()
	if err != nil {
		return 0
	}
	return latest.Size
}

// saveNotes writes the newest checkpoint to disk now and then, until ctx ends.
func saveNotes(ctx context.Context, store *Store, log *slog.Logger) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := store.saveNote(); err != nil {
			log.ErrorContext(ctx, "checkpoint not saved", "err", err)
		}
	}
}

// propose collects the signatures of a quorum on the log as it is now.
func (c *Checkpointer) propose(ctx context.Context) error {
	// INVARIANT: I7, what is signed is durable.
	size, root, err := c.store.Tree()
	if err != nil {
		return err
	}
	want := Checkpoint{Origin: c.store.origin, Size: size, Root: root}
	keepers, quorum, err := c.cfg.Trust().At(size)
	if err != nil {
		return err
	}
	signed, err := c.collect(ctx, want, keepers, quorum)
	if err != nil {
		return err
	}
	text, err := mergeNotes(signed)
	if err != nil {
		return err
	}
	if err := c.accept(ctx, c.key.ID(), text); err != nil {
		return err
	}
	for _, peer := range keepers {
		if peer != c.key.ID() {
			c.publish(ctx, peer)
		}
	}
	return nil
}

func (c *Checkpointer) keepers() ([]identity.ID, int, error) {
	trust := c.cfg.Trust()
	ids, err := trust.Keepers()
	return ids, trust.Quorum, err
}

// collect asks all keepers at once and returns soon after a quorum has signed.
// Those that are slower are not interrupted, which would cost their stream,
// but they are not asked again before they answered.
func (c *Checkpointer) collect(ctx context.Context, want Checkpoint, keepers []identity.ID, quorum int) ([]*note.Note, error) {
	type answer struct {
		note *note.Note
		err  error
	}
	now := c.cfg.Now()
	answers := make(chan answer, len(keepers))
	for _, id := range keepers {
		if !c.startAsking(id) {
			answers <- answer{err: fmt.Errorf("%s: has not answered yet", id)}
			continue
		}
		c.posts.Go(func() {
			defer c.stopAsking(id)
			asking, cancel := context.WithTimeout(ctx, cosignTimeout)
			defer cancel()
			n, err := c.ask(asking, id, want, now)
			if err != nil {
				err = fmt.Errorf("%s: %w", id, err)
			}
			answers <- answer{n, err}
		})
	}
	var signed []*note.Note
	var why []error
	var enough <-chan time.Time
	for len(signed)+len(why) < len(keepers) {
		select {
		case a := <-answers:
			if a.err != nil {
				why = append(why, a.err)
				continue
			}
			if signed = append(signed, a.note); len(signed) == quorum {
				enough = time.After(moreWait)
			}
		case <-enough:
			return signed, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if len(signed) >= quorum {
		return signed, nil
	}
	forks, clocks := 0, 0
	for _, err := range why {
		if errors.Is(err, ErrFork) {
			forks++
		}
		if errors.Is(err, errClock) {
			clocks++
		}
	}
	// Of two clocks nobody can tell which is right.
	if c.cfg.Outvoted != nil && (forks >= quorum || clocks >= quorum) {
		c.cfg.Outvoted()
	}
	return nil, fmt.Errorf("%w: %d of %d needed signatures: %w", ErrUnavailable, len(signed), quorum, errors.Join(why...))
}

func (c *Checkpointer) startAsking(id identity.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking[id] {
		return false
	}
	c.asking[id] = true
	return true
}

func (c *Checkpointer) stopAsking(id identity.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asking, id)
}

// ask gets the signature of one keeper, perhaps ourselves, and verifies it.
func (c *Checkpointer) ask(ctx context.Context, id identity.ID, want Checkpoint, now time.Time) (*note.Note, error) {
	var text []byte
	var err error
	if id == c.key.ID() {
		text, err = c.Cosign(ctx, want, now)
	} else {
		text, err = postCosign(ctx, c.cfg.Client(id), want, now)
	}
	if errors.Is(err, ErrFork) {
		c.alarm(ctx, id, want.Size, err)
	}
	if err != nil {
		return nil, err
	}
	got, n, by, err := openNote(text, []identity.ID{id})
	if err != nil {
		return nil, err
	}
	if got != want || len(by) != 1 {
		return nil, fmt.Errorf("%w: it did not sign what it was asked to", ErrInvalid)
	}
	return n, nil
}

// accept verifies a checkpoint that peer sent and keeps it.
func (c *Checkpointer) accept(ctx context.Context, peer identity.ID, text []byte) error {
	got, _, err := c.cfg.Trust().Verify(text)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	if err := c.store.reach(wait, got.Size); err != nil {
		return errors.Join(errBehind, err)
	}
	err = c.store.addNote(got, text)
	if errors.Is(err, ErrFork) {
		c.alarm(ctx, peer, got.Size, err)
		if c.cfg.Contradicted != nil {
			c.cfg.Contradicted(got, text)
		}
	}
	return err
}

// alarm tells of contradicting histories, now and then while it lasts.
func (c *Checkpointer) alarm(ctx context.Context, peer identity.ID, size uint64, err error) {
	c.store.metrics.alarms.Inc()
	if !c.alarmDue(peer) {
		return
	}
	c.log.ErrorContext(ctx, "audit histories contradict each other", "peer", peer, "size", size, "err", err)
	if c.cfg.Alarm != nil {
		c.cfg.Alarm(Alarm{Peer: peer, Size: size, Text: err.Error()})
	}
}

func (c *Checkpointer) alarmDue(peer identity.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if last, ok := c.alarmed[peer]; ok && now.Sub(last) < alarmEvery {
		return false
	}
	c.alarmed[peer] = now
	return true
}

// publish sends the newest checkpoint to peer; while that is under way, later
// ones wait and only the newest of them is sent.
func (c *Checkpointer) publish(ctx context.Context, peer identity.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	box := c.publishing[peer]
	if box == nil {
		box = &outbox{}
		c.publishing[peer] = box
	}
	if box.busy {
		box.again = true
		return
	}
	box.busy = true
	c.posts.Go(func() {
		for more := true; more && ctx.Err() == nil; {
			if _, text, err := c.store.Checkpoint(); err == nil {
				if err := postCheckpoint(ctx, c.cfg.Client(peer), text); err != nil {
					c.log.DebugContext(ctx, "checkpoint not delivered", "peer", peer, "err", err)
				}
			}
			c.mu.Lock()
			more = box.again
			box.again = false
			box.busy = more
			c.mu.Unlock()
		}
	})
}

// fetch asks the other keepers for a newer checkpoint, one after the other.
func (c *Checkpointer) fetch(ctx context.Context) {
	keepers, _, err := c.keepers()
	if err != nil {
		c.log.ErrorContext(ctx, "no keepers to ask for a checkpoint", "err", err)
		return
	}
	keepers = slices.Clone(keepers)
	rand.Shuffle(len(keepers), func(i, j int) { keepers[i], keepers[j] = keepers[j], keepers[i] })
	before := c.covered()
	for _, id := range keepers {
		if id == c.key.ID() {
			continue
		}
		text, err := getCheckpoint(ctx, c.cfg.Client(id))
		if err == nil {
			err = c.accept(ctx, id, text)
		}
		if err != nil {
			c.log.DebugContext(ctx, "checkpoint not fetched", "peer", id, "err", err)
		}
		if c.covered() > before || ctx.Err() != nil {
			return
		}
	}
}
