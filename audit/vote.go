package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/agenticraft/node/identity"
)

// epochAsk is the body of POST /epoch: a keeper asks another one for its word
// that the next epoch begins.
type epochAsk struct {
	V       int           `json:"v"`
	Epoch   uint64        `json:"epoch"`
	Keepers []identity.ID `json:"keepers"`
}

const maxVote = 4 << 10 // bytes of a signature on an epoch

// CollectEpoch asks the keepers in force for their word that the next epoch
// begins with the given ones. It fails unless a quorum gives it.
func (c *Checkpointer) CollectEpoch(ctx context.Context, epoch uint64, keepers []identity.ID) (EpochBody, error) {
	trust := c.cfg.Trust()
	old, err := trust.Keepers()
	if err != nil {
		return EpochBody{}, err
	}
	body := EpochBody{Epoch: epoch, Keepers: keepers}
	var why []error
	for _, id := range old {
		sig, err := c.askEpoch(ctx, id, body)
		if err != nil {
			why = append(why, fmt.Errorf("%s: %w", id, err))
			continue
		}
		body.Signatures = append(body.Signatures, sig)
	}
	slices.SortFunc(body.Signatures, func(a, b EpochSignature) int {
		if a.By < b.By {
			return -1
		}
		return 1
	})
	if len(body.Signatures) < trust.Quorum {
		return EpochBody{}, fmt.Errorf("%w: %d of %d needed keepers agree to epoch %d: %w", ErrUnavailable, len(body.Signatures), trust.Quorum, epoch, errors.Join(why...))
	}
	return body, body.Verify(c.store.origin, old, trust.Quorum)
}

func (c *Checkpointer) askEpoch(ctx context.Context, id identity.ID, want EpochBody) (EpochSignature, error) {
	if id == c.key.ID() {
		return c.voteEpoch(want.Epoch, want.Keepers)
	}
	ask, err := json.Marshal(epochAsk{V: 1, Epoch: want.Epoch, Keepers: want.Keepers})
	if err != nil {
		return EpochSignature{}, err
	}
	answer, err := call(ctx, c.cfg.Client(id), http.MethodPost, "/epoch", ask, maxVote, cosignTimeout)
	if err != nil {
		return EpochSignature{}, err
	}
	var sig EpochSignature
	if err := decodeStrict(answer, &sig); err != nil {
		return EpochSignature{}, err
	}
	if sig.By != id || !id.Verify(epochDomain, epochMessage(c.store.origin, want.Epoch, want.Keepers), sig.Sig) {
		return EpochSignature{}, fmt.Errorf("%w: it did not sign what it was asked to", ErrInvalid)
	}
	return sig, nil
}

// voteEpoch gives this keeper's word if its own log asks for that very change.
func (c *Checkpointer) voteEpoch(epoch uint64, keepers []identity.ID) (EpochSignature, error) {
	if c.cfg.MayBegin == nil {
		return EpochSignature{}, fmt.Errorf("%w: this keeper agrees to no change of keepers", ErrConflict)
	}
	if err := c.cfg.MayBegin(epoch, keepers); err != nil {
		return EpochSignature{}, fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return SignEpoch(c.key, c.store.origin, epoch, keepers), nil
}

func (c *Checkpointer) serveEpoch(w http.ResponseWriter, r *http.Request) {
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
	ask, err := parseEpochAsk(body)
	if err != nil {
		refuse(w, err)
		return
	}
	sig, err := c.voteEpoch(ask.Epoch, ask.Keepers)
	if err != nil {
		refuse(w, err)
		return
	}
	answer, err := json.Marshal(sig)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // the peer has gone
}

func parseEpochAsk(body []byte) (epochAsk, error) {
	var ask epochAsk
	if err := decodeStrict(body, &ask); err != nil {
		return epochAsk{}, err
	}
	if ask.V != 1 || len(ask.Keepers) > maxEpochKeepers {
		return epochAsk{}, fmt.Errorf("%w: request for an epoch", ErrInvalid)
	}
	return ask, nil
}

// Holds checks that a node has the whole log as it is here now, by asking for
// its signature on that.
func (c *Checkpointer) Holds(ctx context.Context, id identity.ID) error {
	size, root, err := c.store.Tree()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cosignTimeout)
	defer cancel()
	_, err = c.ask(ctx, id, Checkpoint{Origin: c.store.origin, Size: size, Root: root}, time.Now())
	return err
}

// readBody reads a request of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return body, nil
}

// number reads a query parameter.
func number(r *http.Request, name string) (uint64, error) {
	n, err := strconv.ParseUint(r.FormValue(name), 10, 53)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", ErrInvalid, name)
	}
	return n, nil
}
