package mandate_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/agenticraft/node/authz/mandate"
	"github.com/agenticraft/node/identity"
)

// An owner lets a planner run Python for an hour; the planner hands a tenth of
// that on to a worker, who can hand on nothing.
func Example() {
	owner, planner, worker := newKey(), newKey(), newKey()
	given, err := mandate.Grant(owner, mandate.Root{
		Cluster: "agenticraft:dev", Tenant: "acme", To: planner.ID(),
		Terms: mandate.Terms{
			Actions: []string{"exec.run"}, Languages: []string{"python", "starlark"},
			Budget: mandate.Budget{Runs: 100}, Depth: 1, NotAfter: time.Now().Add(time.Hour),
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	handed, err := mandate.Narrow(planner, given, worker.ID(), mandate.Terms{Languages: []string{"starlark"}, Budget: mandate.Budget{Runs: 10}})
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := mandate.Verify(handed, mandate.Options{Cluster: "agenticraft:dev", Holder: worker.ID()})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v.Root == owner.ID(), v.Terms.Languages, v.Terms.Budget.Runs, len(v.Chain))
	fmt.Println(v.Covers("exec.run", "python", mandate.Limits{}))
	// Output:
	// true [starlark] 10 2
	// mandate does not cover this: language "python" is not one of [starlark]
}

// A root lets another agent run Starlark for an hour, ten times, and hand nothing on.
func ExampleGrant() {
	owner, worker := newKey(), newKey()
	text, err := mandate.Grant(owner, mandate.Root{
		Cluster: "agenticraft:dev", Tenant: "acme", To: worker.ID(),
		Terms: mandate.Terms{
			Actions: []string{"exec.run"}, Languages: []string{"starlark"}, Network: []string{"api.example.org:443"},
			Budget: mandate.Budget{Runs: 10}, NotAfter: time.Now().Add(time.Hour),
		},
	})
	fmt.Println(text[:5], err)
	// Output: acm1. <nil>
}

// Whoever is shown a mandate checks all of it offline: for this cluster, shown by
// its holder.
func ExampleVerify() {
	owner, worker, thief := newKey(), newKey(), newKey()
	text, err := mandate.Grant(owner, mandate.Root{
		Cluster: "agenticraft:dev", Tenant: "acme", To: worker.ID(),
		Terms: mandate.Terms{Actions: []string{"exec.run"}, Languages: []string{"starlark"}, NotAfter: time.Now().Add(time.Hour)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := mandate.Verify(text, mandate.Options{Cluster: "agenticraft:dev", Holder: worker.ID()})
	fmt.Println(v.Root == owner.ID(), v.Terms.Languages, err)
	_, err = mandate.Verify(text, mandate.Options{Cluster: "agenticraft:dev", Holder: thief.ID()})
	fmt.Println(errors.Is(err, mandate.ErrAudience))
	// Output:
	// true [starlark] <nil>
	// true
}

// A holder cannot hand on more than he was given.
func ExampleNarrow() {
	owner, planner, worker := newKey(), newKey(), newKey()
	given, err := mandate.Grant(owner, mandate.Root{
		Cluster: "agenticraft:dev", Tenant: "acme", To: planner.ID(),
		Terms: mandate.Terms{Actions: []string{"exec.run"}, Languages: []string{"starlark"}, Depth: 1, NotAfter: time.Now().Add(time.Hour)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = mandate.Narrow(planner, given, worker.ID(), mandate.Terms{Languages: []string{"python"}})
	fmt.Println(err)
	// Output: mandate grants more than was given: block 1: language python
}

func newKey() *identity.Key {
	key, err := identity.Generate()
	if err != nil {
		panic(err)
	}
	return key
}
