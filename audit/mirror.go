package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/agenticraft/node/identity"
)

// MirrorConfig says what is mirrored, from whom, and whose word counts.
type MirrorConfig struct {
	Store *Store
	// Peers are the keepers to pull from; Client reaches them, whatever the
	// URL's host is.
	Peers  func() []identity.ID
	Client func(identity.ID) *http.Client
	// Trust is whose signatures count, as of the store's own log.
	Trust func() (Trust, error)
	// Witness, if not nil, signs a checkpoint that the mirror has verified.
	Witness func(ctx context.Context, at Checkpoint, now time.Time) ([]byte, error)
	Alarm   func(Alarm) // as in [CheckpointerConfig]
	// Contradicted is as in [CheckpointerConfig].
	Contradicted func(at Checkpoint, text []byte)
	Log          *slog.Logger // nil: none
}

const (
	headWait     = 10 * time.Second // how long a keeper waits for something new
	headTimeout  = headWait + 5*time.Second
	maxHead      = 4 << 20 // bytes
	headVersion  = 1
	firstMirror  = 50 * time.Millisecond // pause after a failure, doubled up to
	lastMirror   = 2 * time.Second
	mirrorStale  = headTimeout + 5*time.Second // without an answer for this long a mirror may be behind
	defaultAlarm = "the keepers' log is not the one here"
)

// Mirror keeps the store of a node that is no keeper up with the log. It pulls,
// so that keepers keep no list of mirrors and wait for none, and it writes
// nothing that no quorum of keepers has signed: each part is proved to belong
// to a checkpoint before it is applied, by the same rules as everywhere.
type Mirror struct {
	cfg MirrorConfig
	log *slog.Logger

	mu    sync.Mutex // guards the fields below
	turn  int
	heard time.Time // when the store last was all that a keeper had signed
	fork  error     // the log here contradicts the keepers'
}

// NewMirror makes a mirror.
func NewMirror(cfg MirrorConfig) (*Mirror, error) {
	if cfg.Store == nil || cfg.Peers == nil || cfg.Client == nil || cfg.Trust == nil {
		return nil, errors.New("mirror needs a store, peers, a client and trust")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Mirror{cfg: cfg, log: cfg.Log, turn: rand.Int()}, nil
}

// Run pulls until ctx ends, or the keepers' log is found to contradict the one
// here ([ErrFork]).
func (m *Mirror) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var saving sync.WaitGroup
	defer saving.Wait()
	defer cancel()
	saving.Go(func() { saveNotes(ctx, m.cfg.Store, m.log) })
	pause, wait := firstMirror, time.Duration(0) // the first answer says where we stand
	for {
		err := m.Pull(ctx, wait)
		switch {
		case ctx.Err() != nil || errors.Is(err, ErrClosed):
			return nil
		case errors.Is(err, ErrFork):
			return err
		case err == nil:
			pause, wait = firstMirror, headWait
			continue
		}
		m.log.DebugContext(ctx, "nothing pulled", "err", err)
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = min(2*pause, lastMirror)
	}
}

// Fresh is nil while the store is what the keepers have signed, or was a moment
// ago.
func (m *Mirror) Fresh() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.fork != nil:
		return m.fork
	case m.heard.IsZero():
		return errors.New("the node still catches up with the log")
	case time.Since(m.heard) > mirrorStale:
		return errors.New("no keeper has answered for a while: the log here may be behind")
	}
	return nil
}

// Pull brings the store up to the newest checkpoint of one keeper, another one
// than before, waiting for one that is newer than the store for as long as
// wait.
func (m *Mirror) Pull(ctx context.Context, wait time.Duration) error {
	peer, err := m.next()
	if err != nil {
		return err
	}
	trust, err := m.cfg.Trust()
	if err != nil {
		return err
	}
	store := m.cfg.Store
	have := store.Size()
	h, err := getHead(ctx, m.cfg.Client(peer), have, wait)
	if err != nil {
		return fmt.Errorf("%s: %w", peer, err)
	}
	_, at, _, err := trust.Follow(h.Steps, []byte(h.Checkpoint))
	if err != nil {
		return fmt.Errorf("%s: %w", peer, err)
	}
	if err := store.follow(ctx, at); err != nil {
		if errors.Is(err, ErrFork) {
			m.forked(ctx, peer, at, err)
			if m.cfg.Contradicted != nil {
				m.cfg.Contradicted(at, []byte(h.Checkpoint))
			}
		}
		return fmt.Errorf("%s: %w", peer, err)
	}
	if err := store.addNote(at, []byte(h.Checkpoint)); err != nil {
		return err
	}
	m.mu.Lock()
	// What a keeper had when it was asked is here: whether it took its time
	// because there was nothing more, or there was and it has been fetched.
	m.heard = time.Now()
	m.mu.Unlock()
	m.witness(ctx, at)
	return nil
}

// forked tells of a checkpoint that a quorum signed and that the log here
// contradicts.
func (m *Mirror) forked(ctx context.Context, peer identity.ID, at Checkpoint, err error) {
	m.cfg.Store.metrics.alarms.Inc()
	m.mu.Lock()
	m.fork = fmt.Errorf("%s: %w", defaultAlarm, err)
	m.mu.Unlock()
	m.log.ErrorContext(ctx, "audit histories contradict each other", "peer", peer, "size", at.Size, "err", err)
	if m.cfg.Alarm != nil {
		m.cfg.Alarm(Alarm{Peer: peer, Size: at.Size, Text: err.Error()})
	}
}

func (m *Mirror) next() (identity.ID, error) {
	peers := m.cfg.Peers()
	if len(peers) == 0 {
		return "", fmt.Errorf("%w: no keeper to pull from", ErrUnavailable)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn++
	return peers[uint(m.turn)%uint(len(peers))], nil
}

// witness signs what was verified and hands the signature to the keepers.
func (m *Mirror) witness(ctx context.Context, at Checkpoint) {
	if m.cfg.Witness == nil {
		return
	}
	text, err := m.cfg.Witness(ctx, at, time.Now())
	if err != nil {
		m.log.WarnContext(ctx, "checkpoint not countersigned", "size", at.Size, "err", err)
		return
	}
	if _, n, _, err := openNote(text, nil); err == nil && len(n.UnverifiedSigs) == 1 {
		m.cfg.Store.countersign(identity.ID(n.UnverifiedSigs[0].Name), at, n.UnverifiedSigs[0])
	}
	for _, peer := range m.cfg.Peers() {
		if _, err := call(ctx, m.cfg.Client(peer), http.MethodPost, "/witness", text, maxNote, cosignTimeout); err != nil {
			m.log.DebugContext(ctx, "countersignature not delivered", "peer", peer, "err", err)
		}
	}
}

// follow brings the store up to a checkpoint that a quorum signed. What raft
// knows of the store stays as it is.
func (s *Store) follow(ctx context.Context, to Checkpoint) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	at, err := s.usable()
	if err != nil {
		return err
	}
	return s.restore(ctx, snapshotMeta{V: metaVersion, Size: to.Size, Root: to.Root, Index: at.index, Term: at.term})
}

// head is the answer to GET /head: the newest checkpoint, and who may sign it.
type head struct {
	V          int    `json:"v"`
	Checkpoint string `json:"checkpoint"` // cosigned note
	Steps      []Step `json:"steps,omitempty"`
}

// serveHead waits for a checkpoint of more entries than the caller has.
func serveHead(store *Store, w http.ResponseWriter, r *http.Request) {
	have, err := number(r, "size")
	if err != nil {
		refuse(w, err)
		return
	}
	wait, err := number(r, "wait_ms")
	if err != nil {
		refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(time.Duration(wait)*time.Millisecond, headWait))
	defer cancel()
	at, text, err := store.WaitCheckpoint(ctx, have)
	if errors.Is(err, context.DeadlineExceeded) {
		at, text, err = store.Checkpoint()
	}
	if err != nil {
		refuse(w, err)
		return
	}
	h := head{V: headVersion, Checkpoint: string(text)}
	if h.Steps, err = store.Steps(at.Size); err != nil {
		refuse(w, err)
		return
	}
	answer, err := json.Marshal(h)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // the peer has gone
}

func getHead(ctx context.Context, client *http.Client, have uint64, wait time.Duration) (head, error) {
	path := fmt.Sprintf("/head?size=%d&wait_ms=%d", have, wait.Milliseconds())
	answer, err := call(ctx, client, http.MethodGet, path, nil, maxHead, headTimeout)
	if err != nil {
		return head{}, err
	}
	return parseHead(answer)
}

func parseHead(answer []byte) (head, error) {
	var h head
	if depth(answer) > maxDepth {
		return head{}, fmt.Errorf("%w: head nests too deeply", ErrInvalid)
	}
	if err := decodeStrict(answer, &h); err != nil {
		return head{}, err
	}
	if h.V != headVersion {
		return head{}, fmt.Errorf("%w: head of version %d", ErrInvalid, h.V)
	}
	return h, nil
}

// Newest is the trust in whoever signed the newest checkpoint that a node has: t,
// and the changes of keepers since, each signed by a quorum of the keepers
// before. The node's own word counts for nothing.
func (t Trust) Newest(ctx context.Context, client *http.Client) (Trust, error) {
	h, err := getHead(ctx, client, 0, 0)
	if err != nil {
		return Trust{}, fmt.Errorf("ask for the newest checkpoint: %w", err)
	}
	next, _, _, err := t.Follow(h.Steps, []byte(h.Checkpoint))
	if err != nil {
		return Trust{}, fmt.Errorf("newest checkpoint: %w", err)
	}
	return next, nil
}

// Describe asks a keeper at which raft entry its log has which size, as
// [Store.Restore] takes it. A node that becomes a keeper goes on from there.
func Describe(ctx context.Context, client *http.Client) (index, term uint64, meta []byte, err error) {
	meta, err = call(ctx, client, http.MethodGet, "/state", nil, maxMeta, cosignTimeout)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("ask for the state of the log: %w", err)
	}
	var m snapshotMeta
	if err := decodeStrict(meta, &m); err != nil || m.V != metaVersion {
		return 0, 0, nil, fmt.Errorf("state of the log: %w", errors.Join(ErrInvalid, err))
	}
	return m.Index, m.Term, meta, nil
}

func serveState(store *Store, w http.ResponseWriter) {
	meta, err := store.Snapshot()
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(meta) // the peer has gone
}

// serveWitness takes the countersignature of an auditor in force. One that
// contradicts the log here is an alarm: the auditor verified what it signed.
func (c *Checkpointer) serveWitness(w http.ResponseWriter, r *http.Request) {
	from := identity.ID(r.RemoteAddr)
	vkey, err := VerifierKey(from)
	if err != nil || !slices.Contains(c.cfg.Trust().Witnesses, vkey) {
		http.Error(w, "only auditors countersign", http.StatusForbidden)
		return
	}
	text, err := readBody(w, r, maxNote)
	if err != nil {
		refuse(w, err)
		return
	}
	at, n, by, err := openNote(text, []identity.ID{from})
	if err != nil || len(by) != 1 || at.Origin != c.store.origin {
		refuse(w, errors.Join(ErrInvalid, err))
		return
	}
	wait, cancel := context.WithTimeout(r.Context(), catchUpWait)
	defer cancel()
	if err := c.store.reach(wait, at.Size); err != nil {
		refuse(w, errors.Join(errBehind, err))
		return
	}
	root, err := c.store.Root(at.Size)
	if err == nil && root != at.Root {
		err = fmt.Errorf("%w: root at size %d is %s here, the auditor's is %s", ErrFork, at.Size, root, at.Root)
		c.alarm(r.Context(), from, at.Size, err)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	c.store.countersign(from, at, n.Sigs[0])
	w.WriteHeader(http.StatusNoContent)
}
