package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/agenticraft/node/identity"
)

// The protocol between keepers: HTTP over one stream, any host in the URL.
const (
	peerURL        = "http://peer"
	cosignTimeout  = 3 * time.Second // longer than catchUpWait
	batchesTimeout = 30 * time.Second
	maxAsk         = 4 << 10                              // bytes of a request to cosign
	maxAnswer      = maxPart + maxBatchBytes + (64 << 10) // bytes of a page of batches
	maxProof       = 128                                  // hashes; a tree of 2^53 entries needs 54 or so
	batchesVersion = 1
)

// cosignAsk is the body of POST /cosign.
type cosignAsk struct {
	V      int    `json:"v"`
	Origin string `json:"origin"`
	Size   uint64 `json:"size"`
	Root   Hash   `json:"root"`
	Time   string `json:"time"`
}

// LogHandler serves the log to other nodes: POST and GET /checkpoint, GET
// /head?size=N&wait_ms=N, GET /batches?from=N&size=N&bytes=N and GET /state, and among
// those who sign POST /cosign, /epoch and /witness. It is for authenticated
// streams of members only; r.RemoteAddr must be the peer's ID, and only keepers
// may ask for a signature. c may be nil on a node that signs nothing.
func LogHandler(store *Store, c *Checkpointer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /checkpoint", func(w http.ResponseWriter, r *http.Request) { serveCheckpoint(store, w) })
	mux.HandleFunc("GET /batches", func(w http.ResponseWriter, r *http.Request) { serveBatches(store, w, r) })
	mux.HandleFunc("GET /head", func(w http.ResponseWriter, r *http.Request) { serveHead(store, w, r) })
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) { serveState(store, w) })
	if c != nil {
		mux.HandleFunc("POST /cosign", c.serveCosign)
		mux.HandleFunc("POST /epoch", c.serveEpoch)
		mux.HandleFunc("POST /witness", c.serveWitness)
		mux.HandleFunc("POST /checkpoint", c.serveAccept)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A connection without deadlines only loses this protection. The one for
		// reading ends the request as well, so it must allow for the answer.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(batchesTimeout))
		_ = control.SetWriteDeadline(time.Now().Add(batchesTimeout))
		mux.ServeHTTP(w, r)
	})
}

// ForkedHandler answers in place of [LogHandler] on a node whose own log is
// known to contradict what a quorum signed: who asks for its signature is told
// of that, so that the others raise the alarm even if they were not asked while
// the node found out; to all else it is unavailable, with why as the reason.
func ForkedHandler(why string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cosign", func(w http.ResponseWriter, _ *http.Request) { refuse(w, fmt.Errorf("%w: %s", ErrFork, why)) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, fmt.Errorf("%w: %s", ErrUnavailable, why)) })
	return mux
}

func (c *Checkpointer) serveCosign(w http.ResponseWriter, r *http.Request) {
	keepers, _, err := c.keepers()
	if err != nil || !contains(keepers, r.RemoteAddr) {
		http.Error(w, "only keepers are given signatures", http.StatusForbidden)
		return
	}
	body, err := readBody(w, r, maxAsk)
	if err != nil {
		refuse(w, err)
		return
	}
	var ask cosignAsk
	if err := decodeStrict(body, &ask); err != nil {
		refuse(w, err)
		return
	}
	at, err := ParseTime(ask.Time)
	if err != nil || ask.V != 1 {
		refuse(w, fmt.Errorf("%w: request to cosign", ErrInvalid))
		return
	}
	want := Checkpoint{Origin: ask.Origin, Size: ask.Size, Root: ask.Root}
	text, err := c.Cosign(r.Context(), want, at)
	if errors.Is(err, ErrFork) {
		c.alarm(r.Context(), identity.ID(r.RemoteAddr), ask.Size, err)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	writeNote(w, text)
}

func (c *Checkpointer) serveAccept(w http.ResponseWriter, r *http.Request) {
	text, err := readBody(w, r, maxNote)
	if err != nil {
		refuse(w, err)
		return
	}
	if err := c.accept(r.Context(), identity.ID(r.RemoteAddr), text); err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func serveCheckpoint(store *Store, w http.ResponseWriter) {
	_, text, err := store.Checkpoint()
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	writeNote(w, text)
}

func writeNote(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(text) // the peer has gone
}

func serveBatches(store *Store, w http.ResponseWriter, r *http.Request) {
	from, err := number(r, "from")
	if err != nil {
		refuse(w, err)
		return
	}
	size, err := number(r, "size")
	if err != nil {
		refuse(w, err)
		return
	}
	most := uint64(usualPart)
	if r.URL.Query().Has("bytes") { // nodes before did not say
		if most, err = number(r, "bytes"); err != nil {
			refuse(w, err)
			return
		}
	}
	part, err := store.part(from, size, int(min(most, maxPart)))
	if err != nil {
		refuse(w, err)
		return
	}
	out := part.encode()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	_, _ = w.Write(out) // the peer has gone
}

// refuse answers with a status that errorOf turns back into the same error.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrFork), errors.Is(err, ErrOtherCluster):
		status = http.StatusPreconditionFailed
	case errors.Is(err, errClock):
		status = http.StatusTooEarly
	case errors.Is(err, ErrConflict):
		status = http.StatusConflict
	case errors.Is(err, ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrClosed):
		status = http.StatusServiceUnavailable
	}
	text := err.Error()
	if status == http.StatusInternalServerError {
		text = "internal error" // its text may name files of ours
	}
	http.Error(w, text, status)
}

func errorOf(status int) error {
	switch status {
	case http.StatusPreconditionFailed:
		return ErrFork
	case http.StatusTooEarly:
		return errClock
	case http.StatusConflict:
		return ErrConflict
	case http.StatusBadRequest:
		return ErrInvalid
	case http.StatusNotFound:
		return ErrNotFound
	}
	return ErrUnavailable
}

func contains(ids []identity.ID, addr string) bool {
	for _, id := range ids {
		if string(id) == addr {
			return true
		}
	}
	return false
}

func postCosign(ctx context.Context, client *http.Client, want Checkpoint, at time.Time) ([]byte, error) {
	body, err := json.Marshal(cosignAsk{V: 1, Origin: want.Origin, Size: want.Size, Root: want.Root, Time: FormatTime(at)})
	if err != nil {
		return nil, err
	}
	return call(ctx, client, http.MethodPost, "/cosign", body, maxNote, cosignTimeout)
}

func postCheckpoint(ctx context.Context, client *http.Client, text []byte) error {
	_, err := call(ctx, client, http.MethodPost, "/checkpoint", text, maxNote, cosignTimeout)
	return err
}

func getCheckpoint(ctx context.Context, client *http.Client) ([]byte, error) {
	return call(ctx, client, http.MethodGet, "/checkpoint", nil, maxNote, cosignTimeout)
}

// call does one request and reads an answer of at most limit bytes.
func call(ctx context.Context, client *http.Client, method, path string, body []byte, limit int64, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, peerURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer resp.Body.Close()
	// What the peer says of its length saves growing, and is believed no further
	// than the limit.
	room := bytes.NewBuffer(make([]byte, 0, min(max(resp.ContentLength, 0), limit)+bytes.MinRead))
	_, err = room.ReadFrom(io.LimitReader(resp.Body, limit+1))
	answer := room.Bytes()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case resp.StatusCode/100 != 2:
		return nil, fmt.Errorf("%w: peer answered %d %q", errorOf(resp.StatusCode), resp.StatusCode, clip(string(answer)))
	case int64(len(answer)) > limit:
		return nil, fmt.Errorf("%w: answer is larger than %d bytes", ErrInvalid, limit)
	}
	return answer, nil
}

// encode writes: version, the batches with their lengths, the proof.
func (b Batches) encode() []byte {
	size := 1 + 2*binary.MaxVarintLen64 + len(b.Proof)*len(Hash{})
	for _, one := range b.Batches {
		size += binary.MaxVarintLen64 + len(one)
	}
	out := append(make([]byte, 0, size), batchesVersion)
	out = binary.AppendUvarint(out, uint64(len(b.Batches)))
	for _, one := range b.Batches {
		out = appendText(out, one)
	}
	out = binary.AppendUvarint(out, uint64(len(b.Proof)))
	for _, h := range b.Proof {
		out = append(out, h[:]...)
	}
	return out
}

func decodeBatches(raw []byte) (Batches, error) {
	r := reader{rest: raw}
	version := r.byte()
	var out Batches
	for n := r.uvarint(maxAnswer); n > 0 && !r.bad; n-- {
		out.Batches = append(out.Batches, r.text(maxBatchBytes))
	}
	for n := r.uvarint(maxProof); n > 0 && !r.bad; n-- {
		var h Hash
		copy(h[:], r.bytes(len(h)))
		out.Proof = append(out.Proof, h)
	}
	if !r.done() || version != batchesVersion {
		return Batches{}, fmt.Errorf("%w: malformed page of batches", ErrInvalid)
	}
	return out, nil
}

// peerFetcher asks peers in turn.
type peerFetcher struct {
	client func(identity.ID) *http.Client
	peers  func() []identity.ID
	turn   atomic.Uint64
}

// NewFetcher makes a [Fetcher] that asks the log handlers of peers, another one
// each time. peers may leave ourselves out; client is as in
// [CheckpointerConfig].
func NewFetcher(client func(identity.ID) *http.Client, peers func() []identity.ID) Fetcher {
	return &peerFetcher{client: client, peers: peers}
}

func (f *peerFetcher) Batches(ctx context.Context, from, size uint64) (Batches, error) {
	peers := f.peers()
	if len(peers) == 0 {
		return Batches{}, fmt.Errorf("%w: no peer to catch up from", ErrUnavailable)
	}
	var why []error
	for range peers {
		peer := peers[f.turn.Add(1)%uint64(len(peers))]
		path := fmt.Sprintf("/batches?from=%d&size=%d&bytes=%d", from, size, maxPart)
		answer, err := call(ctx, f.client(peer), http.MethodGet, path, nil, maxAnswer, batchesTimeout)
		if err == nil {
			var part Batches
			if part, err = decodeBatches(answer); err == nil {
				return part, nil
			}
		}
		why = append(why, fmt.Errorf("%s: %w", peer, err))
		if ctx.Err() != nil {
			break
		}
	}
	return Batches{}, fmt.Errorf("catch up from index %d: %w", from, errors.Join(why...))
}
