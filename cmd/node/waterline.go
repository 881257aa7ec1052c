package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/consensus"
	"github.com/agenticraft/node/identity"
	"github.com/agenticraft/node/internal/durable"
)

// A data folder that was put back from a backup is whole in itself: what it
// lacks only others know. So every keeper tells the others how far it is, as a
// signed waterline, and each keeps the highest of everyone else's. Before a
// keeper votes for the first time it shows as many of them as a leader needs
// voters where it stands, and hears where it once was.
const (
	waterlineDomain  = "agenticraft waterline v1"
	waterlineVersion = 1
	waterlinesFile   = "waterlines.json"
	maxWaterline     = 4 << 10  // bytes of one
	maxWaterlines    = 64 << 10 // bytes of the file

	waterlineEvery = time.Second            // how often a keeper tells of its progress
	waterlineSave  = 3 * time.Second        // how often those of others go to disk
	waterlineWait  = 2 * time.Second        // for one answer
	waterlineRetry = 100 * time.Millisecond // before the first vote
)

// waterline is how far a keeper is: it never falls behind it, unless its folder
// is not what it was.
type waterline struct {
	V      int         `json:"v"`
	Origin string      `json:"origin"` // of the log
	Keeper identity.ID `json:"keeper"`
	Term   uint64      `json:"term"`  // of raft
	Index  uint64      `json:"index"` // of the newest raft entry whose effects are durable there
	Size   uint64      `json:"size"`  // of the log, for people
	Sig    []byte      `json:"sig"`   // the keeper's, so that no other can invent one
}

// statement is what Sig signs.
func (w waterline) statement() []byte {
	return fmt.Appendf(nil, "%d\n%s\n%s\n%d %d %d", w.V, w.Origin, w.Keeper, w.Term, w.Index, w.Size)
}

// of reports whether the waterline is a keeper's own, for a log.
func (w waterline) of(keeper identity.ID, origin string) bool {
	return w.V == waterlineVersion && w.Keeper == keeper && w.Origin == origin && keeper.Verify(waterlineDomain, w.statement(), w.Sig)
}

// above reports whether a keeper that is at other has lost something since w.
func (w waterline) above(other waterline) bool { return w.Index > other.Index || w.Term > other.Term }

// parseWaterline reads one from outside.
func parseWaterline(text []byte) (w waterline, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err = d.Decode(&w); err == nil && d.More() {
		err = errors.New("more than one value")
	}
	if err != nil {
		return waterline{}, fmt.Errorf("not a waterline: %w", err)
	}
	return w, nil
}

// waterlines are this keeper's part in that, and whether it may vote.
type waterlines struct {
	dir    string
	key    *identity.Key
	store  *audit.Store
	who    *membership
	links  *links
	log    *slog.Logger
	fallen func(identity.ID) // told of keepers that are behind their own waterline; must not block

	began  waterline     // where this keeper stood at its start
	speaks atomic.Bool   // this keeper may vote
	floor  atomic.Uint64 // but in no term up to this one

	mu     sync.Mutex                // guards the fields below
	told   map[identity.ID]waterline // what each of the others was told last
	busy   map[identity.ID]bool      // who is being told
	lost   *waterline                // where this keeper once was and is not yet again
	others map[identity.ID]waterline
	unsafe bool // others has something that is not on disk
}

func openWaterlines(w *waterlines) (*waterlines, error) {
	w.others, w.told, w.busy = map[identity.ID]waterline{}, map[identity.ID]waterline{}, map[identity.ID]bool{}
	text, err := readSmall(filepath.Join(w.dir, waterlinesFile), maxWaterlines)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	var kept []waterline
	if err := json.Unmarshal(text, &kept); err != nil {
		// They are a help to others, who have more than one peer to ask.
		w.log.Warn("waterlines of other keepers not read, begun anew", "err", err)
		return w, nil
	}
	for _, one := range kept {
		if one.of(one.Keeper, w.store.Origin()) {
			w.others[one.Keeper] = one
		}
	}
	return w, nil
}

// begin notes where this keeper stands, before raft goes on from there.
func (w *waterlines) begin() error {
	term, err := consensus.ReadTerm(w.dir)
	if err != nil {
		return err
	}
	w.began = w.now(term)
	if _, need := w.peers(); need == 0 {
		w.speaks.Store(true)
	}
	return nil
}

// mayVote reports whether this keeper may vote in a term.
func (w *waterlines) mayVote(term uint64) bool { return w.speaks.Load() && term > w.floor.Load() }

// err says why this keeper, although it runs, is only half of one.
func (w *waterlines) err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost == nil {
		return nil
	}
	return fmt.Errorf("this keeper's data folder is older than what it had before, %d entries: it gives no vote until it has caught up with a leader that the other keepers elect", w.lost.Size)
}

// now is where this keeper is.
func (w *waterlines) now(term uint64) waterline {
	index, _ := w.store.Applied()
	own := waterline{
		V: waterlineVersion, Origin: w.store.Origin(), Keeper: w.key.ID(), Term: max(term, w.floor.Load()), Index: index, Size: w.store.Size(),
	}
	own.Sig = w.key.Sign(waterlineDomain, own.statement())
	return own
}

// run asks the others before the first vote, and tells them of this keeper's
// progress until ctx is done.
func (w *waterlines) run(ctx context.Context, group *consensus.Group) error {
	var telling sync.WaitGroup
	defer telling.Wait()
	saved := time.Now()
	for settled := 0; ; {
		raft := group.Status()
		own := w.now(raft.Term)
		peers, need := w.peers()
		for _, id := range peers {
			w.tell(ctx, &telling, id, need, own)
		}
		// What is heard right after an election may be old, hence twice.
		if w.regained(own) && raft.Healthy && raft.CommitIndex > 0 && raft.AppliedIndex >= raft.CommitIndex {
			settled++
		} else {
			settled = 0
		}
		if settled > 1 {
			w.speakAgain(ctx, own)
		}
		if w.due(saved) {
			w.save(ctx)
			saved = time.Now()
		}
		wait := waterlineEvery
		if !w.speaks.Load() && w.err() == nil {
			wait = waterlineRetry
		}
		if !pause(ctx, wait) {
			w.save(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// peers are the other keepers, and how many of them a leader needs besides
// itself.
func (w *waterlines) peers() (others []identity.ID, need int) {
	r, err := w.who.read()
	if err != nil {
		return nil, 1 // of whoever they are
	}
	now := r.changes.Now
	self := w.key.ID()
	return slices.DeleteFunc(slices.Clone(now.Keepers), func(id identity.ID) bool { return id == self }), len(now.Keepers) / 2
}

// tell shows a keeper where this one stood at its start, and after that where
// it is now, unless it knows or is being told.
func (w *waterlines) tell(ctx context.Context, telling *sync.WaitGroup, id identity.ID, need int, own waterline) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, known := w.told[id]
	if w.busy[id] || known && last.Index == own.Index && last.Term == own.Term {
		return
	}
	if !known {
		own = w.began
	}
	w.busy[id] = true
	telling.Go(func() {
		was, err := w.exchange(ctx, id, own)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.busy, id)
		if err != nil {
			w.log.DebugContext(ctx, "waterline not told", "peer", id, "err", err)
			return
		}
		w.told[id] = own
		if was.above(own) {
			w.fell(ctx, id, was, own)
		}
		if w.lost == nil && len(w.told) >= need {
			w.speaks.Store(true)
		}
	})
}

// fell notes that this keeper once was further than it is. The caller holds
// w.mu.
func (w *waterlines) fell(ctx context.Context, peer identity.ID, was, own waterline) {
	w.speaks.Store(false)
	if w.lost != nil && !was.above(*w.lost) {
		return
	}
	w.lost = &was
	w.log.ErrorContext(ctx, "this keeper's data folder is older than it was, as if an old copy had been put in its place: it gives no vote until it has caught up",
		"peer", peer, "size", own.Size, "raft_index", own.Index, "term", own.Term, "was_size", was.Size, "was_raft_index", was.Index, "was_term", was.Term)
}

// regained reports whether this keeper has again what it had lost.
func (w *waterlines) regained(own waterline) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost != nil && own.Index >= w.lost.Index
}

// speakAgain lets this keeper vote again, in terms in which it cannot have
// voted before.
func (w *waterlines) speakAgain(ctx context.Context, own waterline) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.floor.Store(max(w.floor.Load(), w.lost.Term))
	w.lost = nil
	w.speaks.Store(true)
	w.log.WarnContext(ctx, "this keeper has again what it had before, and votes", "raft_index", own.Index, "size", own.Size)
}

// exchange tells one keeper, and returns the waterline that it knew; the zero
// value if none.
func (w *waterlines) exchange(ctx context.Context, id identity.ID, own waterline) (was waterline, err error) {
	text, err := json.Marshal(own)
	if err != nil {
		return waterline{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, waterlineWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keeper/waterline", bytes.NewReader(text))
	if err != nil {
		return waterline{}, err
	}
	res, err := w.links.logClient(id).Do(req)
	if err != nil {
		return waterline{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxWaterline))
	switch {
	case err != nil:
		return waterline{}, err
	case res.StatusCode == http.StatusNoContent, res.StatusCode == http.StatusNotFound: // a node of before knows of none
		return waterline{}, nil
	case res.StatusCode != http.StatusOK:
		return waterline{}, fmt.Errorf("the keeper answered %s", res.Status)
	}
	if was, err = parseWaterline(answer); err != nil {
		return waterline{}, err
	}
	if !was.of(own.Keeper, own.Origin) {
		return waterline{}, errors.New("the keeper showed a waterline that this one never signed")
	}
	return was, nil
}

// handler adds to what is served to other nodes: POST /waterline.
func (w *waterlines) handler(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("POST /waterline", func(rw http.ResponseWriter, r *http.Request) {
		peer := identity.ID(r.RemoteAddr)
		if !slices.Contains(w.who.raftMembers(), peer) {
			http.Error(rw, "only keepers have a waterline", http.StatusForbidden)
			return
		}
		control := http.NewResponseController(rw)
		_ = control.SetReadDeadline(time.Now().Add(waterlineWait)) // without one this protection is lost
		_ = control.SetWriteDeadline(time.Now().Add(waterlineWait))
		text, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxWaterline))
		if err != nil {
			http.Error(rw, "not a waterline", http.StatusBadRequest)
			return
		}
		own, err := parseWaterline(text)
		if err != nil || !own.of(peer, w.store.Origin()) {
			http.Error(rw, "not a waterline of yours", http.StatusBadRequest)
			return
		}
		was, known := w.note(own)
		if !known {
			rw.WriteHeader(http.StatusNoContent)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(was) // the peer may be gone
	})
	return mux
}

// note keeps a keeper's waterline if it rose, and returns the one before.
func (w *waterlines) note(own waterline) (was waterline, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, known = w.others[own.Keeper]
	if known && was.above(own) {
		w.fallen(own.Keeper)
		return was, known
	}
	if !known || own.above(was) {
		w.others[own.Keeper], w.unsafe = own, true
	}
	return was, known
}

// due reports whether it is time to write down what was heard.
func (w *waterlines) due(saved time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unsafe && time.Since(saved) >= waterlineSave
}

// save writes down what was heard.
func (w *waterlines) save(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock() // over the write: there is one writer, and peers can wait
	if !w.unsafe {
		return
	}
	kept := make([]waterline, 0, len(w.others))
	for _, one := range w.others {
		if w.who.votes(one.Keeper) {
			kept = append(kept, one)
		}
	}
	slices.SortFunc(kept, func(a, b waterline) int { return cmp.Compare(a.Keeper, b.Keeper) })
	text, err := json.Marshal(kept)
	if err == nil {
		err = durable.WriteFile(filepath.Join(w.dir, waterlinesFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		w.log.ErrorContext(ctx, "waterlines of other keepers not kept", "err", err)
		return
	}
	w.unsafe = false
}
