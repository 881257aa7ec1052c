package audit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
	"github.com/agenticraft/node/identity"
)

// The checkpoint that is served holds the keepers' signatures and those of the
// auditors that signed the same one; transparency-dev's verifier takes both.
func TestServedCheckpointHasTheAuditorsSignatures(t *testing.T) {
	c := newCluster(t, 3)
	auditor := audittest.Key(t, 99)
	vkey, err := audit.VerifierKey(auditor.ID())
	if err != nil {
		t.Fatal(err)
	}
	with := c.trust()
	with.Witnesses = []string{vkey}
	c.trusted.Store(&with)
	copied, _ := c.mirror(nil)
	signs, err := audit.NewCheckpointer(audit.CheckpointerConfig{
		Store: copied, Key: auditor, Trust: c.trust, Lead: func() bool { return false },
		Client: func(identity.ID) *http.Client { return http.DefaultClient },
	})
	if err != nil {
		t.Fatal(err)
	}
	served := func(path string) (int, string) {
		w := httptest.NewRecorder()
		audit.PublicHandler(c.stores[0]).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	signed := func(text, by string) bool {
		_, err := note.Open([]byte(text), note.VerifierList(theirVerifier(t, by)))
		return err == nil
	}
	_, outcome := c.execution(0, "one")
	c.run()
	at, text, err := c.stores[0].WaitCheckpoint(deadline(t), outcome)
	if err != nil {
		t.Fatal(err)
	}
	c.halt() // no newer one comes meanwhile
	if code, _ := served("/checkpoint/witnessed"); code != http.StatusNotFound {
		t.Errorf("before an auditor signed: %d", code)
	}
	if code, body := served("/checkpoint"); code != http.StatusOK || body != string(text) {
		t.Errorf("before an auditor signed: %d %q, want %q", code, body, text)
	}
	mirror, err := audit.NewMirror(audit.MirrorConfig{
		Store: copied, Peers: func() []identity.ID { return []identity.ID{c.keys[0].ID()} }, Client: c.asPeer(auditor.ID()),
		Trust:   func() (audit.Trust, error) { return c.trust(), nil },
		Witness: signs.Cosign,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := mirror.Pull(deadline(t), 0); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/checkpoint", "/checkpoint/witnessed"} {
		code, body := served(path)
		if code != http.StatusOK || !signed(body, vkey) {
			t.Errorf("%s: %d, without the auditor's signature: %q", path, code, body)
		}
		if got, by, err := c.trust().Verify([]byte(body)); err != nil || got != at || len(by) < 2 {
			t.Errorf("%s: %v by %v, %v", path, got, by, err)
		}
	}
	if _, own, err := copied.Published(true); err != nil || !signed(string(own), vkey) {
		t.Errorf("at the auditor itself: %q, %v", own, err)
	}
	if got := c.stores[0].Witnessed()[auditor.ID()]; got != at {
		t.Errorf("witnessed %v, want %v", got, at)
	}

	// The keepers go on; what the auditor signed stays to be had.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, next := c.execution(0, "two")
	done := make(chan error, 1)
	go func() { done <- c.points[0].Run(ctx) }()
	if _, _, err := c.stores[0].WaitCheckpoint(deadline(t), next); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, body := served("/checkpoint"); signed(body, vkey) {
		t.Errorf("a newer checkpoint has a signature that was given for another: %q", body)
	}
	if code, body := served("/checkpoint/witnessed"); code != http.StatusOK || !signed(body, vkey) {
		t.Errorf("the witnessed one is gone: %d %q", code, body)
	}
}

// asPeer reaches the keepers as the node with that id does.
func (c *cluster) asPeer(self identity.ID) func(identity.ID) *http.Client {
	return func(to identity.ID) *http.Client {
		return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			in := r.Clone(r.Context())
			in.RemoteAddr = string(self)
			w := httptest.NewRecorder()
			c.handlers[to].ServeHTTP(w, in)
			return w.Result(), nil
		})}
	}
}
