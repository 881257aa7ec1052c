package authz

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// InputText is the input document of a query as JSON.
func InputText(tb testing.TB, q Query) string {
	tb.Helper()
	text, err := json.Marshal(newInput(q))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// InputsAgree reports whether the document that is hashed and the one that is
// evaluated say the same.
func InputsAgree(tb testing.TB, q Query) bool {
	tb.Helper()
	hashed, err := ast.ValueFromReader(strings.NewReader(InputText(tb, q)))
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256([]byte(InputText(tb, q)))
	f, err := newFacts(q)
	return ast.Compare(hashed, newInput(q).value()) == 0 && (errors.Is(err, ErrInput) || err == nil && f.digest == hex.EncodeToString(sum[:]))
}

// ForgetPause lets the next unknown key be asked for at once.
func ForgetPause(o *OIDC) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = time.Time{}
}

// PolicyAlone is what the policy's rules answer, before anything that Go holds.
func PolicyAlone(tb testing.TB, p *Policy, q Query) any {
	tb.Helper()
	b := p.active.Load().base
	value, err := b.evaluate(tb.Context(), b.decision, newInput(q).value())
	if err != nil {
		tb.Fatal(err)
	}
	plain, err := ast.JSON(value)
	if err != nil {
		tb.Fatal(err)
	}
	return plain
}

// PlanAndSearch are what the plan of the policy's decision and of its reasons
// answer, and what OPA's own search does.
func PlanAndSearch(tb testing.TB, p *Policy, q Query) (plan, search [2]ast.Value) {
	tb.Helper()
	b, value := p.active.Load().base, newInput(q).value()
	for i, asked := range []prepared{b.decision, b.reasons} {
		var err error
		if plan[i], err = asked.plan.Eval(tb.Context(), topdown.NewCancel(), value, b.document.root); err != nil {
			tb.Fatal(err)
		}
		asked.plan = nil
		if search[i], err = b.evaluate(tb.Context(), asked, value); err != nil {
			tb.Fatal(err)
		}
	}
	return plan, search
}
