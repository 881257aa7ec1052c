package audit_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/identity"
)

// begin starts an epoch whose keepers are those of c.keys at the given places,
// and returns the index of its entry.
func (c *cluster) begin(epoch uint64, places ...int) uint64 {
	c.tb.Helper()
	old, err := c.trust().Keepers()
	if err != nil {
		c.tb.Fatal(err)
	}
	body := audit.EpochBody{Epoch: epoch}
	for _, i := range places {
		body.Keepers = append(body.Keepers, c.keys[i].ID())
	}
	slices.Sort(body.Keepers)
	for _, k := range c.keys {
		if slices.Contains(old, k.ID()) {
			body.Signatures = append(body.Signatures, audit.SignEpoch(k, c.stores[0].Origin(), epoch, body.Keepers))
		}
	}
	slices.SortFunc(body.Signatures, func(a, b audit.EpochSignature) int { return strings.Compare(string(a.By), string(b.By)) })
	text, err := audit.MarshalBody(body)
	if err != nil {
		c.tb.Fatal(err)
	}
	index := c.record(places[0], audit.Entry{Kind: audit.KindEpoch, Actor: "node:" + c.keys[places[0]].ID().DID(), Body: text})
	next, err := c.trust().Next(index+1, body.Keepers)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.trusted.Store(&next)
	return index
}

// Receipts of every epoch verify from one trust file, an old file verifies newer
// receipts through their steps, and a folder with all of it verifies from each.
func TestReceiptsOfEveryEpoch(t *testing.T) {
	c := newCluster(t, 5)
	receipt := c.receipts()
	trusts := []audit.Trust{c.trust()}
	raws := [][]byte{receipt()}
	for epoch, places := range [][]int{{0, 1, 2, 3}, {0, 1, 2}, {2, 3}} {
		c.halt()
		index := c.begin(uint64(epoch+2), places...)
		c.leader.Store(int64(places[0]))
		c.run()
		if _, _, err := c.stores[2].WaitCheckpoint(deadline(t), index); err != nil {
			t.Fatal(err)
		}
		trusts, raws = append(trusts, c.trust()), append(raws, receipt())
	}
	for i, trust := range trusts {
		for j, raw := range raws {
			if checks, err := audit.VerifyReceipt(raw, trust, requestFacts); err != nil {
				t.Errorf("receipt of epoch %d by the trust of epoch %d: %v\n%+v", j+1, i+1, err, checks)
			}
		}
		text, err := trust.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := audit.ParseTrust(text); err != nil || again.Epoch != trust.Epoch {
			t.Errorf("trust of epoch %d does not parse: %v", i+1, err)
		}
	}
	newest := raws[len(raws)-1]
	for _, forgery := range []struct {
		name string
		edit func(r *audit.Receipt)
	}{
		{"no steps", func(r *audit.Receipt) { r.Steps = nil }},
		{"a step is left out", func(r *audit.Receipt) { r.Steps = r.Steps[1:] }},
		{"steps out of order", func(r *audit.Receipt) { r.Steps[0], r.Steps[1] = r.Steps[1], r.Steps[0] }},
		{"a step begins elsewhere", func(r *audit.Receipt) { r.Steps[2].Index-- }},
		{"a step's proof", func(r *audit.Receipt) { r.Steps[0].Proof = r.Steps[1].Proof }},
		{"a step of another kind", func(r *audit.Receipt) { r.Steps[0].Leaf = r.Intent.Leaf }},
		{"a signature of the keepers before", func(r *audit.Receipt) {
			r.Steps[0].Leaf = strings.Replace(r.Steps[0].Leaf, `"sig":"`, `"sig":"A`, 1)
		}},
	} {
		r, err := audit.ParseReceipt(newest)
		if err != nil {
			t.Fatal(err)
		}
		r.Steps = slices.Clone(r.Steps)
		forgery.edit(&r)
		raw, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := audit.VerifyReceipt(raw, trusts[0], requestFacts); err == nil {
			t.Errorf("a receipt with %s verifies", forgery.name)
		}
	}
	// Less than a quorum of the keepers before is none, however often one signs.
	r, err := audit.ParseReceipt(newest)
	if err != nil {
		t.Fatal(err)
	}
	step, err := audit.DecodeEntry([]byte(r.Steps[0].Leaf))
	if err != nil {
		t.Fatal(err)
	}
	body, err := step.Epoch()
	if err != nil {
		t.Fatal(err)
	}
	var old []identity.ID
	for _, s := range body.Signatures {
		old = append(old, s.By)
	}
	origin := c.trust().Origin
	if err := body.Verify(origin, old, 3); err != nil {
		t.Errorf("signed by all: %v", err)
	}
	for name, signatures := range map[string][]audit.EpochSignature{
		"nobody": nil, "two of five": body.Signatures[:2], "one twice": {body.Signatures[0], body.Signatures[0], body.Signatures[0]},
	} {
		few := body
		few.Signatures = signatures
		if err := few.Verify(origin, old, 3); err == nil {
			t.Errorf("an epoch that %s signed is valid", name)
		}
	}
	if err := body.Verify(audit.OriginOf([]byte("another")), old, 2); err == nil {
		t.Error("an epoch of another log is valid")
	}

	dir := c.stores[2].Dir()
	c.close()
	c.stores, c.stop = nil, nil
	for i, trust := range trusts {
		rep, err := audit.VerifyDir(t.Context(), copyDir(t, dir), &trust)
		if err != nil || rep.Bad != nil {
			t.Errorf("folder by the trust of epoch %d: %v, %v", i+1, rep.Bad, err)
		}
	}
	wrong := trusts[3]
	wrong.Past = slices.Clone(wrong.Past)
	wrong.Past[0].Until--
	wrong.Past[1].From--
	if rep, err := audit.VerifyDir(t.Context(), copyDir(t, dir), &wrong); err != nil || rep.Bad == nil {
		t.Errorf("folder by a trust whose epochs lie elsewhere: %v, %v", rep.Bad, err)
	}
}
