package audit_test

import (
	"encoding/json"
	"testing"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/audittest"
)

func TestCheckpointReachesEveryKeeper(t *testing.T) {
	c := newCluster(t, 3)
	c.run()
	_, outcome := c.execution(1, "task1")
	for i, s := range c.stores {
		at, text, err := s.WaitCheckpoint(deadline(t), outcome)
		if err != nil {
			t.Fatalf("keeper %d: %v", i, err)
		}
		got, by, err := c.trust().Verify(text)
		if err != nil || got != at || len(by) < 2 {
			t.Errorf("keeper %d: checkpoint %+v signed by %v: %v", i, got, by, err)
		}
	}
	if err := c.stores[0].CheckCosigned(); err != nil {
		t.Error(err)
	}
}

// The facts of the request of which makeReceipt's is the receipt.
const (
	testIssuer = "did:key:z6Mktest"
	testTask   = "324736d6d29ec11e6ae2bf617d1838a4"
	testDigest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
)

// requestFacts stands for the signature check of requests: it accepts exactly
// one request.
func requestFacts(request json.RawMessage) (audit.RequestFacts, error) {
	if string(request) != `{"code":"calculate(10, 20)"}` {
		return audit.RequestFacts{}, audit.ErrInvalid
	}
	return audit.RequestFacts{Issuer: testIssuer, Task: testTask, Digest: testDigest}, nil
}

func makeReceipt(tb testing.TB) ([]byte, audit.Trust) {
	tb.Helper()
	c := newCluster(tb, 3)
	raw := c.receipts()()
	c.halt()
	return raw, c.trust()
}

// receipts runs an execution and the checkpointers, and returns what makes its
// receipt: each time under the newest checkpoint.
func (c *cluster) receipts() func() []byte {
	tb := c.tb
	tb.Helper()
	executor := c.keys[2].ID()
	requestSalt, outSalt := audit.NewSalt(), audit.NewSalt()
	body, err := audit.MarshalBody(audit.IntentBody{
		Language: "python", Sandbox: "process", Network: "none", LeaseMS: 1000, Door: c.keys[0].ID(), Executor: executor,
		Request: audit.Commit(requestSalt, []byte(testDigest)),
	})
	if err != nil {
		tb.Fatal(err)
	}
	c.record(1, audittest.Intent(tb, c.keys[1].ID(), "other"))
	intent := c.record(2, audit.Entry{
		Kind: audit.KindIntent, Task: testTask, Attempt: 1, Actor: "agent:" + testIssuer, Body: body,
		Decision: &audit.Decision{Allow: true},
	})
	body, err = audit.MarshalBody(audit.OutcomeBody{
		Status: audit.StatusSucceeded, Output: map[string]string{"stdout": audit.Commit(outSalt, []byte(testDigest))},
	})
	if err != nil {
		tb.Fatal(err)
	}
	c.record(2, audit.Entry{Kind: audit.KindOutcome, Task: testTask, Attempt: 1, Ref: &intent, Body: body})
	c.run()
	return func() []byte {
		raw, err := audit.BuildReceipt(deadline(tb), c.stores[2], testTask, audit.ReceiptExtra{
			Request: json.RawMessage(`{"code": "calculate(10, 20)"}`),
			Openings: map[string]audit.Opening{
				"request": {Salt: requestSalt, Value: testDigest}, "stdout": {Salt: outSalt, Value: testDigest},
			},
		})
		if err != nil {
			tb.Fatal(err)
		}
		return raw
	}
}
