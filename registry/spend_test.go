package registry_test

import (
	"encoding/json"
	"testing"

	"github.com/agenticraft/node/audit"
)

// INVARIANT: I9, authority only narrows along a chain: the budget of every
// block of a mandate is counted, whoever spends it.
func TestBudgetsOfMandatesAreSpentOnce(t *testing.T) {
	root, left, right := hash(1), hash(2), hash(3)
	use := func(last string, runs int64) []audit.MandateUse {
		return []audit.MandateUse{{ID: root, Runs: 3, WallMS: 1000}, {ID: last, Runs: runs}}
	}
	tables := genesisTables(t)
	index := uint64(0)
	try := func(uses []audit.MandateUse, wall int64, behalf string) string {
		t.Helper()
		index++
		var b audit.IntentBody
		if err := json.Unmarshal([]byte(intentBody(keeper.ID())), &b); err != nil {
			t.Fatal(err)
		}
		b.Mandate, b.Limits = uses, map[string]int64{"wall_ms": wall}
		text, err := audit.MarshalBody(b)
		if err != nil {
			t.Fatal(err)
		}
		e := intent(t)
		e.Body, e.OnBehalf = text, behalf
		return code(admit(tables, index, keeper.ID(), e))
	}
	behalf := intent(t).Actor
	for i, c := range []struct {
		uses   []audit.MandateUse
		wall   int64
		behalf string
		want   string
	}{
		{use(left, 1), 100, "", "mandate"},
		{use(left, 1), 100, behalf, ""},
		{use(left, 1), 100, behalf, "mandate_spent"},  // the left holder's part
		{use(right, 9), 901, behalf, "mandate_spent"}, // the root's time
		{use(right, 9), 100, behalf, ""},
		{use(right, 9), 100, behalf, ""},
		{use(right, 9), 100, behalf, "mandate_spent"}, // the root's runs
		{nil, 100, "", ""},
	} {
		if got := try(c.uses, c.wall, c.behalf); got != c.want {
			t.Errorf("%d: %q, want %q", i, got, c.want)
		}
	}
}
